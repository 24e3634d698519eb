"""A plan of another shape: what the earlier one left goes when the new one serves, and comes back when it does not."""

from typing import Any

import pytest

from deployment.cluster.connection import connect
from deployment.cluster.rollout import roll_out
from phases.errors import InputError

LABELS = {"app.kubernetes.io/name": "qwen", "app.kubernetes.io/managed-by": "agent-forge"}


def made(kind: str, name: str = "qwen", **spec: Any) -> dict[str, Any]:
    version = {"Service": "v1", "HorizontalPodAutoscaler": "autoscaling/v2"}.get(kind, "apps/v1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": LABELS}, "spec": spec}


def workload(kind: str, name: str = "qwen") -> dict[str, Any]:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "engine", "image": "vllm"}]}}
    names = {"serviceName": f"{name}-peers"} if kind == "StatefulSet" else {}
    return made(kind, name, selector={"matchLabels": LABELS}, template=template, **names)


def service(name: str = "qwen", **selector: str) -> dict[str, Any]:
    return made("Service", name, selector={**LABELS, **selector}, ports=[{"port": 8000}])


SCALER = made(
    "HorizontalPodAutoscaler",
    scaleTargetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "qwen"},
    maxReplicas=4,
)
ONE = [workload("Deployment"), service(role="server")]
SEVERAL = [service("qwen-0-peers"), workload("StatefulSet", "qwen-0"), service(index="0")]


def run(api_server: Any, manifests: list[dict[str, Any]], **options: Any) -> dict[str, str]:
    with connect(api_server.kubeconfig) as cluster:
        return {one.object: one.action for one in roll_out(cluster, manifests, **{"timeout_s": 20, **options})}


def there(api_server: Any) -> set[str]:
    return {f"{kind}/{name}" for kind, name in api_server.objects}


def test_another_shape_replaces_the_one_before(api_server: Any) -> None:
    run(api_server, SEVERAL)
    done = run(api_server, ONE)
    assert done["StatefulSet/qwen-0"] == done["Service/qwen-0-peers"] == "deleted"
    assert there(api_server) == {"Deployment/qwen", "Service/qwen"}
    run(api_server, [SCALER])  # by itself it replaces nothing
    assert len(there(api_server)) == 3
    run(api_server, SEVERAL)
    assert there(api_server) == {"StatefulSet/qwen-0", "Service/qwen-0-peers", "Service/qwen"}


def test_the_service_turns_when_the_new_pods_serve(api_server: Any) -> None:
    run(api_server, SEVERAL)
    said: list[str] = []
    run(api_server, ONE, say=said.append)
    order = [said.index(f"{what}") for what in ("Deployment/qwen is ready", "Service/qwen changed")]
    deleted = next(i for i, line in enumerate(said) if line.startswith("StatefulSet/qwen-0 deleted"))
    assert order == sorted(order) and order[-1] < deleted


@pytest.mark.parametrize("broken", ["never ready", "no right to delete"])
def test_what_was_there_comes_back(api_server: Any, broken: str) -> None:
    run(api_server, SEVERAL)
    before = {key: one["spec"] for key, one in api_server.objects.items()}
    if broken == "never ready":
        api_server.fate = "failed"
    else:
        api_server.faults["DELETE", "Service", False] = (403, "not you")
    with pytest.raises(InputError, match="everything is again as it was"):
        run(api_server, ONE)
    assert {key: one["spec"] for key, one in api_server.objects.items()} == before


def test_others_objects_stay(api_server: Any) -> None:
    owned = workload("Deployment", "qwen-predictor")
    owned["metadata"] = {**owned["metadata"], "ownerReferences": [{"kind": "InferenceService"}]}
    other = workload("StatefulSet", "mine")
    other["metadata"] = {**other["metadata"], "labels": {"app.kubernetes.io/name": "qwen"}}
    for one in (owned, other):
        api_server.store(one["kind"], one)
    run(api_server, ONE)
    assert there(api_server) == {"Deployment/qwen", "Service/qwen", "Deployment/qwen-predictor", "StatefulSet/mine"}


def test_who_may_not_look_deploys_all_the_same(api_server: Any) -> None:
    api_server.faults["GET", "StatefulSet", False] = (403, "not you")
    said: list[str] = []
    assert set(run(api_server, ONE, say=said.append).values()) == {"created"}
    assert any("what an earlier plan may have left stays" in line for line in said)
