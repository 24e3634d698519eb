"""The phase's config: which lattice, how the model is eased onto it, and what it learns from meanwhile."""

from typing import Literal

from pydantic import Field

from phases.cognate.config import Mix
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig


class Quantisation(StrictModel):
    """The lattice of each kind of tensor."""

    group: int | None = Field(128, ge=1)
    """Neighbouring weights of a row that share a scale; empty: one scale for the whole tensor."""
    activations: bool = True
    """Round what goes into every ternary layer to 8 bits a token while training, as fast kernels do."""
    embedding_bits: Literal[8, 4] | None = 8
    """Bits of a weight of embeddings and head, with scales of the same groups; empty: left as they are."""


class Distillation(StrictModel):
    """What is learnt from the parent rather than from the text."""

    logits: float = Field(0.15, ge=0, le=1)
    """Share of the loss that is the divergence from the parent's distribution; the rest is the text's own."""
    hidden: float = Field(0.0, ge=0)
    """Weight of the relative distance from the parent's hidden states, mean over all layers."""


class BitnetConfig(PhaseConfig):
    """Phase 4: ternary weights, and two controls at equal steps."""

    quantisation: Quantisation = Quantisation()
    """On which lattices the weights come to lie."""
    distillation: Distillation = Distillation()
    """What is learnt from the parent."""
    warmup: float = Field(0.4, ge=0, le=0.9)
    """Share of the steps in which the strength of the quantisation rises from 0 to 1. A ternary parent has none."""
    training: TrainingConfig = TrainingConfig(steps=180, learning_rate=0.002, matrix_learning_rate=0.005, decay=0.6)
    """Training of the ternary model and of each control."""
    mix: Mix = Mix(text=0.5, reasoning=0.25, memory=0.1, copying=0.15)
    """Shares of the token streams, the same for the controls."""
    layout: Literal["trits", "2bit"] = "trits"
    """The packed file's ternary codes: five in a byte (1.6 bits a weight), or four in a byte, which unpack faster."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""
