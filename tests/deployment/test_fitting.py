"""The solver finds what made the data; kinds of systems do not take the blame for single ones; folds are honest."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployment.physics.errors import coverage, intervals, summary
from deployment.physics.fitting import (
    NAMES,
    PROBLEM,
    Points,
    coefficients,
    derivatives,
    fit,
    main,
    numbered,
    out_of_fold,
    predicted,
    write,
)
from deployment.physics.latency import closed_loop
from deployment.physics.solving import Array, Problem, solve
from deployment.physics.validation_rows import Measured, measured

ROW = {
    "silicon_data_source": "",
    "precision": "fp8",
    "mode": "agg",
    "attention_dp_size": "1",
    "moe_tp_size": "1",
    "moe_ep_size": "1",
    "silicon_ttft_ms": "1",
    "silicon_tpot_ms": "1",
}


@pytest.fixture(scope="module")
def made() -> list[Measured]:
    """Points of systems that differ in all that matters, timed by coefficients that are not the priors."""
    rng = np.random.default_rng(0)
    true = coefficients(_true(), {})
    points = []
    for model in ("Qwen/Qwen3-32B", "openai/gpt-oss-120b", "meta-llama/Llama-3.1-8B-Instruct"):
        for system in ("h100_sxm", "b200_sxm"):
            for engine in ("vllm", "sglang"):
                for tp in (2, 8):
                    for batch, isl in ((1, 256), (16, 1024), (128, 4096)):
                        sizes = {"tp_size": str(tp), "batch_size": str(batch), "isl": str(isl), "osl": "512"}
                        row = ROW | sizes | {"model_path": model, "system": system, "backend": engine}
                        points.append(measured(row))
    for index, point in enumerate(points):
        times = closed_loop(true.terms, true.factors(point.case.features), point.case)
        noise = np.exp(rng.normal(0, 0.02, 2))
        points[index] = replace(point, ttft=float(times.ttft * noise[0]), tpot=float(times.tpot * noise[1]))
    return points


def _true() -> Array:
    x = PROBLEM.centre.copy()
    for name, log in (("layer", 0.5), ("interleave", 0.3), ("request", -0.4), ("prefill_utilisation", -0.3)):
        x[NAMES.index(name)] += log
    for name, log in (("step:sglang", 0.2), ("request:sglang", 0.5), ("prompt:older", 0.3)):
        x[NAMES.index(name)] = log
    return x


def test_it_finds_what_made_the_data(made: list[Measured]) -> None:
    points = Points(made)
    x = fit(points, np.ones(len(made), dtype=np.bool_), steps=12)
    found = summary(predicted(x, points.case) - points.observed)
    before = summary(predicted(PROBLEM.centre, points.case) - points.observed)
    assert found["tpot"]["mean_ape"] < 4 < before["tpot"]["mean_ape"]
    assert found["ttft"]["mean_ape"] < 8 < before["ttft"]["mean_ape"]
    assert np.all(x <= PROBLEM.most)
    np.testing.assert_array_equal(x, fit(points, np.ones(len(made), dtype=np.bool_), steps=12))


def test_a_pair_is_predicted_by_a_fit_that_never_saw_it(made: list[Measured]) -> None:
    spoilt = [
        replace(p, tpot=p.tpot * 50) if "gpt" in p.model.name and p.accelerator.name == "b200-sxm" else p for p in made
    ]
    points = Points(spoilt)
    held = np.array(["128 experts on b200-sxm" in pair for pair in points.pairs])
    assert held.any() and not held.all()
    guess = out_of_fold(points, ["held" if one else "others" for one in held], steps=8)
    clean = Points(made)
    assert np.abs(guess[0, held] - clean.observed[0, held]).max() < 0.5  # as if nothing had been spoilt
    assert np.abs(guess[0, held] - points.observed[0, held]).min() > 3


def test_derivatives_are_those_of_the_prediction(made: list[Measured]) -> None:
    case, x = Points(made[:8]).case, _true()
    slopes = derivatives(x, case)
    for name in ("layer", "burst", "step:sglang", "request:older"):
        k, moved = NAMES.index(name), x.copy()
        moved[k] += 1e-4
        np.testing.assert_allclose((predicted(moved, case) - predicted(x, case)) / 1e-4, slopes[..., k], atol=1e-4)


def _line(rng: np.random.Generator, own: Array) -> tuple[Array, Array, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """y = x0 + x1 · z in ten cells, each with an offset of its own; z is 1 in the first five, the first is large."""
    cells = np.repeat(np.arange(10), [300, *[30] * 9])
    z = (cells < 5).astype(float)
    noise = rng.normal(0, 0.01, (2, len(cells)))
    return np.stack([z, z]), np.stack([0.3 + 0.2 * z, 0.3 + 0.2 * z]) + own[cells] + noise, cells


def _problem(effects: float) -> Problem:
    unlimited = np.array([math.inf, math.inf])
    none, wide = np.zeros(2), np.full(2, 10.0)
    return Problem(none, wide, unlimited, 1.0, (0.01, 0.01), (1.0, 1.0), (1.0, 1.0), (effects, effects))


def test_least_squares_on_a_line_is_exact() -> None:
    z, observed, cells = _line(np.random.default_rng(1), np.zeros(10))

    def predict(x: Array) -> Array:
        return np.asarray(x[0] + x[1] * z, dtype=np.float64)

    def slopes(x: Array) -> Array:
        return np.stack([np.ones_like(z), z], axis=-1)

    x = solve(_problem(1e-6), predict, slopes, observed, cells, np.zeros(2), 50)
    np.testing.assert_allclose(x, [0.3, 0.2], atol=0.01)


def test_one_odd_cell_counts_as_one_however_often_it_was_measured() -> None:
    own = np.zeros(10)
    own[0] = 1.0
    z, observed, cells = _line(np.random.default_rng(2), own)

    def predict(x: Array) -> Array:
        return np.asarray(x[0] + x[1] * z, dtype=np.float64)

    def slopes(x: Array) -> Array:
        return np.stack([np.ones_like(z), z], axis=-1)

    blamed, spared = (
        solve(_problem(effects), predict, slopes, observed, cells, np.zeros(2), 50)[1] for effects in (1e-6, 0.5)
    )
    assert blamed == pytest.approx(0.2 + 300 / 420, abs=0.1)
    assert spared == pytest.approx(0.2 + 1 / 5, abs=0.1)


def test_groups_are_numbered_from_zero() -> None:
    assert list(numbered(["b", "a", "b", "c"])) == [1, 0, 1, 2]


def test_errors_and_intervals_by_hand() -> None:
    difference = np.log(np.array([[1.1, 0.9, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
    assert summary(difference)["tpot"] == {"mean_ape": 30.0, "median_ape": 10.0}
    found = intervals(difference, ["vllm"] * 4)
    assert set(found) == {"all"}  # four points are too few for an engine of its own
    assert found["all"]["ttft"] == [0.0, 0.0]
    assert found["all"]["tpot"][0] == pytest.approx(float(np.quantile(-difference[0], 0.1)), abs=1e-4)


def test_coverage_of_intervals_that_others_made() -> None:
    rng = np.random.default_rng(3)
    alike = rng.normal(0, 0.2, (2, 2000))
    groups = [f"pair {index % 5}" for index in range(2000)]
    found = coverage(alike, ["vllm"] * 2000, groups)
    assert found["tpot"] == pytest.approx(80, abs=3)
    alike[1, ::5] += 2.0  # one pair is off altogether
    assert coverage(alike, ["vllm"] * 2000, groups)["ttft"] < 75


def test_a_file_without_points_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.csv").write_text(
        "model_path,system,backend,mode,isl,osl,silicon_ttft_ms,silicon_tpot_ms\nx" + 7 * ",1"
    )
    for name, said in (("none.csv", "cannot be read"), ("odd.csv", "no row of a model, an accelerator and an engine")):
        assert main([str(tmp_path / name), "--out", str(tmp_path / "c.json")]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith(f"{tmp_path / name}: {said}") and shown.err.count("\n") == 1 and not shown.out
    assert not (tmp_path / "c.json").exists()


def test_coefficients_are_written_as_they_are_read(tmp_path: Path) -> None:
    write(coefficients(_true(), {"date": "today"}), tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert content["terms"]["layer"] == pytest.approx(20e-6 * math.exp(0.5), rel=1e-4)
    assert content["offsets"]["request:sglang"] == 0.5
