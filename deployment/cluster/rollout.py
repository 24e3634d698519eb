"""A rollout: everything checked by the server first, then applied, watched until it serves, or taken back.

    states = roll_out(cluster, manifests, say=print)

Nothing is stored before the server has accepted a dry run of all manifests. If one of them is refused later, fails or
is not ready in time, or the rollout is interrupted by whatever it be, what was there before is put back and what is new
is deleted, in reverse order. Replicas are replaced one at a time and without spare ones: of several the others go on
serving meanwhile, a single one is away until the new one, or the old one put back, has loaded. A Service turns to pods
of another shape when these are ready, and then what served before is deleted.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from deployment.cluster.allowed import check_kinds, check_shape
from deployment.cluster.connection import Cluster, Manifest, place
from deployment.cluster.leftovers import as_scaled, autoscalers, leftovers
from deployment.cluster.pods import pods, uid
from deployment.cluster.waiting import Say, wait
from phases.errors import InputError

TIMEOUT_SECONDS = 4200.0
"""Longer than a checkpoint may take to load (`LOAD_SECONDS` of the manifests), with time to find a node before."""
_Pair = tuple[Manifest, Manifest | None]
"""What is applied, and what was there before."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One object after a rollout."""

    object: str
    """`Deployment/qwen`."""
    action: str
    """`created`, `changed`, `deleted`, or `checked` (a dry run)."""


def roll_out(
    cluster: Cluster,
    manifests: Sequence[Manifest],
    *,
    timeout_s: float = TIMEOUT_SECONDS,
    dry_run: bool = False,
    force: bool = False,
    say: Say = lambda line: None,
) -> list[Applied]:
    """Apply `manifests` and wait until all of them serve.

    Raises `InputError` with the server's reason; the cluster is then as it was before, or the message says what is not.
    """
    check_shape(manifests)
    check_kinds(manifests)
    before = [cluster.get(one) for one in manifests]
    manifests = as_scaled(manifests, before, autoscalers(cluster))
    for one in manifests:
        cluster.apply(one, dry_run=True, force=force)
    say(f"the server accepts all {len(manifests)}")
    if dry_run:
        return [Applied(place(one), "checked") for one in manifests]
    stale = _stale(cluster, manifests, say)
    known = {uid(pod) for old in before if old for pod in pods(cluster, old)}
    pairs = list(zip(manifests, before, strict=True))
    touched: list[_Pair] = []
    until = time.monotonic() + timeout_s
    try:
        for group in ([p for p in pairs if not _turns(*p)], [p for p in pairs if _turns(*p)]):
            for one, old in group:
                touched.append((one, old))
                cluster.apply(one, force=force)
                say(f"{place(one)} {'changed' if old else 'created'}")
            wait(cluster, [one for one, _ in group], until, known, say)
        for one in stale:
            touched.append((one, one))
            cluster.delete(one)
            say(f"{place(one)} deleted: the plan no longer has it")
    except BaseException as error:  # whatever it is, nothing may stay half done
        left = _take_back(cluster, touched, say)
        if not isinstance(error, InputError):
            say(_outcome(left))
            raise
        raise InputError(f"{error}; {_outcome(left)}") from None
    done = [Applied(place(one), "changed" if old else "created") for one, old in pairs]
    return [*done, *(Applied(place(one), "deleted") for one in stale)]


def _stale(cluster: Cluster, manifests: Sequence[Manifest], say: Say) -> list[Manifest]:
    """What an earlier plan of another shape left; nothing, which is said, where it may not be looked for."""
    try:
        return leftovers(cluster, manifests)
    except InputError as error:
        say(f"what an earlier plan may have left stays: {error}")
        return []


def _turns(one: Manifest, old: Manifest | None) -> bool:
    """A Service that selects other pods than before: to be applied when those are ready."""
    return one["kind"] == "Service" and bool(old) and (old or {})["spec"].get("selector") != one["spec"].get("selector")


def _take_back(cluster: Cluster, touched: Sequence[_Pair], say: Say) -> list[str]:
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
