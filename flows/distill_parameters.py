"""`ProjectConfig`: everything a distillation project is told, as one model; the form of the flow `distill`.

    load_project("cost_saver", sets=["data.run=laptop", "distil.student.ratio=0.4"])

A template is a YAML file in `configs/distill/` that holds only what differs from the defaults in the code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from distillation.curation.config import CurationConfig
from distillation.money.budget import BudgetConfig
from distillation.money.money_config import MoneyConfig
from distillation.night.asking import AskConfig
from distillation.night.data import DataConfig
from distillation.night.sitting import ExamConfig
from distillation.teachers.teacher_config import TeacherConfig
from distillation.training.distil_config import DistilConfig
from distillation.validation.gate import GateConfig
from distillation.validation.readiness import ReadinessWeights
from flows.parameters import NAME, Runner
from flows.plan_config import PlanConfig
from flows.settings_file import merged, read_settings, section_defaults, shipped
from phases.strict import StrictModel


class Goal(StrictModel):
    """What a student is for."""

    quality: float = Field(0.95, gt=0, le=1)
    """Share of the teacher that it has to keep, shown by the test."""
    cost_reduction: float = Field(0.25, ge=0, lt=1)
    """Share of the cost of a request that it has to save; judged where both prices are known or the machine is one."""


class ProjectConfig(StrictModel):
    """One distillation project; every night runs with it."""

    template: str = Field("cost_saver", pattern=NAME)
    """Where the settings came from: the name of a shipped template or of your own file."""
    project: str = Field("student", pattern=NAME)
    """Name of the project and of its folder."""
    out: Path = Path("checkpoints")
    """Folder of all runs and projects."""
    seed: int = Field(0, ge=0)
    """Seed of everything random."""
    agent: str = Field("forge-student", pattern=NAME)
    """Name that promoted students are registered under."""
    goal: Goal = Goal()
    """What the student is for."""
    teachers: tuple[TeacherConfig, ...] = ()
    """Who is learnt from; empty: the model of `data.run` before its compression. The first is to be replaced."""
    data: DataConfig = DataConfig()
    """What is learnt and what is sealed for the test."""
    curation: CurationConfig = CurationConfig()
    """What of it is good enough."""
    ask: AskConfig = AskConfig()
    """How teachers are asked."""
    distil: DistilConfig = DistilConfig()
    """The student, and how it learns."""
    runner: Runner = "processes"
    """Where student and baseline are trained: side by side in two processes (small models do not keep several threads
    busy); one after the other in this one (`threads`: less memory, curves while it trains); or on Prefect's Dask or
    Ray runner."""
    exam: ExamConfig = ExamConfig()
    """What is examined."""
    gate: GateConfig = GateConfig()
    """What has to be shown; `ratio` follows `goal.quality` where it is not given."""
    readiness: ReadinessWeights = ReadinessWeights()
    """What the parts of the readiness score count."""
    budget: BudgetConfig = BudgetConfig()
    """What a night may spend; 0 is nothing."""
    money: MoneyConfig = MoneyConfig()
    """Traffic, prices and people, for what is saved."""
    promote: bool = True
    """Make a student that passed the champion; else it stays the challenger for `forge promote`."""
    plan: PlanConfig = PlanConfig()
    """What a deployment of the student is planned for."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, values: Any) -> Any:
        """Settings lie over the defaults key by key; the gate's ratio is the goal's."""
        if not isinstance(values, dict):
            return values
        goal = values.get("goal")
        wanted = goal.get("quality") if isinstance(goal, dict) else getattr(goal, "quality", None)
        gate = values.get("gate", {})
        if wanted is not None and isinstance(gate, dict):
            values = {**values, "gate": {"ratio": wanted, **gate}}
        return merged(section_defaults(cls), values)

    @property
    def folder(self) -> Path:
        """The project's own folder."""
        return self.out / self.project


def templates() -> dict[str, Path]:
    """Shipped templates by name."""
    return shipped("distill")


def load_project(template: str | None = None, file: Path | None = None, sets: Sequence[str] = ()) -> ProjectConfig:
    """The config of a shipped template or of one's own YAML file, with `a.b=c` settings over it.

    Raises `ConfigError`, one line a mistake.
    """
    given = read_settings("template", templates(), template or "cost_saver", file, sets, ("template",))
    return ProjectConfig.parse(given.values, given.where)
