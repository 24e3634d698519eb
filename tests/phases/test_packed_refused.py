"""What is not packed and what is not opened: wrong sources, and configs that do not belong to their file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.errors import CheckpointError, ConfigError, InputError
from phases.packed.file import load_packed, pack_checkpoint
from phases.packed.settings import ForgeTernaryConfig

TOKENS = torch.arange(23)[None]


@pytest.fixture(scope="module")
def both(make_model: Any, write_ternary: Any) -> tuple[Checkpoint, Checkpoint]:
    """(ternary, packed)."""
    source = write_ternary(Quantised(make_model("llama"), Quantisation(group=16)))
    return source, pack_checkpoint(source, source.path.with_name("packed"))


def test_other_checkpoints_are_not_packed_while_they_load(both: tuple[Checkpoint, Checkpoint]) -> None:
    with pytest.raises(ValueError, match="pre-quantized"):
        AutoModelForCausalLM.from_pretrained(both[0].path, quantization_config=ForgeTernaryConfig())
    with pytest.raises(CheckpointError, match="not packed"):
        load_packed(both[0].path)
    with pytest.raises(CheckpointError, match="no such folder|cannot be loaded"):
        load_packed(both[0].path / "nowhere")


def test_layers_that_are_not_ternary_stay_linear(both: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    source, layer = both[0], "model.layers.1.mlp.up_proj"
    folder = shutil.copytree(source.path, tmp_path / "mixed")
    said = json.loads((folder / "ternary.json").read_text())
    said["ternary"].remove(f"{layer}.weight")
    (folder / "ternary.json").write_text(json.dumps(said))
    (folder / "forge.json").unlink()
    model = load_packed(pack_checkpoint(open_checkpoint(folder), tmp_path / "packed").path, kernel="exact")
    assert type(model.get_submodule(layer)) is nn.Linear
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, source.model()(TOKENS).logits)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("layout", "3bit", "layout"), ("group", 0, "group"), ("embedding_bits", 3, "embedding_bits"), ("grup", 1, "grup")],
)
def test_a_config_that_no_file_has_is_refused(
    key: str, value: Any, reason: str, both: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    folder = shutil.copytree(both[1].path, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"quantization_config.*{reason}"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("layout", "2bit"), ("group", 17), ("embedding_bits", 4), ("activations", False)]
)
def test_a_config_that_the_file_does_not_confirm_is_refused(
    key: str, value: Any, both: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    folder = shutil.copytree(both[1].path, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="model.safetensors.*config.json says"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_kernel_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fast' is none of auto, exact"):
        ForgeTernaryConfig(kernel="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["off the lattice", "another group", "a name too many", "no ternary.json"])
def test_a_checkpoint_that_is_not_what_it_says_is_not_packed(
    what: str, both: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    folder = shutil.copytree(both[0].path, tmp_path / "wrong")
    (folder / "forge.json").unlink()
    said, weights = json.loads((folder / "ternary.json").read_text()), load_file(folder / "model.safetensors")
    if what == "off the lattice":
        weights["model.layers.0.mlp.up_proj.weight"][3, 5] += 0.01
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif what == "another group":
        said["quantisation"]["group"] = 36
    elif what == "a name too many":
        said["ternary"].append("model.norm.weight")
    (folder / "ternary.json").write_text(json.dumps(said))
    if what == "no ternary.json":
        (folder / "ternary.json").unlink()
    reasons = {"off the lattice": "up_proj.weight: .* not on", "another group": "weights are not on"}
    reasons |= {"a name too many": "do not agree about model.norm", "no ternary.json": "not ternary"}
    with pytest.raises(CheckpointError, match=reasons[what]):
        pack_checkpoint(open_checkpoint(folder), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
