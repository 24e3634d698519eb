"""What the benchmarks run on: the embedded corpus and a small family of models, made once in `checkpoints/bench/`."""

from pathlib import Path

from phases.cognate.config import CognateConfig
from phases.cognate.run import run
from phases.data.config import DataConfig
from phases.data.prepare import prepare_data
from phases.dataset import Dataset
from phases.training.config import TrainingConfig

ROOT = Path("checkpoints/bench")


def data(vocabulary: int, block: int) -> Dataset:
    """The embedded corpus at one vocabulary."""
    config = DataConfig(vocabulary=vocabulary, block_tokens=block)
    return prepare_data(config, None, ROOT / f"data-{vocabulary}-{block}")


def family() -> list[str]:
    """Paths of a trunk and its three branches at the embedded default's shape (trained for a few steps only)."""
    out = ROOT / "family"
    if not (out / "forge.json").is_file():
        few = TrainingConfig(steps=5, batch_rows=8)
        run([], CognateConfig(trunk=few, branch=few), out, data=data(2048, 256))
    return [str(out), *(str(out / "siblings" / name) for name in ("reasoning", "memory", "adaptive"))]
