"""Fine-tuning and distillation: how many examples they need, how many accelerators, what they cost.

The data rule is a range per aim, from published runs rather than a formula: what fine-tuning needs depends on what is
to change (`AIMS`). Where two aims apply, the larger counts. Returns diminish as a power of the data (Zhang et al.
2024, "When Scaling Meets LLM Finetuning", arXiv 2402.17193), so that a tenth of the typical number shows whether it
is worth collecting the rest.

A distillation is: the teacher answers, the student is trained on the answers (Kim & Rush 2016, arXiv 1606.07947).
"""

from dataclasses import dataclass, replace
from typing import Literal

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.engines import CONTEXT_BYTES
from deployment.physics.training import Method, Setup, TrainingCost, training_cost, training_memory
from deployment.serving import Figure
from phases.errors import InputError

Aim = Literal["format", "style", "skill", "knowledge"]


@dataclass(frozen=True, slots=True)
class DataSize:
    """Examples that an aim takes."""

    low: int
    typical: int
    high: int
    reason: str
    """With its source, as words that follow the numbers."""


AIMS: dict[str, DataSize] = {
    "format": DataSize(
        50, 100, 1_000,
        "of a format that the model nearly meets, 50 to 100 examples show (OpenAI, fine-tuning guide)",
    ),
    "style": DataSize(
        500, 1_000, 10_000,
        "tone and manner were taught by 1,000 curated examples (LIMA, Zhou et al. 2023, arXiv 2305.11206)",
    ),
    "skill": DataSize(
        10_000, 50_000, 400_000,
        "instructions took 52,000 (Alpaca 2023), arithmetic 395,000 examples (MetaMath, arXiv 2309.12284)",
    ),
    "knowledge": DataSize(
        100_000, 1_000_000, 10_000_000,
        "each fact must be met in many wordings, and retrieval does better (Ovadia et al. 2023, arXiv 2312.05934)",
    ),
}  # fmt: skip
EPOCHS = 3
"""Passes over the data: Alpaca's; more begins to memorise."""
ACCELERATOR_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class DistillationCost:
    """What a student costs."""

    answers: Figure
    """Generating the teacher's answers, in the price's currency."""
    training: TrainingCost

    @property
    def cost(self) -> Figure:
        """Both together, with the sum of the bounds."""
        parts = (self.answers, self.training.cost)
        return Figure(sum(p.value for p in parts), sum(p.low for p in parts), sum(p.high for p in parts), "analytic")


def examples_needed(*aims: Aim) -> DataSize:
    """The largest of the aims' needs. Raises InputError for an aim that is not known, or none."""
    unknown = [aim for aim in aims if aim not in AIMS]
    if unknown or not aims:
        raise InputError(f"aim = {', '.join(unknown) or 'none'}: known are {', '.join(AIMS)}")
    return max((AIMS[aim] for aim in aims), key=lambda size: size.typical)


def fewest_accelerators(model: Model, accelerator: Accelerator, setup: Setup) -> Setup:
    """The setup on the smallest power of two that holds it, sharded by ZeRO-3.

    Raises InputError where even one sequence's activations do not fit, since sharding does not divide those.
    """
    for count in ACCELERATOR_STEPS:
        tried = replace(setup, accelerators=count, zero=3 if count > 1 else setup.zero)
        if training_memory(model, tried).total <= accelerator.memory_bytes:
            return tried
    activations = training_memory(model, setup).activations + CONTEXT_BYTES
    raise InputError(
        f"{model.name}: training does not fit on {ACCELERATOR_STEPS[-1]} × {accelerator.name}; activations alone take "
        f"{activations / 2**30:.1f} of {accelerator.memory_bytes / 2**30:.1f} GiB each; shorten the sequences"
    )


def finetuning_cost(
    model: Model,
    accelerator: Accelerator,
    price_per_hour: float,
    *,
    examples: int,
    tokens_per_example: int,
    method: Method = "lora",
    epochs: int = EPOCHS,
) -> TrainingCost:
    """A fine-tuning on the fewest accelerators that hold it. `price_per_hour` is one accelerator's.

    Raises InputError for numbers that are not positive and for a run that fits nowhere.
    """
    for name, value in (("examples", examples), ("tokens_per_example", tokens_per_example), ("epochs", epochs)):
        if value < 1:
            raise InputError(f"{name} = {value}: at least 1")
    setup = fewest_accelerators(model, accelerator, Setup(method=method, sequence=tokens_per_example))
    return training_cost(model, accelerator, setup, float(examples) * tokens_per_example * epochs, price_per_hour)


def distillation_cost(
    teacher_tokens_per_s: float,
    teacher_price_per_hour: float,
    student: Model,
    accelerator: Accelerator,
    price_per_hour: float,
    *,
    examples: int,
    prompt_tokens: int,
    output_tokens: int,
    epochs: int = EPOCHS,
) -> DistillationCost:
    """The teacher answers every example once; the student is trained in full on prompts and answers.

    `teacher_tokens_per_s` is the teacher's offline throughput in output tokens per second
    (`deployment.physics.estimate`), `teacher_price_per_hour` that of all its accelerators.
    """
    if teacher_tokens_per_s <= 0 or teacher_price_per_hour < 0 or output_tokens < 1:
        raise InputError("a teacher generates more than 0 tokens per second, at a price of 0 or more")
    answers = examples * output_tokens / teacher_tokens_per_s / 3600 * teacher_price_per_hour
    training = finetuning_cost(
        student,
        accelerator,
        price_per_hour,
        examples=examples,
        tokens_per_example=prompt_tokens + output_tokens,
        method="full",
        epochs=epochs,
    )
    return DistillationCost(Figure(answers, answers, answers, "analytic"), training)
