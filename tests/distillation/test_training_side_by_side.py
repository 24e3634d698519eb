"""Student and baseline as jobs of a pool: the same bits wherever they are trained, and their curves come home."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import asked
from distillation.training.distil import Distilled, distil
from distillation.training.distil_config import DistilConfig
from distillation.training.rows import pack_records
from distillation.training.strategies import Tutor
from distillation.training.student import Pruned
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.errors import TrainingError
from phases.phase import serial_pool
from phases.training.config import TrainingConfig

WORDS = ["cat", "hat", "and", "the", "that", "hand"]
RECORDS = [asked(f"say {word} {i}", completion=word, reference=word, teacher="a") for i, word in enumerate(WORDS * 2)]
CONFIG = DistilConfig(
    student=Pruned(ratio=0.7), training=TrainingConfig(steps=4, batch_rows=4, warmup=0, decay=0), block_tokens=48
)


@pytest.fixture
def tutor(tmp_path: Path) -> Tutor:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=260, **sizes, **heads, bos_token_id=0, eos_token_id=0)).eval()  # type: ignore[arg-type]
    tokenizer = train_tokenizer(["the cat and the hat"] * 9, 260)
    return Tutor("a", save_checkpoint(tmp_path / "teacher", model, tokenizer, Manifest("cognate")))


def test_jobs_travel_and_end_in_the_same_bits(tutor: Tutor, tmp_path: Path) -> None:
    def elsewhere(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """As another process has it: nothing shared but what can be pickled, and the disk."""
        return [pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(job))))) for job in jobs]

    def night(out: str, pool: Any) -> tuple[Distilled, list[tuple[int, Mapping[str, float]]]]:
        told: list[tuple[int, Mapping[str, float]]] = []
        places = tmp_path / out, tmp_path / f"{out}.work"
        found = distil(
            [tutor],
            RECORDS[5:],
            CONFIG,
            *places,
            seed=0,
            validation=RECORDS[:5],
            metrics=lambda step, values: told.append((step, values)),
            pool=pool,
        )
        return found, told

    (here, told_here), (there, told_there) = night("here", serial_pool), night("there", elsewhere)
    assert (here.student.digest, here.baseline.digest) == (there.student.digest, there.baseline.digest)
    losses = [
        [(step, name, value) for step, values in told for name, value in values.items() if name.endswith("/loss")]
        for told in (told_here, told_there)
    ]
    assert losses[0] == losses[1] and {name for _, name, _ in losses[0]} == {"student/loss", "baseline/loss"}


def test_a_job_has_half_of_the_cores_and_gives_them_back(
    tutor: Tutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))

    def told(step: int, values: Mapping[str, float]) -> None:
        seen.append(torch.get_num_threads())

    places = tmp_path / "out", tmp_path / "work"
    distil([tutor], RECORDS[5:], CONFIG, *places, seed=0, validation=RECORDS[:5], metrics=told)
    assert set(seen) == {3} and torch.get_num_threads() == 1


def test_curves_of_a_failed_training_are_told(tutor: Tutor, tmp_path: Path) -> None:
    told: list[int] = []

    def broken(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        function(jobs[0])
        raise TrainingError("the loss is not finite")

    places = tmp_path / "out", tmp_path / "work"
    with pytest.raises(TrainingError, match="not finite"):
        distil(
            [tutor],
            RECORDS[5:],
            CONFIG,
            *places,
            seed=0,
            validation=RECORDS[:5],
            metrics=lambda step, values: told.append(step),
            pool=broken,
        )
    assert told and max(told) == CONFIG.training.steps - 1


def test_rows_travel_without_their_arrays(tmp_path: Path) -> None:
    rows = pack_records(RECORDS, train_tokenizer(["the cat"] * 9, 260), 48, tmp_path / "rows")
    before = len(pickle.dumps(rows))
    assert rows.tokens_NT.size and rows.weight_NT.size  # mapped now
    assert len(pickle.dumps(rows)) == before
    again = pickle.loads(pickle.dumps(rows))
    assert again == rows and (again.tokens_NT == rows.tokens_NT).all()
