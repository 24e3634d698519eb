"""Whether an object serves: what its kind says of itself in `status`.

A Deployment is ready when all its replicas are of the newest template and available; a StatefulSet likewise; KServe's
kinds carry a condition `Ready` for the generation that was applied. Everything else is done once it is stored.
"""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ready", "waiting", "failed"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far an object is, and why not further."""

    state: State
    reason: str = ""


READY = Readiness("ready")


def readiness(found: dict[str, Any]) -> Readiness:
    """Of an object as the cluster has it."""
    status: dict[str, Any] = found.get("status") or {}
    kind = found.get("kind")
    if kind not in _KINDS:
        return READY
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return Readiness("waiting", "its controller has not seen it yet")
    return _KINDS[kind](found.get("spec") or {}, status)


def _deployment(spec: dict[str, Any], status: dict[str, Any]) -> Readiness:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Readiness("failed", str(condition.get("message", "it makes no progress")))
    wanted = spec.get("replicas", 1)
    new, there, all_of_them = (status.get(k, 0) for k in ("updatedReplicas", "availableReplicas", "replicas"))
    if new == there == all_of_them == wanted:
        return READY
    return Readiness("waiting", f"{min(new, there)} of {wanted} replicas are available")


def _stateful_set(spec: dict[str, Any], status: dict[str, Any]) -> Readiness:
    wanted = spec.get("replicas", 1)
    ready, new = status.get("readyReplicas", 0), status.get("updatedReplicas", wanted)
    if ready == new == wanted:
        return READY
    return Readiness("waiting", f"{min(ready, new)} of {wanted} pods are ready")


def _by_condition(spec: dict[str, Any], status: dict[str, Any]) -> Readiness:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return READY
            reason = condition.get("message") or condition.get("reason") or "not ready yet"
            return Readiness("waiting", str(reason))
    return Readiness("waiting", "its controller has said nothing yet")


_KINDS = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "InferenceService": _by_condition,
    "LLMInferenceService": _by_condition,
}
