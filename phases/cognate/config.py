"""`CognateConfig`: the model's shape or base, the mixes, and how trunk and branches are trained."""

from typing import Literal

from pydantic import Field, model_validator

from phases.cognate.shape import Preset, Shape
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig

Branch = Literal["reasoning", "memory", "adaptive"]
BRANCHES: tuple[Branch, ...] = ("reasoning", "memory", "adaptive")


class Mix(StrictModel):
    """Shares of the token streams; they need not sum to one."""

    text: float = Field(0.0, ge=0)
    """Running text."""
    reasoning: float = Field(0.0, ge=0)
    """Tasks with verifiable answers."""
    memory: float = Field(0.0, ge=0)
    """Associative recall and needles."""
    copying: float = Field(0.0, ge=0)
    """Words to be said again."""

    @model_validator(mode="after")
    def _not_empty(self) -> "Mix":
        if self.text + self.reasoning + self.memory + self.copying <= 0:
            raise ValueError("at least one of text, reasoning, memory, copying must be above 0")
        return self


class LayerSkip(StrictModel):
    """Early-exit training of the adaptive branch (LayerSkip, arXiv 2404.16710)."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """p_max: the chance that a row skips the last layer; it falls exponentially towards the first."""
    exit_scale: float = Field(1.0, ge=0)
    """Weight of the early exit's loss against the full depth's."""


class Adapter(StrictModel):
    """Low-rank adapters for the branches of one's own base model; merged back at the end (arXiv 2106.09685)."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input."""


class CognateConfig(PhaseConfig):
    """Phase 1: a trunk, three branches, a control."""

    base: str | None = None
    """Own base model: a path or hub id of any HF Llama-, Qwen- or Mistral-style checkpoint; it is then the trunk."""
    tuning: Literal["full", "lora", "qlora"] = "full"
    """How the branches of `base` are tuned; `qlora` holds the base in 4 bits and needs a CUDA GPU."""
    adapter: Adapter = Adapter()
    """Settings of `lora` and `qlora`."""
    preset: Preset = "embedded"
    """Shape of a trunk that is trained from scratch."""
    shape: Shape | None = Field(None, title="Shape")
    """Own shape; it takes the place of the preset."""
    trunk: TrainingConfig = TrainingConfig(steps=640)
    """Training of the trunk."""
    branch: TrainingConfig = TrainingConfig(steps=180, learning_rate=0.0015, matrix_learning_rate=0.0075, decay=0.8)
    """Training of each branch and of the control: equal budgets."""
    trunk_mix: Mix = Mix(text=0.575, reasoning=0.2, memory=0.025, copying=0.2)
    """The common mix, of the trunk and of the control."""
    reasoning_mix: Mix = Mix(text=0.25, reasoning=0.65, copying=0.1)
    """The mix of the reasoning branch."""
    memory_mix: Mix = Mix(text=0.15, reasoning=0.05, memory=0.5, copying=0.3)
    """The mix of the memory branch."""
    adaptive_mix: Mix = Mix(text=0.7, reasoning=0.2, copying=0.1)
    """The mix of the adaptive branch."""
    layer_skip: LayerSkip = LayerSkip()
    """How the adaptive branch learns to exit early."""

    def mix(self, name: str) -> dict[str, float]:
        """Shares of the streams for `trunk`, `control` or a branch."""
        chosen: Mix = self.trunk_mix if name in ("trunk", "control") else getattr(self, f"{name}_mix")
        return chosen.model_dump()
