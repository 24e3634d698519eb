"""What kind of system it is: the features that the fitted offsets may depend on, and what the fit has seen of it."""

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.coefficients import FEATURES
from deployment.physics.precision import unpacked, weight_format
from deployment.serving import Serving


def features(
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    *,
    disaggregated: bool = False,
    guessed: bool = False,
) -> dict[str, float]:
    """Every one of `coefficients.FEATURES`, 0 or 1; `guessed`: nobody knows how many workers there are."""
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
        "older": "fp4" not in accelerator.flops,
        "dp": serving.dp > 1,
        "ep": serving.ep > 1,
        "fp4": kept in ("nvfp4", "mxfp4"),
        "bf16": kept == "bf16",
        "int4": kept == "int4",
        "unpacked": unpacked(model, accelerator, serving),
    }
    for pair in (name for name in FEATURES if " " in name):
        first, second = pair.split()
        present[pair] = present.get(first, False) and present[second]
    return {name: float(bool(present.get(name, False))) for name in FEATURES}
