"""Attention for threads: short continuations that branch off a text at many positions at once.

A thread r hangs at an anchor position. Its tokens see the text up to and with the anchor, and the thread's own earlier
tokens; no other thread. This is the diagonal mask of Quiet-STaR (arXiv 2403.09629, appendix B) without the mask: the
text's keys are shared by all threads, each thread's own keys are a small matrix of its own, and one softmax covers
both. Scores are computed for a few rows of the batch at a time and again in backward, so they are never stored.

    B rows, R threads a row, L new tokens a thread, J own tokens before them, T tokens of text,
    K key heads, each shared by a group of G query heads, F features a head
"""

from typing import Any

import torch

SCORE_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Scores held at a time: on a CPU they should stay in its cache."""


def visible(
    anchor_BR: torch.Tensor, asking_BRL: torch.Tensor, place_BT: torch.Tensor, window: int | None
) -> torch.Tensor:
    """(B, R, L, T), or (B, R, 1, T) without a window: whether a thread's token sees a token of the text.

    `anchor_BR` is the last place of the text that a thread sees, `asking_BRL` the places of its own tokens, `place_BT`
    that of each token of the text, negative for padding. A sliding `window` hides what is `window` or more back.
    """
    place = place_BT[:, None, None]
    seen = (place >= 0) & (place <= anchor_BR[..., None, None])
    return seen if window is None else seen & (asking_BRL[..., None] - place < window)


def own_visible(new: int, before: int, window: int | None, device: Any = None) -> torch.Tensor:
    """(L, J + L): a thread's token sees its own earlier tokens and itself."""
    asking = torch.arange(before, before + new, device=device)[:, None]
    place = torch.arange(before + new, device=device)
    seen = place <= asking
    return seen if window is None else seen & (asking - place < window)


def thread_attention(
    query: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    own: tuple[torch.Tensor, torch.Tensor],
    seen_BRLT: torch.Tensor,
    own_seen: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """(B, K, G, R, L, F) attention of the threads' queries of that shape over the text and over themselves.

    `text`: keys and values (B, K, T, F); `own`: keys and values (B, K, R, J + L, F); masks as `visible` (B, R, L or 1,
    T) and `own_visible` (L, J + L) give them.
    """
    # Rotary positions leave autocast's half precision, and the values have it; backward runs outside of autocast.
    kind = text[1].dtype
    tensors = [tensor.to(kind) for tensor in (query, *text, *own)]
    result: torch.Tensor = _ThreadAttention.apply(*tensors, _bias(seen_BRLT), _bias(own_seen), scale)  # type: ignore[no-untyped-call]
    return result


def _bias(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))


class _ThreadAttention(torch.autograd.Function):
    """softmax over [text, own] · values; the gradients recompute the probabilities from their log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        query, text_key, text_value, own_key, own_value, bias, own_bias, scale = inputs
        result = torch.empty_like(query)
        total = query.new_empty(query.shape[:-1], dtype=torch.float32)
        for rows in _slices(query, text_key):
            text, own = _scores(query[rows], text_key[rows], own_key[rows], bias[rows], own_bias, scale)
            highest = torch.maximum(text.amax(-1), own.amax(-1))
            text.sub_(highest[..., None]).exp_()
            own.sub_(highest[..., None]).exp_()
            weight = text.sum(-1).add_(own.sum(-1))
            mixed = _over_text(text.to(query.dtype), text_value[rows])
            mixed += own.to(query.dtype) @ own_value[rows][:, :, None]
            result[rows] = mixed.div_(weight[..., None])
            total[rows] = highest.add_(weight.log_())
        ctx.save_for_backward(query, text_key, text_value, own_key, own_value, bias, own_bias, result, total)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, text_key, text_value, own_key, own_value, bias, own_bias, result, total = ctx.saved_tensors
        made = [torch.empty_like(t) for t in (query, text_key, text_value, own_key, own_value)]
        kind = query.dtype
        for rows in _slices(query, text_key):
            grad, q, scale = grads[0][rows].to(kind), query[rows], ctx.scale
            text, own = _scores(q, text_key[rows], own_key[rows], bias[rows], own_bias, scale)
            text.sub_(total[rows][..., None]).exp_()
            own.sub_(total[rows][..., None]).exp_()
            made[2][rows] = _to_text(text.to(kind), grad)
            made[4][rows] = _to_own(own.to(kind), grad)
            # The softmax's gradient is p · (dp − Σ p·dp); the sum is the output's inner product with its gradient.
            inner = (grad.float() * result[rows].float()).sum(-1, keepdim=True)
            text.mul_(_over_text(grad, text_value[rows].transpose(-1, -2)).float().sub_(inner)).mul_(scale)
            own.mul_((grad @ own_value[rows][:, :, None].transpose(-1, -2)).float().sub_(inner)).mul_(scale)
            text, own = text.to(kind), own.to(kind)
            made[1][rows] = _to_text(text, q)
            made[3][rows] = _to_own(own, q)
            made[0][rows] = _over_text(text, text_key[rows]).add_(own @ own_key[rows][:, :, None])
        return (*made, None, None, None)


def _slices(query: torch.Tensor, text_key: torch.Tensor) -> list[slice]:
    """Rows of the batch whose scores fit in `SCORE_BYTES`; at least one."""
    size = 4 * query[0, ..., 0].numel() * max(1, text_key.shape[2])
    step = max(1, SCORE_BYTES.get(query.device.type, SCORE_BYTES["cuda"]) // max(1, size))
    return [slice(start, start + step) for start in range(0, query.shape[0], step)]


def _scores(
    q: torch.Tensor,
    text_key: torch.Tensor,
    own_key: torch.Tensor,
    bias: torch.Tensor,
    own_bias: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, K, G, R, L, T) and (b, K, G, R, L, J + L) masked scores in float32."""
    text = _over_text(q, text_key.transpose(-1, -2)).float().mul_(scale)
    own = (q @ own_key[:, :, None].transpose(-1, -2)).float().mul_(scale)
    return text.add_(bias[:, None, None]), own.add_(own_bias)


def _over_text(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(b, K, G, R, L, ·) times a (b, K, ·, ·) matrix that all threads share: one product of G·R·L rows."""
    return (x.flatten(2, 4) @ matrix).view(*x.shape[:-1], matrix.shape[-1])


def _to_text(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Σ over all queries: (b, K, T, F)."""
    return weights.flatten(2, 4).transpose(-1, -2) @ rows.flatten(2, 4)


def _to_own(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Σ over the query heads of a group and the thread's queries: (b, K, R, J + L, F)."""
    return (weights.transpose(-1, -2) @ rows).sum(2)
