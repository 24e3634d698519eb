"""Tables and pictures of a ternary model: counted by hand, and drawn from the numbers that they were given."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from evaluation.judgement import Table
from evaluation.ternary_plots import CURVES, code_curves, scale_histogram, size_against_quality
from evaluation.ternary_report import kind_of, lattice_table, size_table
from phases.bitnet.lattice import Lattice

UP, UP_1, QUERY = (
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
)


def lattice(codes: Any, scales: Any, group: int | None = 2) -> Lattice:
    return Lattice(torch.tensor(codes, dtype=torch.int8), torch.tensor(scales, dtype=torch.float16), group)


@pytest.fixture
def lattices() -> dict[str, Lattice]:
    """Ours: twelve codes of two up projections and a query, in groups of two."""
    return {
        UP: lattice([[1, 0, 0, -1], [0, 0, 1, 1]], [[1.0, 2.0], [0.0, 3.0]]),
        QUERY: lattice([[1, -1]], [[0.5]]),
        UP_1: lattice([[-1, 0]], [[4.0]]),
    }


@pytest.fixture
def parent() -> dict[str, torch.Tensor]:
    """Weights ±1 and ±0.1; next to 1, 0.1 rounds to 0, as the group's mean magnitude is 0.55."""
    return {
        UP: torch.tensor([[1.0, 0.1, 1.0, 1.0], [0.1, -1.0, 1.0, 1.0]]),  # codes 1 0 1 1, 0 −1 1 1
        QUERY: torch.tensor([[-1.0, 1.0]]),  # codes −1 1
        UP_1: torch.tensor([[-1.0, -1.0]]),  # codes −1 −1
        "model.norm.weight": torch.ones(3),
    }


def test_codes_are_counted_by_kind_of_layer(lattices: dict[str, Lattice], parent: dict[str, torch.Tensor]) -> None:
    table = lattice_table(lattices, parent)
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["up_proj", "q_proj", "all"]
    # weights, zeros, zeros of the parent, three quantiles, changed, flipped
    up, query, every = (rows[name] for name in rows)
    assert up[:3] == (10, pytest.approx(5 / 10), pytest.approx(2 / 10))
    assert query[:3] == (2, 0.0, 0.0)
    assert every[:3] == (12, pytest.approx(5 / 12), pytest.approx(2 / 12))
    # Of the first up projection 1 → 0, 1 → −1 and −1 → 0 changed, of the second −1 → 0; both of the query flipped.
    assert up[6:] == (pytest.approx(4 / 10), pytest.approx(1 / 10))
    assert query[6:] == (1.0, 1.0)
    assert every[6:] == (pytest.approx(6 / 12), pytest.approx(3 / 12))


def test_quantiles_of_the_scales(lattices: dict[str, Lattice], parent: dict[str, torch.Tensor]) -> None:
    rows = {row[0]: row for row in lattice_table(lattices, parent).rows}
    assert rows["up_proj"][4:7] == pytest.approx((0.2, 2.0, 3.8))  # of 0, 1, 2, 3, 4
    assert rows["q_proj"][4:7] == (0.5, 0.5, 0.5)
    assert rows["all"][4:7] == pytest.approx(tuple(np.quantile([0, 0.5, 1, 2, 3, 4], (0.05, 0.5, 0.95))))


def test_the_parent_is_rounded_to_our_groups(parent: dict[str, torch.Tensor]) -> None:
    """With one scale for the tensor the mean magnitude is 0.775 instead of 0.55 or 1."""
    whole = {UP: lattice([[1, 0, 1, 1], [0, -1, 1, 1]], [[1.0]], None)}
    assert lattice_table(whole, parent).rows[0][6:] == (1.0, 0.0, 0.0)
    apart = {UP: lattice([[1.0], [1.0]], [[1.0], [1.0]], 1)}
    assert lattice_table(apart, {UP: torch.tensor([[0.1], [-9.0]])}).rows[0][7:] == (0.5, 0.5)


def test_columns_say_what_they_are(lattices: dict[str, Lattice], parent: dict[str, torch.Tensor]) -> None:
    columns = lattice_table(lattices, parent).columns
    assert columns[:4] == ("layer", "weights", "zeros", "zeros of the parent")
    assert columns[4:] == ("scale 5%", "scale 50%", "scale 95%", "codes changed", "signs flipped")


