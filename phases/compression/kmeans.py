"""Weighted k-means: few centres for many vectors, each coordinate with its own weight (VPTQ, arXiv 2409.17066, 3.2).

    minimise Σ_n Σ_j w_nj (x_nj − c_a(n)j)²      over the codes a(n) and the centres c

    found = kmeans(vectors_NV, 256, weights_NV, seed=0)
    found.centres_KV[found.codes_N]                             # what the vectors become

Seeded as k-means++ does, by draws from a numpy generator; then Lloyd's two steps, each a closed form, so the error
never rises. A centre that serves nothing moves to a vector that is served worst. Distances are found in the dtype of
the vectors, sums in float64. Equal input and seed give equal centres. A vector may also be a sum of centres, one of
each of several codebooks: `nearest_sum` searches and `means_of_sum` improves those.

Shapes: N vectors, V coordinates, K centres, R codebooks. Weights ≥ 0 are (N, V), (N,) for one a vector, or None for
ones.
"""

from dataclasses import dataclass

import numpy as np
import torch

from phases.lookup import rows_at

BLOCK = 1 << 18
"""Distances held at a time: what a CPU's cache holds."""
GPU_BLOCKS = 64
"""Times as many on a GPU, which waits for its launches otherwise."""


@dataclass(frozen=True)
class Clusters:
    """Centres, and the nearest of each vector."""

    centres_KV: torch.Tensor
    codes_N: torch.Tensor
    """int64."""
    errors: tuple[float, ...]
    """The weighted squared error at the start and after every iteration."""


