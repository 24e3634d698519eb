"""What a night trains, on what, and by which strategy."""

from pydantic import Field, model_validator

from distillation.training.baseline import Answers
from distillation.training.data_size import DataSizeConfig
from distillation.training.search_space import SearchConfig
from distillation.training.strategy_config import Logits, StrategyConfig
from distillation.training.student import Pruned, StudentConfig
from phases.cognate.config import Mix
from phases.strict import StrictModel
from phases.training.config import TrainingConfig


class DistilConfig(StrictModel):
    """What a night trains, and on what."""

    student: StudentConfig = Pruned()
    """Where the student comes from."""
    strategy: StrategyConfig = Logits()
    """How it learns."""
    training: TrainingConfig = TrainingConfig(steps=300, learning_rate=0.002, matrix_learning_rate=0.01, decay=0.6)
    """Steps and rates, the same for the control."""
    block_tokens: int | None = Field(None, ge=16)
    """Tokens of a row; empty: as the data set's, or 256."""
    text: float = Field(0.25, ge=0, lt=1)
    """Share of rows of the data set's own streams, where there is a data set: what it could do before should stay."""
    mix: Mix = Mix(text=1.0)
    """Shares of the streams among those rows."""
    conversations: float = Field(0.0, ge=0, lt=1)
    """Share of rows of its own conversations, where the first teacher is an agent of the forge; 0: the student is no
    agent, and has neither tools nor persona."""
    variants: float = Field(0.2, ge=0, le=1)
    """Share of the records that are learnt once more, in other white space or another frame."""
    baseline: Answers = "answers"
    """What the control is fine-tuned on: the very rows of the student, or what one has without a teacher (answers that
    came with the data, right ones). Always the latter where the strategy takes nothing but texts from the teacher."""
    search: SearchConfig | None = None
    """Search for rates and shares first, and with as many trials for the control's; empty: they are as given."""
    data_size: DataSizeConfig | None = None
    """Answer ever more questions until a learning curve is flat; empty: all of them, and no curve."""

    @model_validator(mode="after")
    def _leaves_room(self) -> "DistilConfig":
        if self.text + self.conversations >= 1:
            raise ValueError(f"text {self.text:g} and conversations {self.conversations:g} leave no rows for records")
        return self
