"""The phase's config: the persona, the tools, what is taught, and the bakes one after the other."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from phases.agent.conversation import TurnLimits
from phases.agent.memory import MemoryConfig
from phases.agent.persona import MANNERS, Persona
from phases.agent.search import SearchConfig
from phases.baking.questions import PythonTask
from phases.baking.scenario import Kind
from phases.cognate.config import Adapter, Mix
from phases.errors import CheckpointError
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig

CONVERSATIONS = "conversations.json"
"""Beside an agent: the config that its conversations were made with, and can be made with again (`made_with`)."""


class ToolsConfig(StrictModel):
    """Which tools the agent has, and how its turns are limited."""

    names: tuple[Literal["python", "retrieve", "search", "remember", "recall"], ...] = (
        "python",
        "retrieve",
        "search",
        "remember",
        "recall",
    )
    """Tools that ship with the forge."""
    own: tuple[str, ...] = ()
    """Your own tools: Python files with SCHEMA and run(arguments, context). They run with your rights."""
    limits: TurnLimits = TurnLimits()
    """What each turn may cost: calls, tokens, characters of a result."""
    constrained: bool = True
    """Let the model write well-formed calls only."""
    search: SearchConfig = SearchConfig()
    """Engines of the search tool; by default the agent's own documents."""
    documents: bool = True
    """Index the training text as the agent's documents; off: it has none."""


class ScenariosConfig(StrictModel):
    """How many conversations of each kind there are, before those that fail are taken out."""

    python: tuple[PythonTask, ...] = (
        PythonTask(name="products", params={"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 3}),
        PythonTask(name="chain_sum", params={"min_terms": 2, "max_terms": 3, "min_digits": 3, "max_digits": 4}),
    )
    """Generators whose questions are answered by running Python."""
    train: dict[Kind, int] = Field({"python": 500, "retrieve": 500, "search": 400, "memory": 500, "persona": 400})
    """Conversations to learn from, by kind; 0 leaves a kind out."""
    held_out: int = Field(48, ge=2)
    """Conversations of each kind in validation and in test, each."""
    distractors: tuple[int, ...] = Field((0, 1, 3), min_length=1)
    """Turns of small talk between a fact and its question."""
    restarts: bool = True
    """Ask as often for facts of an earlier session, which only the memory knows."""
    traces: tuple[str, ...] = ()
    """Your own conversations: JSON lines with `messages` in OpenAI's format, and `answer` where one is right."""

    @property
    def between(self) -> tuple[int | None, ...]:
        """What lies between a fact and its question: so many turns, or (None) a restart."""
        return (*self.distractors, None) if self.restarts else self.distractors


class Bake(StrictModel):
    """One prompt that is baked in (arXiv 2409.13697)."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """What it is called in curves and files."""
    prompt: Literal["tools", "persona", "text"]
    """The tools' signatures, the persona's system prompt, or the text below."""
    text: str = ""
    """Your own prompt."""
    kinds: tuple[Kind, ...] = Field(min_length=1)
    """Conversations whose users' turns the prompted model answers."""
    share: float = Field(1.0, gt=0)
    """How much of `training.steps` it gets, relative to the others."""
    amount: float = Field(1.0, gt=0, le=1)
    """Where it stops, as a share of its steps: below 1 it is a half-bake."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if (self.prompt == "text") != bool(self.text):
            raise ValueError("text and prompt=text go together: give both, or neither")
        return self


class Sampling(StrictModel):
    """How the prompted model's own answers are drawn."""

    conversations: int = Field(384, ge=8)
    """Users' turns that it answers for each bake, drawn from those of training."""
    temperature: float = Field(0.3, gt=0)
    """Temperature of its draws."""
    floor: float = Field(0.1, ge=0, le=1)
    """Least share of a bake's conversations that must come out right; below it that prompt is not baked in."""


class BakingConfig(PhaseConfig):
    """Phase 6: tools, memory and persona, without a prompt."""

    persona: Persona = Persona()
    """Who the agent is: its name, and traits with strengths."""
    tools: ToolsConfig = ToolsConfig()
    """What it can do."""
    memory: MemoryConfig = MemoryConfig()
    """What it keeps, and for how long."""
    scenarios: ScenariosConfig = ScenariosConfig()
    """What it learns from and is tested on."""
    teach: bool = True
    """Teach the model first to do as prompted; large models can already."""
    teaching: TrainingConfig = TrainingConfig(steps=320, optimizer="adamw", learning_rate=0.0005, decay=0.7)
    """How it is taught, with the prompts before it."""
    bakes: tuple[Bake, ...] = (
        Bake(name="tools", prompt="tools", kinds=("python", "retrieve", "search", "memory"), share=2.0),
        Bake(name="persona", prompt="persona", kinds=("persona",)),
    )
    """Prompts that are baked in, one after the other."""
    sampling: Sampling = Sampling()
    """How the prompted model answers."""
    training: TrainingConfig = TrainingConfig(
        steps=150, optimizer="adamw", learning_rate=0.0002, warmup=0.25, decay=0.7
    )
    """All bakes together."""
    rehearsal: float = Field(0.75, ge=0, lt=1)
    """Share of the rows that are the data's own, so that nothing is forgotten."""
    mix: Mix = Mix(text=0.48, reasoning=0.42, memory=0.05, copying=0.05)
    """Shares of the streams in those rows."""
    row_tokens: int | None = Field(None, ge=32)
    """Tokens of a row of conversations; empty: as the data's rows."""
    tuning: Literal["full", "lora"] = "full"
    """Train all weights, or low-rank adapters that are merged at the end (through the lattice of a ternary model)."""
    adapter: Adapter = Adapter(rank=32, alpha=64.0)
    """Settings of `lora`."""
    layout: Literal["trits", "2bit"] = "trits"
    """How the packed file of a ternary model holds its codes."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [bake.name for bake in self.bakes]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"bakes: '{repeated[0]}' stands there twice; give each its own name")
        if len(self.bakes) > self.training.steps:
            raise ValueError(f"training.steps={self.training.steps} is too few for {len(names)} bakes; raise it")
        unknown = sorted(set(self.persona.traits) - set(MANNERS))
        if unknown and self.teach and self.scenarios.train.get("persona", 0):
            raise ValueError(
                f"persona.traits: small talk cannot show '{unknown[0]}'; choose from {', '.join(MANNERS)}, or set "
                "teach=false for a model that knows the word"
            )
        return self


def made_with(path: Path) -> BakingConfig:
    """The config that an agent's conversations were made with.

    Raises `CheckpointError` where it is missing or damaged.
    """
    try:
        return BakingConfig.model_validate_json((path / CONVERSATIONS).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        raise CheckpointError(
            f"{path / CONVERSATIONS}: missing or altered; restore it from a copy or run the baking phase again"
        ) from None
