"""A plan for KServe: `InferenceService` (v1beta1) and `LLMInferenceService` (v1alpha2, the version that is stored).

    from deployment.manifests.kserve import inference_service, llm_inference_service

An InferenceService of one instance names the engine's own image and arguments, so that no serving runtime of the
cluster changes them; over several instances KServe wants its Hugging Face runtime, a shared volume and a `workerSpec`
(kserve.github.io, multi-node inference). An LLMInferenceService names the model and the parallelism; its template
passes on the tensor size alone, so everything else goes by `VLLM_ADDITIONAL_ARGS`, which the template's shell reads:
its words are quoted here.

KServe gives a container without limits those of its ConfigMap, 1 CPU and 2 GiB (or its runtime's own), under which no
engine loads and which the requests exceed: limits of CPU and memory stand in every container.
"""

import shlex
from typing import Any

from deployment.manifests.commands import numeric_flags, parallel_flags
from deployment.manifests.kubernetes import STRATEGY, container, environment, metadata, placement, pod, resources
from deployment.manifests.plan import Plan
from phases.errors import InputError

Manifest = dict[str, Any]
LLM_VERSION = "serving.kserve.io/v1alpha2"
CPUS_UNKNOWN, GIB_UNKNOWN = 8, 64
"""Limits for each accelerator where the offer does not say what the instance has: what clouds give at least."""


def inference_service(plan: Plan) -> Manifest:
    """For every runtime; over several instances for vLLM alone."""
    predictor = _predictor(plan) if plan.nodes == 1 else _multi_node(plan)
    about = metadata(plan)
    # Standard: plain Deployments. Knative scales to zero, and a checkpoint takes minutes to load again.
    about["annotations"] = {"serving.kserve.io/deploymentMode": "Standard"}
    if plan.nodes > 1:
        about["annotations"]["serving.kserve.io/autoscalerClass"] = "none"
    spec = {"predictor": predictor}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": about, "spec": spec}


