"""Codec after codec at one budget, each kept only where it loses less than without it: what every stage brings.

    plan = Staging(parent_model, table, calibration, standing, …).plan(budget=200_000)
    plan.codecs, plan.stages

A stage allows one codec more, and the allocator divides the same budget anew. What it finds is decoded into the model
and measured whole. A stage that does not lower the divergence is rolled back: the weights of the one before are put
back, and their digest is compared with what it was.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from phases.compression.allocation import BudgetError, allocate
from phases.compression.calibration import Calibration
from phases.compression.codec import Encoded
from phases.compression.config import CodecsConfig
from phases.compression.kept import Kept
from phases.compression.options import Table
from phases.compression.standing import Standing
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import CheckpointError
from phases.strict import StrictModel

Weights = Mapping[str, torch.Tensor]
Measured = tuple[float, Kept]
"""Divergence from the parent, and what is kept of it."""


class Stage(StrictModel):
    """What one codec brought."""

    name: str
    """What was added."""
    fits: bool
    """Whether anything fits the budget with it."""
    kept: bool
    """Whether it was kept; else the weights are those of the stage before."""
    bytes_before: int
    bytes: int
    """Of all weights, side information included, before it and with it."""
    divergence: float | None = None
    """KL from the parent on held-out rows, nats a token."""
    retention: float | None = None
    """Of the parent, on the validation split."""
    digest: str
    """Of the weights that the model has after it."""


@dataclass(frozen=True)
class Plan:
    """How a model is to be stored."""

    codecs: dict[str, Coding]
    codebooks: dict[VPTQ, torch.Tensor]
    fixed: dict[str, Encoded]
    """Of SeedLM and hyper-compression."""
    stages: tuple[Stage, ...]
    stored: Stored
    """Without any training."""
    measured: Measured
    """Of that."""


class Staging:
    """A parent, and all that was measured of its matrices."""

    def __init__(
        self,
        model: Any,
        table: Table,
        calibration: Calibration,
        standing: Standing,
        importances: Weights,
        latent: Weights,
        config: CodecsConfig,
        seed: int,
    ) -> None:
        """`model`: the parent's, plain; it is a trial's afterwards. `latent`: what ternary codecs encode."""
        self.model, self.table, self.calibration, self.standing = model, table, calibration, standing
        self.importances, self.latent, self.config, self.seed = importances, latent, config, seed
        self.params = dict(model.named_parameters())
        self.parent = {name: p.detach().cpu().clone() for name, p in self.params.items()}

    def plan(self, budget: int) -> Plan:
        """The best that fits. Raises `BudgetError` for a budget under the least that these codecs need."""
        self._put(self.parent)
        stages: list[Stage] = []
        best: tuple[Stored, Measured] | None = None
        before, digest = 4 * sum(p.numel() for p in self.params.values()), self._digest()
        for name, allowed in self._steps():
            options = {m: [o for o in every if o.codec.name in allowed] for m, every in self.table.options.items()}
            try:
                chosen = allocate(options, budget - self.plain_bytes)
            except BudgetError:
                stages.append(
                    Stage(name=name, fits=False, kept=False, bytes_before=before, bytes=before, digest=digest)
                )
                continue
            codecs = {matrix: option.codec for matrix, option in chosen.items()}
            if best is not None and codecs == best[0].codecs:
                stored, measured = best  # nothing is carried by what joined
            else:
                stored = self.store(codecs)
                measured = self.measure(stored.weights())
            kept = best is None or measured[0] < best[1][0]
            if kept:
                best, digest = (stored, measured), self._digest()
            else:
                assert best is not None
                self._put(best[0].weights())
                if self._digest() != digest:
                    raise CheckpointError(f"compression: the weights before '{name}' did not come back; run it again")
            stages.append(
                Stage(
                    name=name,
                    fits=True,
                    kept=kept,
                    bytes_before=before,
                    bytes=stored.bytes,
                    divergence=measured[0],
                    retention=measured[1].mean,
                    digest=digest,
                )
            )
            before = stored.bytes if kept else before
        if best is None:
            allocate(self.table.options, budget - self.plain_bytes)
            raise AssertionError("the last stage has all options")
        stored, found = best
        fixed = {n: e for n, e in stored.encoded.items() if not isinstance(stored.codecs[n], Ternary | VPTQ)}
        return Plan(dict(stored.codecs), dict(stored.codebooks), fixed, tuple(stages), stored, found)

    def measure(self, weights: Weights) -> Measured:
        """Of the model with these weights, which it keeps."""
        self._put(weights)
        return self.calibration.divergence(self.model), self.standing.kept(self.model)

    def store(self, codecs: Mapping[str, Coding]) -> Stored:
        """The parent under these codecs, codebooks fitted to what shares them."""
        groups: dict[VPTQ, dict[str, torch.Tensor]] = {}
        for name, codec in codecs.items():
            if isinstance(codec, VPTQ):
                groups.setdefault(codec, {})[name] = self.parent[name]
        books: dict[VPTQ, torch.Tensor] = {}
        encoded: dict[str, Encoded] = {}
        for codec, weights in groups.items():
            known = {n: self.importances[n] for n in weights if n in self.importances}
            shared = codec.encode_together(weights, known, self.seed)
            books[codec] = shared.codebook_RKV
            encoded |= {n: squeezed(e, codec, self.config.scale_bits) for n, e in shared.matrices.items()}
        for name, codec in codecs.items():
            if isinstance(codec, Ternary):
                encoded[name] = codec.encode(self.latent[name])
            elif not isinstance(codec, VPTQ):
                encoded[name] = self.table.encoded[name, codec]
        plain = {n: w.half() for n, w in self.parent.items() if n not in codecs}
        return Stored(codecs, {name: encoded[name] for name in codecs}, books, plain)

    def _steps(self) -> list[tuple[str, frozenset[str]]]:
        """Codecs in the order in which they join."""
        names = [name for name in ("ternary", "vptq", "hyper", "seedlm") if name in self.config.names]
        return [(name, frozenset(names[: count + 1])) for count, name in enumerate(names)]

    @property
    def plain_bytes(self) -> int:
        """Of what no codec has."""
        return sum(2 * w.numel() for n, w in self.parent.items() if n not in self.table.options)

    @torch.no_grad()
    def _put(self, weights: Weights) -> None:
        for name, param in self.params.items():
            param.copy_(weights[name])

    def _digest(self) -> str:
        found = hashlib.sha256()
        for name in sorted(self.params):
            found.update(self.params[name].detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()
