"""The phase's config: how thoughts are sampled, rewarded and mixed in."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phases.cognate.config import Mix
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig


class Thoughts(StrictModel):
    """Length, number and place of the thoughts."""

    tokens: int = Field(4, ge=0, le=1024)
    """Sampled tokens of a thought, the two delimiters not counted."""
    samples: int = Field(2, ge=1)
    """Parallel thoughts at a position; the reward is relative to their mean."""
    positions: int | None = Field(16, ge=1)
    """Positions of a row that think in a training step; empty: all."""
    ahead: int = Field(2, ge=1)
    """True tokens after a thought that it is rewarded for (the non-myopic loss)."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of sampling."""
    initial: str = "---"
    """Text whose embedding the two delimiters start from."""
    embedding_step: float = Field(3.0, ge=1)
    """How many times as far the delimiters' embeddings move in a step."""


class Reinforce(StrictModel):
    """The policy gradient over a thought's tokens (REINFORCE)."""

    weight: float = Field(5.0, ge=0)
    """Weight of the policy's loss."""
    positive_only: bool = True
    """Learn only from thoughts that are better than their siblings' mean, as in the paper."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the probabilities in the policy's loss; 1 fits the sampling, the authors' code has 3."""


class QuietStarConfig(PhaseConfig):
    """Phase 3: thoughts between tokens, two controls at equal budget."""

    @model_validator(mode="after")
    def _siblings(self) -> Self:
        if self.reinforce.weight and self.thoughts.samples < 2:
            raise ValueError("thoughts.samples must be 2 or more to reinforce the better; or set reinforce.weight to 0")
        return self

    thoughts: Thoughts = Thoughts()
    """What a thought is."""
    reinforce: Reinforce = Reinforce()
    """How thoughts that helped are made likelier."""
    fluency: float = Field(0.5, ge=0)
    """Weight of continuing the true text after the start delimiter. A large model's thoughts are sensible from the
    start; a small one's become so by this. 0 is the paper's loss."""
    mixing_start: float = Field(0.05, gt=0, lt=1)
    """Weight of the thought's prediction at the start; at exactly 0 no thought would ever be rewarded."""
    mixing_warmup: float = Field(0.5, ge=0, le=1)
    """Share of the steps in which that weight is held, so that thoughts lead somewhere before they are weighed."""
    mixing_step: float = Field(0.1, gt=0)
    """How far the mixing head moves in a step, relative to what the optimizer says: a quick one falls to 0 for good."""
    alone: float = Field(0.5, ge=0)
    """Weight of the loss of the thought's own prediction, unmixed, while the mixing weight is held: what is hardly
    weighed hardly learns. 0 is the paper's loss."""
    alone_after: float = Field(0.3, ge=0)
    """The same afterwards. At 0 the weight falls and nothing supports the thought any more; high, it learns to do
    without what the thought says."""
    training: TrainingConfig = TrainingConfig(steps=120, learning_rate=0.0006, matrix_learning_rate=0.003, decay=0.6)
    """Training of the thinking model and of each control."""
    mix: Mix = Mix(text=0.55, reasoning=0.25, memory=0.1, copying=0.1)
    """Shares of the token streams, the same for the controls."""
    checkpointing: bool = False
    """Compute the activations of the thoughts again in the backward pass: less memory, about a third more time."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""
