"""Hard gates that need no latency: what a model must be before anything is estimated (hardware: `hardware_gates.py`).

Each returns the first constraint that fails with its numbers, or nothing. They come before the score, because a score
adds up what does not trade: no cheap price makes up for a licence that forbids the use.
"""

from collections.abc import Iterable

from deployment.model import Model, Quality
from deployment.physics.weights import layer_bits
from deployment.planning.candidate import Constraint, Rejection, Shown
from deployment.planning.request import Request
from deployment.planning.score import OWN, PERMISSIVE
from deployment.planning.traffic import Workload
from deployment.serving import Precision

VOCABULARY_PADDING = 64
"""Engines pad the vocabulary to a multiple of this before they divide it (vLLM's `vocab_parallel_embedding.py`)."""


def model_gate(model: Model, request: Request, workload: Workload) -> Rejection | None:
    """Licence, task (unless the models are named: then the user knows), context and published quality."""

    def miss(constraint: Constraint, value: Shown, limit: Shown, unit: str = "", words: str = "") -> Rejection:
        return Rejection(model.name, model.name, "", constraint, value, limit, unit, words)

    if request.licences and not _licence_accepted(model.licence, request.licences):
        return miss("licence", model.licence, " or ".join(request.licences))
    if workload.task not in model.tasks and not request.models and model.licence != OWN:
        words = "models that you name are not asked for it"
        return miss("task", ", ".join(model.tasks) or "none published", workload.task, "", words)
    if model.context < workload.context:
        words = "the use case admits requests of this length; --context changes it"
        return miss("context", float(model.context), float(workload.context), "tokens", words)
    floor = request.quality
    if floor is None:
        return None
    found = score_of(model, floor.benchmark)
    if found is None:
        return miss("quality", "no published score", floor.at_least, f"% {floor.benchmark}")
    if found.score < floor.at_least:
        return miss("quality", found.score, floor.at_least, f"% {floor.benchmark}", found.source)
    return None


def score_of(model: Model, benchmark: str) -> Quality | None:
    """The model's published score; names are compared without case."""
    return next((q for q in model.quality if q.benchmark.lower() == benchmark.lower()), None)


def precisions(model: Model, request: Request) -> tuple[list[Precision], list[Rejection]]:
    """The precisions to try, and why others make no sense: engines quantise 16-bit checkpoints only."""
    kept: list[Precision] = []
    rejected = []
    bits = layer_bits(model)
    for precision in request.precisions:
        if precision == "stored" or bits > 15:
            if not (precision == "bf16" and "stored" in request.precisions):
                kept.append(precision)
        else:
            name = f"{model.name} {precision}"
            words = "it is published quantised; only 16-bit checkpoints can be quantised again"
            rejected.append(Rejection(name, model.name, "", "precision", round(bits, 2), 16.0, "bits a weight", words))
    return kept, rejected


def undivided(model: Model, tp: int) -> tuple[str, float] | None:
    """What `tp` does not divide and how many there are of it; None if it divides all.

    Fewer KV heads than accelerators are copied, so `tp` may be a multiple of them as well.
    """
    for group in model.layers:
        if group.heads % tp:
            return "heads", float(group.heads)
        if group.mixer == "attention" and group.kv_heads and group.kv_heads % tp and tp % group.kv_heads:
            return "KV heads", float(group.kv_heads)
    padded = -(-model.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
    return ("vocabulary (padded)", float(padded)) if padded % tp else None


def _licence_accepted(licence: str, accepted: Iterable[str]) -> bool:
    wanted = {name.lower() for name in accepted}
    return licence.lower() in wanted | {OWN} or ("permissive" in wanted and licence.lower() in PERMISSIVE)
