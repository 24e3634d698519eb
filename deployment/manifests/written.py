"""The recommendation in words, as Markdown: what, why, how certain, what it costs, what was rejected and by how much.

    from deployment.manifests.written import written
    print(written(recommendation, plan))

Every figure is one of the recommendation's own; an interval is the physics' 80 % interval.
"""

from collections.abc import Iterable, Sequence

from deployment.manifests.commands import arguments, load_test, shell
from deployment.manifests.plan import Plan
from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.nearest import kinds
from deployment.serving import Figure, MemoryPlan

_GIB = 2**30
_SHOWN = 10
"""Rows of a table; the JSON has all."""


def written(plan: Plan, recommendation: Recommendation | None = None, omitted: Sequence[str] = ()) -> str:
    """The document. Without `recommendation` it says nothing of what else there was.

    `omitted` says which manifests were not written, and why.
    """
    chosen = plan.candidate
    parts = [f"# {chosen.model.name}: how to serve it", _what(chosen)]
    if recommendation is not None:
        parts.append(_why(recommendation, chosen))
    parts += [_cost(chosen), _latency(chosen), _memory(chosen)]
    if recommendation is not None:
        parts += [_alternatives(recommendation), _rejected(recommendation)]
    return _join([*parts, _notes(recommendation, chosen), _how(plan, omitted)])


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(chosen: Candidate) -> str:
    serving, replicas, offer = chosen.serving, _count(chosen.replicas, "replica"), chosen.offer
    if chosen.accelerator is None:
        where = f"{replicas} on the CPUs of {_count(chosen.instances, 'instance')}"
    else:
        each = f"{serving.accelerators} × {chosen.accelerator.name}"
        where = f"{replicas} of {each} (TP {serving.tp}, PP {serving.pp}, DP {serving.dp})"
    engine = f"{serving.engine} {serving.version}".rstrip()
    bought = "spot" if offer.spot else "on demand"
    lines = [
        f"- **Engine**: {engine}, weights {serving.precision}, keys and values of {serving.kv_bits} bits",
        f"- **Shape**: {where}",
        f"- **Instances**: {chosen.instances} × {offer.instance} at {offer.cloud}, {offer.region} ({bought})",
        f"- **Longest request**: {serving.max_context or chosen.model.context} tokens",
        f"- **Licence**: {chosen.model.licence}",
    ]
    return "\n".join(["## What", *lines])


def _why(recommendation: Recommendation, chosen: Candidate) -> str:
    """The question, and the objectives against what is predicted at the 95th percentile."""
    work = recommendation.workload
    asked = (
        f"For {work.use_case}: {work.peak_rate:.3g} requests a second at the peak, {work.average_rate:.3g} on average, "
        f"prompts of {work.prompt.mean} and answers of {work.output.mean} tokens on average, at most {work.context} "
        f"together. Of {_count(len(recommendation.candidates), 'system')} that would do, it is the first by "
        f"{recommendation.request.rank}."
    )
    limits = (
        ("TTFT", chosen.ttft_p95 * 1e3, work.slo.ttft_p95_ms, "ms"),
        ("TPOT", chosen.tpot_p95 * 1e3, work.slo.tpot_p95_ms, "ms"),
        ("end to end", chosen.e2e_p95, work.slo.e2e_p95_s, "s"),
    )
    kept = [
        f"- {name}, p95: {value:.3g} {unit} predicted, {limit:g} {unit} asked for"
        for name, value, limit, unit in limits
        if limit is not None
    ]
    return "\n".join(["## Why", asked, *(["", *kept] if kept else [])])


def _cost(chosen: Candidate) -> str:
    offer = chosen.offer
    return (
        "## What it costs\n"
        f"{chosen.cost_per_hour:,.2f} USD an hour, {chosen.cost_per_month:,.0f} USD a month, "
        f"{chosen.cost_per_million_tokens:,.2f} USD a million output tokens at the average load. An instance costs "
        f"{offer.price:g} {offer.currency} an hour, as seen on {offer.date} ({offer.source})."
    )


