"""Pictures of a recommendation: where the memory goes, what load does to latency, what latency costs.

    from deployment.plots import pictures
    for name, figure in pictures(recommendation).items():
        figure.savefig(name)

matplotlib is imported when the first one is drawn. Bands and bars of latency are the physics' 80 % intervals.
"""

from typing import TYPE_CHECKING

from deployment.physics.memory import sequence_bytes
from deployment.planning.candidate import Candidate, Recommendation
from deployment.serving import Estimate, Load
from phases.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 2.0**30
INK, SECOND, SOFT, ACCENT = "#1f3b57", "#4f86b3", "#c3d3e0", "#c8553d"
BATCHES = tuple(2**power for power in range(13))
"""Requests in flight that are tried; those beyond the room of the keys and values look like the last that fits."""


def pictures(recommendation: Recommendation) -> "dict[str, Figure]":
    """File name to figure: what can be drawn. Nothing without a choice; on CPUs only what was measured."""
    chosen = recommendation.chosen
    if chosen is None:
        return {}
    drawn = {"cost-latency.png": cost_latency(recommendation)}
    if chosen.accelerator is not None:
        drawn["memory.png"] = memory_breakdown(chosen)
        drawn["latency-throughput.png"] = latency_throughput(chosen)
    return drawn


def memory_breakdown(candidate: Candidate) -> "Figure":
    """One accelerator's memory by use, GiB, with what the batch at the peak takes of the keys and values."""
    assert candidate.accelerator is not None
    plan = candidate.estimate.memory
    in_use = min(plan.kv_pool, _in_use(candidate))
    parts = {
        "weights": plan.weights,
        "activation": plan.activation,
        "engine and driver": plan.non_torch,
        "keys and values in use": in_use,
        "keys and values free": plan.kv_pool - in_use,
        "not taken by the engine": candidate.accelerator.memory_bytes - plan.usable,
    }
    figure, axes = _figure(f"Memory of one {candidate.accelerator.name}: {candidate.model.name}", "GiB", "", (8.0, 3.2))
    for place, (name, size) in enumerate(parts.items()):
        axes.barh(place, size / GIB, color=ACCENT if "in use" in name else SOFT if "not taken" in name else SECOND)
        axes.text(size / GIB, place, f" {size / GIB:.1f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    return figure


def _in_use(candidate: Candidate) -> float:
    """Bytes of keys and values of the mean batch, each request halfway through its answer."""
    load, serving = candidate.load, candidate.serving
    tokens = load.prompt_tokens + load.output_tokens // 2
    return candidate.estimate.batch / serving.dp * sequence_bytes(candidate.model, serving, tokens)


def latency_throughput(candidate: Candidate) -> "Figure":
    """Time per token against the replica's tokens a second as more requests are in flight, with the chosen load."""
    from deployment.physics.estimate import estimate

    assert candidate.accelerator is not None
    curve: list[Estimate] = []
    for batch in BATCHES:
        load = Load(candidate.load.prompt_tokens, candidate.load.output_tokens, concurrency=batch)
        try:
            curve.append(estimate(candidate.model, candidate.accelerator, candidate.serving, load))
        except InputError:
            break
    figure, axes = _figure(candidate.system, "output tokens a second, one replica", "ms a token", (7.0, 4.2))
    tokens = [one.throughput.value for one in curve]
    axes.plot(tokens, [one.tpot.value * 1e3 for one in curve], marker="o", color=INK, label="closed loop, 1, 2, 4 …")
    low, high = [one.tpot.low * 1e3 for one in curve], [one.tpot.high * 1e3 for one in curve]
    axes.fill_between(tokens, low, high, color=SOFT, alpha=0.7, label="80 % interval")
    at = candidate.estimate
    label = "at the peak of the traffic"
    axes.plot([at.throughput.value], [at.tpot.value * 1e3], marker="D", color=ACCENT, linestyle="", label=label)
    axes.axhline(at.floor_tpot * 1e3, color=SECOND, linestyle=":", label="floor: bytes / bandwidth")
    _finish(figure, axes)
    return figure


def cost_latency(recommendation: Recommendation) -> "Figure":
    """Every candidate's cost a month against its time for a whole answer; the front and the choice stand out."""
    chosen = recommendation.chosen
    assert chosen is not None
    figure, axes = _figure("Cost and latency", "USD a month", "seconds of a whole answer (p95)", (7.0, 4.2))
    _points(axes, recommendation.candidates, SOFT, "meets the objectives")
    front = sorted(recommendation.pareto, key=lambda one: one.cost_per_month)
    _points(axes, front, SECOND, "no other is better in cost, latency and quality")
    axes.plot([chosen.cost_per_month], [chosen.e2e_p95], marker="D", linestyle="", color=ACCENT, label=chosen.system)
    _finish(figure, axes)
    return figure


def _points(axes: "Axes", candidates: "tuple[Candidate, ...] | list[Candidate]", colour: str, label: str) -> None:
    axes.scatter([c.cost_per_month for c in candidates], [c.e2e_p95 for c in candidates], s=18, c=colour, label=label)


def _finish(figure: "Figure", axes: "Axes") -> None:
    """A logarithmic axis with numbers such as 20k, and a legend that covers no point."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _figure(title: str, x: str, y: str, size: tuple[float, float]) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
