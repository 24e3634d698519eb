"""Reading measured points: whose accelerators are counted twice, what is refused; and how good the shipped fit is."""

import csv
import json
from pathlib import Path

import pytest

from deployment.physics.coefficients import OFFSETS, TERMS, shipped
from deployment.physics.validation import validate
from deployment.physics.validation_rows import find_model, measured, read_rows, together
from phases.errors import InputError

ROW = {
    "id": "x_tp2_ep1_1",
    "silicon_data_source": "silicon_concurrency=16",
    "backend": "vllm",
    "model_path": "Qwen/Qwen3-32B",
    "system": "h100_sxm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "512",
    "batch_size": "16",
    "tp_size": "2",
    "attention_dp_size": "1",
    "moe_tp_size": "2",
    "moe_ep_size": "1",
    "silicon_ttft_ms": "120.0",
    "silicon_tpot_ms": "12.0",
}
BARS = {"tpot": (25.0, 15.0), "ttft": (40.0, 30.0)}
"""Mean and median absolute percentage error, reference/deployment.md."""


def write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("identity", "tp", "dp", "moe_tp", "ep", "expected"),
    [
        ("cfg1", 8, 1, 8, 1, (8, 1, 1)),
        ("cfg1", 64, 1, 8, 8, (8, 1, 8)),  # TP 8 × EP 8 of the same eight
        ("cfg1", 1, 64, 8, 8, (1, 8, 8)),
        ("cfg1", 4, 4, 1, 16, (4, 1, 4)),
        ("cfg1", 1, 8, 1, 8, (1, 8, 8)),
        ("a_tp8_ep4_2", 8, 1, 2, 4, (8, 1, 4)),  # the id decides
        ("a_tp2_0_ep2_0_7", 1, 4, 2, 2, (1, 2, 2)),
    ],
)
def test_every_accelerator_is_counted_once(
    identity: str, tp: int, dp: int, moe_tp: int, ep: int, expected: tuple[int, int, int]
) -> None:
    sizes = {"tp_size": tp, "attention_dp_size": dp, "moe_tp_size": moe_tp, "moe_ep_size": ep}
    assert together({"id": identity} | {name: str(size) for name, size in sizes.items()}) == expected


def test_a_row_becomes_its_case() -> None:
    point = measured(ROW)
    assert (point.serving.tp, point.serving.precision, point.serving.kv_bits) == (2, "fp8", 8)
    assert (point.case.concurrency, point.ttft, point.tpot) == (16.0, 0.12, 0.012)


def test_a_disaggregated_row_has_two_pools() -> None:
    pools = {f"{pool}_{name}": "1" for pool in ("prefill", "decode") for name in ("attention_dp_size", "moe_ep_size")}
    row = ROW | pools | {"mode": "disagg", "prefill_tp_size": "1", "decode_tp_size": "4", "decode_num_workers": ""}
    point = measured(row)
    assert (point.case.prefill.tp, point.case.decode.tp, point.case.decode_workers) == (1.0, 4.0, 0.0)
    assert point.case.features["guessed"] == point.case.features["disaggregated"] == 1.0


@pytest.mark.parametrize(
    ("tp", "workers", "expected"),
    [
        (8, "", (8, 1, 8)),  # the experts' 4 are the prefill pool's
        (32, "", (1, 32, 32)),  # attention on every accelerator
        (4, "", (4, 1, 4)),
        (32, "1", (32, 1, 4)),  # a row that says everything is believed
    ],
)
def test_a_decode_pool_of_another_size_does_not_copy_the_prefill_pools_split(
    tp: int, workers: str, expected: tuple[int, int, int]
) -> None:
    sizes = {"prefill_tp_size": "4", "prefill_moe_ep_size": "4", "decode_tp_size": str(tp), "decode_moe_ep_size": "4"}
    said = {"model_path": "deepseek-ai/DeepSeek-R1", "system": "gb300", "mode": "disagg"}
    point = measured(ROW | sizes | said | {"decode_num_workers": workers})
    assert (point.serving.tp, point.serving.dp, point.serving.ep) == expected


@pytest.mark.parametrize("name", ["nvidia/Qwen3-32B-NVFP4", "Qwen3-32B", "someone/Qwen3-32B-FP8-Instruct"])
def test_variants_of_a_model_are_found(name: str) -> None:
    assert find_model(name).hidden == 5120


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_path": "nobody/nothing"},
        {"system": "abacus"},
        {"backend": "slide rule"},
        {"precision": "fp3"},
        {"isl": "-5"},
        {"silicon_tpot_ms": "nan"},
        {"osl": "many"},
    ],
)
def test_what_cannot_be_read_is_not_predicted(tmp_path: Path, wrong: dict[str, str]) -> None:
    result = validate(write(tmp_path / "points.csv", ROW, ROW | wrong))
    assert (result["rows"], result["predicted"], result["coverage_percent"]) == (2, 1, 50.0)
    with pytest.raises(InputError, match="none of its 1 rows"):
        validate(write(tmp_path / "bad.csv", ROW | wrong))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        validate(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="lacks the columns"):
        validate(write(tmp_path / "short.csv", {"model_path": "x"}))
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="no rows"):
        read_rows(tmp_path / "empty.csv")


def test_the_shipped_coefficients_are_those_of_the_formulas() -> None:
    known = shipped()
    assert set(known.terms) == set(TERMS)
    assert set(known.offsets) == {f"{factor}:{feature}" for factor, (_, names) in OFFSETS.items() for feature in names}
    assert all(known.terms[name] <= prior.most for name, prior in TERMS.items())
    assert {"date", "points", "pairs", "out_of_fold", "intervals", "seen"} <= set(known.report)


def test_the_report_is_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(validate(write(tmp_path / "points.csv", ROW))))["tpot"]["mean_ape"] < 60


def test_every_measured_point_is_predicted_within_the_bars(shared: Path) -> None:
    result = validate(shared / "serving" / "benchmarks.csv")
    assert result["coverage_percent"] == 100.0
    for figure, (mean, median) in BARS.items():
        assert result[figure]["mean_ape"] <= mean
        assert result[figure]["median_ape"] <= median
        assert 75.0 <= result[figure]["interval_coverage_percent"] <= 95.0


@pytest.mark.parametrize("figure", ["tpot", "ttft"])
def test_out_of_fold_errors_are_within_the_bars(figure: str) -> None:
    told = shipped().report["out_of_fold"][figure]
    mean, median = BARS[figure]
    assert told["mean_ape"] <= mean and told["median_ape"] <= median
