"""How good an answer is, without a judge: exact match with the right answer, else agreement with the teacher's.

Where a record has a reference, an answer is right or wrong: what stands after `####` (or the whole) has to be the
reference's. Without one, the teacher's answer is all there is to compare with: token F1 as in SQuAD (arXiv 1606.05250),
twice the shared words over both lengths. That is agreement, not truth: it rewards the teacher's mistakes, does not see
word order, and calls another wording of the same thing worse.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distillation.record import Record
from distillation.validation.noninferiority import Kind
from phases.errors import DataError
from phases.tasks.item import extract_answer

_WORD = re.compile(r"\w+|[^\w\s]")
RIGHT = 0.999
"""Grade from which an answer counts as right."""


def is_right(record: Record, text: str) -> bool:
    """Whether it is known to be right: without a reference nobody knows."""
    return bool(record.reference) and grade(record, text) >= RIGHT


def grade(record: Record, text: str) -> float:
    """1 or 0 where the record has a reference, else the agreement with its completion, 0 to 1."""
    if record.reference:
        return float(_answer(text) == _answer(record.reference))
    if record.completion:
        return token_f1(text, record.completion)
    raise DataError(
        f"{record.source or record.prompt[:40]!r} has neither a reference nor a teacher's answer to be graded by; "
        "collect answers first"
    )


def values(records: Sequence[Record], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N,) grades of one answer a record."""
    if len(records) != len(texts):
        raise DataError(f"{len(texts)} answers to {len(records)} records; answer every record once, in order")
    return np.array([grade(record, text) for record, text in zip(records, texts, strict=True)], dtype=np.float64)


def kind_of(records: Sequence[Record]) -> Kind:
    """`right` when every record has a reference, else `graded`."""
    return "right" if all(record.reference for record in records) else "graded"


def token_f1(text: str, other: str) -> float:
    """Twice the shared words (with repeats) over both numbers of words; two empty texts agree."""
    a, b = (Counter(_WORD.findall(unicodedata.normalize("NFC", one).casefold())) for one in (text, other))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def _answer(text: str) -> str:
    return unicodedata.normalize("NFC", extract_answer(text))
