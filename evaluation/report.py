"""The report of a run: its contract, and `report.json` and `report.md` written from it.

Every number in a README comes out of such a file. What was not measured is null in the JSON and "not measured" in
the text; a field is never left out and never guessed.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from evaluation.judgement import Judgement, Table
from evaluation.metric import Control, Gate, Metric
from phases.errors import InputError
from phases.storage import write_json, write_text
from phases.strict import StrictModel

Status = Literal["passed", "rolled_back", "failed", "skipped"]
FILE = "report.json"


class DataSource(StrictModel):
    """One source of the data card."""

    name: str
    licence: str
    tokens: int = Field(ge=0)
    digest: str


class CheckpointEntry(StrictModel):
    """Where a checkpoint is, and its proof."""

    path: str
    digest: str


class PhaseReport(StrictModel):
    """What one phase did."""

    phase: str
    status: Status
    parameters: int | None = None
    """Numbers in the weights, tied ones once."""
    bytes_on_disk: int | None = None
    seconds: float | None = None
    checkpoint: CheckpointEntry | None = None
    """What the phase handed on: its own result, or the parent that was kept."""
    parents: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    controls: tuple[Control, ...] = ()
    gates: tuple[Gate, ...] = ()
    tables: dict[str, Table] = Field({})
    """Small tables besides the contract: the matrix, recall by pairs, the evolution."""


class Agent(StrictModel):
    """The final model as people will meet it."""

    path: str
    """The checkpoint, which plain `from_pretrained` opens."""
    packed: str | None = None
    """The same at its true size, of which bytes, ratio, latency and memory are; null where there is none."""
    bytes_on_disk: int
    parameters: int
    expert_bytes: int = 0
    """Expert vectors, and the latent weights that they are added to, where the design chooses one a conversation."""
    ratio_vs_fp32: float
    """4 bytes a parameter, embeddings included, over the bytes of the weights on disk and of `expert_bytes`."""
    retention: float | None = None
    """What it keeps of its parent by the compression phase's judgement (tasks, domains, text); without that phase, of
    the right answers of the model before it became ternary; null where neither was measured."""
    latency_ms_per_token_p50: float | None = None
    prompt_ms_per_token_p50: float | None = None
    """Of reading a prompt in one pass."""
    peak_rss_bytes: int | None = None
    kernel: str | None = None
    """What multiplied with the packed weights; null for a model that is not packed."""


class Report(StrictModel):
    """A whole run."""

    run: str
    profile: str
    commit: str
    seed: int
    started: str
    """ISO 8601 with time zone."""
    seconds: float
    machine: dict[str, str | int | float | None]
    data: tuple[DataSource, ...] = ()
    phases: tuple[PhaseReport, ...] = ()
    agent: Agent | None = None
    recommendation: dict[str, Any] | None = None


def phase_report(phase: str, status: Status, judgement: Judgement, **known: Any) -> PhaseReport:
    """A phase's entry from its judgement; `known` are the other fields of `PhaseReport`."""
    return PhaseReport(
        phase=phase,
        status=status,
        metrics=judgement.metrics,
        controls=judgement.controls,
        gates=judgement.gates,
        tables=judgement.tables,
        **known,
    )


def data_sources(card: Any) -> tuple[DataSource, ...]:
    """The contract's four fields of every source in a data card."""
    fields = tuple(DataSource.model_fields)
    return tuple(DataSource(**{name: source[name] for name in fields}) for source in card["sources"])


def write_report(folder: Path, report: Report) -> None:
    """Write `report.json` and `report.md`, each atomically."""
    from evaluation.render import render_markdown  # the renderer reads these models

    write_json(folder / FILE, report.model_dump(mode="json"))
    write_text(folder / "report.md", render_markdown(report))


def read_report(folder: Path) -> Report:
    """The report of a run directory. Raises `InputError` when there is none or it was altered."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: there is no report; give the folder of a finished run, or run `forge run`") from None
    try:
        return Report.model_validate_json(text)
    except ValueError:
        raise InputError(f"{path}: truncated or altered; run the same `forge run` again to write it anew") from None
