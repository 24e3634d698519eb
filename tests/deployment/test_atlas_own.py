"""One's own models: added, replaced, entered by a forge's agent; broken files are named, and half files never seen."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployment.atlas import catalogue, own
from deployment.atlas.storing import as_json
from deployment.model import Quality
from deployment.physics.weights import checkpoint_bytes
from phases.errors import InputError

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own" / "atlas.json"
    monkeypatch.setenv(own.VARIABLE, str(path))
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """A compressed agent's folder: what of it is read here are JSON files and the size of its weights."""
    folder = tmp_path / "compression"
    folder.mkdir()
    config = {**CONFIG, "quantization_config": {"quant_method": "forge_compressed"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "forge.json").write_text(json.dumps({"phase": "compression"}))
    report = {"rungs": [{"retention": 0.5}, {"retention": 0.97}], "taken": 1}
    (folder / "compression.json").write_text(json.dumps(report))
    (folder / "model.safetensors").write_bytes(bytes(20_000))
    return folder


def test_a_config_is_added_and_found(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    added = own.add(str(path), name="me/mine")
    assert catalogue.models()[0] == added == catalogue.model("mine")
    assert json.loads(file.read_text())["version"] == 1
    assert len(catalogue.models()) == len(catalogue.shipped()) + 1


def test_adding_again_replaces_and_a_shipped_name_is_overridden(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    own.add(str(path), name="Qwen/Qwen3-8B")
    own.add(str(path), name="Qwen/Qwen3-8B")
    assert len(own.models()) == 1
    assert catalogue.model("Qwen/Qwen3-8B").parameters < 10**6
    assert len(catalogue.models()) == len(catalogue.shipped())


def test_agents_that_enter_at_the_same_time_are_all_kept() -> None:
    some = catalogue.shipped()[:16]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(own.keep, some))
    assert {one.name for one in own.models()} == {one.name for one in some}


def test_an_agent_enters_with_its_size_and_its_measured_quality(agent: Path) -> None:
    entered = own.add(str(agent))
    assert entered.name == str(agent)
    assert checkpoint_bytes(entered) == pytest.approx(20_000)
    assert entered.quality == (Quality("retention", 97.0, str(agent / "compression.json")),)
    assert (entered.licence, catalogue.model(str(agent))) == ("own", entered)


def test_what_is_known_of_an_agent_can_be_said(agent: Path) -> None:
    measured = (Quality("HumanEval", 12.5, "its report"),)
    entered = own.enter(agent, bits=2.0, quality=measured, tasks=("code",))
    assert (entered.stored_bits, entered.quality, entered.tasks) == (2.0, measured, ("code",))


def test_a_folder_without_a_manifest_is_a_plain_model(agent: Path) -> None:
    (agent / "forge.json").unlink()
    (agent / "config.json").write_text(json.dumps(CONFIG))
    assert own.add(str(agent), name="me/plain").stored_bits == 16.0


def test_an_agent_without_weights_or_with_a_broken_report(agent: Path) -> None:
    (agent / "compression.json").write_text('{"rungs": [], "taken": 3}')
    with pytest.raises(InputError, match="says no retention"):
        own.enter(agent)
    (agent / "compression.json").unlink()
    (agent / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        own.enter(agent)


@pytest.mark.parametrize("source", ["nowhere/config.json", "nowhere", "a/b/c", "/no/such", "./x/y"])
def test_what_is_nothing_at_all(source: str) -> None:
    with pytest.raises(InputError, match=r"is no config\.json, no folder with one, and no hub id"):
        own.add(source)


def test_a_hub_id_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline and with an empty cache, as on a machine that cannot reach the hub."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"org/name: the hub cannot be reached.*--name org/name"):
        own.add("org/name")
    with pytest.raises(InputError, match="is no hub id"):
        own.add("bad name/--")


def test_a_broken_atlas_is_named_and_not_overwritten(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    file.parent.mkdir()
    for content, words in (("{", "broken JSON"), ('{"version": 9}', "not an atlas of version 1")):
        file.write_text(content)
        with pytest.raises(InputError, match=words):
            own.add(str(path), name="me/mine")
        assert file.read_text() == content
    file.write_text('{"version": 1, "models": [{"name": "x", "colour": "red"}]}')
    with pytest.raises(InputError, match="'x' is not in the form"):
        catalogue.models()


@pytest.mark.parametrize("change", [{"count": "a"}, {"count": -1}, {"mixer_bits": "8"}, {"kv_heads": 2.5}])
def test_a_value_that_no_model_has_is_named(change: dict[str, Any], file: Path) -> None:
    data = as_json(catalogue.model("Qwen/Qwen3-8B"))
    data["layers"] = [{**data["layers"][0], **change}]
    file.parent.mkdir()
    for models in ([data], [1]):
        file.write_text(json.dumps({"version": 1, "models": models}))
        with pytest.raises(InputError, match="is not in the form of version 1"):
            catalogue.models()


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**9}, {"vocab_size": 10**30}])
def test_a_config_beyond_all_measure_is_refused_at_once(change: dict[str, int], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(InputError, match=f"{next(iter(change))} is more than"):
        own.add(str(path), name="me/mine")


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        own.add(str(path), name="me/mine")


def test_nothing_is_left_half_written(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    own.add(str(path), name="me/one")
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        own.add(str(path), name="me/two")
    assert file.read_bytes() == before
    assert {one.name for one in file.parent.iterdir()} == {file.name, f"{file.name}.lock"}