@pytest.mark.parametrize(("name", "kind"), [(UP, "up_proj"), ("lm_head.weight", "lm_head"), ("a.weight.b", "b")])
def test_the_kind_of_a_layer_is_its_last_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_size_table_adds_up() -> None:
    kinds = {"ternary codes": (100, 20), "ternary scales": (0, 4), "other weights": (4, 16), "header": (0, 64)}
    table = size_table(kinds)
    assert table.columns[:4] == ("tensors", "numbers", "bytes", "bits a number")
    codes, scales, other, header, whole = table.rows
    assert codes == ("ternary codes", 100, 20, 1.6, 20.0, 10.0)
    assert scales == ("ternary scales", 0, 4, None, None, None) and header[1:] == (0, 64, None, None, None)
    assert other == ("other weights", 4, 16, 32.0, 1.0, 0.5)
    assert whole == ("whole file", 104, 104, 8.0, 4.0, 2.0)


def share(figure: Any, colour: str) -> float:
    """The share of the drawn pixels that have a colour."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    return float((np.abs(pixels - to_rgb(colour)).max(-1) < 0.02).mean())


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_code_curves_are_the_shares_against_the_step() -> None:
    curves = {name: [(0, 0.0), (10, 0.1 * i), (30, 0.2 * i)] for i, name in enumerate(CURVES, 1)}
    figure = code_curves({**curves, "loss": [(0, 9.0)]})
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "share of the codes")
    assert len(axes.lines) == 5 and labels(axes) == list(CURVES.values())
    for line, curve in zip(axes.lines, curves.values(), strict=True):
        assert np.array_equal(line.get_xydata(), np.array(curve)) and share(figure, line.get_color()) > 1e-3
    assert [line.get_linestyle() for line in axes.lines] == ["--", "-", "-", "-", "-"]


def test_a_curve_that_was_not_logged_is_not_drawn() -> None:
    axes = code_curves({"zeros": [(0, 0.5), (1, 0.4)], "strength": []}).axes[0]
    assert len(axes.lines) == 1 and labels(axes) == ["zeros"]


def test_the_histogram_counts_every_scale_above_zero(lattices: dict[str, Lattice]) -> None:
    figure = scale_histogram(lattices)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("scale γ", "groups", "log")
    assert labels(axes) == ["up_proj", "q_proj"]
    for patch, scales, colour in zip(axes.patches, [(1.0, 2.0, 3.0, 4.0), (0.5,)], ("C0", "C1"), strict=True):
        outline = patch.get_xy()  # up at the left of each bar, along its top, down
        tops = [(x, right) for (x, y), (right, top) in pairwise(outline) if right > x and y == top == 1]
        assert len(tops) == len(scales) and outline[:, 1].max() == 1
        assert all(left <= scale <= right for scale, (left, right) in zip(scales, tops, strict=True))
        assert patch.get_edgecolor()[:3] == to_rgb(colour) and share(figure, colour) > 1e-3


def test_a_model_of_zeros_has_an_empty_histogram() -> None:
    axes = scale_histogram({UP: lattice([[0, 0]], [[0.0]])}).axes[0]
    assert labels(axes) == ["up_proj"] and axes.patches[0].get_xy()[:, 1].max() == 0


def test_size_against_quality_has_a_point_a_model() -> None:
    columns = ("model", "bytes", "bits a parameter", "bits per byte", "bits per byte ±", "tasks kept", "tasks kept ±")
    rows = (
        ("bitnet", 1000, 1.9, 2.0, 0.25, 0.9, 0.1),
        ("parent", 20_000, 32.0, 1.5, None, 1.0, None),
        ("rounded", 1000, 1.9, 3.0, 0.5, 0.1, 0.1),
    )
    figure = size_against_quality(Table(title="Rivals", columns=columns, rows=rows))
    axes = figure.axes[0]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "Rivals",
        "bytes of the weights",
        "bits per byte",
    )
    assert axes.get_xscale() == "log" and labels(axes) == ["bitnet", "parent", "rounded"]
    assert len(axes.containers) == 3
    for (marker, caps, (bar,)), row, colour in zip(axes.containers, rows, ("C0", "C1", "C2"), strict=True):
        error = row[4] or 0.0
        assert marker.get_xydata().tolist() == [[row[1], row[3]]] and marker.get_marker() == "o"
        assert bar.get_segments()[0].tolist() == [[row[1], row[3] - error], [row[1], row[3] + error]]
        assert len(caps) == 2 and share(figure, colour) > 1e-4
