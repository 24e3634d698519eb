"""No damaged artefact is opened: every region of the file, its header and its config, and what a forger would try."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.compression.artefact import load_artefact, read_stored, write_artefact
from phases.compression.hyper import Hyper
from phases.compression.quantizer import ForgeCompressedConfig
from phases.compression.seedlm import SeedLM
from phases.compression.sizes import sizes
from phases.compression.stored import Coding, Stored, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ
from phases.errors import CheckpointError, ConfigError
from phases.packed.container import read_header

VECTORS = VPTQ(vector=4, codebook_size=16, iterations=2)
UP, GATE, DOWN = (f"model.layers.0.mlp.{name}_proj" for name in ("up", "gate", "down"))
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def made(make_model: Any, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """One tied layer, every codec."""
    folder, model = tmp_path_factory.mktemp("artefact"), make_model("llama", num_hidden_layers=1)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    codecs: dict[str, Coding] = {"model.embed_tokens.weight": VECTORS, f"{UP}.weight": Ternary(group=16)}
    codecs |= {f"{GATE}.weight": Hyper(group=12), f"{DOWN}.weight": SeedLM(5, refined=2)}
    shared = VECTORS.encode_together({"model.embed_tokens.weight": weights["model.embed_tokens.weight"]})
    encoded = {name: squeezed(matrix, VECTORS, 8) for name, matrix in shared.matrices.items()}
    encoded |= {n: c.encode(weights[n]) for n, c in codecs.items() if not isinstance(c, VPTQ)}
    plain = {name: weight.half() for name, weight in weights.items() if name not in codecs}
    stored = Stored(codecs, encoded, {VECTORS: shared.codebook_RKV}, plain)
    source = save_checkpoint(folder / "source", model, tiny_data.tokenizer, Manifest("adas"))
    return write_artefact(source, stored, folder / "made")


def regions(file: Path) -> dict[str, tuple[int, int]]:
    """Where the length, the parts of the header, and every tensor lie."""
    header, end = read_header(file), 0
    found = {"length": (0, 8), "digest": (8, 104), "metadata": (104, 900), "names": (900, header.bytes)}
    end = header.bytes
    for name, entry in header.entries.items():
        found[name] = (end, end + entry.bytes)
        end += entry.bytes
    assert end == file.stat().st_size
    return found


def refused(folder: Path, reason: str) -> None:
    """Whoever opens it is told of the file."""
    for load in (AutoModelForCausalLM.from_pretrained, load_artefact, read_stored):
        with pytest.raises(CheckpointError, match=f"{folder / 'model.safetensors'}: .*({reason})"):
            load(folder)


def test_a_bit_in_any_region_of_the_file_is_refused_by_name(made: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(made.path, tmp_path / "damaged")
    file = folder / "model.safetensors"
    whole, places = file.read_bytes(), regions(file)
    assert len(places) == 4 + 8 + 1 + 4 - 1 and any(name == "codebooks.0" for name in places)
    for start, end in places.values():
        for at in {start, (start + end) // 2, end - 1}:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=f"{file}: .*another than it says"):
                AutoModelForCausalLM.from_pretrained(folder)
            with pytest.raises(CheckpointError, match=str(file)):
                open_checkpoint(folder)
    for size in (0, 7, 60, 500, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        refused(folder, "another than it says")
    file.write_bytes(whole + b"\0")
    refused(folder, "another than it says")
    file.write_bytes(whole)
    assert load_artefact(folder)(torch.arange(4)[None]).logits.isfinite().all()


Body = dict[str, Any]


def forge(file: Path, edit: Callable[[Body, bytearray], None]) -> None:
    """Alter a file, and give it the digest that it then has."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    body, data = json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])
    edit(body, data)
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    raw = len(text).to_bytes(8, "little") + text + data
    old = body["__metadata__"]["forge_sha256"].encode()
    file.write_bytes(raw.replace(old, hashlib.sha256(raw.replace(old, b"0" * 64)).hexdigest().encode()))


def contents(change: Callable[[Body], None]) -> Callable[[Body, bytearray], None]:
    def edit(body: Body, data: bytearray) -> None:
        said = json.loads(body["__metadata__"]["forge_compressed"])
        change(said)
        body["__metadata__"]["forge_compressed"] = json.dumps(said)

    return edit


def overwrite(name: str, value: bytes, last: bool = False) -> Callable[[Body, bytearray], None]:
    def edit(body: Body, data: bytearray) -> None:
        start, end = body[name]["data_offsets"]
        start = end - len(value) if last else start
        data[start : start + len(value)] = value

    return edit