def kmeans(
    vectors_NV: torch.Tensor,
    count: int,
    weights: torch.Tensor | None = None,
    seed: int | np.random.Generator = 0,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> Clusters:
    """`count` centres from k-means++ seeds. Raises `ValueError` for no finite vectors, or weights that do not fit."""
    check_vectors(vectors_NV, weights)
    if count < 1:
        raise ValueError(f"{count} centres: at least one is needed")
    return lloyd(vectors_NV, seeds(vectors_NV, count, weights, seed), weights, iterations, tolerance)


def lloyd(
    vectors_NV: torch.Tensor,
    centres_KV: torch.Tensor,
    weights: torch.Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> Clusters:
    """Better centres than these: until no code changes, or an iteration lowers the error by no more than `tolerance`.

    `tolerance` is a share of the error.
    """
    codes_N = nearest(vectors_NV, centres_KV, weights)
    wrong_N = distances(vectors_NV, centres_KV[codes_N], weights)
    errors = [float(wrong_N.sum())]
    for _ in range(iterations):
        centres_KV, unused_K = means(vectors_NV, codes_N, centres_KV, weights)
        centres_KV = _moved(vectors_NV, centres_KV, unused_K, wrong_N)
        before_N, codes_N = codes_N, nearest(vectors_NV, centres_KV, weights)
        wrong_N = distances(vectors_NV, centres_KV[codes_N], weights)
        errors.append(float(wrong_N.sum()))
        if errors[-2] - errors[-1] <= tolerance * errors[-2] or torch.equal(before_N, codes_N):
            break
    return Clusters(centres_KV, codes_N, tuple(errors))


def seeds(
    vectors_NV: torch.Tensor, count: int, weights: torch.Tensor | None = None, seed: int | np.random.Generator = 0
) -> torch.Tensor:
    """(K, V) of the vectors: each drawn in proportion to its weighted error by those before it (k-means++)."""
    generator = np.random.default_rng(seed)
    mass_N = distances(torch.ones_like(vectors_NV), torch.zeros_like(vectors_NV[:1]), weights)
    chosen = [_draw(mass_N, generator)]
    wrong_N = distances(vectors_NV, vectors_NV[chosen], weights)
    while len(chosen) < count:
        chosen.append(_draw(wrong_N, generator))
        wrong_N = torch.minimum(wrong_N, distances(vectors_NV, vectors_NV[chosen[-1:]], weights))
    return vectors_NV[chosen]


def nearest(vectors_NV: torch.Tensor, centres_KV: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """(N,) int64: the centre of the smallest weighted distance to each vector."""
    square_KV = centres_KV.square()
    # Σ w (x − c)² without its part that no centre changes. One weight a vector changes no order.
    table = torch.cat((-2 * centres_KV, square_KV), 1).T.contiguous()
    codes, block = [], BLOCK * (GPU_BLOCKS if vectors_NV.is_cuda else 1)
    for start in range(0, len(vectors_NV), step := max(1, block // len(centres_KV))):
        x = vectors_NV[start : start + step]
        if weights is None or weights.ndim == 1:
            codes.append(torch.addmm(square_KV.sum(1), x, centres_KV.T, alpha=-2).argmin(1))
        else:
            w = weights[start : start + step]
            codes.append((torch.cat((w * x, w), 1) @ table).argmin(1))
    return torch.cat(codes)


def distances(vectors_NV: torch.Tensor, served_NV: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """(N,) float64: the weighted squared error of every vector."""
    square_NV = (vectors_NV - served_NV).square()
    if weights is None:
        return square_NV.sum(1).double()
    return (square_NV * (weights if weights.ndim == 2 else weights[:, None])).sum(1).double()


def means(
    vectors_NV: torch.Tensor, codes_N: torch.Tensor, centres_KV: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best (K, V) centres for these codes, Σ w x / Σ w, and (K,) bool: which serve nothing that counts.

    A coordinate of a centre that nothing weighs keeps its value.
    """
    total, mass = torch.zeros(2, *centres_KV.shape, dtype=torch.float64, device=vectors_NV.device)
    for start in range(0, len(vectors_NV), BLOCK):
        part = slice(start, start + BLOCK)
        x = vectors_NV[part].double()
        w = torch.ones_like(x[:, :1]) if weights is None else weights[part].double().view(len(x), -1)
        total.index_add_(0, codes_N[part], w * x)
        mass.index_add_(0, codes_N[part], w.expand_as(x))
    best = torch.where(mass > 0, total / mass, centres_KV.double())
    return best.to(vectors_NV.dtype), ~(mass > 0).any(1)


def nearest_sum(
    vectors_NV: torch.Tensor, codebook_RKV: torch.Tensor, weights_NV: torch.Tensor, beam: int = 8
) -> torch.Tensor:
    """(R, N) int64: codes whose centres sum up close to each vector.

    The nearest of one codebook. Of several the best `beam` partial sums are kept from each codebook to the next, as
    the nearest centre of the first is often not the best beginning.
    """
    if len(codebook_RKV) == 1:
        return nearest(vectors_NV, codebook_RKV[0], weights_NV)[None]
    step = max(1, BLOCK // (beam * codebook_RKV.shape[1]))
    parts = (slice(start, start + step) for start in range(0, len(vectors_NV), step))
    return torch.cat([_beam(vectors_NV[part], codebook_RKV, weights_NV[part], beam) for part in parts], 1)


def means_of_sum(
    vectors_NV: torch.Tensor,
    codes_RN: torch.Tensor,
    codebook_RKV: torch.Tensor,
    weights: torch.Tensor | None = None,
    sweeps: int = 4,
) -> torch.Tensor:
    """(R, K, V) centres that serve these codes better: the weighted least squares.

    Of one codebook its closed form; of several one codebook after the other given the rest, which converges to it.
    """
    books = list(codebook_RKV)
    left_NV = vectors_NV - sum_of(codebook_RKV, codes_RN)
    for _ in range(sweeps if len(books) > 1 else 1):
        for r, codes_N in enumerate(codes_RN):
            left_NV = left_NV + books[r][codes_N]
            books[r], _unused = means(left_NV, codes_N, books[r], weights)
            left_NV = left_NV - books[r][codes_N]
    return torch.stack(books)


def sum_of(codebook_RKV: torch.Tensor, codes_RN: torch.Tensor) -> torch.Tensor:
    """(N, V): what the codes stand for, added in their order. A gather, so differentiable in the codebook."""
    total_NV = rows_at(codebook_RKV[0], codes_RN[0])
    for book_KV, codes_N in zip(codebook_RKV[1:], codes_RN[1:], strict=True):
        total_NV = total_NV + rows_at(book_KV, codes_N)
    return total_NV


def check_vectors(vectors_NV: torch.Tensor, weights: torch.Tensor | None) -> None:
    """Raise `ValueError` unless these are finite vectors, and weights that fit them."""
    if vectors_NV.ndim != 2 or not vectors_NV.numel() or not torch.isfinite(vectors_NV).all():
        raise ValueError(f"a tensor of shape {tuple(vectors_NV.shape)} is not a list of finite vectors")
    if weights is None:
        return
    if weights.shape not in (vectors_NV.shape, vectors_NV.shape[:1]):
        raise ValueError(
            f"weights {tuple(weights.shape)} of vectors {tuple(vectors_NV.shape)}: one a vector or a coordinate"
        )
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("a weight is negative or not finite")


def _beam(x_NV: torch.Tensor, codebook_RKV: torch.Tensor, w_NV: torch.Tensor, beam: int) -> torch.Tensor:
    """(R, N) codes. B partial sums a vector are alive: one at first, one at last."""
    left_NBV, codes_RNB = x_NV[:, None], torch.zeros(0, len(x_NV), 1, dtype=torch.int64, device=x_NV.device)
    for r, book_KV in enumerate(codebook_RKV):
        w_NBV = w_NV[:, None].expand_as(left_NBV)
        table = torch.cat((-2 * book_KV, book_KV.square()), 1).T
        gain_NBK = torch.cat((w_NBV * left_NBV, w_NBV), 2) @ table
        cost_NC = ((w_NBV * left_NBV.square()).sum(2, keepdim=True) + gain_NBK).flatten(1)
        alive = 1 if r == len(codebook_RKV) - 1 else min(beam, cost_NC.shape[1])
        best_NB = cost_NC.topk(alive, largest=False).indices
        parent_NB, code_NB = best_NB // len(book_KV), best_NB % len(book_KV)
        left_NBV = left_NBV.gather(1, parent_NB[..., None].expand(*parent_NB.shape, x_NV.shape[1])) - book_KV[code_NB]
        kept_RNB = codes_RNB.gather(2, parent_NB.expand(len(codes_RNB), -1, -1))
        codes_RNB = torch.cat((kept_RNB, code_NB[None]))
    return codes_RNB[..., 0]


def _moved(
    vectors_NV: torch.Tensor, centres_KV: torch.Tensor, unused_K: torch.Tensor, wrong_N: torch.Tensor
) -> torch.Tensor:
    """The centres, those that serve nothing on the vectors that were served worst, as far as any were served badly."""
    free_E = unused_K.nonzero().flatten()
    # Stable, so that ties are broken alike everywhere.
    worst_E = wrong_N.sort(descending=True, stable=True).indices[: len(free_E)] if len(free_E) else free_E
    worst_E = worst_E[wrong_N[worst_E] > 0]
    return centres_KV.index_copy(0, free_E[: len(worst_E)], vectors_NV[worst_E])


def _draw(mass_N: torch.Tensor, generator: np.random.Generator) -> int:
    """An index in proportion to its mass; any where there is none."""
    heap_N = np.cumsum(mass_N.numpy(force=True))
    if not heap_N[-1] > 0:
        return int(generator.integers(len(heap_N)))
    # "right" passes over what has no mass.
    return min(int(np.searchsorted(heap_N, generator.random() * heap_N[-1], side="right")), len(heap_N) - 1)
