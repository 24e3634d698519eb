"""What the gate's error rates are: students on the boundary that pass, students above it that do, items and nights.

    python -m tests.benchmarks.noninferiority [--students 10000] [--graded 2000] [--series 10000]

A boundary student has exactly 95 % of its teacher's accuracy, so every pass is a false one. Beside the gate's test
stand the same score statistic with its normal tail, the statistic with the observed discordance, and the bare point
estimate.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from distillation.validation.levels import Plan, Spending
from distillation.validation.noninferiority import measure
from distillation.validation.paired_score import Table, one_sided, statistic
from distillation.validation.sample_size import required_items

RATIO = 0.95
ALPHAS = (0.05, 0.025, 0.01, 0.004)
"""The first is a single test's, the others are what nights have."""
Floats = npt.NDArray[np.float64]
Drawn = npt.NDArray[np.int64]
"""(students, 4) both, student only, teacher only, neither."""


def draw(n: int, acc: float, ratio: float, discordance: float, students: int, seed: int) -> Drawn:
    """Tables of students at `ratio` of a teacher at `acc`."""
    student_only = (discordance - acc * (1 - ratio)) / 2
    teacher_only = discordance - student_only
    cells = [acc - teacher_only, student_only, teacher_only, 1 - acc - student_only]
    return np.random.default_rng(seed).multinomial(n, np.clip(cells, 0, 1), size=students)


class Decider:
    """The gate's test of many tables: its p falls with the statistic at equal m, so few of them need to be computed."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.known: dict[int, tuple[float, float]] = {}

    def passes(self, a: int, b: int, c: int) -> bool:
        """Whether the table is a pass."""
        m, z = a + b + c, float(statistic(a, b, c, RATIO))
        failing, passing = self.known.get(m, (-math.inf, math.inf))
        if failing < z < passing:
            good = one_sided(Table(a, b, c, 0), RATIO, "above") <= self.alpha
            self.known[m] = (failing, z) if good else (z, passing)
            return good
        return z >= passing

    def rate(self, tables: Drawn) -> float:
        """Share of the tables that pass; those in the middle of the unknown are computed first."""
        distinct, counts = np.unique(tables[:, :3], axis=0, return_counts=True)
        z = statistic(distinct[:, 0], distinct[:, 1], distinct[:, 2], RATIO)
        order = np.argsort(np.abs(z - norm.isf(self.alpha)))
        good = np.zeros(len(distinct), dtype=bool)
        for i in order:
            good[i] = self.passes(*(int(x) for x in distinct[i]))
        return float((good * counts).sum() / counts.sum())


def rivals(tables: Drawn, alpha: float) -> tuple[float, float, float]:
    """Shares passed by the normal tail, by the observed discordance, by the point estimate."""
    a, b, c = (tables[:, i].astype(np.float64) for i in range(3))
    excess, z = (1 - RATIO) * a + b - RATIO * c, float(norm.isf(alpha))
    return (
        float((statistic(a, b, c, RATIO) >= z).mean()),
        float((excess > z * np.sqrt(RATIO * (b + c))).mean()),
        float((excess > 0).mean()),
    )


def boundary(
    students: int, alpha: float = 0.05
) -> Iterator[tuple[int, float, float, float, tuple[float, float, float]]]:
    """(n, accuracy, discordance, gate's false passes, rivals') for boundary students."""
    decider = Decider(alpha)
    for n in (50, 100, 200, 369, 1027):
        for acc in (0.5, 0.8, 0.95):
            least = acc * (1 - RATIO)
            for discordance in (least, least + 0.03, 0.1, 0.3):
                if discordance - least > 2 * (1 - acc) - 1e-9:
                    continue
                tables = draw(n, acc, RATIO, discordance, students, seed=n)
                yield n, acc, discordance, decider.rate(tables), *rivals(tables, alpha)


def power(students: int) -> Iterator[tuple[float, int, float]]:
    """(ratio, n, share passed) at the sizes of `required_items`, for a test with the observed variance and for ours."""
    for ratio in (1.0, 0.98):
        for restricted in (False, True):
            n = required_items(0.8, ratio, 0.1, restricted=restricted)
            yield ratio, n, Decider(0.05).rate(draw(n, 0.8, ratio, 0.1, students, seed=1))


def nights(plan: Plan, n: int, series: int, count: int = 30) -> float:
    """Share of series of boundary students, a night each, with at least one promotion."""
    tables = draw(n, 0.8, RATIO, 0.1, series * count, seed=2).reshape(series, count, 4)
    z = statistic(tables[..., 0], tables[..., 1], tables[..., 2], RATIO)
    false = 0
    for number in range(series):
        spending = Spending(0.05, plan, count)
        for night in range(count):
            a, b, c = (int(x) for x in tables[number, night, :3])
            # p is at least near the normal tail, so a low statistic cannot pass at any of these levels.
            if z[number, night] > 1.5 and one_sided(Table(a, b, c, 0), RATIO, "above") <= spending.available:
                false += 1
                break
            spending = spending.after_test(False)
    return false / series


def _half(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Unrelated smooth scores."""
    return rng.beta(2, 2, n) * RATIO, rng.beta(2, 2, n)


