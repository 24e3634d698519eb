"""Replicas that follow the load, and Prometheus that sees it: HPA, KEDA ScaledObject, ServiceMonitor.

    from deployment.manifests.autoscaling import horizontal_autoscaler
    horizontal_autoscaler(plan)

GPU utilisation says nothing of a queue: an engine's GPU is busy with one request too. What is followed is requests in
flight per replica, and the target is the number for which the plan predicts its TTFT and TPOT. The autoscaler that
Kubernetes has needs an adapter that serves Prometheus' figures (prometheus-adapter; the rule is `adapter_rule`); KEDA
asks Prometheus itself. Apply one of the two: both at once pull the same replicas.

What others serve is not counted: figures are those of the plan's own Service, by the label that the Prometheus operator
gives what a ServiceMonitor finds. A plan does not know its namespace; where it stands in several of one Prometheus,
add `namespace` to KEDA's query.
"""

import json
from dataclasses import dataclass
from math import ceil
from typing import Any

from deployment.manifests.kubernetes import metadata
from deployment.manifests.plan import Plan
from phases.errors import InputError

Manifest = dict[str, Any]
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
"""Where the Prometheus operator puts it by default."""
HEADROOM = 2
"""Most replicas, as a multiple of the planned: twice the traffic that the plan was made for."""
SETTLE_SECONDS = 600
"""Replicas are given back so long after the load fell: the next one takes minutes to load its checkpoint."""
_BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": SETTLE_SECONDS}}


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an engine calls its figures at /metrics."""

    running: str
    waiting: str
    label: str
    """Selects the model; empty: the engine has no such label."""


METRICS = {
    "vllm": Metrics("vllm:num_requests_running", "vllm:num_requests_waiting", "model_name"),
    "tgi": Metrics("tgi_batch_current_size", "tgi_queue_size", ""),
}
"""vLLM's production metrics, and those in TGI's router."""
ADAPTED = "engine_requests_in_flight"
"""The adapter's name for running + waiting."""


def scalable(plan: Plan) -> bool:
    """Replicas can be added one by one, by a load that is measured."""
    return plan.nodes == 1 and plan.runtime in METRICS


def target(plan: Plan) -> int:
    """Requests in flight that one replica was planned for."""
    load = plan.candidate.load
    return max(1, ceil(load.concurrency if load.concurrency is not None else plan.candidate.estimate.batch))


def selector(plan: Plan, *others: str) -> str:
    """What selects the plan's own figures in PromQL, besides `others`."""
    label = METRICS[plan.runtime].label
    model = [f"{label}={json.dumps(plan.served_name, ensure_ascii=False)}"] if label else []
    return f"{{{','.join([*others, *model])}}}"


def query(plan: Plan) -> str:
    """Requests in flight of all replicas, in PromQL."""
    metrics, chosen = _metrics(plan), selector(plan, f'service="{plan.name}"')
    return f"sum({metrics.running}{chosen}) + sum({metrics.waiting}{chosen})"


def horizontal_autoscaler(plan: Plan) -> Manifest:
    """HorizontalPodAutoscaler on requests in flight per pod."""
    _metrics(plan)
    value = {"type": "AverageValue", "averageValue": str(target(plan))}
    spec = {
        "scaleTargetRef": _deployment(plan),
        "minReplicas": 1,
        "maxReplicas": HEADROOM * plan.candidate.replicas,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": ADAPTED}, "target": value}}],
        "behavior": _BEHAVIOR,
    }
    about = metadata(plan)
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": about, "spec": spec}


def adapter_rule(plan: Plan) -> Manifest:
    """Values for prometheus-adapter's chart that make `ADAPTED` of the engine's own figures."""
    metrics = _metrics(plan)
    matchers = "<<.LabelMatchers>>"
    figures = f"sum({metrics.running}{{{matchers}}}) by (<<.GroupBy>>)"
    waiting = f"sum({metrics.waiting}{{{matchers}}}) by (<<.GroupBy>>)"
    rule = {
        "seriesQuery": f'{{__name__="{metrics.running}",namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"as": ADAPTED},
        "metricsQuery": f"{figures} + {waiting}",
    }
    return {"rules": {"custom": [rule]}}


def scaled_object(plan: Plan) -> Manifest:
    """KEDA's ScaledObject on the same figure."""
    where = {"serverAddress": PROMETHEUS, "query": query(plan), "threshold": str(target(plan))}
    spec = {
        "scaleTargetRef": _deployment(plan),
        "minReplicaCount": 1,
        "maxReplicaCount": HEADROOM * plan.candidate.replicas,
        # `cooldownPeriod` is for the way to zero alone; between 1 and the most, the HPA that KEDA makes decides.
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOR}},
        # Where Prometheus does not answer, the plan's own number is the best guess.
        "fallback": {"failureThreshold": 3, "replicas": plan.candidate.replicas},
        "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": where}],
    }
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata(plan), "spec": spec}


def service_monitor(plan: Plan) -> Manifest:
    """For the Prometheus operator: which pods to read /metrics of."""
    _metrics(plan)
    endpoint = {"port": "http", "path": "/metrics", "interval": "15s"}
    spec = {"selector": {"matchLabels": plan.labels}, "endpoints": [endpoint]}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(plan),
        "spec": spec,
    }


def _deployment(plan: Plan) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name}


def _metrics(plan: Plan) -> Metrics:
    if plan.runtime not in METRICS:
        raise InputError(f"{plan.runtime} has no /metrics to scale by; watch it through `forge serve`'s own log")
    return METRICS[plan.runtime]
