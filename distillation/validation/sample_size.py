"""How many items a night needs: the size at which the paired test of a ratio has its power.

    n = (z_α·√V₀ + z_power·√V₁)² / (p_S − r·p_T)²

V₁ is the variance of S − r·T an item under the alternative, V₀ what the score test takes it for: its likelihood's
maximum under H0 (`paired_score`; Nam & Blackwelder, Statistics in Medicine 21, 2002). For a teacher at .8, 10 %
discordant items, r = .95 and α = .05, 80 % power takes 401 items of a student that equals the teacher and 1,080 of one
at 98 % of it. With V₁ in both places (`restricted=False`) it would be 369 and 1,027: that is the size for a test with
the observed variance, which does not hold its level. Measured with the gate's test over 10,000 students: 79.8 and
80.3 % power at ours, 76.3 and 78.6 % at those.
"""

import math

import numpy as np
from scipy.stats import norm

from distillation.validation.paired_score import restricted_counts
from phases.errors import InputError


def required_items(
    acc_teacher: float,
    ratio_true: float,
    discordance: float,
    power: float = 0.8,
    alpha: float = 0.05,
    ratio: float = 0.95,
    restricted: bool = True,
) -> int:
    """Items after which a student at `ratio_true` of its teacher is shown to be above `ratio` (or, if it is, below it).

    `discordance` is the share of items that exactly one of the two has right. Raises `InputError` for accuracies and
    discordances that cannot be together, and where `ratio_true` equals `ratio`: no number of items shows a tie.
    """
    _check(acc_teacher, ratio_true, discordance, power, alpha, ratio)
    excess = acc_teacher * (ratio_true - ratio)
    student_only = (discordance - acc_teacher * (1 - ratio_true)) / 2
    teacher_only = discordance - student_only
    both = acc_teacher - teacher_only
    variance = (1 - ratio) ** 2 * both + student_only + ratio**2 * teacher_only - excess**2
    if restricted:
        ours, theirs = restricted_counts(np.array(both), np.array(student_only), np.array(teacher_only), ratio)
        assumed = ratio * float(ours + theirs)
    else:
        assumed = variance
    spread = float(norm.isf(alpha)) * math.sqrt(assumed) + float(norm.ppf(power)) * math.sqrt(max(variance, 0.0))
    wanted = math.ceil((spread / excess) ** 2)
    return max(wanted, fewest_items(acc_teacher, alpha, ratio)) if ratio < ratio_true <= 1 else wanted


def fewest_items(acc_teacher: float, alpha: float, ratio: float) -> int:
    """Items below which even a student that always agrees with its teacher cannot pass: rᵐ ≤ α for m right ones."""
    return 1 if ratio == 1 else math.ceil(math.log(alpha) / math.log(ratio) / acc_teacher)


def _check(acc_teacher: float, ratio_true: float, discordance: float, power: float, alpha: float, ratio: float) -> None:
    if not (0 < acc_teacher <= 1 and 0 < alpha < 1 and 0 < power < 1 and 0 < ratio <= 1 and ratio_true >= 0):
        raise InputError("acc_teacher, alpha, power and ratio are shares above 0, alpha and power below 1")
    if ratio_true == ratio:
        raise InputError(
            f"a student at exactly {ratio:g} of its teacher is on the line: no number of items shows a side"
        )
    least = acc_teacher * abs(1 - ratio_true)
    most = min(acc_teacher * (1 + ratio_true), 2 - acc_teacher * (1 + ratio_true))
    if not least - 1e-12 <= discordance <= most + 1e-12:
        raise InputError(
            f"a teacher at {acc_teacher:g} and a student at {ratio_true:g} of it differ on {least:g} to {most:g} of "
            f"the items, not on {discordance:g}"
        )
