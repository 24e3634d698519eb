"""How far a figure may be off: 80 % intervals from errors out of fold, wider where the fit has seen nothing alike.

`report.intervals` of `coefficients.json` has the 10th and 90th percentile of log(measured / predicted), for each engine
and for all; a system of another engine, generation or format than the fit's gets them stretched.
"""

import math
from typing import NamedTuple

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.coefficients import Coefficients
from deployment.physics.precision import weight_format
from deployment.serving import Serving

STRETCH = 1.5
"""For each thing that the fit has not seen: errors of a left-out model or accelerator are about so much larger than
those of one that was in the fit (in sample 16 and 34 %, out of fold 22 and 42 %)."""


class Spread(NamedTuple):
    """Logarithms of (measured / predicted) that 10 % fall below and 10 % exceed."""

    low: float
    high: float

    def stretched(self, times: float) -> "Spread":
        """Wider by so much, about 0."""
        return Spread(min(self.low, 0.0) * times, max(self.high, 0.0) * times)


def spread(
    known: Coefficients, model: Model, accelerator: Accelerator, serving: Serving
) -> tuple[tuple[Spread, Spread], tuple[str, ...]]:
    """Spreads of TTFT and TPOT, and in words what the fit has not seen of this system."""
    unseen = _unseen(known, model, accelerator, serving)
    of_engine = known.report["intervals"].get(serving.engine, known.report["intervals"]["all"])
    ttft, tpot = (Spread(*of_engine[name]).stretched(STRETCH ** len(unseen)) for name in ("ttft", "tpot"))
    notes = (f"not among the measured points: {', '.join(unseen)}; intervals are wider",) if unseen else ()
    return (ttft, tpot), notes


def bounds(spread: Spread) -> tuple[float, float]:
    """Factors of the lower and the upper end."""
    return math.exp(spread.low), math.exp(spread.high)


def _unseen(known: Coefficients, model: Model, accelerator: Accelerator, serving: Serving) -> list[str]:
    """What the fit has not seen of this system."""
    seen = known.report["seen"]
    kept = weight_format(model, serving)
    unseen = []
    if serving.engine not in seen["engines"]:
        unseen.append(f"engine {serving.engine}")
    if accelerator.name not in seen["accelerators"]:
        unseen.append(f"accelerator {accelerator.name}")
    if kept not in seen["formats"]:
        unseen.append(f"{kept} weights")
    if serving.pp > 1:
        unseen.append("pipeline parallelism")
    return unseen
