"""The parents of a merge, loaded once: trunk and specialised models as rows of one float32 matrix.

Task vectors, their magnitude ranks and DARE's uniform numbers do not depend on the candidate, so they are computed
at first use and kept: a candidate then costs a few passes over P numbers (about 5 ms at a million parameters).
Memory is 4·P bytes for each of at most 4N + 1 rows.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from phases.checkpoint import load_model, load_tokenizer
from phases.errors import MergeError
from phases.evomerge.dare import uniform
from phases.evomerge.ties import magnitude_rank


class ParentSet:
    """Trunk (row 0) and N specialised models (rows 1 … N) of one shape and one tokenizer."""

    def __init__(self, models: Sequence[Any], names: Sequence[str]) -> None:
        """Raises `MergeError` that names the two parents and their first difference."""
        if len(models) < 3:
            raise MergeError(f"a merge needs a trunk and at least two models; {len(models)} given: {list(names)}")
        self.names = tuple(names)
        self.config = models[0].config
        reference = dict(models[0].named_parameters())
        for model, name in zip(models[1:], names[1:], strict=True):
            check_shapes(reference, dict(model.named_parameters()), (names[0], name))
        self.shapes = {name: p.shape for name, p in reference.items()}
        self.thetas_NP = torch.stack([_flatten(model, name) for model, name in zip(models, names, strict=True)])
        self._uniforms: dict[int, torch.Tensor] = {}
        self.skeletons: dict[Any, Any] = {}

    @property
    def count(self) -> int:
        """N, the trunk not counted."""
        return len(self.names) - 1

    @property
    def layers(self) -> int:
        """Decoder layers of each parent."""
        return int(self.config.num_hidden_layers)

    def spans(self) -> list[tuple[str, int, int]]:
        """(name, start, stop) of every tensor in a row."""
        spans, start = [], 0
        for name, shape in self.shapes.items():
            spans.append((name, start, start + shape.numel()))
            start += shape.numel()
        return spans

    def tensors(self, row_P: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a row by tensor name."""
        return {name: row_P[a:b].view(self.shapes[name]) for name, a, b in self.spans()}

    @cached_property
    def by_name(self) -> list[dict[str, torch.Tensor]]:
        """Each parent's tensors by name, the trunk first (views)."""
        return [self.tensors(row_P) for row_P in self.thetas_NP]

    @cached_property
    def deltas_NP(self) -> torch.Tensor:
        """(N, P) task vectors τᵢ = θᵢ − θ₀."""
        return self.thetas_NP[1:] - self.thetas_NP[0]

    @cached_property
    def ranks_NP(self) -> torch.Tensor:
        """(N, P) int32: rank of |τ| within its tensor, largest first."""
        ranks_NP = torch.empty(self.deltas_NP.shape, dtype=torch.int32)
        for _, a, b in self.spans():
            for i, delta_P in enumerate(self.deltas_NP):
                ranks_NP[i, a:b] = magnitude_rank(delta_P[a:b])
        return ranks_NP

    def uniforms_NP(self, seed: int) -> torch.Tensor:
        """(N, P) the uniform numbers behind DARE's masks for one seed (the last seed's are kept)."""
        if seed not in self._uniforms:
            rows_NP = torch.empty_like(self.deltas_NP)
            for name, a, b in self.spans():
                for i in range(self.count):
                    rows_NP[i, a:b] = uniform(torch.Size([b - a]), seed, i + 1, name)
            self._uniforms = {seed: rows_NP}
        return self._uniforms[seed]


def _flatten(model: Any, name: str) -> torch.Tensor:
    row_P = torch.cat([p.detach().float().flatten() for p in model.parameters()])
    if not torch.isfinite(row_P).all():
        raise MergeError(f"{name}: has NaN or infinite weights; a merge of it would too: train it again")
    return row_P


def load_parents(paths: Sequence[Path], names: Sequence[str]) -> ParentSet:
    """Load and check trunk and parents from checkpoint directories, tokenizers too."""
    tokenizers = [load_tokenizer(path) for path in paths]
    for tokenizer, name in zip(tokenizers[1:], names[1:], strict=True):
        check_tokenizers(tokenizers[0], tokenizer, (names[0], name))
    return ParentSet([load_model(path) for path in paths], names)


def check_shapes(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str]) -> None:
    """Raise `MergeError` on the first tensor that is missing in one model or has another shape."""
    for tensor in [*a, *(name for name in b if name not in a)]:
        missing = [name for name, state in zip(names, (a, b), strict=True) if tensor not in state]
        if missing:
            raise MergeError(f"{names[0]} and {names[1]} differ: {missing[0]} has no {tensor}; {_MEND}")
        if a[tensor].shape != b[tensor].shape:
            shapes = f"{tuple(a[tensor].shape)} and {tuple(b[tensor].shape)}"
            raise MergeError(f"{names[0]} and {names[1]} differ: {tensor} is {shapes}; {_MEND}")


def check_tokenizers(a: Any, b: Any, names: tuple[str, str]) -> None:
    """Raise `MergeError` on the first token or special id that differs."""
    vocabulary_a, vocabulary_b = a.get_vocab(), b.get_vocab()
    pairs = [
        (repr(token), vocabulary_a.get(token), vocabulary_b.get(token))
        for token in sorted({*vocabulary_a, *vocabulary_b})
    ]
    pairs += [(key, getattr(a, key), getattr(b, key)) for key in ("bos_token_id", "eos_token_id", "pad_token_id")]
    for what, left, right in pairs:
        if left != right:
            raise MergeError(
                f"{names[0]} and {names[1]} have different tokenizers: {what} is {left} in one and {right} in the "
                f"other; {_MEND}"
            )


_MEND = "merge models that were branched from one trunk"
