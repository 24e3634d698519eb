"""What a plan of another shape left in the cluster, and how many replicas an autoscaler has made of it.

A plan whose replicas came to fit one instance is a Deployment where StatefulSets were: with other names, so that no
apply touches them, and they would go on holding their accelerators.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from deployment.cluster.connection import MANAGER, Cluster, Manifest
from phases.errors import InputError

NAME, MANAGED_BY = "app.kubernetes.io/name", "app.kubernetes.io/managed-by"
_SCALERS = (("autoscaling/v2", "HorizontalPodAutoscaler"), ("keda.sh/v1alpha1", "ScaledObject"))
_WORKLOADS = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"))


def leftovers(cluster: Cluster, manifests: Sequence[Manifest]) -> list[Manifest]:
    """Workloads, Services and autoscalers that we made under the name of `manifests`, and that these lack.

    None where no workload is among them: an autoscaler applied by itself replaces nothing. What belongs to another
    object (an InferenceService's Deployment has its labels) is that object's.
    """
    labels = [one["metadata"].get("labels") or {} for one in manifests if one["kind"] in ("Deployment", "StatefulSet")]
    named = {found[NAME] for found in labels if found.get(MANAGED_BY) == MANAGER and NAME in found}
    kept = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    made = []
    for name in sorted(named):
        for version, kind in (*_WORKLOADS, ("v1", "Service")):
            made += cluster.listed(version, kind, {NAME: name, MANAGED_BY: MANAGER})
    stale = [
        one
        for one in made
        if (one["kind"], one["metadata"]["name"]) not in kept and not one["metadata"].get("ownerReferences")
    ]
    gone = {(one["kind"], one["metadata"]["name"]) for one in stale}
    return [one for one in _ours(cluster, named) if _target(one) in gone] + stale


def autoscalers(cluster: Cluster) -> list[Manifest]:
    """Those of the namespace, whoever made them; KEDA makes one for each object of its own kind."""
    with suppress(InputError):  # not to be read: what they hold is then a conflict, which says so
        return cluster.listed(*_SCALERS[0])
    return []


def _ours(cluster: Cluster, named: set[str]) -> list[Manifest]:
    """The autoscalers that we made under these names."""
    found: list[Manifest] = []
    for version, kind in _SCALERS:
        for name in sorted(named):
            with suppress(InputError):  # not installed, or not to be read: then none of ours is there
                found += cluster.listed(version, kind, {NAME: name, MANAGED_BY: MANAGER})
    return found


def as_scaled(
    manifests: Sequence[Manifest], before: Sequence[Manifest | None], there: Sequence[Manifest]
) -> list[Manifest]:
    """`manifests` with the replicas that autoscalers, applied now or `there`, have made of what was there `before`.

    The plan's own number would be refused as a conflict with the autoscaler, or undo its work. To leave the number out
    is no way: a field that its only owner no longer names is reset, to one replica.
    """
    scaled = {
        _target(one) for one in (*manifests, *there) if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    made = []
    for one, old in zip(manifests, before, strict=True):
        number = (old or {}).get("spec", {}).get("replicas")
        if number is not None and (one["kind"], one["metadata"]["name"]) in scaled:
            one = {**one, "spec": {**one["spec"], "replicas": number}}
        made.append(one)
    return made


def _target(scaler: Manifest) -> tuple[str, Any]:
    """Kind and name of what an autoscaler scales."""
    target = (scaler.get("spec") or {}).get("scaleTargetRef") or {}
    return str(target.get("kind", "Deployment")), target.get("name")
