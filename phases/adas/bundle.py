"""The agent at its new design: the mixture folded into its weights, what it needs besides them, its packed form."""

from collections.abc import Mapping
from pathlib import Path

from phases.adas.config import AdasConfig
from phases.adas.pool import POOL
from phases.adas.report import ARCHIVE, CONTROL, REPORT, AdasReport
from phases.adas.trials import agent_settings
from phases.agent.design import Design, Mixture
from phases.agent.experts import Experts
from phases.agent.library import LIBRARY
from phases.agent.settings import DOCUMENTS, SETTINGS
from phases.agent.template import with_tools
from phases.baking.bundle import add_files
from phases.baking.config import CONVERSATIONS
from phases.bitnet.storage import is_ternary
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_family
from phases.dataset import Dataset
from phases.forge.body import Body
from phases.packed.file import pack_checkpoint
from phases.phase import is_finished

PACKED = "packed"


def write_agent(
    parent: Checkpoint, data: Dataset, config: AdasConfig, found: AdasReport, work: Path, out: Path
) -> Checkpoint:
    """Fold, bundle, pack; what is finished is kept in the work directory and skipped on a rerun."""
    design = found.winner.genome.design(POOL)
    weights = work / "weights"
    if not is_finished(weights):
        _fold(parent, data, design, work, weights, _manifest(parent, data, config, found))
    known = {name: parent.path / name for name in (DOCUMENTS, CONVERSATIONS) if (parent.path / name).is_file()}
    beside = {LIBRARY: work / LIBRARY, **known}
    settings = agent_settings(parent)
    plain = settings.model_copy(update={"design": design.model_copy(update={"mixture": Mixture()})})
    texts = {SETTINGS: plain.model_dump_json(indent=2)}
    if is_ternary(parent.path) and not is_finished(work / PACKED):
        # Without vectors, which are of latent weights: a design that dispatches is packed without.
        if not is_finished(work / "bare"):
            add_files(open_checkpoint(weights), work / "bare", "adas", texts, beside)
        pack_checkpoint(open_checkpoint(work / "bare"), work / PACKED, config.layout)
    agent = plain if folds(design) else settings.model_copy(update={"design": design})
    if not is_finished(work / "whole"):
        files = {**beside, **_vectors(work), **{name: work / name for name in (ARCHIVE, CONTROL, REPORT)}}
        texts[SETTINGS] = agent.model_dump_json(indent=2)
        add_files(open_checkpoint(weights), work / "whole", "adas", texts, files)
    siblings = {PACKED: work / PACKED} if is_ternary(parent.path) else {}
    return save_family(out, work / "whole", siblings)


def folds(design: Design) -> bool:
    """Whether the mixture is the same for every conversation, so that it can be put into the weights."""
    return design.mixture.dispatch == "none"


def _fold(parent: Checkpoint, data: Dataset, design: Design, work: Path, out: Path, manifest: Manifest) -> None:
    """The parent's model, with the mixture in its weights where there is one for all."""
    body = Body(parent, data)
    body.tokenizer = with_tools(body.tokenizer)
    if folds(design) and design.mixture != Mixture():
        experts = Experts.open(parent, work / "experts")
        body.quantised = experts.latent(design.mixture)
        body.model = experts.model(design.mixture) if body.quantised is None else body.quantised.model
    body.save(out, manifest, {})


def _vectors(work: Path) -> Mapping[str, Path]:
    return {path.name: path for path in sorted((work / "experts").iterdir()) if path.is_file()}


def _manifest(parent: Checkpoint, data: Dataset, config: AdasConfig, found: AdasReport) -> Manifest:
    return Manifest(
        phase="adas",
        config=config.model_dump(mode="json"),
        seed=config.seed,
        parents=(parent.digest,),
        data=(data.digest,),
        metrics={
            "validation_mean": sum(found.winner.quality.values()) / len(found.winner.quality),
            "designs": float(found.evolution.candidates),
            "conversations": float(found.evolution.units + found.control.units),
        },
    )
