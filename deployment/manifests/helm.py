"""Values for the Helm chart of the vLLM production stack (docs.vllm.ai/projects/production-stack).

    helm install NAME vllm/vllm-stack --values plan/helm/values.yaml

The chart has fields for some of the engine's settings; the rest goes by `extraArgs`, which it passes on unchanged.
"""

from typing import Any

from deployment.manifests.commands import numeric_flags, parallel_flags
from deployment.manifests.kubernetes import (
    LOAD_SECONDS,
    SHARED_MEMORY,
    STRATEGY,
    environment,
    mounts,
    placement,
    resources,
    volumes,
)
from deployment.manifests.plan import PORT, Plan
from phases.errors import InputError

Values = dict[str, Any]
_OWN = {"--tensor-parallel-size", "--max-model-len", "--gpu-memory-utilization", "--dtype"}
"""Flags that the chart writes itself, from `vllmConfig`."""


def helm_values(plan: Plan) -> Values:
    """Values of one model.

    Raises `InputError` for other engines than vLLM, and for a replica over several instances: the chart's Ray cluster
    runs vLLM's retired V0 engine.
    """
    if plan.runtime != "vllm":
        raise InputError(f"the production stack runs vLLM, not {plan.runtime}")
    if plan.nodes > 1:
        raise InputError(
            "the production stack spans instances by Ray and vLLM's retired V0 engine; use the StatefulSet"
        )
    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10}
    engine = {
        "enableEngine": True,
        "containerPort": PORT,
        "servicePort": PORT,
        "modelSpec": [_model(plan)],
        "startupProbe": {**probe, "initialDelaySeconds": 15, "failureThreshold": LOAD_SECONDS // 10},
        "livenessProbe": {**probe, "initialDelaySeconds": 15, "failureThreshold": 3},
        "strategy": STRATEGY,
        "serviceMonitor": {"enabled": True, "interval": "15s"},
        "runtimeClassName": "",  # the chart's own default, `nvidia`, is not there on every cluster
    }
    return {"servingEngineSpec": engine}


def _model(plan: Plan) -> Values:
    repository, tag = plan.image.rsplit(":", 1)
    asked = resources(plan)
    made: Values = {
        "name": plan.name,
        "repository": repository,
        "tag": tag,
        "modelURL": plan.checkpoint,
        "replicaCount": plan.candidate.replicas,
        "resources": asked,
        "shmSize": SHARED_MEMORY,
        "env": [one for one in environment() if one["name"] == "HF_TOKEN"],
        "vllmConfig": _config(plan),
        "tolerations": placement(plan)["tolerations"],
    }
    if selector := placement(plan).get("nodeSelector"):
        terms = [{"key": key, "operator": "In", "values": [value]} for key, value in selector.items()]
        made["nodeSelectorTerms"] = [{"matchExpressions": terms}]
    if plan.mounted:
        volume = [one for one in volumes(plan) if one["name"] == "models"]
        made |= {"extraVolumes": volume, "extraVolumeMounts": mounts(plan)[-1:]}
    return made


def _config(plan: Plan) -> Values:
    """`vllmConfig`."""
    serving = plan.candidate.serving
    # The chart turns the prefix cache off where this is absent, against vLLM's own default.
    config: Values = {"enablePrefixCaching": True, "tensorParallelSize": serving.tp}
    if serving.max_context is not None:
        config["maxModelLen"] = serving.max_context
    if serving.utilisation is not None:
        config["gpuMemoryUtilization"] = serving.utilisation
    if serving.precision == "bf16" and not plan.quantise:
        config["dtype"] = "bfloat16"
    served = ["--served-model-name", plan.served_name] if plan.mounted else []
    config["extraArgs"] = [*served, *_others(parallel_flags(plan) + numeric_flags(plan))]
    return config


def _others(flags: list[str]) -> list[str]:
    """`flags` without those that the chart writes, and their values."""
    kept: list[str] = []
    skip = False
    for flag in flags:
        if flag.startswith("--"):
            skip = flag in _OWN or flag == "--enable-prefix-caching"
        if not skip:
            kept.append(flag)
    return kept
