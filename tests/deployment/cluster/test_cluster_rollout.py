"""Rollouts against the API server's stand-in: checked first, applied, watched, taken back."""

import copy
from typing import Any

import pytest

from deployment.cluster.connection import connect
from deployment.cluster.rollout import TIMEOUT_SECONDS, Applied, roll_out
from deployment.manifests.kubernetes import LOAD_SECONDS
from flows.up import Stopped
from phases.errors import InputError

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "qwen"},
    "spec": {"selector": {"app": "qwen"}, "ports": [{"port": 8000}]},
}


def deployment(replicas: int = 2, image: str = "vllm/vllm-openai:v0.22.0") -> dict[str, Any]:
    pod = {"containers": [{"name": "engine", "image": image}]}
    template = {"metadata": {"labels": {"app": "qwen"}}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "qwen"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "qwen"}, "spec": spec}


def run(api_server: Any, manifests: list[dict[str, Any]], **options: Any) -> list[Applied]:
    with connect(api_server.kubeconfig) as cluster:
        assert cluster.namespace == "models"
        return roll_out(cluster, manifests, **{"timeout_s": 20, **options})


def test_new_objects_are_dry_run_then_applied_then_watched(api_server: Any) -> None:
    said: list[str] = []
    api_server.delay = 0.7
    done = run(api_server, [deployment(), SERVICE], say=said.append)
    assert [(one.object, one.action) for one in done] == [("Deployment/qwen", "created"), ("Service/qwen", "created")]
    patches = [ask for ask in api_server.asked if ask[0] == "PATCH"]
    assert patches == [("PATCH", k, dry) for dry in (True, False) for k in ("Deployment", "Service")]
    assert ("WATCH", "Deployment", False) in api_server.asked
    assert "Deployment/qwen is ready" in said


def test_dry_run_stores_nothing(api_server: Any) -> None:
    assert {one.action for one in run(api_server, [deployment(), SERVICE], dry_run=True)} == {"checked"}
    assert api_server.objects == {}


def test_unknown_field_is_refused_by_the_server_before_anything_is_stored(api_server: Any) -> None:
    wrong = deployment()
    wrong["spec"]["template"]["spec"]["containers"][0]["gpu"] = 1
    with pytest.raises(InputError, match="cannot check Deployment/qwen: 400 .*unknown field 'gpu'"):
        run(api_server, [SERVICE, wrong])
    assert api_server.objects == {}


@pytest.mark.parametrize(
    ("code", "advice"), [(403, "ask for that right"), (422, "mend the field"), (409, "--force"), (500, "try again")]
)
def test_a_refusal_is_one_line_without_secrets(api_server: Any, code: int, advice: str) -> None:
    api_server.faults["PATCH", "Deployment", True] = (code, "no,\n  not that")
    with pytest.raises(InputError, match=advice) as caught:
        run(api_server, [deployment()])
    assert f"{code} no, not that" in str(caught.value)
    assert "token" not in str(caught.value).lower() and "\n" not in str(caught.value)


def test_refused_half_way_new_objects_are_deleted(api_server: Any) -> None:
    api_server.faults["PATCH", "Deployment", False] = (403, "quota")
    with pytest.raises(InputError, match="403 quota.*everything is again as it was"):
        run(api_server, [SERVICE, deployment()])
    assert api_server.objects == {}


@pytest.mark.parametrize(
    ("fate", "reason"), [("never", "is not ready in time"), ("failed", "failed: no image of that")]
)
def test_not_ready_puts_back_what_was_there(api_server: Any, fate: str, reason: str) -> None:
    run(api_server, [deployment(image="old")])
    before = copy.deepcopy(api_server.objects["Deployment", "qwen"])
    api_server.fate = fate
    said: list[str] = []
    with pytest.raises(InputError, match=reason):
        run(api_server, [SERVICE, deployment(image="new", replicas=5)], timeout_s=1, say=said.append)
    after = api_server.objects["Deployment", "qwen"]
    assert after["spec"] == before["spec"]
    assert ("Service", "qwen") not in api_server.objects
    assert said[-2:] == ["Deployment/qwen put back", "Service/qwen deleted"]


