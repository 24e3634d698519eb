"""`forge export`: what is written opens and is the same model, its bytes add up, bad input is one line."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flows.cli import main
from flows.parameters import load_config
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import ternary_files
from phases.checkpoint import Checkpoint, Manifest, load_model, load_tokenizer, open_checkpoint, save_checkpoint
from phases.data.prepare import prepare_data
from phases.packed.model import packed_matrices

Command = Callable[..., str]
CHOICE = ("ternary matmul on cpu: ", "building the ternary kernel")  # said once a process


@pytest.fixture(scope="module")
def run(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, a `ternary` model of groups of 32, its `packed` form and the `plain` one that it was."""
    folder = tmp_path_factory.mktemp("export")
    data = prepare_data(load_config(file=tiny_file).data, None, folder / "data")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 96, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.vocabulary, **shape, **ends))
    save_checkpoint(folder / "plain", model, data.tokenizer, Manifest("cognate"))
    quantised = Quantised(model, Quantisation(group=32))
    files = ternary_files(quantised)
    quantised.fold()
    save_checkpoint(folder / "ternary", model, data.tokenizer, Manifest("bitnet"), *files)
    assert main(["export", str(folder / "ternary"), "--format", "packed", "--out", str(folder / "packed")]) == 0
    return folder


@pytest.fixture(scope="module")
def source(run: Path) -> Checkpoint:
    return open_checkpoint(run / "ternary")


