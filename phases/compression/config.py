"""The phase's config: how small, which codecs may carry what, and how the compressed form is trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phases.bitnet.config import Distillation
from phases.cognate.config import Mix
from phases.phase import PhaseConfig
from phases.strict import StrictModel
from phases.training.config import TrainingConfig

CodecName = Literal["ternary", "vptq", "seedlm", "hyper"]


class CodecsConfig(StrictModel):
    """Which codecs there are for a matrix, and their settings."""

    names: tuple[CodecName, ...] = Field(("ternary", "vptq", "seedlm", "hyper"), min_length=1)
    """Codecs that may carry matrices; the allocator chooses among them. The embeddings are matrices too."""
    thresholds: tuple[float, ...] = Field((0.5, 0.8, 1.1), min_length=1)
    """Ternary: magnitudes from which a weight is not zero, in means of its group. Higher ones take fewer bytes."""
    group: int | None = Field(128, ge=1)
    """Ternary: neighbouring weights of a row that share a scale; empty: one scale for the matrix."""
    codebook_size: int = Field(256, ge=2, le=4096)
    """VPTQ: centroids of a codebook, which all matrices share that have vectors of one length."""
    vectors: tuple[int, ...] = Field((3, 4, 6, 8, 12), min_length=1)
    """VPTQ: weights that one code stands for. With 256 centroids 8 make one bit a weight."""
    hyper_bits: tuple[int, ...] = (3, 4)
    """Hyper-compression: bits of a weight where it carries a matrix."""
    seed_ratio: float = Field(0.05, ge=0, le=1)
    """SeedLM: share of the weights, the most sensitive ones, that it may carry at 4 bits."""
    hyper_ratio: float = Field(0.5, ge=0.125, le=1)
    """What hyper-compression makes of the float16 scales of ternary codes and VPTQ, as a share at most, in whole bits:
    ½ are 8 bits each, the most that it codes, and ⅛ are 2, the least. At 1 they stay as they are. Indices are the
    entropy coder's, which needs no setting."""

    @property
    def scale_bits(self) -> int:
        """Of a scale; 16: as it is."""
        return 16 if "hyper" not in self.names or self.hyper_ratio == 1 else min(8, int(16 * self.hyper_ratio))


class CompressionConfig(PhaseConfig):
    """Phase 8: the smallest form that keeps what the parent can do, and the agent's one file."""

    ratios: tuple[float, ...] = Field((20.0, 16.0, 12.0, 8.0), min_length=1)
    """How many times smaller than float32 the file is to be, header and all; the next one where the one before loses
    too much."""
    retention: float = Field(0.95, gt=0, le=1)
    """What is to be kept of the parent: the mean over tasks, an agent's domains and text, each share 1 at most. The
    judge asks for it on the test split, where questions are decoded and conversations played, by the parent with its
    experts; the phase asks for it, and `sigmas` besides, on the validation split, where they are read, without experts
    (`phases.compression.standing`)."""
    sigmas: float = Field(2.0, ge=0)
    """Standard errors by which a ratio has to keep more than that. Both splits have their noise: a ratio that keeps
    just enough on the one is as likely as not to be refused on the other, with nothing left to ship."""
    codecs: CodecsConfig = CodecsConfig()
    """What carries the weights."""
    calibration_rows: int = Field(4, ge=1)
    """Held-out rows of each stream, of the validation split, on which codecs are compared."""
    standing_rows: int = Field(32, ge=1)
    """Held-out rows of each stream on which whole models are compared."""
    standing_items: int = Field(512, ge=2)
    """Questions of each task, and conversations of each domain, of the validation split on which it is measured what is
    kept, at most. All 950 of the default data leave a standard error of .006; with 128 of each it is .013, and two of
    those would send the default run, at .971, down the ladder."""
    standing_blocks: int = Field(128, ge=2)
    """Blocks of text of the validation split for that."""
    training: TrainingConfig = TrainingConfig(
        steps=300, batch_rows=8, learning_rate=0.001, matrix_learning_rate=0.002, decay=0.7
    )
    """Training in the compressed form. Every ratio that is tried trains for so long."""
    distillation: Distillation = Distillation(logits=0.5)
    """What is learnt from the parent rather than from the text."""
    warmup: float = Field(0.3, ge=0, le=0.9)
    """Share of the steps in which the strength of the form rises from 0 to 1. A ternary parent has none."""
    mix: Mix = Mix(text=0.4, reasoning=0.25, memory=0.2, copying=0.15)
    """Shares of the data's streams."""
    conversations: float = Field(0.5, ge=0, le=1)
    """Share of the rows that are an agent's conversations."""
    lessons: int = Field(400, ge=1)
    """Training conversations of each domain at most."""
    row_tokens: int | None = Field(None, ge=32)
    """Tokens of a row of conversations; empty: as the data's rows."""
    on_fail: Literal["stop", "rollback", "retry"] = "rollback"
    """A failed gate: stop the run, roll back to the parent and go on, or retry once with the next seed."""

    @model_validator(mode="after")
    def _descending(self) -> Self:
        if list(self.ratios) != sorted(set(self.ratios), reverse=True) or self.ratios[-1] < 1:
            raise ValueError("ratios: each once, the largest first, none under 1")
        return self
