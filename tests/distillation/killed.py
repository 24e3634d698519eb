"""Caches a teacher and trains a student, killed with SIGKILL again and again, beside a run that is left alone.

    python tests/distillation/killed.py FOLDER SEED KILLS          # prints {"same": …, "kills": …, "where": […]}

Each attempt is a fork of this process, so imports are paid for once. Half of the kills come from outside after a random
time, the other half at a random one of the moments that matter: before a flush, before a rename, inside a half-written
file. No attempt knows of the one before but by what is on the disk.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import distillation.cache.write as cache_write
import phases.training.state as training_state
from distillation.cache.config import CacheConfig
from distillation.cache.write import cache_teacher
from distillation.record import asked
from distillation.training.cached_rows import CachedRows, Part
from distillation.training.objective import DistilObjective
from distillation.training.rows import pack_records
from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.storage import sha256_file
from phases.training.config import TrainingConfig
from phases.training.loop import train

TRAINING = TrainingConfig(steps=8, batch_rows=4, save_seconds=0.0)


def make(seed: int, layers: int) -> LlamaForCausalLM:
    """A tiny random model."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 64, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=260, **sizes, **ends))


def work(folder: Path) -> None:
    """All of it, in a folder that may hold what earlier attempts have left."""
    teacher = open_checkpoint(folder.parent / "teacher")
    records = [asked(f"{i}?", completion=str(3 * i)) for i in range(80)]
    rows = pack_records(records, teacher.tokenizer(), 32, folder / "rows")
    cache = cache_teacher(teacher, rows, folder / "cache", CacheConfig(part_rows=4), folder / "cache.work")
    student = make(7, 1)
    (folder / "state").mkdir(exist_ok=True)
    source = CachedRows([Part(rows, [(cache, 1.0)])], 5)
    train(DistilObjective(student, 0.5), source, TRAINING, folder / "state", name="student", seed=5)
    student.save_pretrained(folder / "student")


def die_at(moment: int) -> None:
    """Let this process kill itself at the `moment`-th of the writing moments."""
    left = [moment]

    def maybe(half: Path | None = None) -> None:
        left[0] -= 1
        if left[0] == 0:
            if half is not None:
                half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            maybe()
            return real(*args, **kwargs)

        return call

    def half_written(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, path: Path, *args: Any) -> None:
            real(tensors, path, *args)
            maybe(path)

        return call

    os.fsync, Path.replace, Path.rename = watched(os.fsync), watched(Path.replace), watched(Path.rename)  # type: ignore[assignment, method-assign]
    cache_write.save_file = half_written(cache_write.save_file)  # type: ignore[attr-defined]
    training_state.save_file = half_written(training_state.save_file)  # type: ignore[attr-defined]


def attempt(folder: Path, moment: int | None, seconds: float | None) -> tuple[bool, float]:
    """(whether it was killed, seconds that it took)."""
    began, child = time.monotonic(), os.fork()
    if child == 0:
        if moment is not None:
            die_at(moment)
        work(folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, f"the attempt failed with {status}"
    return killed, time.monotonic() - began


def main(folder: Path, seed: int, kills: int) -> None:
    """Prints the verdict."""
    torch.set_num_threads(1)
    save_checkpoint(folder / "teacher", make(1, 2).eval(), train_tokenizer(["a"], 260), Manifest("test"))
    whole, broken = folder / "whole", folder / "broken"
    whole.mkdir()
    broken.mkdir()
    _, seconds = attempt(whole, None, None)
    draw, done, where = random.Random(seed), 0, []
    while done < kills:
        moment = draw.randint(1, 60) if done % 2 == 0 else None
        after = None if moment is not None else draw.uniform(0, seconds)
        killed, _ = attempt(broken, moment, after)
        done += killed
        where.append(sorted(p.name for p in broken.iterdir()))
        if not killed:  # it came to its end: again from the beginning
            assert digests(broken) == digests(whole), "an attempt that was not killed ended otherwise"
            shutil.rmtree(broken)
            broken.mkdir()
    attempt(broken, None, None)
    print(json.dumps({"same": digests(broken) == digests(whole), "kills": done, "where": where}))


def digests(folder: Path) -> list[str]:
    """Of what came out."""
    names = ("student/model.safetensors", "cache/bits.npy", "cache/cache.json", "rows/rows.json")
    return [sha256_file(folder / name) for name in names]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
