"""`ForgeConfig`: everything a run is told, as one model. It is the flow's only parameter and thus its form in the UI.

    load_config("smoke", sets=["cognate.trunk.steps=10"])

A profile is a YAML file in `configs/` that holds only what differs from the defaults in the code; so do the parameters
of a deployment in `prefect.yaml`, and so may what is sent to Prefect's API: settings lie over the defaults key by key.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, field_validator, model_validator

from evaluation.config import EvaluationConfig
from flows.approval_config import ApprovalConfig
from flows.chain import CHAIN, PhaseName, check_order
from flows.plan_config import PlanConfig
from flows.settings_file import merged, read_settings, section_defaults, shipped
from phases.adas.config import AdasConfig
from phases.baking.config import BakingConfig
from phases.bitnet.config import BitnetConfig
from phases.cognate.config import CognateConfig
from phases.compression.config import CompressionConfig
from phases.data.config import DataConfig
from phases.evomerge.run import EvomergeConfig
from phases.forge.config import ForgeTrainingConfig
from phases.phase import PhaseConfig
from phases.quiet_star.config import QuietStarConfig
from phases.strict import StrictModel

Runner = Literal["threads", "processes", "dask", "ray"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SEEDED = ("data", "evaluation", *CHAIN)
"""Sections that take the run's seed when they set none of their own."""
SEED = frozenset({"seed"})


def _without_section_seeds(schema: dict[str, Any]) -> None:
    """A form that fills in a section's seed would cut it off from the run's."""
    for name in SEEDED:
        schema["properties"][name]["default"].pop("seed", None)


class ForgeConfig(StrictModel):
    """One run of the forge."""

    model_config = pydantic.ConfigDict(json_schema_extra=_without_section_seeds)

    profile: str = Field("laptop", pattern=NAME)
    """Where the settings came from: the name of a shipped profile or of your own file."""
    run: str = Field("laptop", pattern=NAME)
    """Name of the run and of its folder; the same name again resumes it."""
    reuse: bool = True
    """Take finished results of other runs in `out` whose inputs, settings and code were exactly these."""
    dated: bool = False
    """Add the day of the schedule to the run's name, so that every night is a run of its own."""
    out: Path = Path("checkpoints")
    """Folder of all runs."""
    seed: int = Field(0, ge=0)
    """Seed of everything random; a section may set its own."""
    chain: tuple[PhaseName, ...] = CHAIN
    """Phases to run, in order."""
    runner: Runner = "threads"
    """Where a population is scored: in this process, in one a core, or on Prefect's Dask or Ray task runner."""
    agent: str = Field("forge-agent", pattern=NAME)
    """Name in MLflow's registry that the finished agent becomes a version of."""
    approval: ApprovalConfig = ApprovalConfig()
    """Whether a person decides before the agent becomes the champion."""
    data: DataConfig = DataConfig()
    """Text, tasks and tokenizer."""
    cognate: CognateConfig = CognateConfig()
    """Phase 1: a trunk and three specialised branches."""
    evomerge: EvomergeConfig = EvomergeConfig()
    """Phase 2: an evolved merge of the branches."""
    quiet_star: QuietStarConfig = QuietStarConfig()
    """Phase 3: thoughts between tokens."""
    bitnet: BitnetConfig = BitnetConfig()
    """Phase 4: ternary weights."""
    forge: ForgeTrainingConfig = ForgeTrainingConfig()
    """Phase 5: training on in stages."""
    baking: BakingConfig = BakingConfig()
    """Phase 6: tools, memory and a persona."""
    adas: AdasConfig = AdasConfig()
    """Phase 7: experts, and how the agent works."""
    compression: CompressionConfig = CompressionConfig()
    """Phase 8: the smallest form that keeps what the agent can do."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How phases are judged."""
    plan: PlanConfig = PlanConfig()
    """What a deployment of the agent is planned for when the run has passed."""

    @field_validator("chain")
    @classmethod
    def _in_order(cls, value: tuple[PhaseName, ...]) -> tuple[PhaseName, ...]:
        check_order(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, values: Any) -> Any:
        """Setting one step count must not reset the rates beside it; a section without a seed takes the run's."""
        if not isinstance(values, dict):
            return values
        seed = values.get("seed")
        return merged(section_defaults(cls, SEED), values if seed is None else {**values, **_seeded(values, seed)})

    def on(self, day: date) -> "ForgeConfig":
        """The config of that day's run: a dated name, once."""
        named = {"run": f"{self.run}-{day.isoformat()}", "dated": False}
        return self.model_copy(update=named) if self.dated else self

    def section(self, phase: PhaseName) -> PhaseConfig:
        """The config of a phase."""
        chosen: PhaseConfig = getattr(self, phase)
        return chosen

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.out / self.run


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _seeded(values: Mapping[str, Any], seed: Any) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name in SEEDED:
        section = values.get(name, {})
        if isinstance(section, dict):
            sections[name] = {"seed": seed} | {k: v for k, v in section.items() if k != "seed" or v is not None}
        elif isinstance(section, pydantic.BaseModel) and "seed" not in section.model_fields_set:
            sections[name] = section.model_copy(update={"seed": seed})
    return sections


def profiles() -> dict[str, Path]:
    """Shipped profiles by name."""
    return shipped()


def load_config(profile: str | None = None, file: Path | None = None, sets: Sequence[str] = ()) -> ForgeConfig:
    """The config of a shipped profile or of one's own YAML file, with `a.b=c` settings over it.

    Raises `ConfigError`, one line a mistake, for an unknown profile, bad YAML, an unknown key or a wrong value.
    """
    given = read_settings("profile", profiles(), profile or "laptop", file, sets, ("profile", "run"))
    return ForgeConfig.parse(given.values, given.where)