def _predictor(plan: Plan) -> Manifest:
    """One container of our own."""
    one = {**container(plan), "name": "kserve-container", "resources": limited(plan)}
    # KServe finds the server by the first port; its name has to say the protocol.
    one["ports"] = [{**one["ports"][0], "name": "http1", "protocol": "TCP"}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        one[probe] = {**one[probe], "httpGet": {**one[probe]["httpGet"], "port": one["ports"][0]["containerPort"]}}
    replicas = plan.candidate.replicas
    return {"minReplicas": replicas, "maxReplicas": replicas, "deploymentStrategy": STRATEGY, **pod(plan, one)}


def limited(plan: Plan, downloads: bool = True) -> Manifest:
    """`resources` with limits of CPU and memory: what is asked for, or what is usual where the offer says nothing."""
    asked = resources(plan, downloads)
    count = max(1, plan.accelerators_per_node)
    usual = {"cpu": str(CPUS_UNKNOWN * count), "memory": f"{GIB_UNKNOWN * count}Gi"}
    own = {name: asked["requests"].get(name, size) for name, size in usual.items()}
    return {"requests": asked["requests"], "limits": {**own, **asked.get("limits", {})}}


def _multi_node(plan: Plan) -> Manifest:
    """KServe's own head and workers (Ray). TP and PP stand in `workerSpec`: in arguments they are refused."""
    serving = plan.candidate.serving
    if plan.runtime != "vllm" or serving.dp > 1:
        raise InputError("an InferenceService over several instances has tensor and pipeline parallelism of vLLM alone")
    _on_nvidia(plan, "an InferenceService over several instances")
    model = {
        "modelFormat": {"name": "huggingface"},
        "runtime": "kserve-huggingfaceserver-multinode",
        "storageUri": _volume(plan),
        "args": numeric_flags(plan),
        "resources": limited(plan, downloads=False),  # from the volume
    }
    worker = {
        "tensorParallelSize": serving.tp,
        "pipelineParallelSize": serving.pp,
        "containers": [{"name": "worker-container", "resources": limited(plan, downloads=False)}],
        **placement(plan),
    }
    replicas = {"minReplicas": plan.candidate.replicas, "maxReplicas": plan.candidate.replicas}
    return {**replicas, "model": model, "workerSpec": worker, **placement(plan)}


def volume_steps(plan: Plan) -> tuple[str, ...]:
    """What a hub's model needs before KServe spans instances with it: there it loads from a shared volume alone."""
    if plan.nodes == 1 or plan.mounted:
        return ()
    here = f"put {plan.checkpoint} into the folder {plan.folder} of the volume claim {plan.claim}"
    return (f"for `kserve/inference-service.yaml` alone: {here}",)


def _on_nvidia(plan: Plan, what: str) -> None:
    """Raise `InputError` where KServe's own image, which is CUDA's, would run on other accelerators."""
    if plan.resource != "nvidia.com/gpu":
        raise InputError(f"{what} runs KServe's own image, which is for NVIDIA; use the plain Kubernetes objects")


def llm_inference_service(plan: Plan) -> Manifest:
    """For vLLM, with KServe's gateway and its scheduler, which sends a request to where its prefix is cached.

    Raises `InputError` for other engines, other accelerators than NVIDIA's, and for pipelines over instances: KServe
    ships no configuration for them.
    """
    serving = plan.candidate.serving
    if plan.runtime != "vllm":
        raise InputError(f"an LLMInferenceService runs vLLM, not {plan.runtime}")
    _on_nvidia(plan, "an LLMInferenceService")
    if plan.nodes > 1 and (serving.dp == 1 or serving.dp % plan.nodes):
        raise InputError("an LLMInferenceService spans instances by data parallelism alone; use the StatefulSet")
    template = {"containers": [_main(plan)], **placement(plan)}
    spec: Manifest = {
        "model": {"uri": _uri(plan), "name": plan.served_name},
        "replicas": plan.candidate.replicas,
        "parallelism": _parallelism(plan),
        "router": {"gateway": {}, "route": {}, "scheduler": {}},
        "template": template,
    }
    if plan.nodes > 1:
        spec["worker"] = {"containers": [_main(plan)], **placement(plan)}
    return {"apiVersion": LLM_VERSION, "kind": "LLMInferenceService", "metadata": metadata(plan), "spec": spec}


def _uri(plan: Plan) -> str:
    """Where KServe fetches the checkpoint."""
    return _volume(plan) if plan.mounted else f"hf://{plan.checkpoint}"


def _volume(plan: Plan) -> str:
    """The checkpoint's folder on the plan's volume claim."""
    return f"pvc://{plan.claim}/{plan.folder}"


def _parallelism(plan: Plan) -> Manifest:
    serving = plan.candidate.serving
    sizes: Manifest = {"tensor": serving.tp}
    if serving.dp > 1:  # with pipelines these exclude each other
        sizes |= {"data": serving.dp, "dataLocal": serving.dp // plan.nodes}
    elif serving.pp > 1:
        sizes["pipeline"] = serving.pp
    return {**sizes, "expert": True} if serving.ep > 1 else sizes


def _main(plan: Plan) -> Manifest:
    """What is merged into the template's `main` container: its image and probes stay KServe's."""
    flags = numeric_flags(plan)
    if plan.nodes == 1:  # the template for one instance passes on the tensor size alone
        flags = [*_without_tensor(parallel_flags(plan)), *flags]
    added = [{"name": "VLLM_ADDITIONAL_ARGS", "value": shlex.join(flags)}] if flags else []
    token = [one for one in environment() if one["name"] == "HF_TOKEN"]
    return {"name": "main", "env": [*added, *token], "resources": limited(plan)}


def _without_tensor(flags: list[str]) -> list[str]:
    if "--tensor-parallel-size" not in flags:
        return flags
    at = flags.index("--tensor-parallel-size")
    return flags[:at] + flags[at + 2 :]
