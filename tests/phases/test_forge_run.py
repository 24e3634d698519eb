"""The forge phase end to end: the lattice, the packed sibling, the control, kills at any place, what it refuses."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import LATENT, count_off_lattice, open_latent, read_settings
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset, open_dataset
from phases.errors import CheckpointError, ConfigError
from phases.forge.config import ForgeTrainingConfig
from phases.forge.history import HISTORY, read_history
from phases.forge.run import PACKED, PLAIN, control_steps, run
from phases.forge.stages import rate_at
from phases.forge.standing import Validation, open_validation
from phases.packed.model import packed_matrices
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, load_thinker, thinking_files
from phases.quiet_star.thinker import Thinker

BLOCK = 64
OFF: dict[str, Any] = {name: {"enabled": False} for name in ("chaos", "dreams", "self_model")}
ANY = {"validity": 0.0, "diversity": 0.0}


def config(**changes: Any) -> ForgeTrainingConfig:
    """Ten steps with every ingredient on: 0-2 edge, 3-5 dream, 6-7 self, 8-9 both; the last ruins it."""
    values = {
        "stages": [
            {"name": "edge", "control": True, "share": 3.0},
            {"name": "dream", "dreams": True, "share": 3.0},
            {"name": "self", "self_model": True, "share": 2.0},
            {"name": "both", "control": True, "dreams": True, "share": 2.0, "rate": (1.0, 300.0)},
        ],
        "chaos": {"items": 20, "levels": 2, "every": 2, "rows": 1, "directions": 1},
        "dreams": {"prompts": 12, "prompt_tokens": 8, "new_tokens": 8, "likelihood": (0.0, 9.0), "harm": 50.0, **ANY},
        "grokfast": {"enabled": True},
        "training": {"steps": 10, "batch_rows": 4, "save_seconds": 0.0, "learning_rate": 0.003, "optimizer": "adamw"},
        **{"validation_items": 10, "validation_blocks": 4},
    }
    merged: dict[str, Any] = {**values, **changes}
    on = {name: {"enabled": True, **merged.get(name, {})} for name in ("chaos", "dreams", "self_model")}
    return ForgeTrainingConfig.parse({**merged, **on}, "test")


@pytest.fixture(scope="module")
def data(task_data: Dataset) -> Dataset:
    return task_data


@pytest.fixture(scope="module")
def parent(make_model: Callable[..., Any], write_ternary: Callable[..., Checkpoint], data: Dataset) -> Checkpoint:
    return write_ternary(Quantised(make_model("llama", 32), Quantisation(group=16)), tokenizer=data.tokenizer)


@pytest.fixture(scope="module")
def full(make_model: Callable[..., Any], data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("full") / "full"
    return save_checkpoint(path, make_model("llama", 32), data.tokenizer, Manifest("cognate"))


@pytest.fixture(scope="module")
def whole(parent: Checkpoint, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """An undisturbed run; tests only look at it."""
    return run([parent], config(), tmp_path_factory.mktemp("whole") / "out", data=data)


def test_everything_fires_and_is_written(whole: Checkpoint, parent: Checkpoint) -> None:
    history = read_history(whole.path)
    edge, dream, own, both = history.stages
    assert edge.loop is not None and own.loop is None and both.loop is not None and both.dreams is not None
    assert dream.dreams is not None and dream.dreams.written == 12 and dream.dreams.kept > 0 and dream.dreams.used > 0
    assert history.self_knowledge is not None and history.self_knowledge.texts == 24
    assert history.best == "self" and both.exit.loss(0.5) > own.exit.loss(0.5)
    assert set(whole.siblings) == {PLAIN, PACKED} and whole.manifest["parents"] == [parent.digest]
    assert {HISTORY, LATENT} <= set(whole.manifest["files"])
    assert whole.manifest["metrics"] == {"tokens": 10 * 4 * BLOCK, "passes": history.cost}
    assert not whole.path.with_name("out.work").exists()


def test_the_checkpoint_is_the_best_stage_measured_again(whole: Checkpoint, data: Dataset) -> None:
    best = next(stage for stage in read_history(whole.path).stages if stage.name == "self")
    quantised = open_latent(whole)  # as it trained: activations are rounded too
    found = open_validation(data, 10, 4).measure(quantised.model)
    assert found.model_dump() == pytest.approx(best.exit.model_dump(), abs=1e-6)


def test_it_stays_on_the_lattice_and_can_be_trained_on(whole: Checkpoint, parent: Checkpoint) -> None:
    before = parent.tensors()
    for made in (whole, whole.siblings[PLAIN]):
        settings, weights = read_settings(made.path), made.tensors()
        assert len(settings.ternary) == 14 and count_off_lattice(made.path, settings.ternary) == 0
        latent = load_file(made.path / LATENT)
        assert set(latent) == {*settings.ternary, *settings.embeddings}
        for name, lattice in open_latent(made).lattices().items():  # raises where they do not round to the weights
            assert torch.equal(lattice.dequantise(), weights[name]) and not torch.equal(latent[name], weights[name])
            assert not torch.equal(weights[name], before[name]), name
    packed = packed_matrices(whole.siblings[PACKED].model())
    assert len(packed) == 15
    assert all(torch.equal(matrix.weight, whole.tensors()[f"{name}.weight"]) for name, matrix in packed.items())


def test_the_control_had_as_much_as_all_of_ours(whole: Checkpoint) -> None:
    history, plain = read_history(whole.path), whole.siblings[PLAIN].manifest["metrics"]
    assert plain["tokens"] == control_steps(config(), history, BLOCK) * 4 * BLOCK > history.tokens
    assert history.cost <= plain["passes"] == 3 * plain["tokens"] < history.cost + 3 * 4 * BLOCK


def kill(patch: pytest.MonkeyPatch, where: str, after: int) -> None:
    """Calls of the function work `after` times, then never again."""
    module, _, name = where.rpartition(".")
    original, calls = getattr(home := importlib.import_module(f"phases.{module}"), name), iter(range(after))

    def dying(*args: Any, **more: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(*args, **more)

    patch.setattr(home, name, dying)


IN_STEPS = [("training.loop.step_all", steps) for steps in (1, 2, 1, 2, 2, 1, 3)]
"""In edge, as dream begins, in dream, as self begins, as both begins, in both, in the control."""
BETWEEN = [
    *(("forge.stages.sift", 0), ("forge.stages.write_history", 0), ("forge.stages.write_history", 1)),
    *((f"forge.run.{name}", 0) for name in ("self_knowledge", "read_history", "pack_checkpoint", "save_family")),
]


@pytest.mark.parametrize("places", [IN_STEPS, BETWEEN], ids=["in steps", "between"])
def test_killed_again_and_again_it_ends_in_the_same_bits(
    places: list[tuple[str, int]], whole: Checkpoint, parent: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    for where, after in places:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill(patch, where, after)
            run([parent], config(), tmp_path / "out", data=data)
    assert run([parent], config(), tmp_path / "out", data=data).family_digest == whole.family_digest


def test_killed_between_stages(whole: Checkpoint, parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    seen: list[str] = []
    rates: dict[int, float] = {}

    def stop(step: int, values: Any) -> None:
        seen.extend(values)
        rates.update({step: values["plain/rate_factor"]} if "plain/rate_factor" in values else {})
        if "stage/validation_nats" in values:
            raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run([parent], config(), tmp_path / "out", data=data, metrics=stop)
    made = run([parent], config(), tmp_path / "out", data=data, metrics=stop)
    assert made.family_digest == whole.family_digest
    assert seen.count("stage/validation_nats") == 4  # what is done is not done again
    steps = made.siblings[PLAIN].manifest["metrics"]["tokens"] / (4 * BLOCK)  # of which the control has more
    assert rates == pytest.approx({step: rate_at(config(), step * 10 / steps) for step in (0, 10, round(steps) - 1)})


def test_without_ingredients_it_is_the_control(
    full: Checkpoint, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validation, "cost", 0.0)  # looks at validation data give the control a few steps more
    made = run([full], config(**OFF, grokfast={}, stages=[{"name": "a"}, {"name": "b"}]), tmp_path / "out", data=data)
    history, plain = read_history(made.path), made.siblings[PLAIN]
    assert set(made.siblings) == {PLAIN} and history.best == "b" and history.self_knowledge is None
    assert plain.manifest["metrics"] == made.manifest["metrics"] == {"tokens": 2560, "passes": 3.0 * 2560}
    assert all(torch.equal(tensor, plain.tensors()[name]) for name, tensor in made.tensors().items())


def test_what_no_stage_improves_on_stays_the_parent(parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    ruinous = config(**OFF, stages=[{"name": "a", "rate": (900.0, 900.0)}, {"name": "b"}], patience=1)
    made = run([parent], ruinous, tmp_path / "out", data=data)
    history = read_history(made.path)
    assert history.best is None and [stage.steps for stage in history.stages] == [5, 0]
    assert all(torch.equal(tensor, parent.tensors()[name]) for name, tensor in made.tensors().items())
    latent = [load_file(one.path / LATENT) for one in (made, parent)]
    assert all(torch.equal(tensor, latent[1][name]) for name, tensor in latent[0].items())
    assert made.siblings[PLAIN].manifest["metrics"]["tokens"] > history.tokens == 5 * 4 * BLOCK


def test_a_head_that_learnt_nothing_on_the_way_is_not_measured(full: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    ruined = config(stages=[{"name": "a"}, {"name": "b", "self_model": True, "rate": (900.0, 900.0)}])
    made = run([full], ruined, tmp_path / "out", data=data)
    assert read_history(made.path).best == "a" and read_history(made.path).self_knowledge is None


def test_thoughts_ride_along(make_model: Callable[..., Any], data: Dataset, tmp_path: Path) -> None:
    model, tokenizer = make_model("llama", 32), open_dataset(data.path).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|startofthought|>", "<|endofthought|>"]})
    model.resize_token_embeddings(259)
    thinker = Thinker(model, MixingHead(32, 0.05), 257, 258)
    files = thinking_files(thinker, ThinkingFile(start=257, end=258, tokens=2))
    parent = save_checkpoint(tmp_path / "thinks", model, tokenizer, Manifest("quiet_star"), *files)
    made = run([parent], config(**OFF, stages=[{"name": "a"}]), tmp_path / "out", data=data)
    for one in (made, made.siblings[PLAIN]):
        found, settings = load_thinker(one.path)
        assert settings.tokens == 2
        assert all(map(torch.equal, thinker.head.parameters(), found.head.parameters()))


def test_bad_input_is_one_clear_line(
    whole: Checkpoint, parent: Checkpoint, full: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="forge: 2 inputs given; give one checkpoint with --input"):
        run([parent, parent], config(), tmp_path / "out", data=data)
    with pytest.raises(CheckpointError, match="packed, which forge cannot train; give what it was packed from"):
        run([whole.siblings[PACKED]], config(), tmp_path / "out", data=data)
    (tokenizer := full.tokenizer()).add_tokens(["<|new|>"])
    tokenizer.save_pretrained(shutil.copytree(data.path, tmp_path / "other") / "tokenizer")
    other = Dataset(tmp_path / "other", "other", {**data.card, "vocabulary": 258})
    with pytest.raises(CheckpointError, match="its tokenizer is not the one that .* was prepared with"):
        run([full], config(), tmp_path / "out", data=other)
    with pytest.raises(ConfigError, match=r"stages: 'a' stands there twice; give each its own name"):
        config(stages=[{"name": "a"}, {"name": "a"}])
    with pytest.raises(ConfigError, match=r"unknown key 'dreams.lucid'; allowed here: capacity, "):
        config(dreams={"lucid": True})
    assert not (tmp_path / "out").exists()
