"""SeedLM carries a whole model by itself: every matrix, at the ratio that its bits allow."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phases.checkpoint import Manifest, save_checkpoint
from phases.compression.artefact import read_stored
from phases.compression.config import CompressionConfig
from phases.compression.press import AGENT
from phases.compression.report import read_report
from phases.compression.run import run
from phases.compression.seedlm import SeedLM
from phases.dataset import Dataset

ALONE = CompressionConfig.parse(
    {
        "ratios": (16.0, 4.0),
        "codecs": {"names": ("seedlm",), "seed_ratio": 1.0},
        **{"calibration_rows": 1, "standing_rows": 1},
        "training": {"steps": 2, "batch_rows": 2},
    },
    "test",
)


def test_seedlm_alone(tiny_data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    ends = {"num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=128, **sizes, **ends))
    parent = save_checkpoint(tmp_path / "parent", model, tiny_data.tokenizer, Manifest("cognate"))
    made = run([parent], ALONE, tmp_path / "out", data=tiny_data)
    report, stored = read_report(made.path), read_stored(made.siblings[AGENT].path)[0]
    assert {carried.codec.split(",")[0] for carried in report.carried} == {"seedlm", "float16"}
    assert all(isinstance(codec, SeedLM) for codec in stored.codecs.values())
    assert stored.codecs.keys() == {name for name, weight in parent.tensors().items() if weight.ndim == 2}
    assert report.rungs[0].ratio == 4.0  # what does not fit is passed over
    error = {name: (made.tensors()[name] - weight).norm() / weight.norm() for name, weight in parent.tensors().items()}
    assert 0.05 < max(error.values()) < 0.6
