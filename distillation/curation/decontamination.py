"""No record may hold what the sealed evaluation asks: any 13 words in a row that both have (GPT-3, arXiv 2005.14165).

    kept, step = decontaminate(records, sealed, Decontamination())

A sealed text of 4 to 12 words leaks when all of it stands in a record in one piece; one of any length when a question
is equal to it. Words are compared without case; arithmetic's signs count as words here, so that `3 + 4` is not `3 - 4`.

Instructions that all questions share (`Answer with one word …`) are wording, not content: 13 words say nothing that
stand in more than `boilerplate` sealed questions *and* in more than `boilerplate` questions to train on. Both are
needed: a passage that many sealed questions ask about is content, and a few records that hold it leak. Records that
leak by something else do not count, so that a copy of the evaluation excuses nothing. The step tells how many pieces
were excused. Searching is by hashes, in one pass; `leaks.py` then looks again, without them.
"""

import re
import string
from collections.abc import Iterator, Sequence
from itertools import chain, repeat

import numpy as np
from pydantic import Field

from distillation.curation.shingles import Hashes, Indices, scramble
from distillation.curation.step import Step, taken_out
from distillation.record import Record, asked
from phases.data.leakage import SHORTEST
from phases.strict import StrictModel

REASON = "in the sealed evaluation"
Sealed = tuple[str, ...]
"""A sealed question in all its wordings (alone, with its answer, with placeholders); the first is the question."""
_AT_ONCE = 2_000
_SIGNS = "+-*/=<>%^|&~"
_WORDS = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+|[+\-*/=<>%^|&~]")
_SPACED = {c: " " for c in range(128) if chr(c) not in f"{_SIGNS}_{string.ascii_letters}{string.digits}"}


class Decontamination(StrictModel):
    """What counts as a leak of the sealed evaluation."""

    ngram: int = Field(13, ge=5)
    """Words in a row that a record must not share with a sealed question."""
    boilerplate: int = Field(10, ge=0)
    """Words that stand in more sealed questions than this, and in more of those to train on, are instructions, not
    content; 0: nothing is excused."""


def decontaminate(
    records: Sequence[Record], sealed: Sequence[Sealed], config: Decontamination, known: Sequence[Record] = ()
) -> tuple[list[Record], Step]:
    """The records that share nothing with the sealed questions.

    `known`: further questions to train on, which tell instructions from content where the records are some of them.
    """
    questions = by_question(sealed)
    found, excused = _search([*known, *records], questions, config)
    leaking = [i - len(known) for i in found if i >= len(known)]
    figures = {"sealed questions": len(questions), "pieces that are boilerplate": excused}
    return taken_out("decontamination", records, dict.fromkeys(leaking, REASON), figures=figures)


def leaking_questions(
    texts: Sequence[str], known: Sequence[str], sealed: Sequence[Sealed], config: Decontamination
) -> list[int]:
    """Indices of the texts that leak; `known` are other questions to train on, which tell instructions from content."""
    leaking, _ = _search([asked(text) for text in (*known, *texts)], by_question(sealed), config)
    return [i - len(known) for i in leaking if i >= len(known)]


def by_question(sealed: Sequence[Sealed]) -> list[set[str]]:
    """The wordings of each question in one spelling; a question that comes twice is one."""
    found: dict[str, set[str]] = {}
    for wordings in sealed:
        spelt = [" ".join(words(text)) for text in wordings]
        found.setdefault(spelt[0], set()).update(spelt)
    return list(found.values())


def words(text: str) -> list[str]:
    """Words and arithmetic's signs in one case."""
    text = text.casefold()
    if not text.isascii():
        return _WORDS.findall(text)
    text = text.translate(_SPACED)  # the same words in a fifth of the time
    for sign in _SIGNS:
        if sign in text:
            text = text.replace(sign, f" {sign} ")
    return text.split()


def _search(records: Sequence[Record], questions: list[set[str]], config: Decontamination) -> tuple[list[int], int]:
    """Indices of the records that leak, and how many pieces of the sealed questions were taken for boilerplate."""
    search = _Search(questions, config)
    for first in range(0, len(records), _AT_ONCE):
        search.read(records[first : first + _AT_ONCE], first)
    return search.leaking(), int(search.excused.sum())


