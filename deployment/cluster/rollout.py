"""A rollout: everything checked by the server first, then applied, watched until it serves, or taken back.

    states = roll_out(cluster, manifests, timeout_s=1800, say=print)

Nothing is stored before the server has accepted a dry run of all manifests. If one of them is refused later, fails or
is not ready in time, or the user presses Ctrl-C, what was there before is put back and what is new is deleted, in
reverse order: a deployment that serves goes on serving.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deployment.cluster.connection import Cluster, Manifest, place
from deployment.cluster.readiness import Readiness, readiness
from phases.errors import InputError

KINDS = {
    "Deployment", "StatefulSet", "Service", "HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor",
    "InferenceService", "LLMInferenceService", "ConfigMap",
}  # fmt: skip
"""What may be applied: what plans consist of. No Secret, no role, nothing of the cluster's own."""
WATCH_SECONDS = 60
"""One watch lasts at most so long; then the object is read again."""
PAUSE_SECONDS = 0.2
"""Before the next watch: a server may end one at once."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One object after a rollout."""

    object: str
    """`Deployment/qwen`."""
    action: str
    """`created`, `changed`, or `checked` (a dry run)."""


def roll_out(
    cluster: Cluster,
    manifests: Sequence[Manifest],
    *,
    timeout_s: float = 1800.0,
    dry_run: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Applied]:
    """Apply `manifests` and wait until all of them serve.

    Raises `InputError` with the server's reason; the cluster is then as it was before, or the message says what is not.
    """
    _check(manifests)
    before = [cluster.get(one) for one in manifests]
    for one in manifests:
        cluster.apply(one, dry_run=True, force=force)
    say(f"the server accepts all {len(manifests)}")
    if dry_run:
        return [Applied(place(one), "checked") for one in manifests]
    touched: list[tuple[Manifest, Manifest | None]] = []
    try:
        for one, old in zip(manifests, before, strict=True):
            touched.append((one, old))
            cluster.apply(one, force=force)
            say(f"{place(one)} {'changed' if old else 'created'}")
        _wait(cluster, manifests, timeout_s, say)
    except (InputError, KeyboardInterrupt) as error:
        left = _take_back(cluster, touched, say)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(f"{error}; {_outcome(left)}") from None
    return [Applied(place(one), "changed" if old else "created") for one, old in touched]


def _check(manifests: Sequence[Manifest]) -> None:
    """Raise `InputError` for what is no manifest of a plan."""
    if not manifests:
        raise InputError("there is nothing to apply; give manifests that `forge recommend --manifests` wrote")
    for one in manifests:
        about: Any = one.get("metadata")
        if not (isinstance(about, dict) and about.get("name") and one.get("apiVersion")):
            raise InputError(f"{one.get('kind') or 'a document'}: no manifest; it needs apiVersion and metadata.name")
        if one.get("kind") not in KINDS:
            raise InputError(f"{place(one)}: forge deploy applies {', '.join(sorted(KINDS))}; use kubectl for the rest")
    scalers = [one["kind"] for one in manifests if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    if len(set(scalers)) > 1:
        raise InputError("a HorizontalPodAutoscaler and a ScaledObject pull the same replicas; apply one of the two")


def _wait(cluster: Cluster, manifests: Sequence[Manifest], timeout_s: float, say: Callable[[str], None]) -> None:
    until = time.monotonic() + timeout_s
    for one in manifests:
        reached = _wait_for(cluster, one, until, say)
        if reached.state == "failed":
            raise InputError(f"{place(one)} failed: {reached.reason}")
        if reached.state == "waiting":
            raise InputError(f"{place(one)} is not ready after {timeout_s:g} s: {reached.reason}; give more --timeout")
        say(f"{place(one)} is ready")


def _wait_for(cluster: Cluster, one: Manifest, until: float, say: Callable[[str], None]) -> Readiness:
    """Watch an object until it is ready or failed, or time is up; what it was last."""
    said = ""
    while True:
        found = cluster.get(one)
        if found is None:
            return Readiness("failed", "somebody deleted it")
        now = readiness(found)
        version = found["metadata"]["resourceVersion"]
        left = until - time.monotonic()
        if now.state != "waiting" or left <= 0:
            return now
        for change in cluster.changes(one, version, max(1, min(WATCH_SECONDS, int(left)))):
            now = readiness(change)
            if now.state != "waiting":
                return now
            if now.reason != said:
                said = now.reason
                say(f"{place(one)}: {said}")
            if time.monotonic() >= until:
                return now
        time.sleep(PAUSE_SECONDS)


def _take_back(
    cluster: Cluster, touched: Sequence[tuple[Manifest, Manifest | None]], say: Callable[[str], None]
) -> list[str]:
    """Undo in reverse order; what could not be undone, in words."""
    left = []
    for one, old in reversed(touched):
        try:
            if old is None:
                cluster.delete(one)
            else:
                cluster.put_back(old)
            say(f"{place(one)} {'put back' if old else 'deleted'}")
        except InputError as error:
            left.append(str(error))
    return left


def _outcome(left: Sequence[str]) -> str:
    if not left:
        return "everything is again as it was"
    return "and this could not be undone: " + "; ".join(left)
