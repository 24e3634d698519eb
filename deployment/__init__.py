"""From a model to a deployment plan: which hardware, what latency with what certainty, what it costs, and manifests.

    from deployment import Load, Request, Serving, accelerator, estimate, find_model, recommend

    figures = estimate(find_model("Qwen/Qwen3-32B"), accelerator("h100-sxm"), Serving(tp=2), Load(1024, 256, 16))
    print(figures.tpot.value, figures.tpot.low, figures.tpot.high)      # seconds
    print(recommend(Request(use_case="rag", models=("Qwen/Qwen3-32B",))).chosen.system)

Works offline, on the CPU, in milliseconds, and without torch. Importing the package imports nothing else: what a name
needs is imported when the name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployment.atlas.catalogue import model as find_model
    from deployment.atlas.catalogue import models, select
    from deployment.atlas.reading import read_config
    from deployment.hardware import Accelerator, Offer
    from deployment.market.accelerators import accelerator, accelerators
    from deployment.market.offers import offers
    from deployment.model import Model
    from deployment.physics.estimate import estimate, offline_throughput
    from deployment.physics.memory import memory_plan
    from deployment.planning.recommend import recommend
    from deployment.planning.request import Request
    from deployment.planning.what_if import what_if
    from deployment.serving import Load, Serving

_PLACES = {
    "Accelerator": "hardware.Accelerator",
    "Load": "serving.Load",
    "Model": "model.Model",
    "Offer": "hardware.Offer",
    "Request": "planning.request.Request",
    "Serving": "serving.Serving",
    "accelerator": "market.accelerators.accelerator",
    "accelerators": "market.accelerators.accelerators",
    "estimate": "physics.estimate.estimate",
    "find_model": "atlas.catalogue.model",
    "memory_plan": "physics.memory.memory_plan",
    "models": "atlas.catalogue.models",
    "offers": "market.offers.offers",
    "offline_throughput": "physics.estimate.offline_throughput",
    "read_config": "atlas.reading.read_config",
    "recommend": "planning.recommend.recommend",
    "select": "atlas.catalogue.select",
    "what_if": "planning.what_if.what_if",
}
__all__ = [  # as in _PLACES, where they are
    "Accelerator", "Load", "Model", "Offer", "Request", "Serving", "accelerator", "accelerators", "estimate",
    "find_model", "memory_plan", "models", "offers", "offline_throughput", "read_config", "recommend", "select",
    "what_if",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What `name` stands for, imported now."""
    if name not in _PLACES:
        raise AttributeError(f"module 'deployment' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(importlib.import_module(f"deployment.{module}"), attribute)


def __dir__() -> list[str]:
    """What completion in a shell offers."""
    return __all__
