"""Tables, metrics and pictures of forge training: counted by hand from a made-up history."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from evaluation.forge_plots import loop_curves, stage_curves
from evaluation.forge_report import (
    POWER,
    complexity_table,
    dream_metrics,
    dream_table,
    loop_table,
    self_metrics,
    stage_table,
)
from evaluation.judgement import Cell, Table
from phases.forge.chaos import lyapunov_exponent
from phases.forge.history import DreamCycle, History, LoopRecord, SelfKnowledge, StageRecord, Standing

START, LATER = (
    Standing(text=3.0, answers=2.0, reasoning=0.1, memory=0.2),
    Standing(text=2.5, answers=1.5, reasoning=0.3, memory=0.4),
)
WORSE = Standing(text=9.0, answers=8.0, reasoning=0.0, memory=0.0)


def loop(**changes: Any) -> LoopRecord:
    values: dict[str, Any] = {
        "steps": 8, "held": 6, "overall": 0.62, "success": {"gcd": 0.6, "recall": 0.8, "sort": None}, "exponent": -0.2,
        "difficulty": {"gcd": 0.5, "recall": 1.0, "sort": 0.75}, "reference": -0.1, "rate": 1.3, "noise": 0.0,
    }  # fmt: skip
    return LoopRecord(**{**values, **changes})


def cycle(**changes: Any) -> DreamCycle:
    values: dict[str, Any] = {
        "written": 20, "valid": 12, "kept": 9, "used": 40, "refused": {"wrong_answer": 5, "repetitive": 3},
        "floor": None, "valid_by_temperature": {"0.3": 0.8, "0.8": 0.4}, "diversity": 0.7,
    }  # fmt: skip
    return DreamCycle(**{**values, **changes})


@pytest.fixture
def history() -> History:
    """Five stages: one is best, one has a loop, two dream (one is taken back), one is left out."""
    stages = (
        StageRecord(name="adapt", steps=4, entry=START, exit=LATER, tokens=100, cost=300),
        StageRecord(name="edge", steps=8, entry=LATER, exit=LATER, tokens=200, cost=650, loop=loop()),
        StageRecord(name="dream", steps=2, entry=LATER, exit=WORSE, taken_back=True, dreams=cycle()),
        StageRecord(
            name="again", steps=2, entry=LATER, exit=LATER, dreams=cycle(kept=0, used=7, floor="validity_floor")
        ),
        StageRecord(name="late", steps=0, entry=LATER, exit=LATER),
    )
    known = SelfKnowledge(rows=5, r2=0.6, copy_r2=0.3, scaled_copy_r2=0.4, target_variance=2.0)
    return History(stages=stages, best="adapt", self_knowledge=known)


def columns(table: Table) -> list[dict[str, Cell]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_stage_has_a_row_with_its_entry_and_exit(history: History) -> None:
    rows = columns(stage_table(history))
    assert [(row["stage"], row["steps"], row["verdict"]) for row in rows] == [
        ("adapt", 4, "kept (best)"), ("edge", 8, "kept"), ("dream", 2, "taken back"), ("again", 2, "kept"),
        ("late", 0, "left out"),
    ]  # fmt: skip
    values = {"text, nats": (3.0, 2.5), "answers, nats": (2.0, 1.5), "reasoning": (0.1, 0.3), "memory": (0.2, 0.4)}
    assert {name: (rows[0][f"{name} in"], rows[0][f"{name} out"]) for name in values} == values
    assert (rows[2]["text, nats in"], rows[2]["text, nats out"]) == (2.5, 9.0)


def test_without_a_better_stage_none_is_best(history: History) -> None:
    rows = columns(stage_table(history.model_copy(update={"best": None})))
    assert not any("best" in str(row["verdict"]) for row in rows)


def test_dreams_are_counted_by_cycle(history: History) -> None:
    first, second = columns(dream_table(history)["dreams"])
    counts = {name: first[name] for name in ("stage", "written", "valid", "kept", "used", "diversity")}
    assert counts == {"stage": "dream", "written": 20, "valid": 12, "kept": 9, "used": 40, "diversity": 0.7}
    assert first["refused"] == "repetitive 3, wrong_answer 5"
    assert first["valid by temperature"] == "0.3: 80%, 0.8: 40%"
    assert (second["stage"], second["refused"], second["kept"]) == ("again", "validity_floor", 0)


def test_dreams_of_all_cycles_that_were_not_taken_back_are_metrics(history: History) -> None:
    def counted(*taken_back: bool) -> tuple[dict[str, float], set[tuple[int, str, str]]]:
        pairs = zip(history.stages[2:4], taken_back, strict=True)
        found = dream_metrics(History(stages=tuple(s.model_copy(update={"taken_back": back}) for s, back in pairs)))
        return {m.name.removeprefix("forge/dreams_"): m.value for m in found}, {(m.n, m.split, m.unit) for m in found}

    assert counted(False, False) == ({"written": 40, "kept": 9, "used": 47}, {(2, "train", "dreams")})
    assert counted(True, False) == ({"written": 20, "kept": 0, "used": 7}, {(1, "train", "dreams")})
    assert counted(False, True) == ({"written": 20, "kept": 9, "used": 40}, {(1, "train", "dreams")})
    assert counted(True, True) == ({}, set())


def test_the_loop_has_a_row_a_task_and_one_for_all(history: History) -> None:
    rows = {str(row["task"]): row for row in columns(loop_table(history)["loop"])}
    assert {name: (row["success"], row["difficulty"]) for name, row in rows.items()} == {
        "gcd": (0.6, 0.5), "recall": (0.8, 1.0), "sort": (None, 0.75), "all items asked": (0.62, None),
    }  # fmt: skip
    whole = rows["all items asked"]
    names = ("stage", "steps in band", "exponent", "wanted", "rate", "noise")
    assert [whole[name] for name in names] == ["edge", 0.75, -0.2, -0.1, 1.3, 0.0]
    assert rows["gcd"]["steps in band"] is None and rows["gcd"]["rate"] is None


def test_a_loop_without_a_task_held_nothing(history: History) -> None:
    idle = history.stages[1].model_copy(update={"loop": loop(steps=0, held=0, overall=None, success={}, difficulty={})})
    (row,) = columns(loop_table(History(stages=(idle,)))["loop"])
    assert (row["task"], row["success"], row["steps in band"]) == ("all items asked", None, None)


def test_what_did_not_act_has_no_table_and_no_metric(history: History) -> None:
    plain = History(stages=history.stages[:1])
    assert dream_table(plain) == {} and loop_table(plain) == {}
    assert dream_metrics(plain) == [] and self_metrics(plain) == []


def test_self_knowledge_stands_beside_copying_and_chance(history: History) -> None:
    found = self_metrics(history)
    assert {metric.name: metric.value for metric in found} == {
        "forge/self_r2": 0.6, "forge/self_r2_of_copy": 0.3, "forge/self_r2_of_scaled_copy": 0.4,
        "forge/self_target_variance": 2.0,
    }  # fmt: skip
    assert {(metric.n, metric.split, metric.stderr) for metric in found} == {(5, "validation", None)}
    assert history.self_knowledge is not None
    recognition = {"recognised": 0.7, "recognised_stderr": 0.02, "chance": 0.5, "texts": 384}
    told = history.self_knowledge.model_copy(update=recognition)
    more = self_metrics(history.model_copy(update={"self_knowledge": told}))
    assert more[:4] == found and {m.name: (m.value, m.stderr, m.n, m.split) for m in more[4:]} == {
        "forge/own_texts_recognised": (0.7, 0.02, 384, "validation"),
        "forge/own_texts_by_chance": (0.5, None, 384, "validation"),
    }


def test_complexity_of_weights_known_by_hand(tiny_model: Any) -> None:
    """Every matrix ± 1 with rank one: the width of ± 1 is a deviation of 1, and ranks are as small as they can be."""
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            if parameter.ndim == 2:
                sign = torch.ones(parameter.shape[0], 1)
                sign[::2] = -1
                parameter.copy_(sign.expand_as(parameter))
    text_NT = torch.arange(1, 26).repeat(9, 1)
    (row,) = columns(complexity_table({"ours": tiny_model}, text_NT))
    assert row["model"] == "ours" and row["deviation / mean |w|"] == pytest.approx(1, abs=0.01)
    assert row["interdecile / mean |w|"] == pytest.approx(2)
    shapes = [p.shape for n, p in tiny_model.named_parameters() if p.ndim == 2 and ".layers." in n]
    assert row["rank of matrices"] == pytest.approx(np.mean([1 / min(shape) for shape in shapes]), rel=1e-3)
    assert 0 < float(row["rank of hidden states"] or 0) < 0.1


def test_exponents_of_a_random_direction_and_of_the_one_that_grows_most(tiny_model: Any) -> None:
    text_NT = torch.arange(1, 55).reshape(3, 18)
    still = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for name, parameter in tiny_model.named_parameters():
            parameter.mul_(5.0 if ".layers." in name and parameter.ndim == 2 else 1.0)
        for layer in still.model.layers:  # hands its input on as it is
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    moved, kept = columns(complexity_table({"moved": tiny_model, "still": still}, text_NT))
    names = ("exponent", "exponent ±", "largest exponent", "largest exponent ±")
    assert [kept[name] for name in names] == pytest.approx([0.0] * 4, abs=1e-6)
    directions = [lyapunov_exponent(tiny_model, text_NT[:2, :-1], directions=2, power=n, seed=0) for n in (0, POWER)]
    wanted = [number for found in directions for number in (found.value, found.stderr)]
    assert [moved[name] for name in names] == pytest.approx(wanted)
    assert float(moved["largest exponent"] or 0) > float(moved["exponent"] or 0) + 0.1


def test_the_loop_is_drawn_with_its_band_and_its_course() -> None:
    curves = {
        "success": [(0, 0.5), (5, 0.6)], "success/gcd": [(0, 0.2), (5, 0.4)], "success/recall": [(0, 0.9)],
        "difficulty/gcd": [(0, 1.0), (5, 0.7)], "difficulty/recall": [(0, 1.0), (5, 1.5)],
        "exponent": [(0, -0.3)], "exponent_reference": [(0, -0.3)], "rate": [(0, 1.2)], "tilt": [(0, 3.0)],
    }  # fmt: skip
    success, difficulty, exponent = loop_curves(curves, (0.55, 0.75)).axes
    (band,) = success.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.55, 0.75))
    drawn = {line.get_label(): line.get_xydata().tolist() for line in success.lines}
    assert drawn == {
        "gcd": [[0, 0.2], [5, 0.4]], "recall": [[0, 0.9]], "all items asked": [[0, 0.5], [5, 0.6]],
    }  # fmt: skip
    assert [line.get_label() for line in difficulty.lines] == ["gcd", "recall"]
    assert difficulty.lines[1].get_ydata().tolist() == [1.0, 1.5] and difficulty.get_ylim()[1] > 1.5
    same = [to_rgba(axes.lines[0].get_color()) for axes in (success, difficulty)]
    assert same[0] == same[1]
    names = [line.get_label() for line in exponent.lines if not str(line.get_label()).startswith("_")]
    assert names == ["exponent", "exponent reference", "rate"]  # the noise was not logged


def test_stages_are_drawn_from_the_start_on_and_what_was_taken_back_is_a_cross_off_the_line(history: History) -> None:
    figure = stage_curves(stage_table(history))
    text, _, solved = figure.axes
    lines = {str(line.get_label()): line.get_ydata().tolist() for axes in figure.axes for line in axes.lines}
    assert {name: values for name, values in lines.items() if not name.startswith("_")} == {
        "text, nats": [3.0] + 5 * [2.5], "answers, nats": [2.0] + 5 * [1.5],
        "reasoning": [0.1] + 5 * [0.3], "memory": [0.2] + 5 * [0.4],
    }  # fmt: skip
    marks = [[line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"] for axes in figure.axes]
    assert marks == [[[[3, 9.0]]], [[[3, 8.0]]], [[[3, 0.0]], [[3, 0.0]]]]
    assert all(to_rgba(line.get_color()) == to_rgba("r") for line in solved.lines if line.get_marker() == "x")
    plain = stage_curves(stage_table(History(stages=history.stages[:2])))
    assert [len(axes.lines) for axes in plain.axes] == [1, 1, 2]
    names = [label.get_text() for label in text.get_xticklabels()]
    assert names == ["start", "adapt", "edge", "dream", "again", "late"]
