"""The second look: does anything sealed stand in the data set? Strings and sets only, no hashes, nothing remembered.

It knows nothing of what `decontamination.py` removed or excused and shares no search with it; `curate` runs it over
what would be written, and a night does not begin to train when it finds something.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from distillation.curation.decontamination import Decontamination, Sealed, words
from distillation.record import Record
from phases.data.leakage import SHORTEST
from phases.errors import LeakageError


def check_no_leak(
    records: Sequence[Record], sealed: Sequence[Sealed], config: Decontamination, *, among: Sequence[Record]
) -> None:
    """Raises `LeakageError` that names the first record with a sealed text, or with n of its words in a row.

    `among`: all records before decontamination, whose questions tell instructions from content.
    """
    content, shared, whole = _wanted(sealed, config)
    if shared:
        content |= shared - _wording(among, content, shared, whole, config.boilerplate)
    sought = _Phrases(content)
    found = [record for record in records if _leaks(record, sought, whole)]
    if found:
        start = " ".join(found[0].prompt.split())[:60]
        raise LeakageError(
            f"{len(found)} records repeat the sealed evaluation (first: '{start}…' of "
            f"{found[0].source or 'no source'}); remove them from the source"
        )


def trained_text(record: Record) -> str:
    """Everything that a student would read of a record; the system prompt, which all share, left out."""
    asked = (m.content for m in record.messages if m.role != "system")
    return "\n".join((*asked, record.rationale, record.completion))


def _wanted(sealed: Sequence[Sealed], config: Decontamination) -> tuple[set[str], set[str], set[str]]:
    """Phrases that are content, those that may be wording as so many questions share them, and all texts as a whole."""
    questions: dict[str, set[str]] = {}
    phrases, whole = set(), set()
    for wordings in sealed:
        pieces = questions.setdefault(" ".join(words(wordings[0])), set())
        for text in wordings:
            found = words(text)
            whole.add(" ".join(found))
            if len(found) >= config.ngram:
                pieces.update(" ".join(found[i : i + config.ngram]) for i in range(len(found) - config.ngram + 1))
            elif len(found) >= SHORTEST:
                phrases.add(" ".join(found))
    counts = Counter(piece for pieces in questions.values() for piece in pieces)
    limit = config.boilerplate or len(questions)
    shared = {piece for piece, count in counts.items() if count > limit}
    return phrases | (set(counts) - shared), shared, whole - {""}


def _wording(among: Iterable[Record], content: set[str], shared: set[str], whole: set[str], limit: int) -> set[str]:
    """The shared phrases that stand in more than `limit` different questions which do not leak by anything else."""
    leaks, sought = _Phrases(content), _Phrases(shared)
    asked: dict[str, set[str]] = {phrase: set() for phrase in shared}
    for record in among:
        held = [asked[phrase] for phrase in sought.within(words(trained_text(record)))]
        if any(len(questions) <= limit for questions in held) and not _leaks(record, leaks, whole):
            prompt = " ".join(words(record.prompt))
            for questions in held:
                questions.add(prompt)
    return {phrase for phrase, questions in asked.items() if len(questions) > limit}


class _Phrases:
    """Phrases to look for, by their first three words: most places of a text begin none."""

    def __init__(self, phrases: set[str]) -> None:
        self.phrases = phrases
        self.lengths: dict[tuple[str, str, str], set[int]] = {}
        for phrase in phrases:
            found = phrase.split()
            self.lengths.setdefault((found[0], found[1], found[2]), set()).add(len(found))

    def within(self, found: list[str]) -> Iterator[str]:
        """The phrases that stand in these words."""
        for i, start in enumerate(zip(found, found[1:], found[2:], strict=False)):
            for length in self.lengths.get(start, ()):
                phrase = " ".join(found[i : i + length])
                if phrase in self.phrases:
                    yield phrase


def _leaks(record: Record, sought: _Phrases, whole: set[str]) -> bool:
    return any(sought.within(words(trained_text(record)))) or " ".join(words(record.prompt)) in whole
