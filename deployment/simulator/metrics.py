"""The simulator's /metrics, in Prometheus' text format and under vLLM's names, so that a plan's dashboard works on it.

The chart of the prefix cache alone stays empty: the simulated engine keeps no prefixes, and says so by no figure. The
dashboard's Service is to be set to All, as nothing in a cluster labels these figures.

Names and buckets of the request's times are those of vLLM's V1 engine (docs.vllm.ai, production metrics). TPOT is per
request, (end-to-end − TTFT) / (tokens − 1).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployment.simulator.batching import Batch, Sequence

_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_LONG = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)


@dataclass(slots=True)
class Histogram:
    """Counts of values up to each bucket's edge, and their sum."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.edges)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.total += value
        self.count += 1
        for at, edge in enumerate(self.edges):
            if value <= edge:
                self.counts[at] += 1


class Metrics:
    """What one engine served since the start."""

    def __init__(self, model: str, number: int = 0) -> None:
        escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._labels = f'model_name="{escaped}",engine="{number}"'
        self.prompt_tokens = self.generation_tokens = 0
        self.finished = {"stop": 0, "length": 0, "abort": 0}
        self.times = {
            "time_to_first_token_seconds": Histogram(_SHORT),
            "request_time_per_output_token_seconds": Histogram(_TOKEN),
            "e2e_request_latency_seconds": Histogram(_LONG),
            "request_queue_time_seconds": Histogram(_LONG),
        }

    def ended(self, one: Sequence) -> None:
        """Count a sequence that has all its tokens."""
        assert one.finished is not None
        self.prompt_tokens += one.prompt_tokens
        self.generation_tokens += one.written
        self.finished["length"] += 1
        self.times["time_to_first_token_seconds"].observe(one.ttft)
        self.times["e2e_request_latency_seconds"].observe(one.finished - one.arrived)
        self.times["request_queue_time_seconds"].observe(one.queue_time)
        if one.tpot is not None:
            self.times["request_time_per_output_token_seconds"].observe(one.tpot)

    def samples(self, batch: Batch) -> dict[tuple[str, str], list[str]]:
        """Lines by (name, type)."""
        values = {
            ("num_requests_running", "gauge"): float(len(batch.running) + len(batch.prefilling)),
            ("num_requests_waiting", "gauge"): float(len(batch.waiting)),
            ("kv_cache_usage_perc", "gauge"): min(1.0, batch.held_tokens / batch.timing.kv_tokens),
            ("prompt_tokens_total", "counter"): float(self.prompt_tokens),
            ("generation_tokens_total", "counter"): float(self.generation_tokens),
        }
        lines = {key: [f"vllm:{key[0]}{{{self._labels}}} {value}"] for key, value in values.items()}
        lines["request_success_total", "counter"] = [
            f'vllm:request_success_total{{{self._labels},finished_reason="{reason}"}} {float(count)}'
            for reason, count in self.finished.items()
        ]
        for name, histogram in self.times.items():
            lines[name, "histogram"] = self._histogram(name, histogram)
        return lines

    def _histogram(self, name: str, one: Histogram) -> list[str]:
        rows = [
            f'vllm:{name}_bucket{{{self._labels},le="{edge}"}} {float(count)}'
            for edge, count in zip((*map(str, one.edges), "+Inf"), (*one.counts, one.count), strict=True)
        ]
        sums = (
            f"vllm:{name}_sum{{{self._labels}}} {one.total}",
            f"vllm:{name}_count{{{self._labels}}} {float(one.count)}",
        )
        return [*rows, *sums]


def page(engines: Iterable[tuple[Metrics, Batch]]) -> str:
    """All engines' figures; those of one name stand together, as the format wants."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for metrics, batch in engines:
        for key, lines in metrics.samples(batch).items():
            grouped.setdefault(key, []).extend(lines)
    rows = [line for (name, kind), lines in grouped.items() for line in (f"# TYPE vllm:{name} {kind}", *lines)]
    return "\n".join(rows) + "\n"
