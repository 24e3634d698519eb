"""The pictures of a stage, from its curves, its verdict and its checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evaluation.adas_plots import archive_figures, gain_bars
from evaluation.baking_plots import conversation_bars, recall_bars
from evaluation.evolution import search_curves
from evaluation.forge_plots import loop_curves, stage_curves
from evaluation.plots import Curve, evolution_curves, loss_curves, matrix_heat_map, thought_curves, thought_gains
from evaluation.ternary_plots import code_curves, scale_histogram, size_against_quality
from flows.gating import Outcome
from phases.bitnet.storage import ternary_lattices
from phases.evomerge.report import LINEAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(outcome: Outcome, curves: Mapping[str, Curve]) -> "dict[str, Figure]":
    """File name to figure: what can be drawn from this stage. `curves` are its logged metrics by name."""
    drawn = {}
    losses = {name.removesuffix("/loss"): curve for name, curve in curves.items() if name.endswith("/loss")}
    # A thinking model minimises more than its loss on text; this is what compares with the others.
    losses |= {name.removesuffix("/plain_nll"): c for name, c in curves.items() if name.endswith("/plain_nll")}
    if losses:
        drawn["loss.png"] = loss_curves(losses)
    if "matrix" in outcome.judgement.tables:
        drawn["matrix.png"] = matrix_heat_map(outcome.judgement.tables["matrix"])
    if (outcome.made.path / LINEAGE).is_file():
        drawn["evolution.png"] = evolution_curves(*search_curves(outcome.made.path))
    thoughts = {name.removeprefix("thoughts/"): curve for name, curve in curves.items() if name.startswith("thoughts/")}
    if "reward" in thoughts:
        drawn["thoughts.png"] = thought_curves(thoughts)
    if "thought_length" in outcome.judgement.tables:
        drawn["thought_length.png"] = thought_gains(outcome.judgement.tables["thought_length"])
    codes = {name.removeprefix("ternary/"): curve for name, curve in curves.items() if name.startswith("ternary/")}
    if "zeros" in codes:
        drawn["codes.png"] = code_curves(codes)
    if "lattice" in outcome.judgement.tables:
        drawn["scales.png"] = scale_histogram(ternary_lattices(outcome.made.path))
        drawn["size.png"] = size_against_quality(outcome.judgement.tables["rivals"])
    loop = {name.removeprefix("forge/loop/"): curve for name, curve in curves.items() if name.startswith("forge/loop/")}
    if "success" in loop:
        config: Any = outcome.stage.config
        drawn["loop.png"] = loop_curves(loop, config.chaos.band)
    if "stages" in outcome.judgement.tables:
        drawn["stages.png"] = stage_curves(outcome.judgement.tables["stages"])
    if "conversations" in outcome.judgement.tables:
        drawn["conversations.png"] = conversation_bars(outcome.judgement.tables["conversations"])
    recalled = outcome.judgement.tables.get("recall after")
    if recalled is not None and recalled.rows:
        drawn["recall.png"] = recall_bars(recalled)
    if "gains" in outcome.judgement.tables:
        drawn["gains.png"] = gain_bars(outcome.judgement.tables["gains"])
        drawn |= archive_figures(outcome.made.path)
    return drawn
