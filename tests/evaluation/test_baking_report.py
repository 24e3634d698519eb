"""Tables and pictures of baking, from made-up conversations."""

import numpy as np
import pytest
from matplotlib.container import BarContainer

from evaluation.baking_plots import conversation_bars, recall_bars
from evaluation.baking_report import conversation_tables, memory_table
from evaluation.tool_use import Used


def used(right: list[float]) -> Used:
    values = np.array(right)
    return Used(values, values, values, values, ("",) * len(right))


def test_bars_stand_as_high_as_the_answers_are_right() -> None:
    uses = {"baking": {"python": used([1, 1, 0, 1]), "memory": used([0, 1])}, "plain": {"python": used([0, 0, 0, 1])}}
    table = conversation_tables(uses, {"python": np.array([0, 0, 1, 1])})["conversations"]  # type: ignore[dict-item]
    axes = conversation_bars(table).axes[0]
    groups = [group for group in axes.containers if isinstance(group, BarContainer)]
    assert {str(group.get_label()): [bar.get_height() for bar in group.patches] for group in groups} == {
        "baking": [0.5, 0.75], "plain": [0.25], "baking, calls forbidden": [0.5]
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["memory", "python"]
    places = [round(bar.get_x() + bar.get_width() / 2, 2) for group in groups for bar in group.patches]
    assert len(set(places)) == 4  # no bar hides another


def test_recall_is_drawn_for_turns_and_restart() -> None:
    table = memory_table({(0, False): np.array([1.0, 0.0]), (4, False): np.array([1.0, 1.0]), (0, True): np.zeros(2)})
    axes = recall_bars(table).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.5, 1.0, 0.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0 turns", "4 turns", "a restart"]
