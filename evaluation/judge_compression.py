"""The judge of phase 8: is the agent's one file as small as it says, and does it still do what its parent did?

    judge(checkpoint, [parent], data, EvaluationConfig())

The artefact is opened from disk and answers, talks and works with its tools on the test split, beside its parent.
Retention is the mean over right answers of tasks, of an agent's domains, and bits per byte, each 1 at most. Controls
have no say in what was chosen: the same allocation at as many bytes as it was before training, and the parent trained
in float32 on the same rows for as many steps, which says what the extra steps would have brought anyway. The ratio is
that of all weights, header, side information and the mixing head of a model that thinks included; what may take 100 MB
on the disk is the whole folder that is shipped. Milliseconds a token and peak memory are those of a fresh process,
which must write the same text as this one.
"""

import math
from collections.abc import Sequence

from evaluation.adas_measures import PARENT
from evaluation.compression_measures import (
    NAME,
    compression_tables,
    domain_metrics,
    kept_metrics,
    play_domains,
    what_is_kept,
)
from evaluation.config import EvaluationConfig
from evaluation.judgement import Judgement
from evaluation.latency import Latency, count_parameters, decode_timed, measure_latency
from evaluation.measured import Measured, measure, model_metrics
from evaluation.metric import Control, Gate, Metric, finite_check, gate, paired_control
from evaluation.specialities import NAMES, Units, held_out
from phases.checkpoint import Checkpoint
from phases.compression.kept import Kept
from phases.compression.press import AGENT, CONTROL, UNTRAINED
from phases.compression.report import CompressionReport, read_report
from phases.dataset import Dataset

TOKENS, REPEATS = 64, 5
"""Of the decodes that are timed."""
MOST_BYTES, MOST_MS, MOST_RSS = 100e6, 50.0, 2e9
"""What an agent may take: on disk, milliseconds a token, bytes of memory."""


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a compression checkpoint. Raises `CheckpointError` when its report or a sibling is missing."""
    found, parent, siblings = read_report(checkpoint.path), parents[0], checkpoint.siblings
    agent, units = siblings[AGENT], held_out(data, config)
    ours = measure(agent.model(), agent.tokenizer(), units, config)
    finite, finite_gate = finite_check(ours.not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    models = {PARENT: parent, UNTRAINED: siblings[UNTRAINED], CONTROL: siblings[CONTROL]}
    others = {name: measure(one.model(), one.tokenizer(), units, config) for name, one in models.items()}
    domains = play_domains({NAME: agent, PARENT: parent, UNTRAINED: siblings[UNTRAINED]}, parent, data, config)
    kept = what_is_kept(ours, others[PARENT], domains, NAME)
    untrained = what_is_kept(others[UNTRAINED], others[PARENT], domains, UNTRAINED)
    fresh, here = measure_latency(agent.path, TOKENS, REPEATS), decode_timed(agent.path, TOKENS, 1)
    whole = 4 * count_parameters(parent.path, thoughts=True)[0]
    size = count_parameters(agent.path, thoughts=True)[1]
    return Judgement(
        metrics=(
            finite,
            *kept_metrics(kept, NAME, ours, others[PARENT], units, domains),
            *kept_metrics(untrained, UNTRAINED, others[UNTRAINED], others[PARENT], units, domains),
            *_costs(fresh, size, agent.bytes_on_disk, whole / size, units.split),
            *domain_metrics(domains, units.split),
            *model_metrics(NAME, ours, units.split, others[PARENT]),
            *(metric for name, one in others.items() for metric in model_metrics(name, one, units.split)),
        ),
        controls=tuple(_controls(ours, others, found, units)),
        gates=(finite_gate, *_gates(kept, untrained, found, agent.bytes_on_disk, whole / size, fresh, here, config)),
        tables=compression_tables(found, agent, kept, ours, others, units),
    )


def _costs(fresh: Latency, size: int, folder: int, smaller: float, split: str) -> list[Metric]:
    """Figures of one folder and one process: they have no error."""
    values = {
        "bytes": (float(size), "bytes"),
        "bytes_on_disk": (float(folder), "bytes"),
        "smaller_than_float32": (smaller, "×"),
        "ms_per_token": (fresh.ms_per_token_p50, "ms"),
        "peak_rss": (float(fresh.peak_rss_bytes), "bytes"),
    }
    return [Metric(name=f"{NAME}/{n}", split=split, value=v, n=1, unit=unit) for n, (v, unit) in values.items()]


def _controls(ours: Measured, others: dict[str, Measured], found: CompressionReport, units: Units) -> list[Control]:
    rung = found.rungs[found.taken]
    steps = found.config["training"]["steps"]
    budgets = {
        UNTRAINED: f"the same codecs and bytes ({rung.bytes:,}), not trained",
        CONTROL: f"{steps} steps on the same rows in float32",
        PARENT: "nothing",
    }
    controls = []
    for name, one in others.items():
        for task in ("reasoning", "memory"):
            scores = (ours.scores[task], one.scores[task])
            controls.append(paired_control(name, f"{task}/{NAMES[task]}", *scores, budgets[name]))
    return controls


def _gates(
    kept: Kept,
    untrained: Kept,
    found: CompressionReport,
    folder: int,
    smaller: float,
    fresh: Latency,
    here: Latency,
    config: EvaluationConfig,
) -> list[Gate]:
    ratio = found.rungs[found.taken].ratio
    enough = float(found.config["retention"])
    # A ratio that was not reached fails no gate, as a smaller one is shipped instead; but its name says so.
    reached = "; ".join((f"{ratio:g}× smaller than float32", *found.missed))
    return [
        gate(reached, f"{NAME}/smaller_than_float32", smaller, ">=", ratio),
        gate("retention", f"{NAME}/retention", kept.mean, ">=", enough),
        _against_untrained(kept, untrained, enough, config.sigmas),
        gate("on disk", f"{NAME}/bytes_on_disk", float(folder), "<", MOST_BYTES),
        gate("milliseconds a token", f"{NAME}/ms_per_token", fresh.ms_per_token_p50, "<", MOST_MS),
        gate("peak memory", f"{NAME}/peak_rss", float(fresh.peak_rss_bytes), "<", MOST_RSS),
        gate("a fresh process writes something else", "tokens", float(fresh.written != here.written), "<=", 0.0),
    ]


def _against_untrained(kept: Kept, untrained: Kept, enough: float, sigmas: float) -> Gate:
    """Better than the untrained form; where that keeps enough by itself, there may be nothing to gain: no worse."""
    better = kept.mean - untrained.mean
    error = sigmas * math.hypot(kept.stderr, untrained.stderr)
    if untrained.mean >= enough:
        return gate("no worse than untrained at equal bytes", "difference of retention", better, ">=", -error)
    return gate("better than untrained at equal bytes", "difference of retention", better, ">", error)
