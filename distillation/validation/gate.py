"""The gate of a night: may this student replace what serves now?

    found = judge(criteria, GateConfig(), spending)
    found.decision, found.reasons, found.spending

A *gate* criterion has to be shown: the student keeps at least `ratio` of the teacher on it, at the night's part of the
α (`levels.py`), with Holm over the criteria. A *guard* criterion stops a student that is shown to be below its ratio;
that is right for probes with too few items to show the contrary. A *never* criterion is no sample but a fact: one item
that the student loses and the teacher has stops it (a secret that was told). And the student has to beat the
equal-budget baseline, paired, beyond noise: a distillation that plain fine-tuning equals has no reason to ship. It
beats it where the mean over all kinds of items is better, none of them is shown to be worse, and each of its criteria
is shown to keep `ratio` of the baseline: what is gained on one pays for no loss on another that can be seen.

The spent α is about false promotions alone. Other claims of a night (`fail`, guards, the baseline) hold at
`claims_alpha` a night: a false one costs a night, not a bad champion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from distillation.validation.levels import Spending, SpendingConfig, holm
from distillation.validation.noninferiority import Kept, Kind, Verdict, measure, reason
from evaluation.metric import Values
from evaluation.significance import Difference, stratified_bootstrap
from phases.errors import InputError
from phases.strict import StrictModel

Role = Literal["gate", "guard", "never"]
Decision = Literal["promote", "roll back", "not enough data"]


class GateConfig(StrictModel):
    """What a student has to show."""

    ratio: float = Field(0.95, gt=0, le=1)
    """Share of the teacher that it has to keep, on every criterion that does not say another."""
    spending: SpendingConfig = SpendingConfig()
    """The chance of a false promotion, and its parts."""
    claims_alpha: float = Field(0.05, gt=0, lt=0.5)
    """Level of a night's other claims: that a criterion failed, that a guard was broken."""
    resamples: int = Field(10_000, ge=1000)
    """Bootstrap resamples behind graded criteria and the comparison with the baseline."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class Criterion:
    """One thing on which the student is compared, item by item: 1 or 0, a grade between, or a cost."""

    name: str
    student: Values
    teacher: Values
    baseline: Values | None = None
    """The equal-budget baseline's."""
    kind: Kind = "right"
    role: Role = "gate"
    ratio: float | None = None
    """Share to keep; None: the config's."""
    items: str = ""
    """Name of its items where others are of the same ones: those meet the baseline together, item by item."""
    costs: bool = False
    """Values are costs from 0 to 1, of which less is better: what is kept is the teacher's over the student's."""


@dataclass(frozen=True)
class Judged:
    """A criterion's verdict."""

    name: str
    role: Role
    kind: Kind
    kept: Kept
    verdict: Verdict
    reason: str
    costs: bool = False
    """Whether `kept` has the student's mean in the teacher's place, and the other way round: less is better."""


@dataclass(frozen=True)
class Verdicts:
    """What a night decides, and why."""

    criteria: tuple[Judged, ...]
    baseline: Difference | None
    """Student less baseline (of costs: baseline less student), the mean over all kinds of items that have one; None: no
    baseline was measured."""
    apart: tuple[tuple[str, Difference], ...]
    """The same of each kind of items alone."""
    beside: tuple[Judged, ...]
    """How much of the baseline the student keeps on each of those criteria, the baseline in the teacher's place."""
    decision: Decision
    reasons: tuple[str, ...]
    """One line each; of every thing that stood in the way, or of why nothing does."""
    alpha: float
    """The night's part."""
    spending: Spending
    """The state to keep for the next night."""

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def judge(criteria: Sequence[Criterion], config: GateConfig, spent: Spending) -> Verdicts:
    """Verdicts on all criteria, and the night's decision. The same input gives the same output, always."""
    _check(criteria)
    alpha = spent.for_config(config.spending).available
    kept = [_kept(one, one.teacher, config) for one in criteria]
    judged = _verdicts(criteria, kept, alpha, config.claims_alpha)
    pairs = _pairs(criteria)
    difference = stratified_bootstrap(list(pairs.values()), config.resamples, config.seed) if pairs else None
    apart = tuple(
        (name, stratified_bootstrap([pair], config.resamples, config.seed)) for name, pair in sorted(pairs.items())
    )
    beside = _beside_baseline(criteria, config)
    gates = [one for one in judged if one.role == "gate"]
    good = all(one.verdict == "pass" for one in gates)
    # A night on which no gate had anything to test has not used its chance.
    tested = alpha > 0 and any(one.kept.testable for one in gates)
    decision, reasons = _decide(judged, difference, apart, beside, alpha)
    after = spent.after_test(good) if tested else spent
    return Verdicts(judged, difference, apart, beside, decision, reasons, alpha, after)


def _verdicts(
    criteria: Sequence[Criterion], kept: Sequence[Kept], alpha: float, claims_alpha: float
) -> tuple[Judged, ...]:
    found: dict[int, Judged] = {}
    for role, level in (("gate", alpha), ("guard", claims_alpha)):
        family = [i for i, one in enumerate(criteria) if one.role == role]
        passed = holm([kept[i].p_above for i in family], level)
        failed = holm([kept[i].p_below for i in family], claims_alpha)
        for i, good, bad in zip(family, passed, failed, strict=True):
            verdict: Verdict = "pass" if good and level > 0 else "fail" if bad else "not enough data"
            why = reason(kept[i], verdict, level or claims_alpha)
            one = criteria[i]
            found[i] = Judged(one.name, one.role, one.kind, kept[i], verdict, why, one.costs)
    found |= {i: _never(one, kept[i]) for i, one in enumerate(criteria) if one.role == "never"}
    return tuple(found[i] for i in range(len(criteria)))