@pytest.fixture
def forge(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command: what it prints, or its one line when it must be refused."""

    def run(*arguments: object, refused: bool = False) -> str:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse's own
            code = int(str(stopped.code))
        shown = capsys.readouterr()
        said = [line for line in shown.err.splitlines() if not line.startswith(CHOICE)]
        assert (code, shown.out if refused else said) == ((2, "") if refused else (0, [])), shown.err
        assert not refused or (len(said) == 1 and said[0].startswith("forge: ")), shown.err
        return said[0] if refused else shown.out

    return run


@pytest.mark.parametrize(("layout", "per_byte"), [("trits", 5), ("2bit", 4)])
def test_a_packed_folder_is_the_ternary_model(
    layout: str, per_byte: int, source: Checkpoint, forge: Command, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    found = json.loads(forge("export", source.path, "--format", "packed", "--layout", layout, "--out", out, "--json"))
    model, weights = load_model(out), source.tensors()
    unpacked = {f"{name}.weight": matrix.weight for name, matrix in packed_matrices(model).items()}
    unpacked |= dict(model.named_parameters())
    assert unpacked.keys() == weights.keys()
    assert all(torch.equal(unpacked[name], weight) for name, weight in weights.items())
    linear = [weight.numel() for name, weight in weights.items() if "proj" in name]
    assert found["by_kind"]["ternary codes"] == sum(-(-count // per_byte) for count in linear)
    assert open_checkpoint(out).manifest["parents"] == [source.digest]


@pytest.mark.parametrize(("wanted", "name"), [("auto", "Q4_0"), ("q4_0", "Q4_0"), ("f16", "F16")])
def test_gguf_has_every_weight(wanted: str, name: str, source: Checkpoint, forge: Command, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    found = json.loads(forge("export", source.path, "--format", "gguf", "--type", wanted, "--out", out, "--json"))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    up, weight = tensors["blk.1.ffn_up.weight"], source.tensors()["model.layers.1.mlp.up_proj.weight"]
    assert up.tensor_type.name == name and len(tensors) == len(source.tensors())
    assert np.array_equal(gguf.quants.dequantize(up.data, up.tensor_type), weight.numpy())
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    assert found["by_kind"] == {**sizes, "metadata": out.stat().st_size - sum(sizes.values())}


@pytest.mark.parametrize("kind", ["packed", "gguf"])
def test_bytes_are_those_on_the_disk_and_both_outputs_add_up(
    kind: str, source: Checkpoint, forge: Command, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    found = json.loads(forge("export", source.path, "--format", kind, "--out", out, "--json"))
    size = (out / "model.safetensors" if kind == "packed" else out).stat().st_size
    count = sum(weight.numel() for weight in source.tensors().values())
    assert found["bytes"] == size == sum(found["by_kind"].values())
    assert (found["path"], found["format"], found["parameters"]) == (str(out), kind, count)
    assert found["bits_per_parameter"] == pytest.approx(8 * size / count)
    again = tmp_path / "again"
    header, _, *lines = forge("export", source.path, "--format", kind, "--out", again).splitlines()
    *rows, whole = [line.rsplit(maxsplit=2) for line in lines[: lines.index("")]]
    assert header.split() == ["tensors", "bytes", "share"] and whole == ["file", f"{size:,}", "100.0%"]
    assert {name: int(taken.replace(",", "")) for name, taken, _ in rows} == found["by_kind"]
    assert all(share == f"{found['by_kind'][name] / size:.1%}" for name, _, share in rows)
    bits = f"{8 * size / count:.3f} bits a parameter, {4 * count / size:.2f} times smaller than float32"
    assert lines[-2:] == [bits, f"written: {again}"]


BAD_OPTIONS = [
    (["--format", "packed", "--type", "q4_0"], "--type belongs to --format gguf"),
    (["--format", "gguf", "--layout", "2bit"], "--layout belongs to --format packed"),
    (["--format", "onnx"], "invalid choice: 'onnx'"),
    (["--format", "gguf", "--type", "tq2_0"], "rows of 32 weights with a scale for groups of 32 do not fall into"),
    ([], "one of the arguments --format --dequantise is required"),
]


@pytest.mark.parametrize(("options", "wanted"), BAD_OPTIONS, ids=[wanted for _, wanted in BAD_OPTIONS])
def test_bad_options(options: list[str], wanted: str, source: Checkpoint, forge: Command, tmp_path: Path) -> None:
    assert wanted in forge("export", source.path, "--out", tmp_path / "new" / "out", *options, refused=True)
    assert not list(tmp_path.rglob("*out*")), "something was left behind"


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        if name == "ternary.json":  # else the manifest tells; a folder without one is taken as it is
            (path / "forge.json").unlink()
        (path / name).write_bytes(change((path / name).read_bytes()))

    return damage


def replace(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        shutil.rmtree(path)
        path.with_name(name).rename(path)

    return damage


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, r"/ternary: not a checkpoint \(no such folder\)"),
    (replace("plain"), "/ternary: not ternary .* give a checkpoint of the bitnet phase"),
    (replace("packed"), "/ternary: not ternary"),
    (
        edit("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        "/ternary/model.safetensors: altered",
    ),
    (edit("model.safetensors", lambda content: content[:-100]), "/ternary/model.safetensors: truncated"),
    (edit("ternary.json", lambda content: content[:20]), "/ternary/ternary.json: truncated or altered"),
    (edit("ternary.json", lambda content: content.replace(b"32", b"64")), "not on the ternary lattice .* groups of 64"),
]


@pytest.mark.parametrize("kind", ["packed", "gguf"])
@pytest.mark.parametrize(("damage", "wanted"), DAMAGE, ids=[wanted for _, wanted in DAMAGE])
def test_bad_checkpoints(damage: Any, wanted: str, kind: str, run: Path, forge: Command, tmp_path: Path) -> None:
    names = {"ternary", "plain", "packed"}
    for name in names:
        shutil.copytree(run / name, tmp_path / name)
    damage(tmp_path / "ternary")
    line = forge("export", tmp_path / "ternary", "--format", kind, "--out", tmp_path / "out", refused=True)
    assert re.search(wanted, line), line
    assert {path.name for path in tmp_path.iterdir()} <= names, "something was left behind"


@pytest.mark.parametrize("kind", ["packed", "gguf"])
@pytest.mark.parametrize("folder", [True, False])
def test_what_exists_is_left_alone(folder: bool, kind: str, source: Checkpoint, forge: Command, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    file = out / "note" if folder else out
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    assert f"{out}: exists already" in forge("export", source.path, "--format", kind, "--out", out, refused=True)
    if not folder:
        line = forge("export", source.path, "--format", kind, "--out", out / "below", refused=True)
        assert "a part of this path is a file" in line
    assert file.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to: root mounts one, for everybody else it is a matter of permissions."""
    path = tmp_path / "locked"
    path.mkdir()
    if os.geteuid():
        path.chmod(0o500)
        yield path
        path.chmod(0o700)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(path)], capture_output=True).returncode:
        pytest.skip("a read-only file system cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("kind", ["packed", "gguf"])
def test_a_read_only_folder(kind: str, source: Checkpoint, read_only: Path, forge: Command) -> None:
    for out in (read_only / "out", read_only / "new" / "out"):
        line = forge("export", source.path, "--format", kind, "--out", out, refused=True)
        assert re.search(f"{out}: .*(read-only|no permission).*choose another --out", line), line
    assert not list(read_only.iterdir())


def test_a_packed_folder_writes(run: Path, forge: Command) -> None:
    packed = run / "packed"
    model, tokenizer = load_model(packed), load_tokenizer(packed)
    ids = tokenizer("the small red", return_tensors="pt")["input_ids"]
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    text = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert forge("generate", packed, "--prompt", "the small red", "--max-new-tokens", 8) == text + "\n"


def test_a_packed_folder_is_measured(run: Path, settings: list[str], forge: Command) -> None:
    """With the data beside it, and the same to within what activations of 8 bits cost."""
    bits = []
    for path in (run / "packed", run / "ternary"):
        found = json.loads(forge("evaluate", path, *settings, "--json"))
        assert found["checkpoint"] == open_checkpoint(path).digest
        bits.append(next(m["value"] for m in found["metrics"] if m["name"] == "model/bits_per_byte"))
    assert bits[0] == pytest.approx(bits[1], rel=0.01) and bits[0] != bits[1]


@pytest.mark.parametrize(("phase", "others"), [("bitnet", []), ("quiet_star", []), ("evomerge", ["plain", "plain"])])
def test_a_packed_folder_is_not_trained(
    phase: str, others: list[str], run: Path, settings: list[str], forge: Command, tmp_path: Path
) -> None:
    inputs = [run / name for name in (*others, "packed")]
    line = forge("phase", phase, "--input", *inputs, "--out", tmp_path / "out", *settings, refused=True)
    assert f"{run / 'packed'}: packed, which {phase} cannot train" in line and not (tmp_path / "out").exists()
