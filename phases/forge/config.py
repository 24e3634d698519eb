"""The phase's config: ten stages as data, and the ingredients that act in them, each of which can be switched off."""

import itertools
from typing import Literal, Self

from pydantic import Field, model_validator

from phases.cognate.config import Mix
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig


class ForgeStage(StrictModel):
    """One stage: how long, how fast, and which ingredients act in it if they are switched on."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """What it is called in curves, tables and files."""
    share: float = Field(1.0, gt=0)
    """How much of `training.steps` it gets, relative to the others."""
    rate: tuple[float, float] = (1.0, 1.0)
    """The learning rates at its first and last step, as shares of their peak; linear in between."""
    control: bool = False
    """The closed loop sets difficulty, rate and noise."""
    dreams: bool = False
    """Dreams are written as it begins, and mixed in."""
    self_model: bool = False
    """The model also learns to predict its own states."""
    always: bool = False
    """Runs even when stages before it gained nothing."""

    @model_validator(mode="after")
    def _rates(self) -> Self:
        if min(self.rate) < 0 or max(self.rate) == 0:
            raise ValueError("rate must not be below 0, nor 0 throughout")
        return self


class Chaos(StrictModel):
    """The closed loop: success of tasks into a band by their difficulty, the Lyapunov exponent along a course."""

    enabled: bool = False
    """Whether the loop acts; off, its stages draw the data's own rows."""
    band: tuple[float, float] = (0.55, 0.75)
    """Share of tasks solved that it steers to."""
    gain: float = Field(0.15, gt=0)
    """How much difficulty (0 easiest, 1 as the data's tasks) moves when success is off the band by 1, a step."""
    smoothing: float = Field(0.8, ge=0, lt=1)
    """Weight of the past in the measured success."""
    hardest: float = Field(1.0, ge=0.1, le=2.0)
    """Largest difficulty; above 1 the generators' limits lie beyond those of the data's tasks."""
    levels: int = Field(5, ge=2, le=20)
    """Difficulties that fresh tasks are made at, evenly from 0 to `hardest`."""
    items: int = Field(300, ge=20)
    """Fresh items of each task at each difficulty."""
    focus: bool = True
    """Draw tasks in proportion to p · (1 − p) of their success p: what is always or never solved teaches little
    (arXiv 2408.15099). Off: as the data weighs them."""
    tilt_gain: float = Field(0.0, ge=0)
    """How fast shares tilt to easier or harder tasks while the success over all is off the band; for tasks that no
    difficulty brings into it. 0: not at all."""
    tilt_limit: float = Field(4.0, ge=0)
    """Largest tilt t of shares · exp(t · success), either way."""
    every: int = Field(5, ge=1)
    """Steps between two measurements of the exponent."""
    rows: int = Field(1, ge=1)
    """Rows that the exponent is measured on."""
    directions: int = Field(1, ge=1)
    """Random tangent vectors that it is measured along."""
    exponent: float = 0.0
    """The exponent (nats a layer) that its course leads to, from where it stands as the loop begins."""
    rate_gain: float = Field(3.0, ge=0)
    """How strongly the rate follows the exponent's error: factor exp(−gain · error); 0 leaves the rate alone."""
    rate_limits: tuple[float, float] = (0.5, 1.5)
    """Limits of that factor."""
    noise_gain: float = Field(2.0, ge=0)
    """How much the noise moves at a measurement for each nat of the exponent's error; 0: there is none at all."""
    noise_limit: float = Field(1.0, ge=0)
    """Largest noise on the embeddings, as a share of their own root mean square (NEFTune, arXiv 2310.05914)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.band[0] < self.band[1] <= 1:
            raise ValueError("band must be two shares between 0 and 1, the lower first")
        if not 0 < self.rate_limits[0] <= 1 <= self.rate_limits[1]:
            raise ValueError("rate_limits must be two factors around 1, the lower first and above 0")
        return self


class Dreams(StrictModel):
    """A frozen copy dreams from stored prompts; what passes the filters is kept in a buffer and mixed in."""

    enabled: bool = False
    """Whether dreams are written and trained on."""
    prompts: int = Field(192, ge=8)
    """Stored prompts that are dreamt from in a cycle, of every stream in proportion to the mix."""
    temperatures: tuple[float, ...] = Field((0.3, 0.8), min_length=1)
    """Temperatures, in equal shares; each cycle begins one further along."""
    new_tokens: int = Field(48, ge=1)
    """Tokens that a dream of running text may write; an answer may write what the longest true one needs."""
    prompt_tokens: int = Field(32, ge=1)
    """Tokens of running text that a dream of text starts from."""
    likelihood: tuple[float, float] = (0.05, 5.0)
    """Mean nats a token, under the dreamer at temperature 1, between which a dream of text is kept."""
    distinct: float = Field(0.5, ge=0, le=1)
    """Least share of distinct 3-grams in a dream of text: repetition is not kept."""
    validity: float = Field(0.2, ge=0, le=1)
    """Least share of valid dreams, of text and of tasks each; below it the whole cycle is refused."""
    capacity: int = Field(512, ge=8)
    """Dreams in the replay buffer."""
    novelty: float = Field(0.5, ge=0, le=1)
    """Say of novelty, against that of quality, in what the buffer keeps."""
    share: float = Field(0.25, gt=0, lt=1)
    """Share of a step's rows that are dreams."""
    teacher: float = Field(0.5, ge=0, le=1)
    """Share of the loss on dreams that is the divergence from the dreamer's distribution."""
    harm: float = Field(0.02, ge=0)
    """Rise of the held-out loss (nats a token) over a stage with dreams at which the stage is taken back."""
    diversity: float = Field(0.5, ge=0, le=1)
    """Least diversity of the kept dreams (distinct 2-grams), as a share of the true continuations'; else refused."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.temperatures) <= 0:
            raise ValueError("temperatures must be above 0")
        if self.likelihood[0] >= self.likelihood[1]:
            raise ValueError("likelihood must be two bounds, the lower first")
        return self


class SelfModel(StrictModel):
    """An auxiliary head predicts later hidden states from earlier ones (arXiv 2407.10188), and own temperatures."""

    enabled: bool = False
    """Whether the head is trained, and the model with it."""
    weight: float = Field(0.1, ge=0)
    """Weight of the prediction's loss (1 − R²), beside a token's nats."""
    source: float = Field(0.34, ge=0, lt=1)
    """Depth of the layer that is predicted from, as a share of all."""
    target: float = Field(0.84, gt=0, le=1)
    """Depth of the layer that is predicted."""
    hidden: int = Field(0, ge=0)
    """Width of the head's hidden layer; 0: linear."""
    what: Literal["later", "random"] = "later"
    """What is predicted: the later layer (no gradient flows into it), or, as a control, a random map of the tokens."""
    detached: bool = False
    """No gradient flows into the model: a control in which only the head learns."""
    temperature: float = Field(0.05, ge=0)
    """Weight of recognising at which temperature the model itself wrote a text, or that it did not."""

    @model_validator(mode="after")
    def _later(self) -> Self:
        if self.source >= self.target:
            raise ValueError("target must lie deeper than source: a layer predicting itself is the identity")
        return self


