"""Which task items a run has: generators with their parameters, the user's files, and how many of each."""

from pydantic import Field

from phases.strict import StrictModel
from phases.tasks.choice import ChoiceConfig
from phases.tasks.copying import CopyingConfig
from phases.tasks.files import TaskFile
from phases.tasks.needle import NeedleConfig
from phases.tasks.reasoning import DEFAULT_REASONING, ReasoningTask
from phases.tasks.recall import RecallConfig


class TasksConfig(StrictModel):
    """The task items of a run. A count of 0 leaves a kind out."""

    reasoning: tuple[ReasoningTask, ...] = DEFAULT_REASONING
    """Generators of reasoning-gym; empty to use files only."""
    recall: RecallConfig = RecallConfig()
    """Key-value recall."""
    needle: NeedleConfig = NeedleConfig()
    """A fact hidden in real text."""
    copying: CopyingConfig = CopyingConfig()
    """Words to be said again."""
    choice: ChoiceConfig = ChoiceConfig()
    """Four-way cloze on held-out text."""
    files: tuple[TaskFile, ...] = ()
    """The user's own questions and answers, in addition to the generated ones."""
    reasoning_train_items: int = Field(24_000, ge=0)
    """Generated reasoning items to train on, over all generators."""
    memory_train_items: int = Field(20_000, ge=0)
    """Generated memory items to train on, recall and needles together."""
    copying_train_items: int = Field(6_000, ge=0)
    """Generated copying items to train on."""
    validation_items: int = Field(512, ge=0)
    """Generated validation items of each speciality."""
    test_items: int = Field(512, ge=0)
    """Generated test items of each speciality."""
    choice_items: int = Field(256, ge=0)
    """Cloze items in validation and in test."""
