"""A parent that thinks: its mixing head is charged, in float16, and its weights of thoughts stay what they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.latency import count_parameters
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression.config import CompressionConfig
from phases.compression.press import AGENT
from phases.compression.report import read_report
from phases.compression.run import run
from phases.compression.thoughts import thoughts_of
from phases.dataset import Dataset, open_dataset
from phases.errors import CheckpointError
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import HEAD, ThinkingFile, load_thinker, thinking_files
from phases.quiet_star.thinker import Thinker

CONFIG = CompressionConfig.parse(
    {
        "ratios": [5.0],
        "codecs": {"names": ["ternary", "vptq"], "vectors": [4], "codebook_size": 16, "thresholds": [0.5], "group": 16},
        "calibration_rows": 1,
        "standing_rows": 1,
        "training": {"steps": 2, "batch_rows": 2},
    },
    "test",
)


@pytest.fixture
def thinking(make_model: Any, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    model, tokenizer = make_model("llama", 32), open_dataset(tiny_data.path).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|startofthought|>", "<|endofthought|>"]})
    model.resize_token_embeddings(259)
    head = MixingHead(32, 0.3)
    torch.nn.init.normal_(head.mlp[-1].weight, std=0.5)
    files = thinking_files(Thinker(model, head, 257, 258), ThinkingFile(start=257, end=258, tokens=2))
    return save_checkpoint(tmp_path / "thinks", model, tokenizer, Manifest("quiet_star"), *files)


def test_the_mixing_head_is_charged_and_keeps_its_outputs(
    thinking: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    made = run([thinking], CONFIG, tmp_path / "out", data=tiny_data)
    report, agent = read_report(made.path), made.siblings[AGENT]
    rung, size = report.rungs[report.taken], (agent.path / HEAD).stat().st_size
    before, after = (load_thinker(path)[0].head for path in (thinking.path, agent.path))
    numbers = sum(p.numel() for p in (*thinking.model().parameters(), *before.parameters()))
    assert rung.budget == int(4 * numbers / rung.ratio)
    assert size + (agent.path / "model.safetensors").stat().st_size <= rung.budget
    assert {c.codec: c.bytes for c in report.carried}["float16, mixing head"] == size
    assert sum(c.weights for c in report.carried) == numbers and sum(c.bytes for c in report.carried) == rung.bytes
    assert all(tensor.dtype == torch.float16 for tensor in load_file(agent.path / HEAD).values())
    plain, thought = torch.randn(2, 50, 32)
    with torch.no_grad():
        weights = [head(plain, thought) for head in (after, before)]
    assert float(weights[1].std()) > 0.01
    torch.testing.assert_close(*weights, rtol=0, atol=1e-3)


def test_its_numbers_and_bytes_are_in_both_sides_of_the_ratio(thinking: Checkpoint) -> None:
    plain, all_of_it = (count_parameters(thinking.path, thoughts=asked) for asked in (False, True))
    head = sum(p.numel() for p in MixingHead(32).parameters())
    assert all_of_it[0] - plain[0] == head and all_of_it[1] - plain[1] == (thinking.path / HEAD).stat().st_size
    charged = thoughts_of(thinking.path)
    assert charged.numbers == head and 2 * head < charged.size < 2 * head + 700


def test_a_parent_that_does_not_think_pays_nothing(tmp_path: Path) -> None:
    assert thoughts_of(tmp_path).size == thoughts_of(tmp_path).numbers == 0


def test_a_head_that_float16_cannot_hold_is_named(thinking: Checkpoint) -> None:
    tensors = load_file(thinking.path / HEAD)
    save_file({**tensors, "mlp.4.bias": torch.tensor([1e5])}, thinking.path / HEAD)
    with pytest.raises(
        CheckpointError, match=r"mixing_head\.safetensors: mlp\.4\.bias has a number as large as 1e\+05"
    ):
        thoughts_of(thinking.path)
    (thinking.path / HEAD).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"mixing_head\.safetensors: truncated or altered"):
        thoughts_of(thinking.path)
