"""The benchmark of compression: bytes add up, a curve is joined as it should be, and it runs on a tiny model."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.ratio import BlockLosses
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.config import CompressionConfig
from phases.compression.hyper import Hyper
from phases.compression.run import run
from phases.compression.sizes import sizes
from phases.compression.ternary import Ternary
from phases.dataset import Dataset
from tests.benchmarks import compression, compression_llama, compression_ours
from tests.benchmarks.compression_curves import EQUAL, FLOAT, TRAINED, Point, between, compare
from tests.benchmarks.compression_rivals import round_to_nearest, round_to_nf4
from tests.benchmarks.compression_speed import throughput, with_peak

CONFIG = {
    "ratios": [4.0],
    "codecs": {"names": ["ternary", "vptq"], "vectors": [4], "codebook_size": 16, "thresholds": [0.5], "group": 32},
    "calibration_rows": 1,
    "standing_rows": 2,
    "mix": {"text": 1.0, "reasoning": 0.0, "memory": 0.0, "copying": 0.0},
    "training": {"steps": 2, "batch_rows": 2, "precision": "fp32"},
}


@pytest.fixture(scope="module")
def made(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """(compressed, parent)."""
    torch.manual_seed(0)
    sizes_ = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=world.vocabulary, num_key_value_heads=2, **sizes_, **ends)).eval()
    folder = tmp_path_factory.mktemp("bench")
    parent = save_checkpoint(folder / "parent", model, world.tokenizer, Manifest("own"))
    return run([parent], CompressionConfig.parse(CONFIG, "test"), folder / "out", data=world), parent


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"norm": torch.randn(40), "up": torch.randn(12, 40), "down": torch.randn(3, 32)}


@pytest.mark.parametrize(
    ("bits", "zero_point"), [(1, False), (2, False), (3, False), (4, False), (2, True), (3, True), (4, True)]
)
def test_bytes_of_rounding_are_codes_scales_and_the_rest_in_float16(bits: int, zero_point: bool) -> None:
    found = round_to_nearest(weights(), ["up", "down"], bits, 32, zero_point)
    groups = {"up": 12 * 2, "down": 3}
    codes = (12 * 40 * bits + 7) // 8 + (3 * 32 * bits + 7) // 8
    zeros = sum((count * bits + 7) // 8 for count in groups.values()) if zero_point else 0
    assert found.tensor_bytes == codes + 2 * sum(groups.values()) + zeros + 2 * 40
    header = len(save({name: torch.zeros(1, dtype=torch.uint8) for name in weights()}))
    assert 0 < found.file_bytes - found.tensor_bytes < header + 100


@pytest.mark.parametrize(("bits", "zero_point"), [(2, False), (4, False), (3, True), (4, True)])
def test_rounding_errs_by_half_a_step_at_most(bits: int, zero_point: bool) -> None:
    found, given = round_to_nearest(weights(), ["up"], bits, 40, zero_point).weights["up"], weights()["up"]
    low, high = given.amin(1, keepdim=True), given.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1) if zero_point else given.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    # Where 0 is a whole step, the ends may be cut off by half of one.
    assert ((found - given).abs() <= step * (1.01 if zero_point else 0.51)).all()


def test_a_bit_is_the_sign_and_the_mean_magnitude() -> None:
    found, given = round_to_nearest(weights(), ["down"], 1, 32).weights["down"], weights()["down"]
    assert torch.equal(found, given.sign() * given.abs().mean(1, keepdim=True).half())


def test_nf4_counts_the_scales_of_its_scales() -> None:
    found = round_to_nf4(weights(), ["up", "down"])
    blocks = {"up": 8, "down": 2}  # of 64 weights; the scales of 256 blocks share a float32, all of them an offset
    assert found.tensor_bytes == sum(32 * n + n + 4 + 4 for n in blocks.values()) + 2 * 40
    error = (found.weights["up"] - weights()["up"]).square().mean()
    assert 0 < error < 0.02 and torch.equal(found.weights["norm"], weights()["norm"].half().float())


def point(size: int, right: list[float], nats: list[float], family: str = "rival") -> Point:
    losses = BlockLosses(np.array(nats), np.full(len(nats), 10.0), 4)
    return Point(family, f"{size}", size, size, {"memory": np.array(right)}, losses)


def test_between_two_files_a_curve_is_straight_in_log_bytes() -> None:
    curve = [point(400, [1, 1], [2.0, 4.0]), point(100, [0, 1], [4.0, 8.0])]
    middle = between(curve, 200)
    assert middle is not None and middle.tasks["memory"].tolist() == [0.5, 1.0]
    assert middle.text.nats_N == pytest.approx([3.0, 6.0])
    assert between(curve, 100) is curve[1] and between(curve, 401) is None


def test_the_next_larger_file_is_told_beside_equal_bytes() -> None:
    parent = point(3200, [1, 1, 1, 1], [1.0, 1.1, 1.2, 1.0], FLOAT)
    ours = point(200, [1, 1, 1, 0], [1.2, 1.3, 1.4, 1.2], TRAINED)
    curve = [point(100, [0, 0, 0, 0], [3.0, 3.1, 3.2, 3.3]), point(400, [1, 1, 1, 1], [1.1, 1.2, 1.3, 1.1])]
    equal, larger = compare([ours], curve, parent)
    assert equal.where == EQUAL and equal.word == "ahead" and equal.tasks is not None
    assert equal.tasks[0] == pytest.approx(0.25)
    assert larger.where == "2.00× our bytes" and larger.word == "behind, we are smaller"
    assert larger.tasks is not None and larger.tasks[0] == pytest.approx(-0.25)
    [beyond] = compare([ours], [replace(curve[0], file_bytes=150)], parent)
    assert beyond.word == "ahead, we are larger"


def test_it_runs_on_a_tiny_model(
    made: tuple[Checkpoint, Checkpoint],
    world: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint, parent = made
    monkeypatch.setattr(compression_llama, "llama_python", lambda: None)
    monkeypatch.setattr(compression_ours, "SEEDLM", ())
    monkeypatch.setattr(compression_ours, "HYPER", (Hyper(bits=4),))
    monkeypatch.setattr(compression, "running", lambda paths, rounds: [])
    monkeypatch.setattr(compression, "running_table", lambda rows: "")
    monkeypatch.setattr(compression, "throughput", lambda: throughput((32,), (Ternary(),)))
    found = compression.run(compression.Bench(checkpoint, parent, world, items=4), 1, tmp_path)
    printed = capsys.readouterr().out
    assert "llama.cpp: not measured: make llama" in printed and "the artefact less each rival" in printed
    assert json.loads((tmp_path / "compression.json").read_text())["not_measured"] == [compression.NO_LLAMA]
    assert (tmp_path / "compression.png").stat().st_size > 10_000
    by_way = {(row["way"], row["setting"]): row for row in found["points"]}
    artefact = by_way[TRAINED, "the artefact"]
    counted = sizes(checkpoint.siblings["agent"].path)
    assert artefact["file_bytes"] == counted.total == artefact["tensor_bytes"] + counted.header
    assert by_way[FLOAT, "parent"]["tensor_bytes"] == 4 * found["parameters"]
    whole, nf4 = (by_way[way]["bits_per_byte"][0] for way in ((FLOAT, "parent"), ("bitsandbytes NF4", "double")))
    assert nf4 == pytest.approx(whole, rel=0.05)
    ways = {"ternary alone", "vptq alone", "hyper alone", "ours, all codecs", "round to nearest, 32"}
    assert ways <= {way for way, _ in by_way}
    assert all(row["n"]["text"] > 1 and row["n"]["memory"] == 4 for row in found["points"])
    assert [row["codec"] for row in found["throughput"]] == ["ternary"]


def test_the_default_run_is_taken_where_it_is_finished(
    made: tuple[Checkpoint, Checkpoint],
    world: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = made[0].path.parent
    shutil.copytree(world.path, tmp_path / "data")
    for name, path in (("compression", made[0].path), ("adas", made[1].path)):
        shutil.copytree(path, tmp_path / name)
    monkeypatch.setattr(compression, "DEFAULT_RUN", tmp_path)
    monkeypatch.setattr(compression, "run", lambda bench, pairs, out: bench)
    monkeypatch.setattr(compression, "family_of_a_smoke_run", lambda place: (*made, world))
    small = compression.run_default(1)
    assert small.checkpoint.path.parent == folder and "too small to judge quality" in capsys.readouterr().out
    (tmp_path / "report.json").write_text("{}")
    large = compression.run_default(1)
    assert large.checkpoint.path == tmp_path / "compression" and large.parent.path == tmp_path / "adas"
    assert large.name == str(tmp_path) and f"the model is {tmp_path}" in capsys.readouterr().out


def test_the_peak_is_the_childs_own_as_the_system_tells_it() -> None:
    ours = b"x" * 400_000_000  # a child's figure would begin with what its parent has
    said, peak = with_peak([sys.executable, "-c", "kept = b'x' * 100_000_000; print('first'); print(len(kept))"])
    assert said == "100000000" and 100_000_000 < peak < 150_000_000 < len(ours)
    with pytest.raises(subprocess.CalledProcessError):
        with_peak([sys.executable, "-c", "raise SystemExit(3)"])
