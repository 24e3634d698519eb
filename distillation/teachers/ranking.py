"""Which teacher: quality with its uncertainty, cost and latency, on the same graded questions.

    ranking = rank({"big": answers, "small": others}, records, grade)      # answers by the record's index
    ranking.recommended, ranking.reason, ranking.routes["arithmetic"].teacher

Teachers are compared on the questions that all of them answered, with a paired bootstrap (`evaluation.significance`).
The recommended one is the cheapest that is not shown to be worse than the best: its 95 % interval of the difference
reaches 0. With few questions that is easily so, and the reason says how much worse the interval still allows. The best
is the best of these questions, which flatters it. A price that is not known takes no part in what is about cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distillation.record import Record
from distillation.teachers.teacher import Answer
from evaluation.significance import Difference, paired_bootstrap
from phases.errors import DataError

FEWEST = 20
"""Questions of a group below which it is routed as all questions are."""
Grade = Callable[[Record, str], float]
"""How good an answer to a record is: 1 for right and 0 for wrong, or anything between."""


@dataclass(frozen=True)
class Standing:
    """One teacher."""

    teacher: str
    score: float
    low: float
    high: float
    """95 % bootstrap interval of the score."""
    n: int
    """Questions that all teachers answered."""
    unanswered: int
    """Questions that it did not answer."""
    usd_per_question: float | None
    seconds_p50: float
    seconds_p95: float
    behind: Difference
    """Its score less the best one's, paired."""
    on_front: bool | None
    """No other is at least as good and cheaper, or better and as cheap; None: its price is not known."""


@dataclass(frozen=True)
class Route:
    """Who is to answer a group's questions."""

    teacher: str
    reason: str
    n: int


@dataclass(frozen=True)
class Ranking:
    """Teachers, the best first, and what follows."""

    standings: tuple[Standing, ...]
    recommended: str
    reason: str
    routes: Mapping[str, Route]
    """By group."""


def rank(
    answers: Mapping[str, Mapping[int, Answer]],
    records: Sequence[Record],
    grade: Grade,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Ranking:
    """Rank teachers by their answers. Raises DataError where there is no question that all of them answered."""
    shared = [i for i in range(len(records)) if answers and all(i in given for given in answers.values())]
    if not shared:
        raise DataError("there is no question that every teacher answered; ask them again, or leave one out")
    scores = {
        name: np.array([grade(records[i], given[i].text) for i in shared], dtype=np.float64)
        for name, given in answers.items()
    }
    usd = {name: _mean_usd([given[i] for i in shared]) for name, given in answers.items()}
    graded = _Graded(scores, usd, resamples, seed)
    unanswered = {name: len(records) - len(given) for name, given in answers.items()}
    seconds = {name: np.array([given[i].seconds for i in shared]) for name, given in answers.items()}
    standings = tuple(graded.standing(name, unanswered[name], seconds[name]) for name in graded.order)
    recommended, reason = graded.recommend()
    routes = {name: graded.route(places, recommended) for name, places in _groups(records, shared).items()}
    return Ranking(standings, recommended, reason, routes)


def pareto_front(score: Mapping[str, float], usd: Mapping[str, float]) -> frozenset[str]:
    """Those that no other beats in one of quality and cost without losing in the other."""

    def beats(other: str, name: str) -> bool:
        as_good = score[other] >= score[name] and usd[other] <= usd[name]
        return as_good and (score[other] > score[name] or usd[other] < usd[name])

    return frozenset(name for name in usd if not any(beats(other, name) for other in usd))


@dataclass(frozen=True)
class _Graded:
    """Scores of the same questions, and what each teacher takes for one."""

    scores: Mapping[str, npt.NDArray[np.float64]]
    usd: Mapping[str, float | None]
    resamples: int
    seed: int

    @property
    def order(self) -> list[str]:
        """The best first; of equals the cheapest, one without a price last."""
        return sorted(self.scores, key=self._merit)

    def _merit(self, name: str) -> tuple[float, float, str]:
        price = self.usd[name]
        return -float(self.scores[name].mean()), float("inf") if price is None else price, name

    def behind(self, name: str) -> Difference:
        """Its score less the best one's."""
        return paired_bootstrap(self.scores[name], self.scores[self.order[0]], self.resamples, self.seed)

    def standing(self, name: str, unanswered: int, seconds_N: npt.NDArray[np.float64]) -> Standing:
        own_N = self.scores[name]
        level = paired_bootstrap(own_N, np.zeros_like(own_N), self.resamples, self.seed)
        p50, p95 = np.quantile(seconds_N, [0.5, 0.95])
        priced = {other: price for other, price in self.usd.items() if price is not None}
        front = pareto_front({other: float(self.scores[other].mean()) for other in priced}, priced)
        return Standing(
            teacher=name,
            score=level.difference,
            low=level.low,
            high=level.high,
            n=len(own_N),
            unanswered=unanswered,
            usd_per_question=self.usd[name],
            seconds_p50=float(p50),
            seconds_p95=float(p95),
            behind=self.behind(name),
            on_front=name in front if name in priced else None,
        )

    def recommend(self) -> tuple[str, str]:
        """The cheapest that is not shown to be worse than the best, and why."""
        best, unpriced = self.order[0], sorted(name for name in self.usd if self.usd[name] is None)
        note = f"; cost took no part for {', '.join(unpriced)}: not known" if unpriced and len(self.usd) > 1 else ""
        top = self.usd[best]
        if top is None:
            return best, f"{best} has the highest score{note}"
        gaps = {name: self.behind(name) for name in self.order}
        able = {name: price for name, price in self.usd.items() if price is not None and gaps[name].high >= 0}
        chosen = min(able, key=lambda name: (able[name], self._merit(name)))
        if chosen == best:
            return best, f"{best} has the highest score, and nothing cheaper comes as close{note}"
        gap = gaps[chosen]
        difference = f"difference {gap.difference:+.3f}, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}, n = {gap.n}"
        cost = f"costs {able[chosen] / top:.0%} of it"
        return chosen, f"{chosen} is not shown to be worse than {best} ({difference}) and {cost}{note}"

    def route(self, places: Sequence[int], overall: str) -> Route:
        """Who is to answer the questions at these places."""
        if len(places) < FEWEST:
            reason = f"{len(places)} questions are too few to tell teachers apart: as all questions"
            return Route(overall, reason, len(places))
        own = {name: values[list(places)] for name, values in self.scores.items()}
        return Route(*_Graded(own, self.usd, self.resamples, self.seed).recommend(), len(places))


def _groups(records: Sequence[Record], shared: Sequence[int]) -> dict[str, list[int]]:
    """Places in the shared questions, by group."""
    groups: dict[str, list[int]] = {}
    for place, index in enumerate(shared):
        groups.setdefault(records[index].group, []).append(place)
    return dict(sorted(groups.items()))


def _mean_usd(given: Sequence[Answer]) -> float | None:
    known = [answer.usd for answer in given if answer.usd is not None]
    return sum(known) / len(known) if len(known) == len(given) else None
