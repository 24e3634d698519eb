"""The export read back with gguf's reader: every weight, the type of every tensor, and every refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import SETTINGS
from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint
from phases.errors import CheckpointError, InputError, StorageError
from phases.packed.gguf_architecture import architecture_of
from phases.packed.gguf_export import GgufReport, export_gguf

Export = Callable[..., GgufReport]


@pytest.mark.parametrize(
    ("hidden", "group", "bits", "wanted", "expected"),
    [
        (64, 32, 8, "auto", {"Q4_0", "Q8_0", "F32"}),
        (64, 64, 4, "auto", {"Q4_0", "F32"}),
        (64, None, 8, "q4_0", {"Q4_0", "Q8_0", "F32"}),
        (64, 32, None, "f16", {"F16", "F32"}),
        (64, 48, 8, "auto", {"F16", "F32"}),
        (256, 256, 8, "auto", {"TQ2_0", "Q8_0", "F32"}),
        (256, None, 4, "tq1_0", {"TQ1_0", "Q4_0", "F32"}),
        (256, 256, 8, "f16", {"F16", "Q8_0", "F32"}),
    ],
)
def test_every_weight_comes_back_exactly(
    hidden: int, group: int | None, bits: Any, wanted: Any, expected: set[str], make_model: Any, exported: Export
) -> None:
    """Qwen3 keeps its row order: every tensor of the file is the checkpoint's."""
    model = make_model("qwen3", hidden)
    report = exported(model, wanted, group, bits)
    weights = open_checkpoint(report.path.with_name("model")).tensors()
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(report.path).tensors}
    architecture = architecture_of(model, "here")
    assert len(tensors) == len(weights)
    for name, weight in weights.items():
        assert np.array_equal(tensors[architecture.tensor_name(name, "here")], weight.numpy()), name
    assert set(report.types.values()) == set(report.tensor_bytes) == expected
    assert report.types["token_embd.weight"] == {8: "Q8_0", 4: "Q4_0", None: "F32"}[bits] or group == 48
    assert report.file_bytes == report.path.stat().st_size and 0 < report.metadata_bytes < 40_000


def test_auto_chooses_for_each_tensor(make_model: Any, exported: Export) -> None:
    report = exported(make_model("qwen3", 256, intermediate_size=352), group=None)
    assert report.types["blk.0.ffn_up.weight"] == "TQ2_0"
    assert report.types["blk.0.ffn_down.weight"] == "Q4_0"


@pytest.mark.parametrize("tied", [True, False])
def test_an_untied_head_is_written_and_a_tied_one_is_not(tied: bool, make_model: Any, exported: Export) -> None:
    types = exported(make_model("llama", 64, tie_word_embeddings=tied)).types
    assert types.get("output.weight") == (None if tied else "Q8_0")


def test_a_type_that_does_not_fit_names_tensor_and_group(make_model: Any, exported: Export, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"layers.0.*_proj.weight: rows of 64 .* groups of 32 .* TQ2_0's blocks of 256"
    ):
        exported(make_model("llama", 64), "tq2_0")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_an_existing_file_is_left_alone(make_model: Any, exported: Export, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(StorageError, match="exists already") as error:
        exported(make_model("llama", 64))
    assert error.value.exit_code == 2
    assert (tmp_path / "model.gguf").read_text() == "mine"


def test_weights_off_the_lattice_are_refused(make_model: Any, write_ternary: Any, tmp_path: Path) -> None:
    checkpoint = write_ternary(Quantised(make_model("llama", 64), Quantisation(group=32)))
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] += 0.01
    texts = {SETTINGS: (checkpoint.path / SETTINGS).read_text()}
    other = save_checkpoint(tmp_path / "other", model, tokenizer, Manifest("bitnet"), texts=texts)
    with pytest.raises(CheckpointError, match="up_proj.weight: .* not on the ternary lattice"):
        export_gguf(other, tmp_path / "model.gguf")
    plain = save_checkpoint(tmp_path / "plain", model, tokenizer, Manifest("cognate"))
    with pytest.raises(CheckpointError, match="plain: not ternary"):
        export_gguf(plain, tmp_path / "model.gguf")
    renamed = {SETTINGS: texts[SETTINGS].replace("layers.1.mlp.up_proj", "layers.9.mlp.up_proj")}
    odd = save_checkpoint(tmp_path / "odd", model, tokenizer, Manifest("bitnet"), texts=renamed)
    with pytest.raises(CheckpointError, match="layers.9.mlp.up_proj.weight, which is not in the model"):
        export_gguf(odd, tmp_path / "model.gguf")


def test_a_failure_while_writing_leaves_nothing(
    make_model: Any, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, **_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        exported(make_model("llama", 64))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
