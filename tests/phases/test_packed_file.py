"""The packed checkpoint on disk: bytes as promised, everything in one file, and no damaged file is read."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.errors import CheckpointError
from phases.packed.file import load_packed, pack_checkpoint
from phases.packed.sizes import measure_bytes, predict_bytes

Damage = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def ternary_checkpoint(make_model: Any, write_ternary: Any) -> Callable[..., Checkpoint]:
    def build(group: int | None = 16, bits: Any = 8, tied: bool = True, **tensors: Any) -> Checkpoint:
        model = make_model("llama", tie_word_embeddings=tied)
        quantised = Quantised(model, Quantisation(group=group, embedding_bits=bits))
        made: Checkpoint = write_ternary(quantised, tensors=tensors, texts={"thinking.json": "{}\n"})
        return made

    return build


@pytest.fixture(scope="module")
def packed(ternary_checkpoint: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return pack_checkpoint(ternary_checkpoint(), tmp_path_factory.mktemp("out") / "packed")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("layout", "group", "bits"), [("trits", 16, 8), ("trits", None, 4), ("2bit", 128, 8), ("2bit", 7, None)]
)
def test_the_file_has_the_bytes_that_shapes_promise(
    layout: Any, group: int | None, bits: Any, tied: bool, ternary_checkpoint: Any, tmp_path: Path
) -> None:
    source = ternary_checkpoint(group, bits, tied)
    promise = predict_bytes(source.path, layout)
    checkpoint = pack_checkpoint(source, tmp_path / "packed", layout)
    assert promise.total == (checkpoint.path / "model.safetensors").stat().st_size
    assert promise == measure_bytes(checkpoint.path)
    shapes = [tuple(p.shape) for n, p in source.tensors().items() if "proj" in n]
    per_byte = 5 if layout == "trits" else 4
    assert promise.ternary_codes == sum(-(-o * i // per_byte) for o, i in shapes)
    assert promise.ternary_scales == sum(2 * (o * -(-i // group) if group else 1) for o, i in shapes)
    row = {8: 36, 4: 18, None: 0}[bits]
    assert promise.embedding_codes == 257 * row * (1 if tied else 2)


def test_a_packed_checkpoint_is_its_source_without_latent_weights(ternary_checkpoint: Any, tmp_path: Path) -> None:
    source = ternary_checkpoint(**{"mixing_head.safetensors": {"h": torch.ones(2)}})
    packed = pack_checkpoint(source, tmp_path / "packed")
    names = {p.name for p in source.path.iterdir()} - {"latent.safetensors", "ternary.json"}
    assert {p.name for p in packed.path.iterdir()} == names and {"thinking.json", "mixing_head.safetensors"} < names
    assert packed.manifest["parents"] == [source.digest] and packed.manifest["phase"] == "packed"
    assert packed.manifest["metrics"] == {
        f"{k}_bytes": v for k, v in asdict(predict_bytes(source.path, "trits")).items()
    }
    assert packed.tokenizer()("ab").input_ids == source.tokenizer()("ab").input_ids
    assert pack_checkpoint(source, tmp_path / "again").digest == packed.digest


def test_dequantised_weights_and_all_others_equal_those_of_the_source(
    packed: Checkpoint, ternary_checkpoint: Any
) -> None:
    model, expected = load_packed(packed.path), load_file(ternary_checkpoint().path / "model.safetensors")
    for name, weight in expected.items():
        module, _, part = name.rpartition(".")
        assert torch.equal(getattr(model.get_submodule(module), part), weight), name
    assert set(load_file(packed.path / "model.safetensors")) == set(model.state_dict())


def write_forged(body: dict[str, Any], data: bytes) -> bytes:
    """A file with a digest that is right, made without the writer."""
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    raw = len(text).to_bytes(8, "little") + text + data
    old = body["__metadata__"]["forge_sha256"].encode()
    return raw.replace(old, hashlib.sha256(raw.replace(old, b"0" * 64)).hexdigest().encode())


def forge(edit: Callable[[dict[str, Any], bytearray, random.Random], None]) -> Damage:
    def damage(raw: bytes, chance: random.Random) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        body, data = json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])
        edit(body, data, chance)
        return write_forged(body, bytes(data))

    return damage


def pick(body: dict[str, Any], chance: random.Random, ending: str) -> str:
    return chance.choice(sorted(name for name in body if name.endswith(ending)))


def overwrite(ending: str, value: bytes, last: bool = False) -> Damage:
    """Put bytes at a random place of a random tensor, or at its end."""

    def edit(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
        start, end = body[pick(body, chance, ending)]["data_offsets"]
        at = end - len(value) if last else start + chance.randrange((end - start) // len(value)) * len(value)
        data[at : at + len(value)] = value

    return forge(edit)


def flip(low: float, high: float) -> Damage:
    def damage(raw: bytes, chance: random.Random) -> bytes:
        at = int(chance.uniform(low, high) * len(raw)) if high <= 1 else chance.randrange(int(low), int(high))
        return raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]

    return damage


def drop(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    name = chance.choice(sorted(body.keys() - {"__metadata__"}))
    start, end = body.pop(name)["data_offsets"]
    del data[start:end]
    for entry in body.values():
        if entry.get("data_offsets", [0])[0] >= end:
            entry["data_offsets"] = [offset - (end - start) for offset in entry["data_offsets"]]


def rename(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    name, old = pick(body, chance, "codes"), dict(body)
    body.clear()
    body.update({key.replace("codes", "bytes") if key == name else key: entry for key, entry in old.items()})


def swap(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    one, other = "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"
    part = chance.choice([".codes", ".scale"])
    body[one + part], body[other + part] = body[other + part], body[one + part]


def retype(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    body[pick(body, chance, "scale")]["dtype"] = chance.choice(["BF16", "I16", "F99"])


def reshape(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    entry = body[pick(body, chance, "proj.scale")]
    entry["shape"] = chance.choice(
        [entry["shape"][::-1], [*entry["shape"], 1], [-n for n in entry["shape"]], "36", None]
    )


def shift(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    entry = body[pick(body, chance, "codes")]
    entry["data_offsets"] = [chance.randrange(len(data)), 10**15]


def resettle(body: dict[str, Any], data: bytearray, chance: random.Random) -> None:
    text = body["__metadata__"]["forge_ternary"]
    body["__metadata__"]["forge_ternary"] = chance.choice(
        [text.replace('"trits"', '"2bit"'), text.replace("16", "17"), ""]
    )


DIGEST = "another than it says"
DAMAGES: list[tuple[str, int, str, Damage]] = [
    ("a bit anywhere", 25, DIGEST, flip(0, 1)),
    ("a bit of the header", 13, DIGEST, flip(8, 1500)),
    ("a bit of the length", 4, DIGEST, flip(0, 8)),
    ("a digit of the digest", 4, DIGEST, flip(40, 104)),
    ("cut off", 10, DIGEST, lambda raw, chance: raw[: chance.randrange(len(raw))]),
    ("the last byte gone", 1, DIGEST, lambda raw, chance: raw[:-1]),
    ("empty", 1, DIGEST, lambda raw, chance: b""),
    ("bytes behind the end", 5, DIGEST, lambda raw, chance: raw + chance.randbytes(chance.randrange(1, 99))),
    ("bytes behind the end, forged", 1, "do not belong", forge(lambda body, data, chance: data.extend(b"0" * 8))),
    ("no five trits", 5, "proj.codes: 1 bytes are over 242", overwrite("proj.codes", b"\xf3")),
    ("trits behind the end", 2, "q_proj.codes: codes stand behind", overwrite("q_proj.codes", b"\x00", last=True)),
    ("-128 among 8-bit codes", 2, "embed_tokens.codes: codes from -128 to", overwrite("embed_tokens.codes", b"\x80")),
    ("a scale that is NaN", 3, "scale is not finite", overwrite("scale", b"\x01\x7e")),
    ("a scale that is infinite", 2, "scale is not finite", overwrite("scale", b"\x00\x7c")),
    ("a scale below zero", 3, "scale is negative", overwrite("scale", b"\x00\xbc")),
    ("a norm that is NaN", 1, "norm.weight is not finite", overwrite("norm.weight", b"\x00\x00\xc0\x7f")),
    ("a tensor gone", 4, "is missing", forge(drop)),
    ("a tensor renamed", 2, "is no tensor of|is missing", forge(rename)),
    ("tensors swapped", 2, "expected|do not belong", forge(swap)),
    ("another dtype", 3, "expected|not one of", forge(retype)),
    ("another shape", 4, "expected|do not belong|not one of", forge(reshape)),
    ("other offsets", 1, "do not belong", forge(shift)),
    ("other settings", 2, "config.json says", forge(resettle)),
]
CASES = [(f"{name} {n}", reason, damage) for name, count, reason, damage in DAMAGES for n in range(count)]


def test_there_are_a_hundred_damages() -> None:
    assert len(CASES) == 100


@pytest.mark.parametrize(("name", "reason", "damage"), CASES, ids=[name for name, *_ in CASES])
def test_every_damaged_file_is_refused_by_name(
    name: str, reason: str, damage: Damage, packed: Checkpoint, tmp_path: Path
) -> None:
    folder = shutil.copytree(packed.path, tmp_path / "damaged")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(damage(whole, random.Random(name)))
    assert file.read_bytes() != whole
    for load in (AutoModelForCausalLM.from_pretrained, load_packed):
        with pytest.raises(CheckpointError, match=f"{file}: .*({reason})"):
            load(folder)
    with pytest.raises(CheckpointError, match=str(file)):
        open_checkpoint(folder)


def test_forging_alone_is_no_damage(packed: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(packed.path, tmp_path / "forged")
    file = folder / "model.safetensors"
    raw = forge(lambda body, data, chance: None)(file.read_bytes(), random.Random(0))
    assert raw == file.read_bytes()