def _latency(chosen: Candidate) -> str:
    one, load = chosen.estimate, chosen.load
    arriving = f"{load.concurrency or 0:.3g} requests in flight"
    if load.rate is not None:
        arriving = f"{load.rate:.3g} requests a second"
    rows = [
        ("TTFT, mean", one.ttft, "ms", 1e3),
        ("TPOT, mean", one.tpot, "ms", 1e3),
        *((f"TTFT, p{p}", f, "ms", 1e3) for p, f in sorted(one.ttft_percentiles.items())),
        *((f"TPOT, p{p}", f, "ms", 1e3) for p, f in sorted(one.tpot_percentiles.items())),
        ("output tokens a second and replica", one.throughput, "", 1.0),
    ]
    table = ["| | expected | 80 % interval | from |", "|---|---|---|---|"]
    table += [f"| {name} | {_value(figure, unit, scale)} |" for name, figure, unit, scale in rows]
    words = (
        f"Of one replica under {arriving} of {load.prompt_tokens} prompt and {load.output_tokens} output tokens, "
        f"{one.batch:.3g} decoded together. TPOT is (end-to-end − TTFT) / (tokens − 1)."
    )
    floor = f"No step can be quicker than {one.floor_tpot * 1e3:.3g} ms: what it reads, over the memory's bandwidth."
    return "\n".join(["## What to expect", words, "", *table, "", floor if one.floor_tpot else ""]).rstrip()


def _value(figure: Figure, unit: str, scale: float) -> str:
    shown = [x * scale for x in (figure.value, figure.low, figure.high)]
    value, low, high = (f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}" for x in shown)
    return f"{value} {unit} | {low} – {high} {unit} | {figure.provenance}".replace("  |", " |")


def _memory(chosen: Candidate) -> str:
    plan: MemoryPlan = chosen.estimate.memory
    parts = (("weights", plan.weights), ("activation", plan.activation), ("engine and driver", plan.non_torch))
    rows = [f"| {name} | {size / _GIB:.2f} GiB |" for name, size in (*parts, ("KV pool", plan.kv_pool))]
    first = "## Where the memory goes\nOf one accelerator:" if chosen.accelerator else "## Where the memory goes"
    return "\n".join([first, "", "| | |", "|---|---|", *rows])


def _alternatives(recommendation: Recommendation) -> str:
    others = [one for one in recommendation.candidates if one is not recommendation.chosen][:_SHOWN]
    if not others:
        return ""
    rows = [
        f"| {one.system} × {one.replicas} | {one.cost_per_month:,.0f} | {one.ttft_p95 * 1e3:,.0f} | "
        f"{one.tpot_p95 * 1e3:,.1f} | {f'{one.quality.score:g}' if one.quality else '–'} | {one.score:.0f} |"
        for one in others
    ]
    head = f"| system | USD a month | TTFT p95, ms | TPOT p95, ms | {recommendation.benchmark or 'quality'} | score |"
    return "\n".join(["## What else would do", "", head, "|---|---|---|---|---|---|", *rows])


def _rejected(recommendation: Recommendation) -> str:
    """How many by constraint, and of each the one that misses by least, with its number."""
    found = kinds(recommendation.rejections, 1)
    lines = [f"- **{kind.constraint}** ({kind.count}), nearest {kind.nearest[0]}" for kind in found]
    return "\n".join(["## What was rejected, and why", *lines]) if lines else ""


def _notes(recommendation: Recommendation | None, chosen: Candidate) -> str:
    own = recommendation.notes if recommendation is not None else ()
    notes = dict.fromkeys((*chosen.notes, *chosen.estimate.notes, *own))
    return "\n".join(["## Notes", *(f"- {note}" for note in notes)]) if notes else ""


def _how(plan: Plan, omitted: Sequence[str]) -> str:
    first = [f"{number}. {step[0].upper()}{step[1:]}." for number, step in enumerate(plan.steps, 1)]
    if plan.mounted:
        first.append(
            f"   On Kubernetes the volume is the claim `{plan.claim}`, with docker compose the folder `models`."
        )
    lines = ["## How", *first, "", *_engine(plan), ""]
    lines += ["The load test that goes with it; give its output to `forge calibrate`:", "", "```sh"]
    lines += [shell(load_test(plan)), "```"]
    if plan.candidate.replicas > 1:
        everyone = "`load-test.sh` sends it to `$URL`, an address behind which all replicas have to stand"
        lines += ["", f"It is the load of all {plan.candidate.replicas} replicas: {everyone}."]
    if omitted:
        lines += ["", "Not written:", *(f"- {one}" for one in omitted)]
    return "\n".join(lines)


def _engine(plan: Plan) -> list[str]:
    """How it is started by hand."""
    if plan.nodes == 1:
        return ["The engine:", "", "```sh", shell(arguments(plan)), "```"]
    where = f"The engine, on each of a replica's {plan.nodes} instances with its own number, from 0:"
    return [where, "", "```sh", "HEAD=ADDRESS_OF_THE_FIRST NODE_RANK=NUMBER ./vllm.sh", "```"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
