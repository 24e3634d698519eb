"""A teacher with another tokenizer: a student's rows, with what the teacher thought of the same answers in its tokens.

    theirs = pack_records(records, teacher_tokenizer, block, …)      # the same records, in the same order
    cache = cache_teacher(teacher, theirs, …, CacheConfig(method="ghost"), …)
    source = CrossRows(ours, theirs, cache, seed)
    train(CrossObjective(model, weight=1.5), source, …)

The i-th token of an answer gets the i-th distribution of the teacher's reading of that answer; what is left over on
either side is compared with nothing (arXiv 2402.12030). Marks are those of `cached_rows`; their ids are the teacher's,
and mean nothing here.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distillation.cache.read import Cache
from distillation.losses.across import sorted_distance
from distillation.losses.sliced import sliced_loss
from distillation.training.cached_rows import CachedRows, Part, pack_marks, read_marks
from distillation.training.row_file import RowFile
from phases.errors import ConfigError, DataError
from phases.training.batches import Rows
from phases.training.objective import Objective


class CrossRows:
    """The student's rows, with the teacher's probabilities laid beside them."""

    def __init__(self, ours: RowFile, theirs: RowFile, cache: Cache, seed: int) -> None:
        """Raises `DataError` for a cache of other rows, `ConfigError` for one that has no probabilities."""
        if cache.rows != theirs.digest:
            raise DataError(f"{cache.path}: made of other rows than {theirs.path}; write it again")
        if cache.card["method"] == "sampled":
            raise ConfigError(
                "a teacher with another tokenizer is compared by its probabilities: set cache.method=ghost"
            )
        self.ours, self.theirs, self.cache = ours, theirs, cache
        self.source = CachedRows([Part(ours)], seed)
        row, place = np.nonzero(theirs.example_NT >= 0)
        example = theirs.example_NT[row, place]
        # Rows hold their examples in order, and an example's tokens stand together.
        stored = np.cumsum(theirs.weight_NT > 0, axis=1)[row, place] - 1
        order = np.argsort(example, kind="stable")
        self.row, self.stored = row[order], stored[order]
        count = int(example.max(initial=-1)) + 1
        self.size = np.bincount(example, minlength=count)
        self.begin = np.cumsum(self.size) - self.size
        self._decoded = lru_cache(maxsize=256)(cache.row)

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, step: int, count: int) -> Rows:
        """The `count` rows of a step."""
        at = [self.source.place(step * count + i)[1] for i in range(count)]
        plain = self.source.rows(step, count)
        marks = [self._marks(row) for row in at]
        width = max(1, *(m.shape[1] for m in marks))
        padded = np.stack([np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in marks])
        return Rows(plain.tokens_BT, plain.weight_BT, torch.from_numpy(padded))

    def _marks(self, row: int) -> npt.NDArray[np.int64]:
        """(T, K) of one row."""
        example_T = np.asarray(self.ours.example_NT[row])
        marks_TK = np.zeros((len(example_T), self.cache.codec.size), dtype=np.int64)
        for example in np.unique(example_T[example_T >= 0]):
            places = np.flatnonzero(example_T == example)
            size = min(len(places), int(self.size[example]) if example < len(self.size) else 0)
            if not size:
                continue  # it does not fit a row in the teacher's tokens
            begin = int(self.begin[example])
            ids_PK, share_PK = self._decoded(int(self.row[begin]))
            taken = self.stored[begin : begin + size]
            marks_TK[places[:size]] = pack_marks(ids_PK[taken], share_PK[taken])
        return marks_TK


class CrossObjective(Objective):
    """Cross-entropy + weight · distance of the sorted distributions, where there is a teacher's."""

    def __init__(self, model: Any, weight: float = 1.5) -> None:
        super().__init__(model)
        if weight < 0:
            raise ConfigError(f"weight={weight} of the cross-tokeniser loss: it has to be 0 or more")
        self.weight = weight
        self.seen: dict[str, torch.Tensor] = {}

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        assert marks_BTC is not None, "rows are those of CrossRows"
        hidden_BTD = self.model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        chosen = weight_BT > 0
        share_NK = read_marks(marks_BTC[chosen])[1]
        known_N = share_NK.sum(1) > 0

        def apart(logits_NV: torch.Tensor, rows: slice) -> torch.Tensor:
            return sorted_distance(logits_NV, share_NK[rows]) * known_N[rows]

        weight_N = weight_BT[chosen]
        loss, nll, distance = sliced_loss(
            hidden_BTD[chosen],
            self.model.get_output_embeddings().weight,
            tokens_BT[:, 1:][chosen],
            weight_N,
            apart,
            1.0,
            self.weight,
        )
        taught = (weight_N * known_N).sum().clamp(min=1e-9)
        self.seen = {"text_nll": nll / weight_N.sum(), "from_teacher": distance / taught}
        return loss

    def curves(self) -> dict[str, float]:
        """The text's loss in nats a weighted token, and the distance, 0 … 2."""
        return {name: float(value) for name, value in self.seen.items()}
