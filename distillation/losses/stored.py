"""Cross-entropy and the divergence from a stored teacher at once, straight from hidden states: a cached step's loss.

    Σ wᵢ · [ (1 − αᵢ) · −log softmax(z)[true token] + αᵢ · τ² · Dᵢ(softmax(z / τ)) ]     αᵢ = 0 where nothing is stored

    sampled  D = −Σₖ sₖ log qₖ                sₖ = count / n of n draws from the teacher: unbiased (arXiv 2503.16870)
    ghost    D = Σₖ pₖ log(pₖ/qₖ) + r log(r/q_r)       the k likeliest, and one bucket for all others: r = 1 − Σ pₖ

`sampled` covers a renormalised top-k as well (s = p / Σp). Shares that sum to less than 1 say how far the teacher is
trusted at a position: αᵢ is α times their sum. At τ = 1 both gradients share one softmax, so a cached step
costs about what one of cross-entropy does. No (B, T, V) tensor exists (`phases.training.from_hidden`), and positions
of weight 0 cost nothing.

Shapes: N positions, V vocabulary, D width, K stored ids a position (padded with share 0).
"""

from dataclasses import dataclass

import torch

from phases.training.from_hidden import loss_from_hidden

TINY = 1e-30
"""Least sum of exponentials, the largest being 1: logarithms stay finite."""
LOWEST = -1e6
"""Least logit below the largest: a stored token that the student rules out costs much, and stays a number."""


@dataclass(frozen=True)
class Stored:
    """What a teacher thought of each position."""

    ids_NK: torch.Tensor
    """int64."""
    share_NK: torch.Tensor
    """Probabilities, times how far the teacher is trusted there; a row without a teacher is all 0."""
    ghost: bool = False
    """Whether what is missing to 1 is the others' mass."""

    def rows(self, rows: slice) -> "Stored":
        """Some of the positions."""
        return Stored(self.ids_NK[rows], self.share_NK[rows], self.ghost)

    @property
    def known_N1(self) -> torch.Tensor:
        """1.0 where there is a teacher, else 0.0."""
        return (self.share_NK.sum(1, keepdim=True) > 0).to(self.share_NK.dtype)

    @property
    def trusted(self) -> tuple["Stored", torch.Tensor]:
        """With probabilities that sum to 1, and (N, 1) how far they are trusted; a ghost's are what they are."""
        if self.ghost:
            return self, self.known_N1
        mass_N1 = self.share_NK.sum(1, keepdim=True)
        return Stored(self.ids_NK, self.share_NK / mass_N1.clamp(min=TINY)), mass_N1.clamp(max=1)

    @property
    def rest_N1(self) -> torch.Tensor:
        """Mass of all other tokens; 0 unless there is a ghost."""
        if not self.ghost:
            return torch.zeros_like(self.share_NK[:, :1])
        return (1 - self.share_NK.sum(1, keepdim=True)).clamp(min=0) * self.known_N1


def stored_loss(
    hidden_ND: torch.Tensor,
    head_VD: torch.Tensor,
    target_N: torch.Tensor,
    weight_N: torch.Tensor,
    stored: Stored,
    alpha: float,
    tau: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(Σ weight · loss, which carries gradients; Σ weight · nll and Σ weight · τ² · D, which do not)."""
    chosen = weight_N.nonzero().squeeze(1)
    if len(chosen) < len(weight_N):
        hidden_ND, target_N, weight_N = hidden_ND[chosen], target_N[chosen], weight_N[chosen]
        stored = Stored(stored.ids_NK[chosen], stored.share_NK[chosen], stored.ghost)
    kind = torch.promote_types(hidden_ND.dtype, torch.float32)
    nll, divergence = (torch.zeros((), dtype=kind, device=hidden_ND.device) for _ in range(2))

    def step(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        weight, (part, trust_N1) = weight_N[rows, None].to(kind), stored.rows(rows).trusted
        share_N1 = alpha * trust_N1.to(kind)
        nll_N1, apart_N1, gradient = _slice(logits, target_N[rows, None], weight, part, share_N1, tau)
        nll.add_((weight * nll_N1).sum())
        divergence.add_((weight * apart_N1).sum())
        return (weight * ((1 - share_N1) * nll_N1 + share_N1 * apart_N1)).sum(), gradient

    return loss_from_hidden(hidden_ND, head_VD, step), nll, divergence


def _slice(
    logits_NV: torch.Tensor,
    target_N1: torch.Tensor,
    weight_N1: torch.Tensor,
    stored: Stored,
    alpha_N1: torch.Tensor,
    tau: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """((N, 1) nll, (N, 1) τ² · D, (N, V) gradient of the weighted sum); the logits are overwritten."""
    ids, share, rest = stored.ids_NK, stored.share_NK.to(logits_NV.dtype), stored.rest_N1.to(logits_NV.dtype)
    logits_NV -= logits_NV.amax(1, keepdim=True)  # so that exp cannot overflow
    gold = logits_NV.gather(1, target_N1)
    soft = logits_NV if tau == 1 else logits_NV / tau
    picked = soft.gather(1, ids).clamp(min=LOWEST)
    soft = soft.exp_()
    partition = soft.sum(1, keepdim=True)
    others = _others(soft, ids) if stored.ghost else torch.ones_like(partition)
    apart = partition.log() * stored.known_N1 - (share * picked).sum(1, keepdim=True)
    if stored.ghost:
        apart = apart - rest * others.log() + torch.xlogy(share, share).sum(1, keepdim=True) + torch.xlogy(rest, rest)
    # d(τ² · D)/dz = τ · (q − stored), where a ghost's mass lies on the other tokens as the student has it.
    pull = alpha_N1 * weight_N1 * tau
    ghostly = pull * rest / others
    correction = ghostly * soft.gather(1, ids) - pull * share if stored.ghost else -pull * share
    if tau == 1:
        nll = partition.log() - gold
        gradient = soft.mul_(weight_N1 / partition - ghostly)
    else:
        plain = logits_NV.exp_()
        total = plain.sum(1, keepdim=True)
        nll = total.log() - gold
        gradient = plain.mul_((1 - alpha_N1) * weight_N1 / total).add_(soft.mul_(pull / partition - ghostly))
    gradient.scatter_add_(1, target_N1, -(1 - alpha_N1) * weight_N1)
    gradient.scatter_add_(1, ids, correction)
    return nll, apart * tau**2, gradient


def _others(soft_NV: torch.Tensor, ids_NK: torch.Tensor) -> torch.Tensor:
    """(N, 1) sum over the tokens that are not stored: by summing them, since a difference of sums would cancel."""
    kept = soft_NV.gather(1, ids_NK)
    soft_NV.scatter_(1, ids_NK, 0.0)
    total = soft_NV.sum(1, keepdim=True).clamp(min=TINY)
    soft_NV.scatter_(1, ids_NK, kept)
    return total
