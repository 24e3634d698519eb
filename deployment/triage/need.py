"""What is asked of a triage: what is missing, how much traffic there is, what one has and may do."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from deployment.hardware import Accelerator, Offer
from deployment.model import Model
from deployment.physics.finetuning import Aim
from deployment.serving import Serving
from phases.errors import InputError
from phases.strict import StrictModel

Way = Literal["prompt", "retrieval", "bigger", "finetune", "distil", "merge", "forge"]


class Need(StrictModel):
    """The user's side: the gap, the load, the limits, the data."""

    gap: Aim = "skill"
    """What the present model lacks: the format, the style, a skill, or knowledge."""
    gap_points: float = Field(default=10.0, ge=0, le=100)
    """Points of the task's score that are missing, on examples that were held out; 0: only cost or latency is wrong."""
    knowledge_changes: Literal["never", "monthly", "daily"] = "never"
    """How often the facts that the answers rest on change."""
    sources: bool = False
    """Answers must quote documents."""
    narrow: bool = False
    """One task with alike inputs, rather than open conversation."""
    examples: int = Field(default=0, ge=0)
    """Labelled examples that one has."""
    unlabelled: int = Field(default=0, ge=0)
    """Real inputs without an answer."""
    requests_per_day: float = Field(gt=0, le=1e9)
    prompt_tokens: int = Field(ge=1, le=10_000_000)
    output_tokens: int = Field(ge=1, le=1_000_000)
    peak: float = Field(default=3.0, ge=1, le=100)
    """The busiest hour's rate over the day's mean."""
    latency_goal_s: float | None = Field(default=None, gt=0)
    """Seconds from the request to the last token, on average; none: latency does not matter."""
    monthly_budget: float | None = Field(default=None, ge=0)
    """USD, for serving; none: no limit."""
    horizon_months: int = Field(default=12, ge=1, le=120)
    """Over which one-off costs are spread when ways are compared."""
    training_allowed: bool = True
    """The present model's licence allows it to be trained further."""
    answers_allowed: bool = True
    """The bigger model's licence allows others to be trained on its answers."""


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to choose from.

    Raises InputError for a price or a number that cannot be, and for a bigger model or a student that is none: the
    ways to them would be advised for what they are not.
    """

    model: Model
    """The present one."""
    accelerator: Accelerator
    price_per_hour: float
    """One accelerator's, USD; of what is rented as whole instances, the least that one costs."""
    offers: tuple[Offer, ...] = ()
    """Instances to rent, in USD: a replica on two accelerators needs one that has two. None: one at a time."""
    serving: Serving = field(default_factory=Serving)
    """Engine and precision; tensor parallelism is raised where a model does not fit."""
    bigger: Model | None = None
    """One that meets the goal, or comes closer."""
    student: Model | None = None
    """A smaller one that could learn from the bigger, or from the present one."""
    agent: Model | None = None
    """The shape of an agent that the forge would train."""
    siblings: int = 0
    """Further models of the present one's shape and base that are good at what is missing."""
    passages: int = 5
    """That retrieval adds to a prompt."""
    passage_tokens: int = 300
    shots: int = 4
    """Examples that a better prompt shows, each as long as a prompt and an answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.price_per_hour < math.inf:
            raise InputError(f"price = {self.price_per_hour}: give what one accelerator costs an hour, 0 or more")
        for name in ("siblings", "passages", "passage_tokens", "shots"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} = {getattr(self, name)}: give 0 or more")
        if self.bigger is not None and self.bigger.parameters <= self.model.parameters:
            raise InputError(
                f"bigger = {_sized(self.bigger)} is not bigger than {_sized(self.model)}; name one that is"
            )
        if self.student is not None and self.student.parameters >= self.teacher.parameters:
            raise InputError(
                f"student = {_sized(self.student)} is not smaller than its teacher, {_sized(self.teacher)}; name one "
                "that is"
            )

    @property
    def teacher(self) -> Model:
        """Whose answers a student learns from."""
        return self.bigger or self.model


def _sized(model: Model) -> str:
    return f"{model.name} ({size(model)})"


def size(model: Model) -> str:
    """In parameters."""
    number = model.parameters
    return f"{number / 1e9:.3g} billion parameters" if number >= 1e9 else f"{number / 1e6:.3g} million parameters"
