"""All manifests of a plan: which files there are, the same bytes for the same plan.

    from deployment.manifests.bundle import write
    write(recommendation, Path("plan"))

    plan/recommendation.md  plan.json  vllm.sh  tgi.sh  load-test.sh  compose.yaml
    plan/kubernetes/{serving,hpa,keda,service-monitor,adapter-values}.yaml
    plan/kserve/{inference-service,llm-inference-service}.yaml  plan/helm/values.yaml  plan/grafana/dashboard.json

What cannot carry a plan out (docker compose over two machines) is left out, and the recommendation says why. How the
folder is written, and what in it is never touched, is `folder.py`'s.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from deployment.manifests.autoscaling import (
    adapter_rule,
    horizontal_autoscaler,
    scalable,
    scaled_object,
    service_monitor,
)
from deployment.manifests.commands import arguments, load_script, load_test, start_script
from deployment.manifests.compose import compose
from deployment.manifests.contents import comment
from deployment.manifests.folder import FILES, PLAN, replace_files
from deployment.manifests.grafana import dashboard
from deployment.manifests.helm import helm_values
from deployment.manifests.kserve import inference_service, llm_inference_service, volume_steps
from deployment.manifests.kubernetes import serving_objects
from deployment.manifests.plan import Plan, make_plan
from deployment.manifests.written import written
from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.exporting import recommendation_data
from deployment.simulator.timing import make_timing
from phases.errors import InputError

SERVING = "kubernetes/serving.yaml"
"""What `forge deploy FOLDER` applies."""
_INFERENCE_SERVICE = "kserve/inference-service.yaml"


def write(subject: Recommendation | Candidate, folder: Path, *, checkpoint: str | None = None) -> list[Path]:
    """Write everything to `folder`, replacing what an earlier call wrote and nothing else; the files, sorted.

    Raises `InputError`: nothing was chosen, or no manifest can carry the plan out; `StorageError`: the folder holds
    something else, or cannot be written.
    """
    return replace_files(folder, texts(subject, checkpoint=checkpoint))


def texts(subject: Recommendation | Candidate, *, checkpoint: str | None = None) -> dict[str, str]:
    """The files' contents by their path in the folder."""
    recommendation = None if isinstance(subject, Candidate) else subject
    chosen = subject if isinstance(subject, Candidate) else subject.chosen
    if chosen is None:
        raise InputError("nothing meets all constraints, so there is nothing to deploy; relax the nearest miss")
    plan = make_plan(chosen, checkpoint=checkpoint)
    made, omitted = _manifests(plan)
    if _INFERENCE_SERVICE in made:
        plan = dataclasses.replace(plan, steps=(*plan.steps, *volume_steps(plan)))
    made["recommendation.md"] = written(plan, recommendation, omitted, (*made, PLAN))
    made[PLAN] = exported(plan, recommendation, sorted((*made, PLAN)))
    return dict(sorted(made.items()))


def exported(plan: Plan, recommendation: Recommendation | None, files: Sequence[str]) -> str:
    """The plan, the best candidates and why others were rejected, as JSON; `files` are all that go with it."""
    facts = {
        FILES: files,
        "name": plan.name,
        "image": plan.image,
        "checkpoint": plan.checkpoint,
        "pods_per_replica": plan.nodes,
        "accelerators_per_pod": plan.accelerators_per_node,
        "command": arguments(plan),
        "load_test": load_test(plan),
        "steps": plan.steps,
        "served_name": plan.served_name,
        "timing": dataclasses.asdict(make_timing(plan.candidate)),  # what `forge simulate` works by
        "candidate": dataclasses.asdict(plan.candidate),
        "recommendation": recommendation_data(recommendation) if recommendation is not None else None,
    }
    return json.dumps(_finite(facts), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no infinity: the time of a queue that grows without end is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _manifests(plan: Plan) -> tuple[dict[str, str], list[str]]:
    """The files, and which were left out, with the reason."""
    made, omitted = {SERVING: _yaml(*serving_objects(plan)), "load-test.sh": _script(load_script(plan))}, []
    for name, make in _MAKERS.items():
        if name.startswith("kubernetes/") and name != "kubernetes/service-monitor.yaml" and not scalable(plan):
            omitted.append(f"`{name}`: replicas over several instances, or without metrics, are not scaled by it")
            continue
        try:
            made[name] = comment(name, plan) + make(plan)
        except InputError as error:
            omitted.append(f"`{name}`: {error}")
    return made, omitted


def _engine(runtime: Literal["vllm", "tgi"]) -> Callable[[Plan], str]:
    """The engine's start script; TGI's also for a plan of vLLM's that it can carry out, to compare them."""

    def make(plan: Plan) -> str:
        if plan.runtime == runtime:
            return _script(start_script(plan))
        if plan.runtime == "forge":
            raise InputError(f"a forge's agent is served by `forge serve`, not by {runtime}")
        serving = dataclasses.replace(plan.candidate.serving, engine=runtime, version="")
        other = make_plan(dataclasses.replace(plan.candidate, serving=serving))
        same = dataclasses.replace(other, checkpoint=plan.checkpoint, quantise=plan.quantise)
        return _script(start_script(same))

    return make


def _script(text: str) -> str:
    return f"#!/bin/sh\n{text}"


def _yaml(*documents: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.dump_all(documents, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110))


def _dumper() -> Any:
    """Without anchors: a label that two places share is written twice, as people would."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Plain


_MAKERS: dict[str, Callable[[Plan], str]] = {
    "vllm.sh": _engine("vllm"),
    "tgi.sh": _engine("tgi"),
    "compose.yaml": lambda plan: _yaml(compose(plan)),
    "kubernetes/hpa.yaml": lambda plan: _yaml(horizontal_autoscaler(plan)),
    "kubernetes/keda.yaml": lambda plan: _yaml(scaled_object(plan)),
    "kubernetes/adapter-values.yaml": lambda plan: _yaml(adapter_rule(plan)),
    "kubernetes/service-monitor.yaml": lambda plan: _yaml(service_monitor(plan)),
    _INFERENCE_SERVICE: lambda plan: _yaml(inference_service(plan)),
    "kserve/llm-inference-service.yaml": lambda plan: _yaml(llm_inference_service(plan)),
    "helm/values.yaml": lambda plan: _yaml(helm_values(plan)),
    "grafana/dashboard.json": lambda plan: json.dumps(dashboard(plan), indent=2) + "\n",
}
