"""The phase as a whole, on a model that learns next to nothing: what it writes, and that a kill changes no bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from phases.agent.documents import DocumentStore
from phases.agent.settings import DOCUMENTS, SETTINGS, read_settings
from phases.baking import kitchen as kitchen_module
from phases.baking.config import BakingConfig
from phases.baking.record import read_record
from phases.baking.run import PHASE, run
from phases.baking.trajectories import Drawn
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import read_lattices
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError

STEP = {"steps": 2, "batch_rows": 2, "precision": "fp32"}
SMALL = {
    "scenarios": {"train": {"python": 6, "memory": 4, "persona": 6}, "held_out": 2, "distractors": [0]},
    "tools": {"names": ["python", "remember", "recall"], "limits": {"new_tokens": 8}},
    "teaching": STEP,
    "training": {**STEP, "steps": 4},
    "sampling": {"conversations": 8, "floor": 0.0},
    "row_tokens": 640,
}
KEPT = 4


def settings(**changes: Any) -> BakingConfig:
    return BakingConfig.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def parent(
    make_model: Callable[..., Any], write_ternary: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    quantised = Quantised(make_model("llama", max_position_embeddings=1024), Quantisation(group=16))
    return write_ternary(quantised, tmp_path_factory.mktemp("parent") / "forge")


@pytest.fixture
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model gets nothing right: let it be baked from what it was taught, a few conversations a bake."""

    def sample(model: Any, tokenizer: Any, conversations: Any, *rest: Any) -> Any:
        real = sampled(model, tokenizer, conversations, *rest)
        return Drawn(tuple(c.played.messages for c in conversations[:KEPT]), real.asked, real.reasons)

    sampled = kitchen_module.sample
    monkeypatch.setattr(kitchen_module, "sample", sample)


def test_the_agent_is_plain_ternary_and_whole(parent: Checkpoint, whole: Checkpoint) -> None:
    made = whole
    assert set(made.siblings) == {"plain", "prompted", "packed"} and made.manifest["phase"] == "baking"
    read_lattices(made.path)
    assert read_settings(made.path).tools == ("python", "remember", "recall")
    assert (made.siblings["packed"].path / SETTINGS).is_file()
    with DocumentStore(made.path / DOCUMENTS) as store:
        assert store.count > 0
    record = read_record(made.path)
    assert [bake.name for bake in record.bakes] == ["tools", "persona"] and record.train["python"] == 6
    assert all(bake.kept == KEPT and bake.kl_start is not None for bake in record.bakes)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made.path), AutoTokenizer.from_pretrained(made.path)
    assert "<tool_call>" in tokenizer.chat_template and not (made.path.parent / "whole.work").exists()
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), parent.model().parameters(), strict=True)]
    assert any(moved)
    steps = [c.manifest["metrics"]["steps"] for c in (made.siblings["prompted"], made.siblings["plain"])]
    assert steps == [2, 6] and sum(bake.steps for bake in record.bakes) == 4


@pytest.fixture(scope="module")
def whole(parent: Checkpoint, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The result of a run that nothing happens to."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kitchen_module, "sample", _sample(kitchen_module.sample))
        return run([parent], settings(), tmp_path_factory.mktemp("whole") / "whole", data=tiny_data)


@pytest.mark.parametrize("killed_at", ["prompted", "tools.drawn", "persona.model", "baked"])
def test_killed_anywhere_it_ends_in_the_same_bits(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, whole: Checkpoint, monkeypatch: Any, killed_at: str
) -> None:
    monkeypatch.setattr(kitchen_module, "sample", _sample(kitchen_module.sample))

    class Killed(Exception):
        pass

    def finished(path: Path) -> bool:
        if path.name != killed_at and (tmp_path / "cut.work" / killed_at).exists():
            raise Killed
        return path.is_dir()

    monkeypatch.setattr(kitchen_module, "is_finished", finished)
    monkeypatch.setattr("phases.baking.run.is_finished", finished)
    with pytest.raises(Killed):
        run([parent], settings(), tmp_path / "cut", data=tiny_data)
    monkeypatch.undo()
    monkeypatch.setattr(kitchen_module, "sample", _sample(kitchen_module.sample))
    again = run([parent], settings(), tmp_path / "cut", data=tiny_data)
    assert again.family_digest == whole.family_digest


def _sample(sampled: Any) -> Any:
    def sample(model: Any, tokenizer: Any, conversations: Any, *rest: Any) -> Any:
        real = sampled(model, tokenizer, conversations, *rest)
        return Drawn(tuple(c.played.messages for c in conversations[:KEPT]), real.asked, real.reasons)

    return sample


def test_a_prompt_that_the_model_cannot_follow_is_not_baked_in(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    made = run([parent], settings(sampling={"conversations": 8, "floor": 0.1}), tmp_path / "baking", data=tiny_data)
    tools = read_record(made.path).bakes[0]
    assert (tools.asked, tools.kept, tools.right, tools.steps) == (8, 0, 0, 0) and sum(tools.reasons.values()) == 8


def test_a_full_precision_parent_is_baked_by_adapters_in_half_bakes(
    make_model: Callable[..., Any], tiny_data: Dataset, tmp_path: Path, obliging: None
) -> None:
    model = make_model("qwen2", max_position_embeddings=1024)
    parent = save_checkpoint(tmp_path / "own", model, tiny_data.tokenizer, Manifest("own"))
    bakes = [{"name": "half", "prompt": "text", "text": "Be brief.", "kinds": ["persona"], "amount": 0.5}]
    made = run([parent], settings(tuning="lora", bakes=bakes), tmp_path / "baking", data=tiny_data)
    assert set(made.siblings) == {"plain", "prompted"} and read_record(made.path).bakes[0].steps == 2
    names = set(json.loads((made.path / "config.json").read_text())) and {n for n, _ in made.model().named_parameters()}
    assert names == {n for n, _ in parent.model().named_parameters()}


def test_inputs_that_will_not_do_are_one_line(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 inputs given"):
        run([parent, parent], settings(), tmp_path / "x", data=tiny_data)
    with pytest.raises(ConfigError, match=r"no conversation fits a row of 32 tokens"):
        run([parent], settings(row_tokens=32), tmp_path / "y", data=tiny_data)
    with pytest.raises(ConfigError, match=r"tool nowhere.py: cannot be read"):
        run([parent], settings(tools={"names": [], "own": ["nowhere.py"]}), tmp_path / "z", data=tiny_data)


def test_a_prompt_of_ones_own_makes_another_result(parent: Checkpoint, tiny_data: Dataset) -> None:
    plain, other = settings(), settings(persona={"name": "Ada"})
    assert PHASE.key([parent], plain, tiny_data) != PHASE.key([parent], other, tiny_data)
    assert open_checkpoint(parent.path).digest == parent.digest
