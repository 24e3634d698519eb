"""Why an object's pods do not start, in the scheduler's and the node's own words.

A Deployment says only how many of its replicas are there. That an image cannot be pulled, that an engine crashes, or
that no node has the accelerators stands in its pods.
"""

from collections.abc import Collection
from typing import Any

from deployment.cluster.connection import Cluster, Manifest
from deployment.cluster.readiness import Readiness
from phases.errors import InputError

HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}
"""Reasons that no waiting changes; an image that cannot be pulled may only be slow, or its registry away."""
CRASHES = 5
"""An engine that ended so often will not come up; by then the node has waited for minutes between its tries."""


def pods(cluster: Cluster, found: Manifest) -> list[Manifest]:
    """The pods of an object as the cluster has it; none where its kind has none, or they may not be read."""
    labels: dict[str, str] = {}
    if found["kind"] in ("Deployment", "StatefulSet"):
        labels = found["spec"].get("selector", {}).get("matchLabels") or {}
    elif found["kind"] == "InferenceService":
        labels = {"serving.kserve.io/inferenceservice": found["metadata"]["name"]}
    if not labels:
        return []
    try:
        return cluster.listed("v1", "Pod", labels)
    except InputError:  # they explain; without them the rollout is as good
        return []


def uid(pod: Manifest) -> str:
    """What tells a pod from one of the same name before it."""
    return str(pod["metadata"].get("uid", ""))


def with_troubles(now: Readiness, there: Collection[Manifest]) -> Readiness:
    """`now`, waiting, with what the pods wait for; failed where no waiting helps."""
    troubles = dict.fromkeys(trouble for pod in there for trouble in _troubles(pod))
    if not troubles:
        return now
    hopeless = [text for text, certain in troubles if certain]
    if hopeless:
        return Readiness("failed", hopeless[0])
    return Readiness(now.state, "; ".join([now.reason, *(text for text, _ in troubles)]))


def _troubles(pod: Manifest) -> list[tuple[str, bool]]:
    """Reasons, and whether no waiting changes them."""
    status: dict[str, Any] = pod.get("status") or {}
    found = [
        (_said("it has no node", condition), False)
        for condition in status.get("conditions") or ()
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
    ]
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason, crashes = waiting.get("reason", ""), one.get("restartCount", 0)
        if reason in ("", "ContainerCreating", "PodInitializing"):
            continue
        crashing = reason == "CrashLoopBackOff"
        what = f"its container {one.get('name')} " + (f"crashed {crashes} times" if crashing else "does not start")
        found.append((_said(what, waiting), reason in HOPELESS or (crashing and crashes >= CRASHES)))
    return found


def _said(what: str, told: dict[str, Any]) -> str:
    words = " ".join(str(told.get("message") or "").split())[:200]
    return f"{what} ({told.get('reason', '')}{f': {words}' if words else ''})"
