"""The pictures show the numbers that they were given."""

import numpy as np
import pytest

from evaluation.judgement import Table
from evaluation.plots import evolution_curves, loss_curves, matrix_heat_map, running_mean


def test_running_mean_against_a_loop() -> None:
    values = np.array([1.0, 4, 9, 16, 25])
    slow = [values[max(0, i - 2) : i + 1].mean() for i in range(5)]
    assert running_mean(values, 3) == pytest.approx(slow)
    assert running_mean(values, 1).tolist() == values.tolist()


def test_loss_curves_have_a_line_a_model() -> None:
    figure = loss_curves({"trunk": [(0, 5.0), (1, 4.0)], "memory": [(0, 3.0), (1, 2.0)]})
    axes = figure.axes[0]
    assert len(axes.lines) == 4
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["trunk", "memory"]


def test_heat_map_writes_value_and_error_and_marks_the_best() -> None:
    columns = ("model", "reasoning", "reasoning ±", "memory", "memory ±")
    table = Table(title="t", columns=columns, rows=(("a", 0.5, 0.01, 0.1, None), ("b", 0.25, 0.02, 0.3, 0.03)))
    texts = {t.get_text(): t.get_weight() for t in matrix_heat_map(table).axes[0].texts}
    assert texts == {"0.500 ± 0.010": "bold", "0.100": "normal", "0.250 ± 0.020": "normal", "0.300 ± 0.030": "bold"}


def test_evolution_is_a_running_best_and_early_stops_hold() -> None:
    ours = [[(1, 0.2), (2, 0.5), (3, 0.1)], [(1, 0.3), (2, 0.3)]]
    figure = evolution_curves(ours, [[(1, 0.1)], [(1, 0.2)]])
    seed, _, mean, *_ = figure.axes[0].lines
    assert list(seed.get_ydata()) == [0.2, 0.5, 0.5]
    assert list(mean.get_ydata()) == pytest.approx([0.25, 0.4, 0.4])


def test_nothing_to_draw_is_an_empty_picture() -> None:
    assert not loss_curves({}).axes[0].lines