class Grokfast(StrictModel):
    """Amplify the slow part of the gradient (Grokfast-EMA, arXiv 2405.20233)."""

    enabled: bool = False
    """Whether gradients are filtered, in every stage."""
    alpha: float = Field(0.98, ge=0, lt=1)
    """Weight of the past in the gradient's mean."""
    amplify: float = Field(2.0, ge=0)
    """λ of g + λ · ema(g)."""


def _ten_stages() -> tuple[ForgeStage, ...]:
    bounds = (0.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.05)
    names = (*("adapt",) * 3, *("edge",) * 3, *("dream",) * 2, "self", "settle")
    return tuple(
        ForgeStage(
            name=f"{index:02d}-{name}",
            rate=(bounds[index - 1], bounds[index]),
            control=name == "edge",
            dreams=name == "dream",
            self_model=name in ("self", "settle"),
            always=name in ("self", "settle"),
        )
        for index, name in enumerate(names, start=1)
    )


class ForgeTrainingConfig(PhaseConfig):
    """Phase 5: ten stages of further training, and a control at equal tokens and compute."""

    stages: tuple[ForgeStage, ...] = Field(_ten_stages(), min_length=1)
    """The stages in their order; the learning rate's course is theirs."""
    chaos: Chaos = Chaos()
    """The closed loop at the edge of chaos."""
    dreams: Dreams = Dreams()
    """Dreaming, filtering and replay."""
    self_model: SelfModel = SelfModel()
    """Predicting one's own states."""
    grokfast: Grokfast = Grokfast()
    """Filtering the gradients."""
    training: TrainingConfig = TrainingConfig(steps=260, optimizer="adamw", learning_rate=0.0005)
    """Optimizer, batch, precision, and all stages' steps; `warmup`, `decay` and `final_rate` give way to theirs."""
    mix: Mix = Mix(text=0.5, reasoning=0.3, memory=0.1, copying=0.1)
    """Shares of the token streams, the same for the control."""
    validation_items: int = Field(32, ge=8)
    """Validation items of each task that a stage is measured on as it begins and ends."""
    validation_blocks: int = Field(8, ge=2)
    """Validation text blocks, likewise."""
    patience: int = Field(3, ge=1)
    """Stages in a row that may leave the model no better than they found it; then those that do not run `always` are
    left out."""
    layout: Literal["trits", "2bit"] = "trits"
    """How the packed file of a ternary model holds its codes: five in a byte, or four, which unpack faster."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"stages: '{repeated[0]}' stands there twice; give each its own name")
        if any(stop <= start for start, stop in itertools.pairwise(self.bounds)):
            raise ValueError(f"training.steps={self.training.steps} is too few for {len(names)} stages; raise it")
        return self

    @property
    def bounds(self) -> tuple[int, ...]:
        """The step at which each stage begins, and all steps: one more than there are stages."""
        shares = list(itertools.accumulate(stage.share for stage in self.stages))
        return (0, *(round(self.training.steps * share / shares[-1]) for share in shares))
