"""A model on an accelerator, served in one way: what neither lengths nor load change, found once.

ready = setup(model, accelerator, Serving(tp=2))         # memory, factors, intervals, corrections
prepare_lengths(ready, 1024, 256).at(Load(1024, 256, rate=3.0))       # `estimate.py`
"""

from dataclasses import dataclass

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.calibration_store import Correction, correction
from deployment.physics.coefficients import Coefficients, shipped, shipped_factors
from deployment.physics.decode import Factors
from deployment.physics.intervals import Spread, spread
from deployment.physics.memory import memory_plan
from deployment.physics.requests import check_split
from deployment.physics.systems import features
from deployment.serving import MemoryPlan, Serving


@dataclass(frozen=True, slots=True)
class Setup:
    """One system, before any request."""

    model: Model
    accelerator: Accelerator
    serving: Serving
    memory: MemoryPlan
    known: Coefficients
    features: dict[str, float]
    factors: Factors
    spreads: tuple[Spread, Spread]
    """TTFT's and TPOT's."""
    corrected: Correction
    notes: tuple[str, ...]


def setup(model: Model, accelerator: Accelerator, serving: Serving, corrected: Correction | None = None) -> Setup:
    """The system; `corrected`: instead of what was observed of it. Raises InputError for a split that cannot be."""
    check_split(model, serving)
    known, kind = shipped(), features(model, accelerator, serving)
    spreads, notes = spread(known, model, accelerator, serving)
    if corrected is None:
        corrected = correction(model.name, accelerator.name, serving.engine)
    memory, factors = memory_plan(model, accelerator, serving), shipped_factors(tuple(kind.items()))
    return Setup(model, accelerator, serving, memory, known, kind, factors, spreads, corrected, notes)