def rename(old: str, new: str) -> Callable[[Body, bytearray], None]:
    def edit(body: Body, data: bytearray) -> None:
        known = dict(body)
        body.clear()
        body.update({new if name == old else name: entry for name, entry in known.items()})

    return edit


def retype(body: Body, data: bytearray) -> None:
    body["model.norm.weight"]["dtype"] = "BF16"


FORGERIES: dict[str, tuple[str, Callable[[Body, bytearray], None]]] = {
    "no codec": ("kinds.0.codec", contents(lambda said: said["kinds"][0].update(codec="gzip"))),
    "no setting": ("vector", contents(lambda said: said["kinds"][0]["settings"].update(vector=0))),
    "an unknown setting": ("depth", contents(lambda said: said["kinds"][0]["settings"].update(depth=1))),
    "a matrix less": ("header: ", contents(lambda said: said["kind_of"].pop())),
    "a kind that there is not": ("header: ", contents(lambda said: said["kind_of"].__setitem__(0, 9))),
    "another kind": (".stored: ", contents(lambda said: said["kind_of"].reverse())),
    "another codebook": ("codebooks.0", contents(lambda said: said["kinds"][0]["settings"].update(codebook_size=8))),
    "no contents": ("header: ", lambda body, data: body["__metadata__"].pop("forge_compressed")),
    "a norm that is NaN": (f"{NORM} is not finite", overwrite(NORM, b"\x01\x7e")),
    "a codebook that is infinite": ("codebooks.0 is not finite", overwrite("codebooks.0", b"\x00\x7c")),
    "a stream's last byte": (f"{UP}.stored: the stream is damaged", overwrite(f"{UP}.stored", b"\xaa\xbb", last=True)),
    "a scale that is NaN": (f"{GATE}.stored: .*not finite", overwrite(f"{GATE}.stored", b"\x01\x7e", last=True)),
    "a scale below zero": (f"{GATE}.stored: .*negative", overwrite(f"{GATE}.stored", b"\x00\xbc", last=True)),
    "a seed of zero": (f"{DOWN}.stored: a seed is 0", overwrite(f"{DOWN}.stored", b"\x00" * 8)),
    "another dtype": (f"{NORM} is .*bfloat16", retype),
    "a tensor renamed": ("model.other.weight is no tensor", rename(NORM, "model.other.weight")),
    "a layer renamed": ("of no layer", rename(f"{UP}.stored", "model.layers.0.mlp.zz_proj.stored")),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_what_does_not_fit_is_refused_under_a_right_digest_too(what: str, made: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(made.path, tmp_path / "forged")
    reason, edit = FORGERIES[what]
    forge(folder / "model.safetensors", edit)
    for load in (AutoModelForCausalLM.from_pretrained, load_artefact):
        with pytest.raises(CheckpointError, match=f"{folder / 'model.safetensors'}: .*{reason}"):
            load(folder)


def test_forging_alone_is_no_damage(made: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(made.path, tmp_path / "forged")
    forge(folder / "model.safetensors", lambda body, data: None)
    assert (folder / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()
    assert sizes(folder) == sizes(made.path)


@pytest.mark.parametrize("edit", [{"rms_norm_eps": 0.1}, {"num_hidden_layers": 2}, {"extra": 1}], ids=str)
def test_another_config_than_it_was_written_with_is_refused(edit: Body, made: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(made.path, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **edit}))
    refused(folder, "not the one it was written with")
    with pytest.raises(CheckpointError, match="config.json"):
        open_checkpoint(folder)


def test_a_config_that_denies_the_format_or_asks_for_more_is_refused(made: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(made.path, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "quantization_config"}))
    with pytest.raises(CheckpointError, match="lack|cannot be loaded"):
        load_artefact(folder)
    with pytest.raises(ConfigError, match="unknown key 'group'"):
        ForgeCompressedConfig(group=3)
    with pytest.raises(ConfigError, match="'fast' is none of auto, exact"):
        ForgeCompressedConfig(kernel="fast")  # type: ignore[arg-type]


def test_other_checkpoints_are_not_compressed_while_they_load(made: Checkpoint) -> None:
    source = made.path.with_name("source")
    with pytest.raises(ValueError, match="pre-quantized"):
        AutoModelForCausalLM.from_pretrained(source, quantization_config=ForgeCompressedConfig())
    with pytest.raises(CheckpointError, match="not a packed file"):
        sizes(source)
