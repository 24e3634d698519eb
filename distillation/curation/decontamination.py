"""No record may hold what the sealed evaluation asks: any 13 words in a row that both have (GPT-3, arXiv 2005.14165).

    kept, step = decontaminate(records, sealed, Decontamination())

A sealed text of 4 to 12 words leaks when all of it stands in a record in one piece; one of any length when a question
is equal to it. Words are compared without case; arithmetic's signs count as words here, so that `3 + 4` is not `3 - 4`.
Instructions that many sealed texts share (`Answer with one word …`) are wording, not content: 13 words that stand in
more than `boilerplate` sealed texts say nothing, and the step tells how many such there are. Searching is by hashes,
in one pass; `leaks.py` then looks again, without them.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from distillation.curation.shingles import Hashes, combine, word_number
from distillation.curation.step import Step, taken_out
from distillation.record import Record
from phases.data.leakage import SHORTEST
from phases.strict import StrictModel

REASON = "in the sealed evaluation"
_AT_ONCE = 10_000
_WORDS = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+|[+\-*/=<>%^|&~]")


class Decontamination(StrictModel):
    """What counts as a leak of the sealed evaluation."""

    ngram: int = Field(13, ge=5)
    """Words in a row that a record must not share with a sealed text."""
    boilerplate: int = Field(10, ge=0)
    """Words that stand in more sealed texts than this are instructions, not content; 0: nothing is excused."""


def decontaminate(
    records: Sequence[Record], sealed: Sequence[str], config: Decontamination
) -> tuple[list[Record], Step]:
    """The records that share nothing with the sealed texts."""
    leaking, excused = leaking_texts([trained_text(r) for r in records], [r.prompt for r in records], sealed, config)
    figures = {"sealed texts": len(sealed), "pieces that are boilerplate": excused}
    return taken_out("decontamination", records, dict.fromkeys(leaking, REASON), figures=figures)


def leaking_texts(
    texts: Sequence[str], prompts: Sequence[str], sealed: Sequence[str], config: Decontamination
) -> tuple[list[int], int]:
    """Indices of the texts that leak, and how many pieces of the sealed texts were taken for boilerplate.

    `prompts` are what is compared with sealed texts as a whole.
    """
    numbers: dict[str, int] = {}
    whole = {" ".join(words(s)) for s in sealed} - {""}
    wanted, excused = _wanted(sorted(whole), config, numbers)
    leaking = {i for i, prompt in enumerate(prompts) if " ".join(words(prompt)) in whole}
    for first in range(0, len(texts), _AT_ONCE):
        numbered = [_numbered(words(text), numbers) for text in texts[first : first + _AT_ONCE]]
        together = np.concatenate([np.zeros(0, dtype=np.uint64), *numbered])
        owner = np.repeat(np.arange(len(numbered)) + first, [len(own) for own in numbered])
        for length, known in wanted.items():
            places = np.flatnonzero(_member(_pieces(together, length), known))
            leaking |= set(owner[places][owner[places] == owner[places + length - 1]].tolist())
    return sorted(leaking), excused


def _wanted(sealed: Sequence[str], config: Decontamination, numbers: dict[str, int]) -> tuple[dict[int, Hashes], int]:
    """Sorted hashes of what must not stand in a record, by length in words, and how many were left out."""
    by_length: dict[int, list[Hashes]] = {}
    for text in sealed:
        found = text.split(" ")
        if len(found) >= SHORTEST:
            length = min(len(found), config.ngram)
            by_length.setdefault(length, []).append(np.unique(_pieces(_numbered(found, numbers), length)))
    wanted, excused = {}, 0
    for length, pieces in by_length.items():
        values, counts = np.unique(np.concatenate(pieces), return_counts=True)
        common = counts > (config.boilerplate if config.boilerplate and length == config.ngram else len(sealed))
        wanted[length], excused = values[~common], excused + int(common.sum())
    return wanted, excused


def trained_text(record: Record) -> str:
    """Everything that a student would read of a record; the system prompt, which all share, left out."""
    asked = (m.content for m in record.messages if m.role != "system")
    return "\n".join((*asked, record.rationale, record.completion))


def words(text: str) -> list[str]:
    """Words and arithmetic's signs in one case."""
    return _WORDS.findall(text.casefold())


def _numbered(found: Iterable[str], numbers: dict[str, int]) -> Hashes:
    return np.array([numbers.get(word) or word_number(word, numbers) for word in found], dtype=np.uint64)


def _pieces(numbered: Hashes, length: int) -> Hashes:
    """(words − length + 1,) hashes of all runs of this many words."""
    if len(numbered) < length:
        return numbered[:0]
    return combine(np.lib.stride_tricks.sliding_window_view(numbered, length))


def _member(values: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(values), dtype=np.bool_)
    found: npt.NDArray[np.bool_] = known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values
    return found
