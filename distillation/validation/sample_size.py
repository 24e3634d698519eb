"""How many items a night needs: the size at which the paired test of a ratio has its power.

    n = (z_α + z_power)²·Var(S − r·T) / (p_S − r·p_T)²

with the variance under the alternative: for a teacher at .8, 10 % discordant items, r = .95, α = .05 and 80 % power
that is 369 items for a student that equals the teacher, and 1,027 for one at 98 % of it. (With the variance of H0
beside z_α, as Nam & Blackwelder, Statistics in Medicine 21, 2002, have it, the two are 368 and 1,022.)
"""

import math

from scipy.stats import norm

from phases.errors import InputError


def required_items(
    acc_teacher: float,
    ratio_true: float,
    discordance: float,
    power: float = 0.8,
    alpha: float = 0.05,
    ratio: float = 0.95,
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
    wanted = (float(norm.isf(alpha)) + float(norm.ppf(power))) ** 2 * variance / excess**2
    return max(math.ceil(wanted), fewest_items(acc_teacher, alpha, ratio))


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
