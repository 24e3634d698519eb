"""Which dreams are worth training on: verified answers, plausible and varied text, and floors for a whole cycle.

Likelihood alone keeps the wrong things: what is too probable is a loop or a commonplace, what is improbable is noise
(arXiv 1904.09751). A cycle that is mostly invalid, or much less varied than the true continuations of the same
prompts, is refused whole: training on it is the beginning of a collapse (arXiv 2305.17493).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from phases.forge.config import Dreams
from phases.forge.dreams import Dream

Reason = Literal["unfinished", "wrong_answer", "short", "improbable", "too_probable", "repetitive"]
Floor = Literal["validity_floor", "diversity_floor"]


@dataclass(frozen=True)
class Cycle:
    """What became of the dreams of one cycle."""

    written: int
    valid: int
    refused: Mapping[Reason, int]
    """Dreams by why they are not valid."""
    floor: Floor | None
    """Why the valid ones were refused with the others; None: they were kept."""
    validity: float
    """Share of valid dreams of text or of tasks, whichever is less: good texts must not hide answers that are wrong."""
    diversity: float
    """Of the valid dreams, as `diversity` measures it."""
    by_temperature: tuple[tuple[int, int], ...]
    """(written, valid) at each of `Dreams.temperatures`."""

    @property
    def kept(self) -> int:
        """Dreams that passed every filter."""
        return 0 if self.floor else self.valid


def sift(dreams: Sequence[Dream], config: Dreams) -> tuple[list[Dream], Cycle]:
    """(the dreams that are kept, in their order; what became of all)."""
    reasons = [refusal(dream, config) for dream in dreams]
    valid = [dream for dream, reason in zip(dreams, reasons, strict=True) if reason is None]
    validity, varied = min(_validities(dreams, valid), default=0.0), diversity(valid)
    floor: Floor | None = None
    if validity < config.validity:
        floor = "validity_floor"
    elif varied < config.diversity:
        floor = "diversity_floor"
    labels = range(len(config.temperatures))
    cycle = Cycle(
        written=len(dreams),
        valid=len(valid),
        refused=Counter(reason for reason in reasons if reason),
        floor=floor,
        validity=validity,
        diversity=varied,
        by_temperature=tuple((_count(dreams, label), _count(valid, label)) for label in labels),
    )
    return [] if floor else valid, cycle


def _validities(dreams: Sequence[Dream], valid: Sequence[Dream]) -> list[float]:
    """Share of valid dreams among those of text and among those of tasks, as far as there are any."""
    kinds = [[dream.prompt.item is None for dream in some] for some in (dreams, valid)]
    return [kinds[1].count(kind) / kinds[0].count(kind) for kind in (True, False) if kind in kinds[0]]


def _count(dreams: Sequence[Dream], label: int) -> int:
    return sum(dream.label == label for dream in dreams)


def refusal(dream: Dream, config: Dreams) -> Reason | None:
    """Why a dream is not valid, or None: a task by its answer, text by its length, likelihood and repetitions."""
    if dream.prompt.item is not None:
        if not dream.finished:
            return "unfinished"
        return None if dream.right else "wrong_answer"
    if len(dream.written) < config.new_tokens // 4:
        return "short"
    least, most = config.likelihood
    if dream.nats > most:
        return "improbable"
    if dream.nats < least:
        return "too_probable"
    return "repetitive" if distinct_share(dream.written, 3) < config.distinct else None


def ngrams(tokens: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """All runs of `size` tokens, in their order."""
    return zip(*(tokens[start:] for start in range(size)), strict=False)


def distinct_share(tokens: Sequence[int], size: int) -> float:
    """Distinct n-grams as a share of all (distinct-n, arXiv 1510.03055); 1 when there is none."""
    found = list(ngrams(tokens, size))
    return len(set(found)) / len(found) if found else 1.0


def diversity(dreams: Sequence[Dream]) -> float:
    """Distinct 2-grams of what was written, over those of the same prompts' true continuations.

    Of each pair as many tokens count as the shorter one has. 0 without dreams; 1 when the truth has no 2-gram.
    """
    ours: set[tuple[int, ...]] = set()
    theirs: set[tuple[int, ...]] = set()
    for dream in dreams:
        tokens = min(len(dream.written), len(dream.prompt.truth))
        ours.update(ngrams(dream.written[:tokens], 2))
        theirs.update(ngrams(dream.prompt.truth[:tokens], 2))
    return len(ours) / len(theirs) if theirs else float(bool(dreams))
