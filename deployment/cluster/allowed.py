"""What may be sent to a cluster: documents that are manifests, of the kinds that a plan consists of.

check_shape(manifests)      # each has apiVersion, kind and metadata.name
check_kinds(manifests)      # and is nothing of the cluster's own
"""

from collections.abc import Sequence
from typing import Any

from deployment.cluster.connection import Manifest, place
from phases.errors import InputError

KINDS = {
    "Deployment", "StatefulSet", "Service", "HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor",
    "InferenceService", "LLMInferenceService", "ConfigMap",
}  # fmt: skip
"""What may be applied. No Secret, no role."""


def check_shape(manifests: Sequence[Manifest]) -> None:
    """Raise `InputError` for what is no manifest, and where there is none."""
    if not manifests:
        raise InputError("there is nothing to apply; give manifests that `forge recommend --manifests` wrote")
    for one in manifests:
        about: Any = one.get("metadata")
        name = about.get("name") if isinstance(about, dict) else None
        if not all(isinstance(text, str) and text for text in (one.get("apiVersion"), one.get("kind"), name)):
            what = one.get("kind") or "a document"
            raise InputError(f"{what}: no manifest; it needs apiVersion, kind and metadata.name, each a text")


def check_kinds(manifests: Sequence[Manifest]) -> None:
    """Raise `InputError` for what a plan does not consist of, and for two autoscalers."""
    for one in manifests:
        if one["kind"] not in KINDS:
            raise InputError(f"{place(one)}: forge deploy applies {', '.join(sorted(KINDS))}; use kubectl for the rest")
    scalers = {one["kind"] for one in manifests if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")}
    if len(scalers) > 1:
        raise InputError("a HorizontalPodAutoscaler and a ScaledObject pull the same replicas; apply one of the two")
