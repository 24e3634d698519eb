"""Every manifest of every shape against the real schemas, and the schemas' own strictness."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.cluster.builtin import is_builtin, problems
from deployment.manifests import bundle
from deployment.manifests.autoscaling import horizontal_autoscaler, scalable
from deployment.manifests.helm import helm_values
from deployment.manifests.kserve import inference_service, llm_inference_service
from deployment.manifests.kubernetes import placement, serving_objects
from deployment.manifests.plan import Plan, make_plan
from deployment.manifests.structural import Schema, against, closed, read_crds, violations
from deployment.physics.weights import checkpoint_bytes
from phases.errors import InputError


@pytest.fixture(scope="session")
def crds(shared: Path) -> dict[tuple[str, str], Schema]:
    return read_crds(shared / "kserve")


@pytest.fixture(scope="session")
def chart(shared: Path) -> Schema:
    return closed(json.loads((shared / "kserve/production_stack_values.schema.json").read_text()), free=True)


def engines(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a manifest, wherever they stand."""
    if isinstance(manifest, dict):
        found = [c for c in manifest.get("containers", []) if isinstance(c, dict)]
        return found + [c for value in manifest.values() for c in engines(value)]
    return [c for value in manifest for c in engines(value)] if isinstance(manifest, list) else []


def test_builtin_kinds(plan: Plan) -> None:
    objects = serving_objects(plan)
    if scalable(plan):
        objects.append(horizontal_autoscaler(plan))
    assert all(is_builtin(one) for one in objects)
    assert [line for one in objects for line in problems(one)] == []


def test_kserve(plan: Plan, crds: dict[tuple[str, str], Schema]) -> None:
    made = 0
    for make in (inference_service, llm_inference_service):
        try:
            manifest = make(plan)
        except InputError:
            continue
        made += 1
        assert violations(manifest, crds) == []
        _obeys_rules(manifest)
    assert made >= 1, "no shape is left without a manifest for KServe"


