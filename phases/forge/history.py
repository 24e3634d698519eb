"""`history.json` beside the checkpoint: what each stage did, what the dreams came to, and what it all cost."""

import json
from pathlib import Path

from pydantic import ValidationError

from phases.errors import CheckpointError
from phases.storage import write_json
from phases.strict import StrictModel

HISTORY = "history.json"


class Standing(StrictModel):
    """What the model could do on validation items at a boundary of stages."""

    text: float
    """Nats a token of running text."""
    answers: float
    """Nats a token of the answers of reasoning and memory, mean of the two."""
    reasoning: float
    """Share of items solved."""
    memory: float
    """Share of items solved."""

    def loss(self, text_share: float) -> float:
        """What stages are compared by, nats a token: text and answers as they are mixed, both tasks alike."""
        return text_share * self.text + (1 - text_share) * self.answers


class DreamCycle(StrictModel):
    """One cycle of dreams, counted."""

    written: int
    """Dreams written."""
    valid: int
    """Of those, how many passed every filter."""
    kept: int
    """Of those, how many the buffer took."""
    used: int
    """Dreams in the rows of the stage; one that stands in two rows counts twice."""
    refused: dict[str, int]
    """Reason to dreams refused for it."""
    floor: str | None
    """Why the valid ones were refused with the others; empty: they were not."""
    valid_by_temperature: dict[str, float]
    """Temperature to the share of valid ones among those written at it."""
    diversity: float
    """Distinct 2-grams of the valid dreams, as a share of the true continuations'."""


class LoopRecord(StrictModel):
    """How the closed loop held over one stage."""

    steps: int
    """Steps in which tasks were asked."""
    held: int
    """Of those, in how many the smoothed share of all asked items that were solved lay in the band."""
    overall: float | None
    """That share at the end."""
    success: dict[str, float | None]
    """Task to its smoothed success at the end; empty where it was not asked."""
    difficulty: dict[str, float]
    """Task to its difficulty at the end."""
    exponent: float | None
    """Lyapunov exponent at the last measurement, nats a layer."""
    reference: float | None
    """What it was to be."""
    rate: float
    """Factor on the learning rates at the end."""
    noise: float
    """Noise on the embeddings at the end, as a share of their root mean square."""


class SelfKnowledge(StrictModel):
    """How well the model predicts itself, on validation data."""

    rows: int
    """Text rows behind the first four."""

    r2: float
    """Share of the later layer's variance that the head predicts from the earlier one."""
    copy_r2: float
    """The same for the earlier layer itself as the prediction."""
    scaled_copy_r2: float
    """The same for the earlier layer with one factor a feature, fitted."""
    target_variance: float
    """Variance of the later layer, mean over its features: near 0 it has collapsed."""
    recognised: float | None = None
    """Share of texts whose temperature, or whose not being its own, was recognised; empty without dreams."""
    recognised_stderr: float | None = None
    """Its standard error."""
    chance: float | None = None
    """The same for always naming the most frequent."""
    texts: int = 0
    """Texts behind these."""


class StageRecord(StrictModel):
    """What became of a stage."""

    name: str
    """The stage's own name."""
    steps: int
    """Optimizer steps done in it; 0 when it was left out."""
    entry: Standing
    """Where the model stood as it began."""
    exit: Standing
    """Where it stood as it ended, before anything was taken back."""
    taken_back: bool = False
    """Whether the model went on as it had entered, because dreams did harm."""
    loss: float | None = None
    """Training loss of its last reported step."""
    tokens: int = 0
    """Tokens trained on."""
    cost: float = 0.0
    """Passes over a token by the model, 1 forward and 2 backward: training, dreaming and measuring the exponent."""
    loop: LoopRecord | None = None
    """What the closed loop did in it, if it acted."""
    dreams: DreamCycle | None = None
    """Its dreams, if it had any."""


class History(StrictModel):
    """All of it."""

    stages: tuple[StageRecord, ...] = ()
    """In their order."""
    best: str | None = None
    """The stage whose end is what the phase made; empty: the parent, which no stage improved on."""
    self_knowledge: SelfKnowledge | None = None
    """Of the finished model, when it learnt to predict itself."""

    @property
    def up_to_best(self) -> tuple[StageRecord, ...]:
        """The stages that the model went through; none when it is the parent."""
        names = [stage.name for stage in self.stages]
        return () if self.best is None else self.stages[: names.index(self.best) + 1]

    @property
    def cost(self) -> float:
        """Of all stages, those taken back included."""
        return sum(stage.cost for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Trained on in all stages."""
        return sum(stage.tokens for stage in self.stages)


def write_history(path: Path, history: History) -> None:
    """Replace the file atomically."""
    write_json(path, history.model_dump(mode="json"))


def read_history(path: Path) -> History:
    """Of a checkpoint or a work directory. Raises `CheckpointError` when it is missing or damaged."""
    try:
        return History.model_validate(json.loads((path / HISTORY).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        raise CheckpointError(f"{path / HISTORY}: missing, truncated or altered; run the phase again") from None
