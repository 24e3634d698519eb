"""`forge phase compression --codec NAME`: that codec carries everything; what it cannot is one line."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation import judge_compression
from evaluation.latency import Latency, decode_timed
from flows.cli import main
from flows.parameters import load_config
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.compression.artefact import read_stored
from phases.compression.press import AGENT
from phases.compression.seedlm import SeedLM
from phases.data.prepare import prepare_data


@pytest.fixture(scope="module")
def parent(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of one layer, and its data beside it."""
    folder = tmp_path_factory.mktemp("codec")
    data = prepare_data(load_config(file=tiny_file).data, None, folder / "data")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 96, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.vocabulary, **shape, **ends))
    return save_checkpoint(folder / "parent", model, data.tokenizer, Manifest("cognate"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latency is measured in this process: a fresh one takes seconds to import torch."""

    def measured(path: Path, tokens: int, repeats: int) -> Latency:
        return decode_timed(path, tokens, 1)

    monkeypatch.setattr(judge_compression, "measure_latency", measured)


def test_seedlm_carries_everything(
    parent: Checkpoint, tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["phase", "compression", "--input", str(parent.path), "--out", str(tmp_path / "out"), "--codec", "seedlm"]
    code = main([*command, "--config", str(tiny_file), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["status"] == "passed" else 1) and said["checkpoint"]["path"] == str(tmp_path / "out")
    made = open_checkpoint(tmp_path / "out").siblings[AGENT]
    stored = read_stored(made.path)[0]
    assert all(isinstance(codec, SeedLM) for codec in stored.codecs.values())
    assert stored.codecs.keys() == {name for name, weight in parent.tensors().items() if weight.ndim == 2}
    assert (made.path / "model.safetensors").stat().st_size < 4 * sum(w.numel() for w in parent.tensors().values()) / 4


MISUSE = [
    ("bitnet", ["--codec", "seedlm"], "--codec belongs to `forge phase compression`; leave it out of bitnet"),
    ("compression", ["--codec", "zip"], "invalid choice: 'zip'"),
]


@pytest.mark.parametrize(("phase", "options", "wanted"), MISUSE, ids=[wanted for _, _, wanted in MISUSE])
def test_misuse_is_one_line(
    phase: str,
    options: list[str],
    wanted: str,
    parent: Checkpoint,
    tiny_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["phase", phase, "--input", str(parent.path), "--out", str(tmp_path / "out"), *options]
    try:
        code = main([*command, "--config", str(tiny_file)])
    except SystemExit as stopped:  # argparse's own
        code = int(str(stopped.code))
    shown = capsys.readouterr()
    assert code == 2 and shown.out == "" and shown.err.count("\n") == 1 and wanted in shown.err
    assert not (tmp_path / "out").exists()


def test_the_help_says_which_ratio_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["phase", "--help"])
    assert "else that which keeps most" in " ".join(capsys.readouterr().out.split())