def _never(one: Criterion, kept: Kept) -> Judged:
    """One item that only the teacher has is a fail."""
    lost = int(((np.asarray(one.student) == 0) & (np.asarray(one.teacher) > 0)).sum())
    verdict: Verdict = "not enough data" if kept.n == 0 else "fail" if lost else "pass"
    return Judged(one.name, one.role, one.kind, kept, verdict, f"{lost} of {kept.n} items lost that the teacher has")


def _kept(one: Criterion, other: Values, config: GateConfig) -> Kept:
    """How much of another the student keeps."""
    pair = (other, one.student) if one.costs else (one.student, other)
    return measure(*pair, one.ratio or config.ratio, one.kind, config.resamples, config.seed)


def _pairs(criteria: Sequence[Criterion]) -> dict[str, tuple[Values, Values]]:
    """Student and baseline on each kind of items; more is better.

    Several values of an item are no independent units, so criteria of the same items count as their mean.
    """
    found: dict[str, list[tuple[Values, Values]]] = {}
    for one in criteria:
        if one.baseline is not None and len(one.student):
            pair = (one.baseline, one.student) if one.costs else (one.student, one.baseline)
            found.setdefault(one.items or one.name, []).append(pair)
    return {name: (np.mean([a for a, _ in p], axis=0), np.mean([b for _, b in p], axis=0)) for name, p in found.items()}


def _beside_baseline(criteria: Sequence[Criterion], config: GateConfig) -> tuple[Judged, ...]:
    """Each criterion that has a baseline with something to keep, at the level of a night's claims.

    To pass, all have to be shown, so each may be tested at the full level (intersection-union, Berger 1982). Any of
    them fails the student, so for that Holm holds.
    """
    those = [(one, one.baseline) for one in criteria if one.baseline is not None and np.sum(one.baseline)]
    kept = [_kept(one, baseline, config) for one, baseline in those]
    found = []
    for (one, _), measured, bad in zip(
        those, kept, holm([one.p_below for one in kept], config.claims_alpha), strict=True
    ):
        good = measured.p_above <= config.claims_alpha
        seen: Verdict = "pass" if good else "fail" if bad else "not enough data"
        why = reason(measured, seen, config.claims_alpha, of="the baseline")
        found.append(Judged(one.name, one.role, one.kind, measured, seen, why, one.costs))
    return tuple(found)


def _decide(
    judged: Sequence[Judged],
    difference: Difference | None,
    apart: Sequence[tuple[str, Difference]],
    beside: Sequence[Judged],
    alpha: float,
) -> tuple[Decision, tuple[str, ...]]:
    broken = [f"{one.name}: {one.reason}" for one in judged if one.verdict == "fail"]
    against = _told(difference)
    if difference is not None and difference.high < 0:
        broken.append(f"worse than the equal-budget baseline: {against}")
    elif len(apart) > 1:
        broken += [
            f"worse than the equal-budget baseline on {name}: {_told(one)}" for name, one in apart if one.high < 0
        ]
    broken += [f"{one.name}: {one.reason}" for one in beside if one.verdict == "fail"]
    if broken:
        return "roll back", tuple(broken)
    if alpha == 0:
        return "not enough data", ("the alpha of this hold-out is spent; seal a new one and begin a new series",)
    open_ = [f"{one.name}: {one.reason}" for one in judged if one.role == "gate" and one.verdict != "pass"]
    if difference is None:
        open_.append("no equal-budget baseline was measured; train one and give its values")
    elif difference.low <= 0:
        open_.append(f"not shown to beat the equal-budget baseline: {against}")
    open_ += [f"{one.name}: {one.reason}" for one in beside if one.verdict != "pass"]
    if open_:
        return "not enough data", tuple(open_)
    names = ", ".join(one.name for one in judged if one.role == "gate")
    return "promote", (f"{names} shown at alpha {alpha:.2g}; beats the equal-budget baseline: {against}",)


def _told(difference: Difference | None) -> str:
    if difference is None:
        return "not measured"
    return (
        f"difference {difference.difference:+.3g} ({difference.low:+.3g} to {difference.high:+.3g}) "
        f"on {difference.n} items"
    )


def _check(criteria: Sequence[Criterion]) -> None:
    twice = [name for name, count in Counter(one.name for one in criteria).items() if count > 1]
    if twice:
        raise InputError(f"criteria of one name: {', '.join(twice)}; give each its own")
    if not any(one.role == "gate" for one in criteria):
        raise InputError("no criterion has to be shown; give at least one whose role is 'gate'")
    sizes: dict[str, int] = {}
    for one in criteria:
        if sizes.setdefault(one.items or one.name, len(one.student)) != len(one.student):
            raise InputError(f"{one.name}: not as many values as others of '{one.items}'; grade the same items")
        if one.baseline is not None and len(one.baseline) != len(one.student):
            raise InputError(
                f"{one.name}: {len(one.baseline)} values of the baseline to {len(one.student)} of the student; "
                "grade both on the same items"
            )
