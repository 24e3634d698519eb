"""What kind of system it is: the features that the fitted offsets may depend on, and what the fit has seen of it."""

from functools import lru_cache

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.coefficients import FEATURES
from deployment.physics.precision import unpacked, weight_format
from deployment.physics.weights import REMEMBERED
from deployment.serving import Serving

PAIRS = tuple((name, *name.split()) for name in FEATURES if " " in name)
"""Features that are two others together."""


def features(
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    *,
    disaggregated: bool = False,
    guessed: bool = False,
) -> dict[str, float]:
    """Every one of `coefficients.FEATURES`, 0 or 1; `guessed`: nobody knows how many workers there are."""
    older, narrow = "fp4" not in accelerator.flops, unpacked(model, accelerator, serving)
    return dict(_features(model, serving, older, narrow, disaggregated, guessed))


@lru_cache(REMEMBERED)
def _features(
    model: Model, serving: Serving, older: bool, narrow: bool, disaggregated: bool, guessed: bool
) -> dict[str, float]:
    """All but what the accelerator says: whether it is older, and whether weights are unpacked on it."""
    mixers = {group.mixer for group in model.layers}
    kept = weight_format(model, serving)
    present = {
        serving.engine: True,
        "disaggregated": disaggregated,
        "guessed": guessed,
        "latent": "latent" in mixers,
        "state": "state" in mixers,
        "window": any(group.mixer == "attention" and group.window for group in model.layers),
        "moe": any(group.experts for group in model.layers),
        "older": older,
        "dp": serving.dp > 1,
        "ep": serving.ep > 1,
        "fp4": kept in ("nvfp4", "mxfp4"),
        "bf16": kept == "bf16",
        "int4": kept == "int4",
        "unpacked": narrow,
    }
    for pair, first, second in PAIRS:
        present[pair] = present.get(first, False) and present[second]
    return {name: float(bool(present.get(name, False))) for name in FEATURES}
