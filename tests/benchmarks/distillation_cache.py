"""What a teacher's cache costs a training step, and what a student learns from it.

    python -m tests.benchmarks.distillation_cache [--pairs 5] [--steps 300]

*Speed*: a step from the cache (rows decoded, one softmax for both losses) against one of cross-entropy, on the embedded
default's shape with every position learnt. *Quality*: one student, taught in different ways, V = 2,048; how far it is
from its teacher on texts that neither has read, in nats a token. The teacher that counts has learnt the embedded
corpus. Random ones, which write their own texts, are the hard case: a flat one spreads its mass over most of the
vocabulary. `independent` are plain draws in the place of the stratified ones.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.cache import storing, write
from distillation.cache.config import MOST_BYTES, CacheConfig
from distillation.cache.read import Cache
from distillation.losses.divergences import forward_kl
from distillation.training.cached_rows import CachedRows, Part
from distillation.training.live_objective import LiveObjective
from distillation.training.objective import DistilObjective
from distillation.training.row_file import RowFile, tokenizer_digest, write_rows
from phases.cognate.shape import PRESETS, llama_config
from phases.dataset import Dataset, Split
from phases.training.batches import Mixture
from phases.training.config import TrainingConfig
from phases.training.loop import train
from phases.training.objective import LanguageModelling, Objective
from tests.benchmarks import inputs
from tests.benchmarks.pairs import Comparison, compare, table

VOCABULARY, LENGTH = 2048, 64
DEFAULT = "sampled, as many draws as fit"
SLOWER = 1.1
"""A cached step may take so many times one of cross-entropy."""
APART = 0.02
"""Nats that the cache may cost against the full divergence."""


class Words:
    """A tokenizer as far as rows and caches ask: which string an id stands for."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        """Ids by string."""
        return {str(i): i for i in range(self.vocabulary)}


def rows_of(tokens_NT: torch.Tensor, out: Path) -> RowFile:
    """Rows of which every position is learnt."""
    shape = (len(tokens_NT), tokens_NT.shape[1] - 1)
    arrays = {
        "tokens": tokens_NT.numpy().astype(np.uint16),
        "weight": np.full(shape, 1 / shape[1], dtype=np.float32),
        "example": np.full(shape, -1, dtype=np.int32),
    }
    card = {"rows": shape[0], "block_tokens": shape[1], "vocabulary": VOCABULARY}
    return write_rows(out, arrays, card | {"tokenizer": tokenizer_digest(Words(VOCABULARY))})


def stored(teacher: Any, rows: RowFile, folder: Path, **config: Any) -> Cache:
    """The teacher's cache of the rows."""
    work = folder / "work"
    settings = CacheConfig(**config)
    words = Words(VOCABULARY)
    return write.write_cache(
        teacher, rows, folder / f"cache.{len(list(folder.iterdir()))}", settings, work, teacher="T", tokenizer=words
    )


def speed(pairs: int, steps: int = 8) -> list[Comparison]:
    """Steps a second from a cache and of cross-entropy: at τ = 1, and at another, which takes two softmaxes."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = LlamaForCausalLM(llama_config(PRESETS["embedded"], VOCABULARY, 0))
        rows = rows_of(torch.randint(4, VOCABULARY, (128, 257)), folder / "rows")
        for tau in (1.0, 2.0):
            cache = stored(model.eval(), rows, folder, tau=tau)
            taught, text = CachedRows([Part(rows, [(cache, 1.0)])], 0), CachedRows([Part(rows)], 0)

            def run(source: CachedRows, tau: float = tau) -> None:
                config = TrainingConfig(steps=steps, batch_rows=16, save_seconds=1e9, precision="fp32")
                with tempfile.TemporaryDirectory() as work:
                    train(DistilObjective(model, 0.5, tau), source, config, Path(work), name="bench", seed=0)

            jobs: tuple[Callable[[], None], ...] = (lambda r=run, s=taught: r(s), lambda r=run, s=text: r(s))  # type: ignore[misc]
            tokens = steps * 16 * 256
            found.append(
                compare(
                    f"cached step, temperature {tau:g}",
                    "tokens/s",
                    tokens,
                    jobs[0],
                    "cross-entropy",
                    jobs[1],
                    target=1 / SLOWER,
                    pairs=pairs,
                )
            )
    return found


def make(layers: int, hidden: int, seed: int) -> LlamaForCausalLM:
    """A random Llama of the benchmark's vocabulary."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads, **ends))


def random_teacher(sharpness: float) -> LlamaForCausalLM:
    """A random teacher whose logits have this standard deviation."""
    teacher = make(2, 96, 1).eval()
    with torch.no_grad():
        spread = teacher(torch.randint(0, VOCABULARY, (8, LENGTH))).logits.std()
        teacher.lm_head.weight = torch.nn.Parameter(teacher.lm_head.weight * (sharpness / spread))
        teacher.config.tie_word_embeddings = False
    return teacher.requires_grad_(False)


