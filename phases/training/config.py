"""`TrainingConfig`: what one training run needs to know. Every phase that trains has one per stage."""

from typing import Literal

from pydantic import Field

from phases.strict import StrictModel


class TrainingConfig(StrictModel):
    """One run of the shared training loop."""

    steps: int = Field(300, ge=1)
    """Optimizer steps."""
    batch_rows: int = Field(8, ge=1)
    """Rows of one optimizer step, over all processes and accumulation steps."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches a step is cut into: less memory. The gradient is the same but for what a phase draws at random."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the matrices with AdamW for the rest (default), or AdamW for everything."""
    learning_rate: float = Field(0.002, gt=0)
    """Peak rate of AdamW (embeddings, norms, biases; all parameters when the optimizer is `adamw`)."""
    matrix_learning_rate: float = Field(0.01, gt=0)
    """Peak rate of Muon, for the two-dimensional weights inside the layers."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay on matrices; norms and biases have none."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps in which the rate rises from zero."""
    decay: float = Field(0.4, ge=0, le=1)
    """Share of the steps, at the end, in which the rate falls linearly to `final_rate`."""
    final_rate: float = Field(0.05, ge=0, le=1)
    """The rate at the very end, as a share of the peak."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` trains in bfloat16 autocast where it is faster: on a GPU, or on a CPU with it from width 256."""
    prompt_weight: float = Field(0.05, ge=0, le=1)
    """Loss weight of a task's prompt tokens; the answer's tokens have weight 1."""
    save_seconds: float = Field(20.0, ge=0)
    """Time between two saved states; a killed run loses at most this much."""