def _agreeing(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Half whole, a fifth lost, the rest between; six in ten answers the same as the teacher's; some of them spoilt."""
    t, other = (np.where(u < 0.5, 1, np.where(u < 0.7, 0, rng.random(n))) for u in rng.random((2, n)))
    s = np.where(rng.random(n) < 0.6, t, other)
    return s * (rng.random(n) < RATIO), t


def _rare(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The teacher's scores, but every twentieth answer is lost whole."""
    t = np.clip(rng.normal(0.8, 0.1, n), 0, 1)
    return t * (rng.random(n) < RATIO), t


def _text(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Costs of blocks of text, teacher first as less is better: alike but for noise, the student's 1/.95 of them."""
    t = np.clip(rng.normal(0.42, 0.05, n), 0.05, 1)
    return t, np.clip(t / RATIO * rng.normal(1, 0.03, n), 0, None)


GRADED: dict[str, Callable[[int, np.random.Generator], tuple[Floats, Floats]]] = {
    "unrelated": _half,
    "agreeing": _agreeing,
    "rarely lost": _rare,
    "text (costs)": _text,
}


def graded(students: int, resamples: int = 999) -> Iterator[tuple[str, int, Floats]]:
    """(kind of scores, n, p of each boundary student)."""
    for name, make in GRADED.items():
        for n in (60, 100, 200):
            rng = np.random.default_rng(n)
            found = [measure(*make(n, rng), RATIO, "graded", resamples, i).p_above for i in range(students)]
            yield name, n, np.array(found)


def over_nights(p: Floats, count: int = 30) -> float:
    """Chance of at least one false promotion in so many nights, each with its own items and its part of the alpha."""
    spending, none = Spending(0.05, "summable", count), 1.0
    for _ in range(count):
        none *= 1 - float((p <= spending.available).mean())
        spending = spending.after_test(False)
    return 1 - none


def run() -> dict[str, float]:
    """The rates that a bar asks for."""
    found = {"false passes of 10,000, the most of all cases": max(rates[3] for rates in boundary(10_000))}
    found["a false promotion in 30 nights, the most of all plans"] = max(
        nights(plan, n, 10_000) for plan in ("summable", "pocock", "obrien_fleming") for n in (100, 369)
    )
    for name, n, p in graded(2_000):
        found[f"graded, {name}, {n}: false passes"] = float((p <= 0.05).mean())
        found[f"graded, {name}, {n}: in 30 nights"] = over_nights(p)
    return found


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.noninferiority")
    parser.add_argument("--students", type=int, default=10_000)
    parser.add_argument("--graded", type=int, default=2_000)
    parser.add_argument("--series", type=int, default=10_000)
    arguments = parser.parse_args()
    print(f"false passes of {arguments.students:,} boundary students at alpha .05")
    print(f"{'n':>6} {'teacher':>8} {'differ':>7} {'gate':>7} {'normal':>7} {'observed':>9} {'point':>7}")
    for n, acc, *rates in boundary(arguments.students):
        print(
            f"{n:6.0f} {acc:8.2f} {rates[0]:7.3f} {rates[1]:7.4f} {rates[2]:7.4f} {rates[3]:9.4f} {rates[4]:7.4f}",
            flush=True,
        )
    print("\npower at the items that are asked for (teacher .8, 10 % differ)")
    for ratio, n, share in power(arguments.students):
        print(f"{ratio:6.2f} of the teacher, {n:5} items: {share:.4f}", flush=True)
    print(f"\nat least one false promotion in 30 nights, {arguments.series:,} series")
    for plan in ("summable", "pocock", "obrien_fleming"):
        for n in (100, 369):
            print(f"{plan:>15}, {n:4} items: {nights(plan, n, arguments.series):.4f}", flush=True)
    print(f"\nfalse passes of {arguments.graded:,} graded boundary students at each alpha, and in 30 nights")
    for name, n, p in graded(arguments.graded):
        shares = " ".join(f"{alpha:g}: {(p <= alpha).mean():.4f}" for alpha in ALPHAS)
        print(f"{name:>15}, {n:4} items: {shares}; {over_nights(p):.4f}", flush=True)


if __name__ == "__main__":
    main()
