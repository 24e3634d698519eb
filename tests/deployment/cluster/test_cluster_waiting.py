"""Waiting: through a server that is away, with the pods' own reasons, and for what stands behind an object."""

import copy
from typing import Any

import pytest

from deployment.cluster import waiting
from deployment.cluster.connection import connect
from deployment.cluster.rollout import Applied, roll_out
from phases.errors import InputError

LABELS = {"app": "qwen"}


def deployment(image: str = "new") -> dict[str, Any]:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "engine", "image": image}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "qwen"}, "spec": spec}


def pod(reason: str, restarts: int = 0, uid: str = "new-pod") -> dict[str, Any]:
    waits = {
        "name": "engine",
        "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": "so it is"}},
    }
    about = {"name": "qwen-1", "uid": uid, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "status": {"containerStatuses": [waits]}}


def run(api_server: Any, manifests: list[dict[str, Any]], **options: Any) -> list[Applied]:
    with connect(api_server.kubeconfig) as cluster:
        return roll_out(cluster, manifests, **{"timeout_s": 20, **options})


@pytest.mark.parametrize("method", ["GET", "WATCH"])
def test_a_server_that_restarts_takes_nothing_down(
    api_server: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.05)
    real = waiting.readiness
    asked: list[str] = []

    def readiness(found: dict[str, Any]) -> Any:
        if not asked and method == "WATCH":
            api_server.away = 3
        asked.append(method)
        return real(found)

    def say(line: str) -> None:
        if "created" in line and method == "GET":
            api_server.away = 3
        said.append(line)

    said: list[str] = []
    api_server.delay = 0.4
    monkeypatch.setattr(waiting, "readiness", readiness)
    assert run(api_server, [deployment()], say=say)[0].action == "created"
    assert api_server.away == 0 and any("503 the server is restarting" in line for line in said)


def test_a_server_that_stays_away_is_waited_for_until_the_deadline(
    api_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.05)
    api_server.faults["WATCH", "Deployment", False] = (429, "too many")
    api_server.fate = "never"
    said: list[str] = []
    with pytest.raises(InputError, match="not ready in time: .*everything is again as it was"):
        run(api_server, [deployment()], timeout_s=1, say=said.append)
    assert sum("429 too many" in line for line in said) == 1, "said once"
    assert sum(ask[0] == "WATCH" for ask in api_server.asked) > 3


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (pod("InvalidImageName"), r"failed: its container engine does not start \(InvalidImageName: so it is\)"),
        (pod("CrashLoopBackOff", 5), "failed: its container engine crashed 5 times"),
        (pod("CrashLoopBackOff", 1), "not ready in time: .*; its container engine crashed 1 times"),
        (pod("ImagePullBackOff"), r"not ready in time: .*does not start \(ImagePullBackOff: so it is\)"),
        (pod("ContainerCreating"), "not ready in time: its controller has not seen it yet; give"),
    ],
)
def test_pods_say_why(api_server: Any, monkeypatch: pytest.MonkeyPatch, trouble: dict[str, Any], message: str) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 1)
    api_server.fate, api_server.made = "never", trouble
    with pytest.raises(InputError, match=message):
        run(api_server, [deployment()], timeout_s=20 if "failed" in message else 2)


def test_no_node_is_said_and_pods_from_before_are_not_blamed(api_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 1)
    run(api_server, [deployment("old")])
    api_server.store("Pod", pod("CrashLoopBackOff", 99, uid="old-pod"))
    homeless = {**pod(""), "metadata": {"name": "qwen-2", "uid": "new-pod", "labels": LABELS}}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no gpu"}
    homeless["status"] = {"conditions": [condition]}
    api_server.fate, api_server.made = "never", homeless
    with pytest.raises(InputError, match=r"it has no node \(Unschedulable: 0/3 nodes: no gpu\)") as caught:
        run(api_server, [deployment("new")], timeout_s=2)
    assert "crashed" not in str(caught.value)


def test_pods_that_may_not_be_read_stop_nothing(api_server: Any) -> None:
    api_server.faults["GET", "Pod", False] = (403, "not you")
    assert run(api_server, [deployment()])[0].action == "created"


def test_a_changed_inference_service_is_ready_when_its_new_pods_are(api_server: Any) -> None:
    """Its condition is that of the pods before; its Deployment's counts are not."""
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen", "annotations": annotations},
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "new"}]}},
    }
    made = copy.deepcopy(deployment())
    made["metadata"] |= {"name": "qwen-predictor", "generation": 2}
    made["status"] = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 0, "availableReplicas": 1}
    api_server.made = made
    with pytest.raises(InputError, match="Deployment/qwen-predictor is not ready in time: 0 of 1 replicas"):
        run(api_server, [service], timeout_s=2)
    made["status"]["updatedReplicas"] = 1
    assert run(api_server, [service])[0].action == "created"
