"""What may be asked: loads and splits that can be. The message says which number is wrong and what it has to be."""

import math

from deployment.model import Model
from deployment.serving import Load, Serving
from phases.errors import InputError

MOST_IN_FLIGHT = 1e6
MOST_PER_SECOND = 1e6


def check_load(load: Load, model: Model, serving: Serving) -> None:
    """Raises InputError for a load that cannot be, or that the model's context does not hold."""
    for name in ("prompt_tokens", "output_tokens"):
        if getattr(load, name) < 1:
            raise InputError(f"{name} = {getattr(load, name)}: a request has at least 1 token")
    if (load.concurrency is None) == (load.rate is None):
        raise InputError("a load has either concurrency (requests in flight) or rate (requests per second), not both")
    _in_range("concurrency", load.concurrency, MOST_IN_FLIGHT)
    _in_range("rate", load.rate, MOST_PER_SECOND)
    longest = serving.max_context or model.context
    if load.prompt_tokens + load.output_tokens > longest:
        asked = f"{load.prompt_tokens} + {load.output_tokens} tokens"
        raise InputError(f"{asked} are more than the {longest} that {model.name} is served with")


def check_split(model: Model, serving: Serving) -> None:
    """Raises InputError where attention's heads do not divide, or a degree or a share cannot be."""
    for name in ("tp", "pp", "dp"):
        if getattr(serving, name) < 1:
            raise InputError(f"{name} = {getattr(serving, name)}: at least 1")
    for group in model.layers:
        heads = group.heads if group.mixer in ("attention", "latent") else 0
        if heads % serving.tp:
            fits = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
            raise InputError(f"tp = {serving.tp}: does not divide the {heads} heads of {model.name}; {fits} do")
    if not 0 <= serving.prefix_cached <= 1:
        raise InputError(f"prefix_cached = {serving.prefix_cached}: a share of the prompt, from 0 to 1")


def _in_range(name: str, value: float | None, most: float) -> None:
    if value is not None and not (0 < value <= most and math.isfinite(value)):
        raise InputError(f"{name} = {value}: above 0 and at most {most:g}")
