"""`EvaluationConfig`: how much is measured, and what a gate asks for."""

from typing import Annotated

from pydantic import Field

from phases.dataset import Split
from phases.strict import SectionSeed, StrictModel
from phases.tasks.reasoning import ReasoningTask


class EvaluationConfig(StrictModel):
    """How a finished phase is judged."""

    split: Split = "test"
    """The split that is judged on; nothing else may have seen it."""
    items: int | None = Field(None, ge=2)
    """Items of reasoning and of memory; empty: all."""
    choices: int | None = Field(64, ge=2)
    """Multiple-choice items, each as costly as its choices' number of texts; empty: all."""
    copies: int | None = Field(128, ge=2)
    """Copying items, where the data has any; empty: all."""
    blocks: int | None = Field(128, ge=2)
    """Text blocks, evenly spread over the split; empty: all."""
    batch: int = Field(64, ge=1)
    """Prompts that are decoded together."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap resamples behind each paired standard error."""
    seed: SectionSeed = 0
    """Seed of the bootstrap and of the thoughts; empty: the run's."""
    sigmas: float = Field(2.0, ge=0)
    """Standard errors that a gate's difference must exceed."""
    regression: float = Field(0.05, ge=0)
    """Largest share by which bits per byte may rise over the parent's, or right answers of a task be lost."""
    exit_confidence: float = Field(0.5, gt=0, le=1)
    """τ: a token leaves after the first layer whose top probability reaches it."""
    thought_rows: int | None = Field(128, ge=2)
    """Text blocks, and items of each kind of task, on which thoughts are judged; empty: all."""
    thought_positions: int = Field(16, ge=1)
    """Positions of a block, and tokens of an answer, at which there is a thought."""
    thought_items: int | None = Field(128, ge=2)
    """Reasoning items that are answered with a thought before every token; empty: all."""
    thought_lengths: tuple[Annotated[int, Field(ge=0, le=1024)], ...] = Field((0, 8, 16, 32), min_length=1)
    """Lengths of thoughts whose gain is compared."""
    zero_shot: tuple[ReasoningTask, ...] = (
        ReasoningTask(name="lcm", params={"min_value": 2, "max_value": 30}),
        ReasoningTask(name="letter_counting", params={"min_words": 2, "max_words": 4}),
    )
    """Kinds of questions to think about without having trained on them; those that were trained on are left out."""
    zero_shot_items: int = Field(128, ge=2)
    """Questions of each of those kinds."""
    recall_conversations: int = Field(32, ge=2)
    """Conversations on which it is measured whether a fact is known turns later, or after a restart."""
    stable_turns: int = Field(20, ge=1)
    """Turns of small talk after which the persona is measured again."""
    trials: int = Field(128, ge=2)
    """Conversations of each domain on which designs are judged, as far as there are so many."""
    timed_trials: int = Field(2, ge=1)
    """Conversations of each domain that are played one at a time for the clock, five times each."""
