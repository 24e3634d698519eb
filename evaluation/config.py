"""`EvaluationConfig`: how much is measured, and what a gate asks for."""

from pydantic import Field

from phases.dataset import Split
from phases.strict import SectionSeed, StrictModel


class EvaluationConfig(StrictModel):
    """How a finished phase is judged."""

    split: Split = "test"
    """The split that is judged on; nothing else may have seen it."""
    items: int | None = Field(None, ge=2)
    """Items of reasoning and of memory; empty: all."""
    choices: int | None = Field(64, ge=2)
    """Multiple-choice items, each as costly as its choices' number of texts; empty: all."""
    blocks: int | None = Field(128, ge=2)
    """Text blocks, evenly spread over the split; empty: all."""
    batch: int = Field(64, ge=1)
    """Prompts that are decoded together."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap resamples behind each paired standard error."""
    seed: SectionSeed = 0
    """Seed of the bootstrap; empty: the run's."""
    sigmas: float = Field(2.0, ge=0)
    """Standard errors that a cognate gate's difference must exceed."""
    regression: float = Field(0.05, ge=0)
    """Largest share by which bits per byte may rise over the parent's."""
    exit_confidence: float = Field(0.5, gt=0, le=1)
    """τ: a token leaves after the first layer whose top probability reaches it."""
