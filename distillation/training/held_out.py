"""How well a model answers records that it has not learnt from, in one forward pass each, for searches and curves.

    exam = HeldOut(validation_records, tokenizer)
    result = exam.measure(model)                     # nats a token and right or wrong, one value a record

The expected text is a record's completion, or its reference where there is none. A record counts as right when every
token of it is the argmax, which is when greedy decoding writes it (`phases.probe`). The gate decodes and grades; this
is for choosing, on the validation split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from distillation.record import Record
from distillation.training.rows import render_messages
from evaluation.significance import paired_bootstrap
from phases.errors import DataError
from phases.probe import Batch, answer_losses
from phases.storage import sha256_json

BATCH = 32
"""Records that are read at a time."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One value a record, in their order."""

    nats_N: Values
    """Mean nats a token of the expected text."""
    right_N: Values
    """1.0 where greedy decoding writes it."""

    @property
    def loss(self) -> float:
        """Mean nats a token, every record alike."""
        return float(self.nats_N.mean())

    @property
    def accuracy(self) -> float:
        """Share of the records that are right."""
        return float(self.right_N.mean())

    def figures(self) -> dict[str, float]:
        """Means with their standard errors and n."""
        n = len(self.nats_N)
        root = float(np.sqrt(n))
        errors = [float(values.std(ddof=1)) / root if n > 1 else float("nan") for values in (self.nats_N, self.right_N)]
        found = {"loss": self.loss, "accuracy": self.accuracy, "n": float(n)}
        return found if n < 2 else {**found, "loss_stderr": errors[0], "accuracy_stderr": errors[1]}


def compare(measured: Mapping[str, Measured], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Figures of each by name, and paired differences (first less second): accuracy, and nats a token."""
    figures: dict[str, Any] = {name: one.figures() for name, one in measured.items()}
    for first, second in pairs:
        ours, other = measured[first], measured[second]
        found = {
            "accuracy": asdict(paired_bootstrap(ours.right_N, other.right_N)),
            "loss": asdict(paired_bootstrap(ours.nats_N, other.nats_N)),
        }
        figures[f"{first} - {second}"] = found
    return figures


class HeldOut:
    """Records with what is expected of them, as tokens."""

    def __init__(self, records: Sequence[Record], tokenizer: Any) -> None:
        """Raises `DataError` where there is no record, or one without completion and reference."""
        if not records:
            raise DataError("no held-out records: give some, apart from those that are learnt from")
        lead, end = "" if tokenizer.chat_template else " ", tokenizer.eos_token
        rows = []
        for index, record in enumerate(records):
            expected = record.completion or record.reference
            if not expected:
                raise DataError(f"{record.source or f'held-out record {index}'}: neither completion nor reference")
            prompt = render_messages(tokenizer, record.messages)
            texts = (prompt, f"{lead}{expected}{end}")
            rows.append(tuple(tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts))
        self.digest = sha256_json(rows)
        """Of all of it, in order: results on others are not comparable."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        self.batches = [_padded(rows, order[start : start + BATCH]) for start in range(0, len(rows), BATCH)]

    def measure(self, model: Any) -> Measured:
        """What the model makes of them; its mode stays as it was."""
        training = model.training
        model.eval()
        try:
            return Measured(*answer_losses(model, self.batches))
        finally:
            model.train(training)


def _padded(rows: Sequence[Sequence[list[int]]], index: list[int]) -> Batch:
    """Right-padded: causal attention makes that harmless."""
    width = max(len(rows[i][0]) + len(rows[i][1]) for i in index)
    tokens_BT = torch.zeros(len(index), width, dtype=torch.long)
    answer_BT = torch.zeros(len(index), width, dtype=torch.bool)
    for b, i in enumerate(index):
        prompt, answer = rows[i]
        tokens_BT[b, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        answer_BT[b, len(prompt) : len(prompt) + len(answer)] = True
    return Batch(tokens_BT, answer_BT, index)