def test_what_cannot_be_undone_is_said(api_server: Any) -> None:
    api_server.fate = "failed"
    api_server.faults["DELETE", "Deployment", False] = (403, "not you")
    with pytest.raises(InputError, match="could not be undone: cannot delete Deployment/qwen: 403 not you"):
        run(api_server, [deployment()])


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped, AttributeError])
def test_whatever_interrupts_takes_back(
    api_server: Any, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def press(*_: Any) -> None:
        raise error

    monkeypatch.setattr("deployment.cluster.rollout.wait", press)
    said: list[str] = []
    with pytest.raises(error):
        run(api_server, [deployment(), SERVICE], say=said.append)
    assert api_server.objects == {} and said[-1] == "everything is again as it was"


def test_after_being_taken_back_the_next_deploy_is_no_conflict(api_server: Any) -> None:
    """A replaced field would be its replacer's, and the next apply refused."""
    run(api_server, [deployment(image="old")])
    owners = api_server.objects["Deployment", "qwen"]["metadata"]["managedFields"]
    api_server.fate = "failed"
    with pytest.raises(InputError, match="everything is again as it was"):
        run(api_server, [deployment(image="broken", replicas=5)])
    assert api_server.objects["Deployment", "qwen"]["metadata"]["managedFields"] == owners
    api_server.fate = "ready"
    assert [one.action for one in run(api_server, [deployment(image="new", replicas=3)])] == ["changed"]


def test_what_another_tool_owns_is_a_conflict_unless_forced(api_server: Any) -> None:
    run(api_server, [deployment()])
    paths = {"spec/template/spec/containers": {}}
    theirs = {"manager": "kubectl", "operation": "Update", "fieldsV1": paths}
    api_server.objects["Deployment", "qwen"]["metadata"]["managedFields"].append(theirs)
    with pytest.raises(InputError, match="conflict with .kubectl.*--force takes them over"):
        run(api_server, [deployment(image="new")])
    assert run(api_server, [deployment(image="new")], force=True)[0].action == "changed"


@pytest.mark.parametrize("together", [True, False])
def test_an_autoscalers_replicas_stay(api_server: Any, together: bool) -> None:
    """Whether it is applied again with the Deployment or was there: neither a conflict nor its work undone."""
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "qwen"}, "maxReplicas": 9}
    about = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "qwen"}}
    scaler = {**about, "spec": spec}
    run(api_server, [deployment(), scaler])
    found = api_server.objects["Deployment", "qwen"]
    theirs = {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"spec/replicas": {}}}
    owned = {**found["metadata"], "managedFields": [*found["metadata"]["managedFields"], theirs]}
    api_server.store("Deployment", {**found, "metadata": owned, "spec": {**found["spec"], "replicas": 7}})
    run(api_server, [deployment(image="new"), *([scaler] if together else [])])
    after = api_server.objects["Deployment", "qwen"]["spec"]
    assert (after["replicas"], after["template"]["spec"]["containers"][0]["image"]) == (7, "new")


def test_a_cluster_without_the_kind(api_server: Any) -> None:
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "qwen"}, "spec": {}}
    with pytest.raises(InputError, match="does not know ScaledObject .*install its operator"):
        run(api_server, [scaled])


def test_it_waits_longer_than_a_checkpoint_may_load() -> None:
    assert TIMEOUT_SECONDS >= LOAD_SECONDS + 300


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        ([], "nothing to apply"),
        ([{"kind": "Deployment"}], "needs apiVersion, kind and metadata.name"),
        ([{"apiVersion": "v1", "kind": "Service", "metadata": None}], "Service: no manifest"),
        ([{"apiVersion": "v1", "kind": ["Service"], "metadata": {"name": "x"}}], "no manifest"),
        ([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": 5}}], "no manifest"),
        ([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}], "use kubectl for the rest"),
        (
            [
                {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}},
                {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}},
            ],
            "apply one of the two",
        ),
    ],
)
def test_what_is_never_sent(api_server: Any, manifests: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(api_server, manifests)
    assert api_server.asked == []


def test_kserves_kinds_against_their_crds(api_server: Any, kserve_crds: dict[Any, Any]) -> None:
    api_server.crds, api_server.delay = kserve_crds, 0.5
    one = {"name": "kserve-container", "image": "vllm/vllm-openai:v0.22.0"}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "qwen"},
        "spec": {"predictor": {"containers": [one]}},
    }
    assert [done.action for done in run(api_server, [service])] == ["created"]
    wrong = copy.deepcopy(service)
    wrong["spec"]["predictor"]["tensorParallelSize"] = 2
    with pytest.raises(InputError, match="spec.predictor: unknown field 'tensorParallelSize'"):
        run(api_server, [wrong])
