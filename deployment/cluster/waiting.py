"""Waiting until objects serve: watched, read again where the server was away, and explained by their pods.

A rollout takes as long as a checkpoint takes to load, and API servers restart meanwhile: that one question goes
unanswered says nothing of the engines, so only the deadline ends the waiting.
"""

import time
from collections.abc import Callable, Collection, Sequence

from deployment.cluster.answers import Unanswered
from deployment.cluster.connection import Cluster, Manifest, place
from deployment.cluster.pods import pods, uid, with_troubles
from deployment.cluster.readiness import Readiness, readiness
from phases.errors import InputError

WATCH_SECONDS = 15
"""One watch lasts at most so long; then the object and its pods are read again."""
PAUSE_SECONDS = 0.2
"""Before the next watch: a server may end one at once."""
AWAY_SECONDS = 1.0
"""Before a server that did not answer is asked again."""
Say = Callable[[str], None]


def wait(cluster: Cluster, manifests: Sequence[Manifest], until: float, known: Collection[str], say: Say) -> None:
    """Until all serve. `known`: the pods (their uids) that were there before, whose troubles are not these.

    Raises `InputError` when one fails, or does not serve by `until`, a time of `time.monotonic()`.
    """
    for one in manifests:
        for waited in (one, *_made_of(one)):
            reached = _wait_for(cluster, waited, until, known, say, made=waited is not one)
            if reached.state == "failed":
                raise InputError(f"{place(waited)} failed: {reached.reason}")
            if reached.state == "waiting":
                raise InputError(f"{place(waited)} is not ready in time: {reached.reason}; give more --timeout")
        say(f"{place(one)} is ready")


def _made_of(one: Manifest) -> list[Manifest]:
    """The Deployment behind an InferenceService, whose own condition `Ready` may still be that of the old pods."""
    about = one["metadata"]
    mode = (about.get("annotations") or {}).get("serving.kserve.io/deploymentMode")
    if one["kind"] != "InferenceService" or mode not in ("Standard", "RawDeployment"):
        return []
    where = {key: about[key] for key in ("namespace",) if key in about}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"{about['name']}-predictor", **where}}
    ]


def _wait_for(
    cluster: Cluster, one: Manifest, until: float, known: Collection[str], say: Say, *, made: bool
) -> Readiness:
    """Watch an object until it is ready or failed, or time is up; what it was last. `made`: by a controller."""
    told: set[str] = set()

    def tell(now: Readiness) -> None:
        if now.reason not in told:
            told.add(now.reason)
            say(f"{place(one)}: {now.reason}")

    while True:
        left, pause = until - time.monotonic(), PAUSE_SECONDS
        try:
            found = cluster.get(one)
            now = _state(cluster, found, known, made)
            if found is not None and now.state == "waiting" and left > 0:
                tell(now)
                now = _after_changes(cluster, found, now, left, tell)
        except Unanswered as error:
            now, pause = Readiness("waiting", str(error)), AWAY_SECONDS
        if now.state != "waiting" or left <= 0:
            return now
        tell(now)
        time.sleep(pause)


def _state(cluster: Cluster, found: Manifest | None, known: Collection[str], made: bool) -> Readiness:
    """How far an object is, with its pods' reasons where it waits."""
    if found is None:
        return Readiness("waiting", "not made yet") if made else Readiness("failed", "somebody deleted it")
    now = readiness(found)
    if now.state != "waiting":
        return now
    return with_troubles(now, [pod for pod in pods(cluster, found) if uid(pod) not in known])


def _after_changes(
    cluster: Cluster, found: Manifest, now: Readiness, left: float, tell: Callable[[Readiness], None]
) -> Readiness:
    """How far it is after one watch."""
    seconds = max(1, min(WATCH_SECONDS, int(left)))
    for change in cluster.changes(found, found["metadata"]["resourceVersion"], seconds):
        now = readiness(change)
        if now.state != "waiting":
            break
        tell(now)
    return now