def trained_teacher(data: Dataset, steps: int) -> LlamaForCausalLM:
    """A teacher that has read the corpus for some steps."""
    teacher = make(3, 128, 1)
    config = TrainingConfig(steps=steps, batch_rows=8, save_seconds=1e9, precision="fp32")
    with tempfile.TemporaryDirectory() as work:
        source = Mixture(data, {"text": 1.0}, 0, 0.0)
        train(LanguageModelling(teacher), source, config, Path(work), name="teacher", seed=0)
    return teacher.eval().requires_grad_(False)


def read(data: Dataset, split: Split, count: int) -> torch.Tensor:
    """(count, T+1) beginnings of a split's rows of running text."""
    some = data.blocks(split, "text")[:count, : LENGTH + 1].astype(np.int64)
    return torch.from_numpy(some)


@torch.no_grad()
def written(teacher: Any, count: int, seed: int) -> torch.Tensor:
    """(count, T+1) texts that the teacher wrote."""
    torch.manual_seed(seed)
    start = torch.randint(0, VOCABULARY, (count, 1))
    made: torch.Tensor = teacher.generate(
        start, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=True, top_k=0, use_cache=True
    )
    return made


@torch.no_grad()
def held_out_kl(student: Any, teacher: Any, tokens_NT: torch.Tensor) -> float:
    """KL(teacher ‖ student), nats a token."""
    parts = [
        forward_kl(student(part[:, :-1]).logits.flatten(0, 1), teacher(part[:, :-1]).logits.flatten(0, 1))
        for part in torch.split(tokens_NT, 8)
    ]
    return float(torch.cat(parts).mean())


@contextmanager
def independent_draws() -> Iterator[None]:
    """Plain draws instead of stratified ones."""
    real = storing.strata

    def plain(seed: Any, positions: int, draws: int) -> torch.Tensor:
        return torch.from_numpy(np.sort(np.random.default_rng(seed).random((positions, draws)), axis=1))

    storing.strata = plain  # type: ignore[attr-defined]
    try:
        yield
    finally:
        storing.strata = real  # type: ignore[attr-defined]


def quality(
    teacher: Any, learnt_NT: torch.Tensor, held_out_NT: torch.Tensor, steps: int
) -> dict[str, dict[str, float]]:
    """Held-out divergence and bytes a token by how the student was taught."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rows_of(learnt_NT, folder / "rows")
        text = CachedRows([Part(rows)], 0)

        def learn(name: str, objective: Callable[[Any], Objective], source: CachedRows, size: float) -> None:
            student = make(1, 64, 9)
            config = TrainingConfig(steps=steps, batch_rows=8, save_seconds=1e9, precision="fp32")
            with tempfile.TemporaryDirectory() as work:
                train(objective(student), source, config, Path(work), name=name, seed=0)
            kl = held_out_kl(student.eval(), teacher, held_out_NT)
            found[name] = {"held_out_kl_nats": round(kl, 4), "bytes_per_token": round(size, 1)}
            print(name, found[name], file=sys.stderr, flush=True)

        def learn_cached(name: str, ghost: bool = False, **config: Any) -> None:
            cache = stored(teacher, rows, folder, **config)
            source = CachedRows([Part(rows, [(cache, 1.0)])], 0)
            learn(name, lambda m: DistilObjective(m, 1.0, 1.0, ghost), source, cache.bytes_per_token)

        learn("cross-entropy", lambda m: DistilObjective(m, 0.0), text, 2)
        learn("full forward KL", lambda m: LiveObjective(m, teacher), text, 2 * VOCABULARY)
        learn_cached(DEFAULT)
        learn_cached("sampled, 22 draws", draws=22)
        with independent_draws():
            learn_cached("sampled, 22 independent draws", draws=22)
        learn_cached("ghost, 14 likeliest", ghost=True, method="ghost")
    return found


def quality_of_trained(steps: int = 300, rows: int = 2400) -> dict[str, dict[str, float]]:
    """`quality` with the teacher that counts: one that has learnt the embedded corpus."""
    data = inputs.data(VOCABULARY, 256)
    teacher = trained_teacher(data, 2 * steps)
    return quality(teacher, read(data, "train", rows), read(data, "test", 200), steps)


def main() -> None:
    """Print both, and whether the bars are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.distillation_cache")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=2400, help="rows of 64 tokens that the students learn from")
    arguments = parser.parse_args()
    print(table(speed(arguments.pairs)))
    told("trained", quality_of_trained(arguments.steps, arguments.rows))
    for name, sharpness in (("random, sharp", 3.0), ("random, flat", 1.0)):
        teacher = random_teacher(sharpness)
        told(name, quality(teacher, written(teacher, arguments.rows, 2), written(teacher, 96, 3), arguments.steps))


def told(name: str, found: dict[str, dict[str, float]]) -> None:
    """Print one teacher's figures."""
    sampled, full = found[DEFAULT], found["full forward KL"]
    apart = sampled["held_out_kl_nats"] - full["held_out_kl_nats"]
    met = apart <= APART and sampled["bytes_per_token"] <= MOST_BYTES
    print(json.dumps({name: found}, indent=2))
    print(f"{name} teacher: sampled is {apart:+.4f} nats from the full divergence: {'met' if met else 'MISSED'}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
