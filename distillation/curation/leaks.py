"""The second look: does anything sealed stand in the data set? Strings and sets only, no hashes, nothing remembered.

It knows nothing of what `decontamination.py` removed and shares no search with it; `curate` runs it over what would be
written, and a night does not begin to train when it finds something.
"""

from collections import Counter
from collections.abc import Sequence

from distillation.curation.decontamination import Decontamination, trained_text, words
from distillation.record import Record
from phases.data.leakage import SHORTEST
from phases.errors import LeakageError


def check_no_leak(records: Sequence[Record], sealed: Sequence[str], config: Decontamination) -> None:
    """Raises `LeakageError` that names the first record with a sealed text, or with n of its words in a row."""
    pieces, phrases, whole = _wanted(sealed, config)
    lengths = {phrase.count(" ") + 1 for phrase in phrases}
    found = [record for record in records if _leaks(record, pieces, phrases, lengths, whole, config.ngram)]
    if found:
        start = " ".join(found[0].prompt.split())[:60]
        raise LeakageError(
            f"{len(found)} records repeat the sealed evaluation (first: '{start}…' of "
            f"{found[0].source or 'no source'}); remove them from the source"
        )


def _wanted(sealed: Sequence[str], config: Decontamination) -> tuple[set[str], set[str], set[str]]:
    """Runs of n words, phrases of fewer, and all texts as a whole."""
    counts: Counter[str] = Counter()
    phrases, whole = set(), set()
    for text in {" ".join(words(s)) for s in sealed}:
        found = text.split()
        if len(found) >= config.ngram:
            counts.update(set(_runs(found, config.ngram)))
        elif len(found) >= SHORTEST:
            phrases.add(text)
        whole.add(text)
    limit = config.boilerplate or len(sealed)
    return {piece for piece, count in counts.items() if count <= limit}, phrases, whole - {""}


def _leaks(record: Record, pieces: set[str], phrases: set[str], lengths: set[int], whole: set[str], ngram: int) -> bool:
    found = words(trained_text(record))
    if any(run in pieces for run in _runs(found, ngram)) or " ".join(words(record.prompt)) in whole:
        return True
    return any(run in phrases for length in lengths for run in _runs(found, length))


def _runs(found: list[str], length: int) -> list[str]:
    return [" ".join(found[i : i + length]) for i in range(len(found) - length + 1)]