def _obeys_rules(manifest: dict[str, Any]) -> None:
    """What the CRD says in CEL of the fields that are used, and KServe's validating webhook of parallelism."""
    spec = manifest["spec"]
    assert not {"replicas", "scaling"} <= set(spec)
    parallelism = spec.get("parallelism", {})
    assert not {"pipeline", "data"} <= set(parallelism)
    assert ("data" in parallelism) == ("dataLocal" in parallelism)
    assert "worker" not in spec or {"pipeline", "data"} & set(parallelism)
    if worker := spec.get("predictor", {}).get("workerSpec"):
        assert spec["predictor"]["model"]["storageUri"].startswith("pvc://")
        assert manifest["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
        assert worker["tensorParallelSize"] * worker["pipelineParallelSize"] == 16


def test_helm(plan: Plan, chart: Schema) -> None:
    if plan.runtime != "vllm" or plan.nodes > 1:
        with pytest.raises(InputError):
            helm_values(plan)
        return
    assert against(helm_values(plan), chart) == []


def test_requested_accelerators_are_those_that_the_engine_uses(plan: Plan) -> None:
    serving = plan.candidate.serving
    for manifest in (*serving_objects(plan), *_kserve(plan)):
        for container in engines(manifest):
            pods = plan.nodes
            asked = int(container["resources"]["limits"]["nvidia.com/gpu"])
            assert asked == int(container["resources"]["requests"]["nvidia.com/gpu"])
            assert asked * pods == serving.tp * serving.pp * serving.dp


def test_pods_ask_for_room_for_what_they_download(plan: Plan) -> None:
    """The published checkpoint, whatever the engine makes of it; nothing where it comes from a volume."""
    size = -(-checkpoint_bytes(plan.candidate.model) // 2**30)
    for manifest in (*serving_objects(plan), *_kserve(plan)):
        volume = plan.mounted or "workerSpec" in manifest["spec"].get("predictor", {})
        asked = [one["resources"]["requests"].get("ephemeral-storage") for one in engines(manifest)]
        assert set(asked) <= {None if volume else f"{size:.0f}Gi"}
    words = bundle.texts(plan.candidate)["recommendation.md"]
    assert ("each pod downloads the checkpoint anew" in words) == (not plan.mounted)


@pytest.mark.parametrize("known", [True, False])
def test_kserves_defaults_apply_to_no_container(plan: Plan, known: bool) -> None:
    """KServe adds limits of 1 CPU and 2 GiB where there are none, below what is asked for."""
    if not known:
        offer = replace(plan.candidate.offer, vcpus=0, memory_bytes=0)
        plan = replace(plan, candidate=replace(plan.candidate, offer=offer))
    for manifest in _kserve(plan):
        predictor = manifest["spec"].get("predictor", {})
        places = [one["resources"] for one in engines(manifest)]
        places += [predictor["model"]["resources"]] if "model" in predictor else []
        assert places
        for one in places:
            limits, requests = one["limits"], one["requests"]
            assert int(limits["cpu"]) >= max(8, int(requests.get("cpu", 0)))
            assert int(limits["memory"].removesuffix("Gi")) >= max(
                64, int(requests.get("memory", "0Gi").removesuffix("Gi"))
            )


@pytest.mark.parametrize("shape", ["tensor", "two nodes", "two nodes of data"])
def test_all_pods_go_to_the_planned_instances(make: Any, shape: str) -> None:
    plan = make_plan(make(shape))
    where = {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeSelector": {"node.kubernetes.io/instance-type": "p5.48xlarge"},
    }
    specs = [spec for one in (*serving_objects(plan), *_kserve(plan)) for spec in _pod_specs(one)]
    assert len(specs) >= 2 and all({key: spec[key] for key in where} == where for spec in specs)


def _pod_specs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"]
    if "predictor" in spec:
        return [spec["predictor"], *([spec["predictor"]["workerSpec"]] if "workerSpec" in spec["predictor"] else [])]
    if manifest["kind"] == "LLMInferenceService":
        return [spec["template"], *([spec["worker"]] if "worker" in spec else [])]
    return [spec["template"]["spec"]] if "template" in spec else []


def test_a_service_of_one_shape_selects_no_pod_of_the_other(make: Any) -> None:
    """While a plan of another shape is rolled out both are there, under the same name."""
    made = {shape: serving_objects(make_plan(make(shape))) for shape in ("tensor", "two nodes")}
    for shape, other in (("tensor", "two nodes"), ("two nodes", "tensor")):
        selector = made[shape][-1]["spec"]["selector"].items()
        own, others = (
            [one["spec"]["template"]["metadata"]["labels"] for one in made[which] if "template" in one["spec"]]
            for which in (shape, other)
        )
        index = {"apps.kubernetes.io/pod-index": "0"}  # which the controller of StatefulSets adds
        assert all(selector <= (labels | (index if shape == "two nodes" else {})).items() for labels in own)
        added: dict[str, str] = index if other == "two nodes" else {}
        assert not any(selector <= (labels | added).items() for labels in others)


@pytest.mark.parametrize(
    ("cloud", "key", "value"),
    [
        ("gcp", "cloud.google.com/gke-spot", "true"),
        ("azure", "kubernetes.azure.com/scalesetpriority", "spot"),
        ("aws", "eks.amazonaws.com/capacityType", "SPOT"),
    ],
)
def test_spot_pods_go_to_spot_nodes(make: Any, cloud: str, key: str, value: str) -> None:
    for spot in (True, False):
        made = placement(make_plan(make(offer=replace(make().offer, cloud=cloud, spot=spot))))
        taint = {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        assert (made["nodeSelector"].get(key) == value) == (taint in made["tolerations"]) == spot


def test_kserves_own_images_are_for_nvidia_alone(make: Any) -> None:
    amd = replace(make().accelerator, vendor="AMD", name="mi300x")
    for shape, made in (("tensor", inference_service), ("two nodes", None), ("tensor", None)):
        plan = make_plan(make(shape, accelerator=amd))
        if made is not None:
            assert made(plan)["spec"]["predictor"]["containers"][0]["image"] == plan.image
        else:
            with pytest.raises(InputError, match="which is for NVIDIA; use the plain"):
                (inference_service if shape == "two nodes" else llm_inference_service)(plan)


@pytest.mark.parametrize("name", ["m/short", "my/" + "long-" * 12])
@pytest.mark.parametrize("precision", ["stored", "int4"])
def test_the_volume_holds_the_folder_that_the_steps_name(make: Any, name: str, precision: str) -> None:
    """Of two instances: from the hub or made by the user, KServe mounts exactly what the step says."""
    model = replace(make().model, name=name, source=f"huggingface.co/{name}")
    candidate = make("two nodes", model=model)
    serving = replace(candidate.serving, precision=precision)
    texts = bundle.texts(replace(candidate, serving=serving))
    uri = yaml.safe_load(texts["kserve/inference-service.yaml"])["spec"]["predictor"]["model"]["storageUri"]
    claim, _, folder = uri.removeprefix("pvc://").partition("/")
    (step,) = json.loads(texts["plan.json"])["steps"]
    if precision == "int4":
        assert step.endswith(f" to /models/{folder} on the volume")
    else:
        assert step.endswith(f"put {name} into the folder {folder} of the volume claim {claim}")
    assert f"{step[1:]}." in texts["recommendation.md"] and claim in texts["recommendation.md"]


def test_a_changed_service_asks_for_no_more_accelerators_than_there_are(make: Any) -> None:
    strategy = inference_service(make_plan(make("tensor")))["spec"]["predictor"]["deploymentStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def _kserve(plan: Plan) -> list[dict[str, Any]]:
    made = []
    for make in (inference_service, llm_inference_service):
        try:
            made.append(make(plan))
        except InputError:
            continue
    return made


def test_unknown_field_in_a_crd_is_found(make: Any, crds: dict[tuple[str, str], Schema]) -> None:
    manifest = llm_inference_service(make_plan(make("tensor")))
    manifest["spec"]["parallelism"]["tensorParallelSize"] = 2
    manifest["spec"]["template"]["containers"][0]["gpus"] = 2
    manifest["spec"]["replicas"] = "two"
    assert violations(manifest, crds) == [
        "spec.parallelism: unknown field 'tensorParallelSize'",
        "spec.replicas: 'two' is not of type 'integer'",
        "spec.template.containers.0: unknown field 'gpus'",
    ]


def test_unknown_field_in_a_builtin_kind_is_found(make: Any) -> None:
    deployment = serving_objects(make_plan(make("tensor")))[0]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["gpu"], container["ports"], deployment["spec"]["replicas"] = 2, {}, True
    del deployment["spec"]["selector"]
    found = problems(deployment)
    at = "spec.template.spec.containers.0"
    assert f"{at}: unknown field 'gpu'" in found
    assert f"{at}.ports: a list is wanted, not dict" in found
    assert "spec.replicas: int is wanted, not True" in found
    assert any("selector" in line for line in found)


def test_a_kind_without_its_crd() -> None:
    with pytest.raises(InputError, match=r"InferenceService \(x/v1\): no CRD of it here; there are: none"):
        violations({"apiVersion": "x/v1", "kind": "InferenceService"}, {})


def test_structural_objects_without_properties_are_empty_and_charts_are_free() -> None:
    schema: Schema = {"type": "object", "properties": {"a": {"type": "object"}}}
    assert against({"a": {"b": 1}}, closed(schema)) == ["a: unknown field 'b'"]
    assert against({"a": {"b": 1}}, closed(schema, free=True)) == []
    kept = {"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    assert against({"a": {"b": 1}}, closed(kept)) == []
    wide = {"type": "object", "properties": {"n": {"type": "integer", "format": "int32"}}}
    assert against({"n": 2**31 - 1}, closed(wide)) == []
    assert against({"n": 2**31}, closed(wide)) != []
