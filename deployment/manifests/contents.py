"""What each file of a plan is for, what excludes what, and what costs more than the plan: in words, for its reader.

    from deployment.manifests.contents import comment, listed
    listed(plan, names)         # the list in recommendation.md
    comment("kubernetes/hpa.yaml", plan)    # what stands at the file's top

Two autoscalers that pull the same replicas, or Helm values that `kubectl apply` is given, look like any other manifest.
"""

from collections.abc import Iterable

from deployment.counting import counted
from deployment.manifests.autoscaling import HEADROOM, PROMETHEUS
from deployment.manifests.plan import Plan

FOLDER = "PLAN"
"""Stands for the plan's folder, which a plan does not know."""
_ABOUT = {
    "kubernetes/serving.yaml": f"what serves; `forge deploy {FOLDER}` checks and applies this file alone",
    "kubernetes/hpa.yaml": "an autoscaler for clusters with prometheus-adapter; instead of `keda.yaml`, never with it",
    "kubernetes/keda.yaml": "an autoscaler for clusters with KEDA; instead of `hpa.yaml`, never with it",
    "kubernetes/adapter-values.yaml": "Helm values of prometheus-adapter, and no manifest; `hpa.yaml` needs it",
    "kubernetes/service-monitor.yaml": "tells the Prometheus operator what to read; both autoscalers need its figures",
    "kserve/inference-service.yaml": "the same for KServe, instead of `serving.yaml`",
    "kserve/llm-inference-service.yaml": "the same for KServe's gateway and scheduler, instead of `serving.yaml`",
    "helm/values.yaml": "the same for the vLLM production stack's Helm chart, instead of `serving.yaml`",
    "compose.yaml": "the same for docker compose on one machine",
    "vllm.sh": "vLLM as a shell starts it",
    "tgi.sh": "TGI as a shell starts it",
    "load-test.sh": "the planned load, by GuideLLM (0.7 or later: `pip install guidellm`)",
    "grafana/dashboard.json": "what is measured, beside what was planned",
    "plan.json": "the plan as data, for programs and `forge simulate`",
}
"""In the order in which they are told."""
_SCALERS = ("kubernetes/hpa.yaml", "kubernetes/keda.yaml")
_ONE = "Apply this file or {other}, not both: they pull the same replicas."
_COMMENTS = {
    "kubernetes/hpa.yaml": (
        _ONE.format(other="keda.yaml"),
        "It needs prometheus-adapter with adapter-values.yaml, and service-monitor.yaml.",
    ),
    "kubernetes/keda.yaml": (
        _ONE.format(other="hpa.yaml"),
        f"It needs KEDA, Prometheus at {PROMETHEUS}, and service-monitor.yaml.",
    ),
    "kubernetes/adapter-values.yaml": (
        "Helm values, not a manifest: kubectl and forge deploy cannot apply it. hpa.yaml is told its figure by:",
        "helm install prometheus-adapter prometheus-community/prometheus-adapter -f adapter-values.yaml",
        "Where Prometheus is not at the chart's default address, set prometheus.url too.",
    ),
}


def comment(name: str, plan: Plan) -> str:
    """Lines for the top of a YAML file; empty where it needs none."""
    lines = [*_COMMENTS.get(name, ())]
    if name in _SCALERS:
        bill = _bill(plan)
        lines.append(f"{bill[0].upper()}{bill[1:]}")
    return "".join(f"# {line}\n" for line in lines)


def listed(plan: Plan, names: Iterable[str]) -> str:
    """The files of a plan with what each is for, as Markdown."""
    there = set(names)
    lines = [f"- `{name}`: {about}" for name, about in _ABOUT.items() if name in there]
    words = (
        f"{FOLDER} is this folder. Other manifests than `serving.yaml` are applied by their path: "
        f"`forge deploy {FOLDER}/kubernetes/FILE.yaml`."
    )
    if "kubernetes/hpa.yaml" in there:
        words += f" Under an autoscaler: {_bill(plan)}"
    return "\n".join(["## Files", *lines, "", words])


def _bill(plan: Plan) -> str:
    most = counted(HEADROOM * plan.candidate.replicas, "replica")
    return (
        f"at most {most}, {HEADROOM} times the plan's, so that the bill is at most {HEADROOM} times the plan's as well."
    )