class _Search:
    """The state of one search: what must not be found, what was, and which shared pieces turned out to be wording."""

    def __init__(self, questions: list[set[str]], config: Decontamination) -> None:
        self.ngram, self.boilerplate = config.ngram, config.boilerplate
        self.whole = set[str]().union(*questions) - {""}
        self.numbers: dict[str, int] = {}
        """Of the words of sealed questions; all others are 0, with which no piece has anything in common."""
        self.leaks: set[int] = set()
        self.content: dict[int, _Pieces] = {}
        self.shared = _Pieces(np.zeros(0, dtype=np.uint64))
        """What stands in so many sealed questions that it may be wording."""
        for length, pieces in self._by_length(questions).items():
            values, counts = np.unique(pieces, return_counts=True)
            many = counts > (config.boilerplate if config.boilerplate and length == config.ngram else len(questions))
            self.content[length] = _Pieces(values[~many])
            if length == config.ngram:
                self.shared = _Pieces(values[many])
        self.excused = np.zeros(len(self.shared.values), dtype=np.bool_)
        self.held = np.zeros((2, 0), dtype=np.int64)
        """Shared pieces that are not excused yet, and the records that hold them."""
        self.asked: dict[str, int] = {}
        self.question: dict[int, int] = {}
        """The number of the question that a record asks, where it holds a shared piece."""

    def read(self, records: Sequence[Record], first: int) -> None:
        """Look at some records, the first of which has this index."""
        read = [_words_of(record) for record in records]
        numbers = map(self.numbers.get, chain.from_iterable(found for found, _ in read), repeat(0))
        together = np.fromiter(numbers, dtype=np.uint64)
        owner = np.repeat(np.arange(first, first + len(read)), [len(found) for found, _ in read])
        self.leaks |= {i for i, (_, prompt) in enumerate(read, first) if " ".join(prompt) in self.whole}
        held = np.zeros((2, 0), dtype=np.int64)
        for length, runs in _runs(together, max(self.content, default=0)):
            inside = owner[: len(runs)] == owner[length - 1 :]
            if length in self.content:
                places, _ = self.content[length].found(runs)
                self.leaks |= set(owner[places[inside[places]]].tolist())
            if length == self.ngram:
                places, pieces = self.shared.found(runs)
                held = np.stack([pieces, owner[places]])[:, inside[places]]
        self._settle(held, {i: prompt for i, (_, prompt) in enumerate(read, first)})

    def leaking(self) -> list[int]:
        """Indices of all records read so far that leak."""
        return sorted(self.leaks.union(self.held[1].tolist()))

    def _settle(self, held: Indices, prompts: dict[int, list[str]]) -> None:
        """Excuse the shared pieces that enough different questions hold by now, and remember who holds the others."""
        held = held[:, ~self.excused[held[0]]]
        for i in set(held[1].tolist()):
            self.question[i] = self.asked.setdefault(" ".join(prompts[i]), len(self.asked))
        self.held = np.concatenate([self.held, held], axis=1)
        clear = self.held[:, [i not in self.leaks for i in self.held[1].tolist()]]
        asked = np.array([self.question[i] for i in clear[1].tolist()], dtype=np.int64)
        pairs = np.unique(clear[0] * (len(self.asked) + 1) + asked) // (len(self.asked) + 1)
        self.excused |= np.bincount(pairs, minlength=len(self.excused)) > self.boilerplate
        self.held = clear[:, ~self.excused[clear[0]]]

    def _by_length(self, questions: list[set[str]]) -> dict[int, Hashes]:
        """Pieces by their length in words, each once a question."""
        found: dict[int, list[Hashes]] = {}
        for wordings in questions:
            own: dict[int, list[Hashes]] = {}
            for text in wordings:
                spelt = text.split()
                if len(spelt) >= SHORTEST:
                    length = min(len(spelt), self.ngram)
                    own_words = [self.numbers.setdefault(word, len(self.numbers) + 1) for word in spelt]
                    *_, (_, runs) = _runs(np.array(own_words, dtype=np.uint64), length)
                    own.setdefault(length, []).append(runs)
            for length, parts in own.items():
                found.setdefault(length, []).append(np.unique(np.concatenate(parts)))
        return {length: np.concatenate(parts) for length, parts in found.items()}


class _Pieces:
    """A set of hashes; whether a hash is one of them is asked in a small table first, which is seldom wrong."""

    def __init__(self, values: Hashes) -> None:
        self.values = values
        """Sorted."""
        self.shift = np.uint64(64 - max(16, len(values).bit_length() + 5))
        self.table = np.zeros(2 ** (64 - int(self.shift)), dtype=np.bool_)
        self.table[self._slots(values)] = True

    def found(self, hashes: Hashes) -> tuple[Indices, Indices]:
        """Places in `hashes` of those that are in the set, and their places in `values`."""
        places = np.flatnonzero(self.table[self._slots(hashes)])
        own = np.searchsorted(self.values, hashes[places])
        right = self.values[own.clip(max=len(self.values) - 1)] == hashes[places] if len(places) else own > 0
        return places[right], own[right]

    def _slots(self, hashes: Hashes) -> Indices:
        return (hashes >> self.shift).astype(np.int64)


def _words_of(record: Record) -> tuple[list[str], list[str]]:
    """Everything that a student would read of a record but the system prompt, which all share; and its question."""
    turns = [words(message.content) for message in record.messages if message.role != "system"]
    return list(chain(*turns, words(f"{record.rationale}\n{record.completion}"))), turns[-1]


def _runs(numbered: Hashes, longest: int) -> Iterator[tuple[int, Hashes]]:
    """(words − length + 1,) hashes of all runs of 1, 2 … `longest` words, as far as there are any."""
    total = np.zeros(len(numbered) + 1, dtype=np.uint64)
    for length in range(1, min(longest, len(numbered)) + 1):
        total = scramble(total[:-1] + numbered[length - 1 :])
        yield length, total
