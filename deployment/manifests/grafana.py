"""A Grafana dashboard of one plan: what is measured, with the plan's own figures as lines.

    from deployment.manifests.grafana import dashboard
    json.dumps(dashboard(plan))      # import it in Grafana, choose the Prometheus data source

vLLM's metric names (docs.vllm.ai, production metrics). TGI counts other things and has no time to the first token, so
there the dashboard shows what it has. TPOT is per request, (end-to-end − TTFT) / (tokens − 1), as in the plan.

Namespace and Service are chosen above the charts. The Service is at first the plan's own; what has other names (KServe,
the Helm chart) or none (docker compose, `forge simulate`) is found under All.
"""

from dataclasses import dataclass
from typing import Any

from deployment.manifests.autoscaling import METRICS, selector
from deployment.manifests.plan import Plan
from phases.errors import InputError

Json = dict[str, Any]
SCHEMA_VERSION = 39
"""Of dashboards in Grafana 11 and later; older ones are migrated when they are opened."""
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 12, 8
_P95 = "Red: planned p95."


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """Legend and PromQL; `@` stands for the selector of the plan."""
    planned: float | None = None
    """The plan's figure: a red line."""
    about: str = ""


def dashboard(plan: Plan) -> Json:
    """The dashboard's model, as Grafana imports it."""
    if plan.runtime not in METRICS:
        raise InputError(f"{plan.runtime} has no /metrics; there is nothing to show on a dashboard")
    panels = _vllm(plan) if plan.runtime == "vllm" else _tgi(plan)
    chosen = selector(plan, 'namespace=~"$namespace"', 'service=~"$service"')
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    return {
        "title": f"{plan.candidate.model.name}: measured and planned",
        "uid": plan.name,
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["agent-forge"],
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "15s",
        "templating": {"list": [source, *_variables(plan)]},
        "panels": [_panel(panel, number, chosen) for number, panel in enumerate(panels)],
    }


def _variables(plan: Plan) -> list[Json]:
    """Choices above the charts; All matches what has no such label, too."""
    metric = METRICS[plan.runtime].running
    found = {
        "namespace": (f"label_values({metric}, namespace)", {"text": "All", "value": "$__all"}),
        "service": (
            f'label_values({metric}{{namespace=~"$namespace"}}, service)',
            {"text": plan.name, "value": plan.name},
        ),
    }
    shared = {"type": "query", "datasource": _SOURCE, "refresh": 2, "includeAll": True, "allValue": ".*"}
    return [
        {**shared, "name": name, "label": name.title(), "query": query, "current": current}
        for name, (query, current) in found.items()
    ]


def _vllm(plan: Plan) -> list[Panel]:
    one, chosen = plan.candidate.estimate, plan.candidate
    planned = one.throughput.value * chosen.replicas
    running, cached = chosen.replicas * one.batch, chosen.serving.prefix_cached
    counted = (
        "Red: planned." if cached else "The plan counts on none; what there is makes prompts quicker than planned."
    )
    hits = "sum(rate(vllm:prefix_cache_hits_total@[5m])) / sum(rate(vllm:prefix_cache_queries_total@[5m]))"
    rates = (("answers", "generation"), ("prompts", "prompt"))
    return [
        Panel("TTFT", "s", _quantiles("vllm:time_to_first_token_seconds"), chosen.ttft_p95, _P95),
        Panel("TPOT", "s", _quantiles("vllm:request_time_per_output_token_seconds"), chosen.tpot_p95, _P95),
        Panel("End to end", "s", _quantiles("vllm:e2e_request_latency_seconds"), chosen.e2e_p95, _P95),
        Panel("Queueing", "s", _quantiles("vllm:request_queue_time_seconds")),
        Panel("Tokens a second", "short", _rates("vllm:{}_tokens_total", rates), planned, "Red: answers as planned."),
        Panel("Requests", "short", _sums("vllm:num_requests_{}", ("running", "waiting")), running, "Red: planned."),
        Panel("KV pool in use", "percentunit", (("{{pod}}", "vllm:kv_cache_usage_perc@"),)),
        Panel("Prompt tokens from the prefix cache", "percentunit", (("hits", hits),), cached or None, counted),
    ]


def _tgi(plan: Plan) -> list[Panel]:
    one, chosen = plan.candidate.estimate, plan.candidate
    running = chosen.replicas * one.batch
    requests = (("running", "sum(tgi_batch_current_size@)"), ("waiting", "sum(tgi_queue_size@)"))
    tokens = (("answers", "sum(rate(tgi_request_generated_tokens_sum@[5m]))"),)
    return [
        Panel("TPOT", "s", _quantiles("tgi_request_mean_time_per_token_duration"), chosen.tpot_p95, _P95),
        Panel("End to end", "s", _quantiles("tgi_request_duration"), chosen.e2e_p95, _P95),
        Panel("Queueing", "s", _quantiles("tgi_request_queue_duration")),
        Panel("Tokens a second", "short", tokens, one.throughput.value * chosen.replicas, "Red: answers as planned."),
        Panel("Requests", "short", requests, running, "Red: planned."),
    ]


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """p50, p95 and p99 of a histogram."""
    form = "histogram_quantile({}, sum by (le) (rate({}_bucket@[5m])))"
    return tuple((f"p{percent}", form.format(percent / 100, metric)) for percent in (50, 95, 99))


def _rates(form: str, names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((legend, f"sum(rate({form.format(name)}@[1m]))") for legend, name in names)


def _sums(form: str, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"sum({form.format(name)}@)") for name in names)


def _panel(panel: Panel, number: int, chosen: str) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.planned is not None:
        steps.append({"color": "red", "value": panel.planned})
    drawn = {"thresholdsStyle": {"mode": "line" if panel.planned is not None else "off"}}
    defaults = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}, "custom": drawn}
    row, column = divmod(number, 2)
    targets = [
        {"refId": chr(65 + i), "datasource": _SOURCE, "legendFormat": legend, "expr": text.replace("@", chosen)}
        for i, (legend, text) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }
