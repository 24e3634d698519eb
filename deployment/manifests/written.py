"""The recommendation in words, as Markdown: what, why, how certain, what it costs, what was rejected and by how much.

    from deployment.manifests.written import written
    print(written(recommendation, plan))

Every figure is one of the recommendation's own; an interval is the physics' 80 % interval.
"""

from collections.abc import Iterable, Sequence

from deployment.counting import counted
from deployment.manifests.commands import TOKENIZER_WORDS, arguments, load_line, shell
from deployment.manifests.contents import listed
from deployment.manifests.plan import Plan
from deployment.planning.candidate import Candidate, Recommendation
from deployment.planning.digits import duration, number, rate, size
from deployment.planning.nearest import kinds
from deployment.serving import Figure, MemoryPlan

_SHOWN = 10
"""Rows of a table; the JSON has all."""


def written(
    plan: Plan,
    recommendation: Recommendation | None = None,
    omitted: Sequence[str] = (),
    files: Iterable[str] = (),
) -> str:
    """The document. Without `recommendation` it says nothing of what else there was.

    `omitted` says which manifests were not written, and why; `files` are those that were.
    """
    chosen = plan.candidate
    parts = [f"# {chosen.model.name}: how to serve it", _what(chosen)]
    if recommendation is not None:
        parts.append(_why(recommendation, chosen))
    parts += [_cost(chosen), _latency(chosen), _memory(chosen)]
    if recommendation is not None:
        parts += [_alternatives(recommendation), _rejected(recommendation)]
    return _join([*parts, _notes(recommendation, chosen), _how(plan, omitted), listed(plan, files)])


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(chosen: Candidate) -> str:
    serving, replicas, offer = chosen.serving, counted(chosen.replicas, "replica"), chosen.offer
    if chosen.accelerator is None:
        where = f"{replicas} on the CPUs of {counted(chosen.instances, 'instance')}"
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
        f"For {work.use_case}: {rate(work.peak_rate)} at the peak, {number(work.average_rate)} on average, "
        f"prompts of {work.prompt.mean} and answers of {work.output.mean} tokens on average, at most {work.context} "
        f"together. Of {counted(len(recommendation.candidates), 'system')} that would do, it is the first by "
        f"{recommendation.request.rank}."
    )
    if recommendation.request.cautious:
        asked += " What is predicted here is the upper end of the 80 % interval."
    limits = (
        (f"TTFT, p95 (of prompts too: {work.prompt.p95} tokens)", chosen.ttft_p95 * 1e3, work.slo.ttft_p95_ms, "ms"),
        ("TPOT, p95", chosen.tpot_p95 * 1e3, work.slo.tpot_p95_ms, "ms"),
        (f"end to end, p95 (of answers too: {work.output.p95} tokens)", chosen.e2e_p95, work.slo.e2e_p95_s, "s"),
    )
    kept = [
        f"- {name}: {number(value)} {unit} predicted, {limit:g} {unit} asked for"
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
    arriving = f"{number(load.concurrency or 0)} requests in flight"
    if load.rate is not None:
        arriving = rate(load.rate)
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
        f"{number(one.batch)} decoded together: prompts of the mean length. With those of the 95th percentile, TTFT "
        f"p95 is {duration(chosen.ttft_p95)}, which an objective is compared with. TPOT is (end-to-end − TTFT) / "
        "(tokens − 1)."
    )
    floor = f"No step can be quicker than {duration(one.floor_tpot)}: what it reads, over the memory's bandwidth."
    return "\n".join(["## What to expect", words, "", *table, "", floor if one.floor_tpot else ""]).rstrip()


def _value(figure: Figure, unit: str, scale: float) -> str:
    value, low, high = (number(x * scale) for x in (figure.value, figure.low, figure.high))
    return f"{value} {unit} | {low} – {high} {unit} | {figure.provenance}".replace("  |", " |")


def _memory(chosen: Candidate) -> str:
    plan: MemoryPlan = chosen.estimate.memory
    parts = (("weights", plan.weights), ("activation", plan.activation), ("engine and driver", plan.non_torch))
    rows = [f"| {name} | {size(held)} |" for name, held in (*parts, ("KV pool", plan.kv_pool)) if held]
    first = "## Where the memory goes\nOf one accelerator:" if chosen.accelerator else "## Where the memory goes"
    return "\n".join([first, "", "| | |", "|---|---|", *rows])


def _alternatives(recommendation: Recommendation) -> str:
    others = [one for one in recommendation.candidates if one is not recommendation.chosen][:_SHOWN]
    if not others:
        return ""
    rows = [
        f"| {one.system} × {one.replicas} | {one.cost_per_month:,.0f} | {number(one.ttft_p95 * 1e3)} | "
        f"{number(one.tpot_p95 * 1e3)} | {f'{one.quality.score:g}' if one.quality else '–'} | {one.score:.0f} |"
        for one in others
    ]
    head = f"| system | USD a month | TTFT p95, ms | TPOT p95, ms | {recommendation.benchmark or 'quality'} | score |"
    return "\n".join(["## What else would do", "", head, "|---|---|---|---|---|---|", *rows])


def _rejected(recommendation: Recommendation) -> str:
    """How many by constraint, and of each the one that misses by least, with its number."""
    found = kinds(recommendation.rejections, 1)
    lines = [f"- **{kind.constraint}** ({kind.count:,}), nearest {kind.nearest[0]}" for kind in found]
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
    if plan.download_bytes:
        lines += [_download(plan), ""]
    lines += ["The load test that goes with it (GuideLLM 0.7 or later); give its output to `forge calibrate`:", ""]
    lines += ["```sh", load_line(plan), "```"]
    if plan.tokenizer_unknown:
        lines += ["", f"`$TOKENIZER` is {TOKENIZER_WORDS}: on the hub the model's name may be a stranger's."]
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


def _download(plan: Plan) -> str:
    """What a pod does at its start, and how not to do it again each time."""
    return (
        f"On Kubernetes each pod downloads the checkpoint anew whenever it starts, {size(plan.download_bytes)}, to the "
        "node's disk, and asks for that room there (`ephemeral-storage`): a node with less is not taken. With a "
        "volume claim in place of the `emptyDir` named `cache` (ReadWriteMany for several pods) it is downloaded once."
    )
