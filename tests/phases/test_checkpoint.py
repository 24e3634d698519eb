"""Checkpoints: atomic, digested, verified, and open to plain transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.checkpoint import Checkpoint, Manifest, load_model, open_checkpoint, save_checkpoint, save_family
from phases.dataset import Dataset
from phases.errors import CheckpointError, StorageError
from phases.storage import atomic_directory


@pytest.fixture
def saved(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    return save_checkpoint(tmp_path / "c", tiny_model, tiny_data.tokenizer, Manifest("test", {"a": 1}))


def test_round_trip_is_exact(saved: Checkpoint, tiny_model: LlamaForCausalLM) -> None:
    for name, tensor in saved.tensors().items():
        assert torch.equal(tensor, tiny_model.get_parameter(name))


def test_equal_contents_equal_digests(saved: Checkpoint, tiny_model: LlamaForCausalLM, tiny_data: Dataset) -> None:
    again = save_checkpoint(saved.path.with_name("d"), tiny_model, tiny_data.tokenizer, Manifest("test", {"a": 1}))
    other = save_checkpoint(saved.path.with_name("e"), tiny_model, tiny_data.tokenizer, Manifest("test", {"a": 2}))
    assert again.digest == saved.digest != other.digest


def test_plain_transformers_opens_it_without_this_project(saved: Checkpoint) -> None:
    code = (
        "import sys; sys.path = [p for p in sys.path if 'editable' not in p]\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in getattr(f, '__name__', repr(f)).lower()]\n"
        "from transformers import AutoModelForCausalLM as A, AutoTokenizer as T\n"
        f"m = A.from_pretrained({str(saved.path)!r}); t = T.from_pretrained({str(saved.path)!r})\n"
        "assert 'phases' not in sys.modules\n"
        "print(m.num_parameters(), len(t))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.split() == [str(saved.model().num_parameters()), "257"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(("damage", "word"), [("truncate", "truncated"), ("alter", "altered"), ("remove", "missing")])
def test_damage_is_named(saved: Checkpoint, name: str, damage: str, word: str) -> None:
    path = saved.path / name
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "alter":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=f"{name.replace('.', '[.]')}.*{word}") as error:
        open_checkpoint(saved.path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digest": 1}'])
def test_a_damaged_manifest_is_named(saved: Checkpoint, text: str) -> None:
    (saved.path / "forge.json").write_text(text)
    with pytest.raises(CheckpointError, match="forge.json: truncated or altered"):
        open_checkpoint(saved.path)


def test_an_edited_manifest_is_refused(saved: Checkpoint) -> None:
    path = saved.path / "forge.json"
    content = json.loads(path.read_text())
    content["config"]["a"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="forge.json: altered"):
        open_checkpoint(saved.path)


def test_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder.*give a folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_foreign_model_is_taken_as_it_is(saved: Checkpoint) -> None:
    (saved.path / "forge.json").unlink()
    foreign = open_checkpoint(saved.path)
    assert foreign.manifest["foreign"] and len(foreign.digest) == 64


def test_truncated_foreign_weights_are_named(saved: Checkpoint) -> None:
    (saved.path / "forge.json").unlink()
    path = saved.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated or altered|cannot be loaded"):
        load_model(saved.path)


def test_family_covers_its_siblings(saved: Checkpoint, tiny_data: Dataset) -> None:
    torch.manual_seed(5)
    branch = saved.model()
    branch.model.norm.weight.data += 1
    b = save_checkpoint(saved.path.with_name("b"), branch, tiny_data.tokenizer, Manifest("test/b"))
    family = save_family(saved.path.with_name("f"), saved.path, {"b": b.path})
    shutil.rmtree(saved.path)
    assert family.digest == saved.digest and family.family_digest != saved.family_digest
    assert family.siblings["b"].digest == b.digest
    content = bytearray((family.path / "siblings/b/model.safetensors").read_bytes())
    content[-1] ^= 1
    (family.path / "siblings/b/model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="siblings/b/model.safetensors: altered"):
        open_checkpoint(family.path)


def test_a_failed_write_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "x") as folder:
        (folder / "old").touch()
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "x") as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["old"]


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("phases.storage.fsync_path", full)
    with pytest.raises(StorageError, match="the disk is full: free some space"), atomic_directory(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of this path is a file"), atomic_directory(tmp_path / "file/x"):
        pass
