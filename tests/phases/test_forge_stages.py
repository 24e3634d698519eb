"""Stages: rates, dreams that fire or do harm, stages left out, the best one kept, and where a model stands."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.errors import ConfigError, DataError
from phases.forge.body import Body
from phases.forge.config import ForgeTrainingConfig
from phases.forge.history import History, read_history
from phases.forge.objective import JVP_COST
from phases.forge.stages import StagedTraining, rate_at
from phases.forge.standing import open_validation
from phases.tasks.item import render_completion, render_prompt
from phases.training.state import STATE

BLOCK = 64
OFF = {name: {"enabled": False} for name in ("chaos", "dreams", "self_model")}
LENIENT = {"prompts": 12, "prompt_tokens": 8, "new_tokens": 8, "likelihood": (0.0, 9.0), "validity": 0.0}


@pytest.fixture(scope="module")
def data(task_data: Dataset) -> Dataset:
    return task_data


@pytest.fixture(scope="module")
def parent(data: Dataset, make_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("parent") / "parent"
    return save_checkpoint(path, make_model("llama", 32), data.tokenizer, Manifest("cognate"))


def config(stages: list[dict[str, Any]], *, rate: float = 0.003, steps: int = 8, **changes: Any) -> ForgeTrainingConfig:
    training = {"steps": steps, "batch_rows": 4, "optimizer": "adamw", "learning_rate": rate, "precision": "fp32"}
    chaos = {"items": 20, "levels": 2, "every": 1, "rows": 1, "directions": 1}
    values = {"stages": stages, "training": training, "chaos": chaos, "dreams": LENIENT, "self_model": {}}
    few = {"validation_items": 20, "validation_blocks": 4}
    merged: dict[str, Any] = {**values, **few, **changes}
    on = {name: {"enabled": True, **merged.get(name, {})} for name in ("chaos", "dreams", "self_model")}
    return ForgeTrainingConfig.parse({**merged, **on}, "test")


def go(
    parent: Checkpoint, data: Dataset, settings: ForgeTrainingConfig, folder: Path, metrics: Any = lambda s, v: None
) -> tuple[StagedTraining, History]:
    folder.mkdir(exist_ok=True)
    training = StagedTraining(parent, settings, data, folder, metrics)
    return training, training.run()


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if name.startswith("model.")}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("ternary", [True, False])
def test_the_dreamer_is_the_model_as_it_is_now(
    ternary: bool, make_model: Any, write_ternary: Any, parent: Checkpoint, data: Dataset
) -> None:
    quantised = Quantised(make_model("llama", 32), Quantisation(group=16))
    body = Body(write_ternary(quantised, tokenizer=data.tokenizer) if ternary else parent, data)
    with torch.no_grad():
        for parameter in body.model.parameters():
            parameter.mul_(-1.5)
    dreamer, now = body.frozen(), dict(body.fold().named_parameters())
    assert all(torch.equal(p, now[name]) and not p.requires_grad for name, p in dreamer.named_parameters())


def test_rates_are_linear_within_stages(parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    stages = [{"name": "a", "rate": (0.2, 1.0), "share": 2.0}, {"name": "b", "rate": (1.0, 0.0)}, {"name": "c"}]
    settings = config(stages, steps=20, **OFF)
    assert settings.bounds == (0, 10, 15, 20)
    expected = [*np.linspace(0.2, 1.0, 10), *np.linspace(1.0, 0.0, 5), *np.ones(5)]
    assert [rate_at(settings, step) for step in range(20)] == pytest.approx(expected)
    assert rate_at(settings, 4.5) == pytest.approx(0.6) and rate_at(settings, 9.7) == 1.0  # nowhere beyond its end
    seen: dict[int, float] = {}
    go(parent, data, settings, tmp_path / "work", lambda s, v: seen.update({s: v.get("forge/rate_factor", -1)}))
    steps = [step for step, rate in seen.items() if rate >= 0]
    assert [seen[step] for step in steps] == pytest.approx([expected[step] for step in steps]) and 9 in steps


def test_dreams_fire(parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    stages = [{"name": "first"}, {"name": "dream", "dreams": True}, {"name": "self", "self_model": True}]
    curves: dict[str, float] = {}
    settings = config(stages, steps=9, dreams={**LENIENT, "diversity": 0.0, "harm": 9.0})
    training, history = go(parent, data, settings, tmp_path / "work", lambda step, values: curves.update(values))
    first, dreamt, own = history.stages
    cycle = dreamt.dreams
    assert cycle is not None and first.dreams is None and own.dreams is None
    assert (cycle.written, cycle.floor) == (12, None) and 0 < cycle.kept <= cycle.valid
    assert cycle.valid + sum(cycle.refused.values()) == 12 and cycle.used >= 3
    assert sum(cycle.valid_by_temperature.values()) / 2 == pytest.approx(cycle.valid / 12)
    assert curves["forge/dream_nll"] > 0 and curves["forge/dream_kl"] > 0
    assert curves["forge/recognised"] >= 0 and not dreamt.taken_back
    tokens = 3 * 4 * BLOCK
    plain = 3 * tokens + training.validation.cost
    assert [record.tokens for record in history.stages] == [tokens] * 3 and first.cost == own.cost == plain
    assert dreamt.cost > plain + 3 * BLOCK + 3 * 12  # a dreamt row a step to the teacher, a token each at least
    assert training.source.buffer.kept == cycle.kept
    assert read_history(tmp_path / "work") == history


def test_harmful_dreams_are_taken_back(parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    stages = [{"name": "first"}, {"name": "dream", "dreams": True}, {"name": "last"}]
    settings = config(stages, steps=9, dreams={**LENIENT, "diversity": 0.0})
    never = settings.model_copy(update={"dreams": settings.dreams.model_copy(update={"harm": -10.0})})
    states = []
    look = lambda step, values: states.append(file.read_bytes()) if "stage/text_nats" in values else None  # noqa: E731
    file = tmp_path / "work" / STATE
    training, history = go(parent, data, never, tmp_path / "work", look)
    first, dreamt, last = history.stages
    assert [record.taken_back for record in history.stages] == [False, True, False]
    assert dreamt.dreams is not None and dreamt.dreams.kept > 0
    assert dreamt.entry == first.exit == last.entry != dreamt.exit
    assert states[0] == states[1] != states[2]  # parameters, optimizers, loop, buffer, positions
    assert history.best in ("first", "last") and training.source.buffer.kept == 0
    # What was done in vain was paid for all the same.
    assert history.tokens == 3 * 3 * 4 * BLOCK and history.cost == sum(record.cost for record in history.stages)
    spared = settings.model_copy(update={"dreams": settings.dreams.model_copy(update={"harm": 9.0})})
    kept = go(parent, data, spared, tmp_path / "kept")[1]
    assert kept.stages[2].entry == kept.stages[1].exit == dreamt.exit


def test_stages_that_gain_nothing_end_it_but_for_those_that_always_run(
    parent: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    stages = [{"name": name, "always": name == "d"} for name in "abcde"]
    training, history = go(parent, data, config(stages, rate=3.0, steps=10, patience=2, **OFF), tmp_path / "work")
    assert [record.steps for record in history.stages][:4] == [2, 2, 0, 2] and history.best is None
    assert all(record.entry == record.exit and not record.cost for record in history.stages if not record.steps)
    assert history.stages[2].entry == history.stages[1].exit == history.stages[3].entry
    left = {n: p.detach() for n, p in training.body.model.named_parameters()}
    assert equal(parent.tensors(), left)  # none was better than the parent
    gaining = go(parent, data, config(stages, steps=10, patience=1, **OFF), tmp_path / "gaining")[1]
    assert [record.steps for record in gaining.stages] == [2] * 5 and gaining.best == "e"


def test_the_best_stage_is_kept_and_a_gain_is_counted_from_each_ones_entry(
    parent: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    """Rates: learn, ruin, repair a little: better than at its entry, but not than the best was."""
    stages = [
        {"name": "learn", "rate": (0.01, 0.01)},
        {"name": "ruin"},
        {"name": "repair", "rate": (0.01, 0.01)},
        {"name": "out"},
    ]
    settings = config(stages, rate=0.5, steps=16, patience=2, **OFF)
    training, history = go(parent, data, settings, tmp_path / "work")
    losses = [record.exit.loss(training.text_share) for record in history.stages]
    assert history.best == "learn" and losses[0] < losses[2] < losses[1]
    assert [record.steps for record in history.stages[:3]] == [4, 4, 4]
    impatient = settings.model_copy(update={"patience": 1})
    assert [record.steps for record in go(parent, data, impatient, tmp_path / "i")[1].stages] == [4, 4, 0, 0]
    assert training.validation.measure(training.body.model) == history.stages[0].exit
    best = parameters(tmp_path / "work" / "best.safetensors")
    assert equal(best, {f"model.{n}": p.detach() for n, p in training.objective.model.named_parameters()})


def test_the_loop_acts_in_its_stages_and_is_recorded(parent: Checkpoint, data: Dataset, tmp_path: Path) -> None:
    stages = [{"name": "a", "control": True}, {"name": "b"}, {"name": "c", "control": True}]
    settings = config(stages, steps=12)
    training, history = go(parent, data, settings, tmp_path / "work")
    first, between, last = (record.loop for record in history.stages)
    assert between is None and first is not None and last is not None
    assert first.steps == last.steps == 4 and set(first.difficulty) == {"chain_sum", "recall"}
    assert max(first.difficulty.values()) < 1 and last.reference is not None and first.reference is not None
    # At the last of a's and c's steps 3/8 and 7/8 of the way lie behind.
    start = first.reference / (1 - 3 / 8)
    assert last.reference == pytest.approx(start * (1 - 7 / 8))
    plain, measured = 3 * 4 * 4 * BLOCK + training.validation.cost, 4 * JVP_COST * BLOCK
    assert [record.cost - plain for record in history.stages] == pytest.approx([measured, 0, measured])
    assert training.source.loop.steps == 8


def test_standing_is_what_full_logits_say(parent: Checkpoint, data: Dataset) -> None:
    model, tokenizer = parent.model().eval(), data.tokenizer
    validation = open_validation(data, 15, 3)
    texts, nats, solved = ({"reasoning": [], "memory": []} for _ in range(3))  # type: Any, Any, Any
    for name, batches in validation.items.items():
        for tokens, answer in (row for b in batches for row in zip(b.tokens_BT, b.answer_BT, strict=True)):
            places = answer.nonzero()[:, 0]
            whole = tokens[: places[-1] + 1]  # without padding; a view
            texts[name].append(tokenizer.decode(whole))
            with torch.no_grad():
                # Of every third item each answer token becomes what the model says, of the next all but the first.
                for place in places[len(nats[name]) % 3 :] if len(nats[name]) % 3 < 2 else ():
                    whole[place] = model(whole[None]).logits[0, place - 1].argmax()
                log_p = model(whole[None]).logits[0].log_softmax(-1)[places - 1]
            nats[name].append(-float(log_p.gather(-1, whole[places, None]).mean()))
            solved[name].append(torch.equal(log_p.argmax(-1), whole[places]))
    for name, found in texts.items():
        items = data.items("validation", name)[:15]
        assert sorted(found) == sorted(
            render_prompt(tokenizer, i.prompt) + render_completion(tokenizer, i) for i in items
        )
    blocks = torch.from_numpy(np.asarray(data.blocks("validation", "text")[:3]).astype(np.int64))
    with torch.no_grad():
        text = model(blocks[:, :-1]).logits.log_softmax(-1).gather(-1, blocks[:, 1:, None]).mean()
    model.train()
    rng, standing = torch.get_rng_state(), validation.measure(model)
    assert model.training and torch.equal(rng, torch.get_rng_state())
    assert standing.text == pytest.approx(-float(text), rel=1e-5)
    assert standing.answers == pytest.approx(np.mean([np.mean(n) for n in nats.values()]), rel=1e-5)
    assert [standing.reasoning, standing.memory] == [np.mean(solved[name]) for name in ("reasoning", "memory")]
    assert 0.3 < standing.reasoning < 0.5 and 0.3 < standing.memory < 0.5
    assert standing.loss(0.25) == pytest.approx(0.25 * standing.text + 0.75 * standing.answers)


def test_data_without_validation_and_too_short_runs_are_refused(data: Dataset, tmp_path: Path) -> None:
    bare = Dataset(shutil.copytree(data.path, tmp_path / "bare"), data.digest, data.card)
    (bare.path / "items" / "validation.jsonl").write_text("")
    with pytest.raises(DataError, match="no validation data of reasoning; prepare some"):
        open_validation(bare, 8, 2)
    with pytest.raises(ConfigError, match=r"training.steps=2 is too few for 3 stages; raise it"):
        config([{"name": name} for name in "abc"], steps=2)
    assert all(start < stop for start, stop in pairwise(ForgeTrainingConfig().bounds))
