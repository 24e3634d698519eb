"""The catalogue of accelerators: its schema, its units, its names, and that it has what is measured and rented."""

import csv
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.market.accelerators import FILE, accelerator, accelerators, canonical_name
from phases.errors import InputError

DATA = json.loads(FILE.read_text(encoding="utf-8"))
SCHEMA = json.loads((FILE.parent / "accelerators.schema.json").read_text(encoding="utf-8"))


def test_the_file_follows_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(DATA)


def test_the_schema_refuses_what_is_not_in_it() -> None:
    for broken in (
        {**DATA["accelerators"][0], "memory_gb": 80},
        {**DATA["accelerators"][0], "dense_tflops": {"bf16": 0}},
        {k: v for k, v in DATA["accelerators"][0].items() if k != "source"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**DATA, "accelerators": [broken]}, SCHEMA)


def test_no_name_or_alias_stands_for_two() -> None:
    names = [n for row in DATA["accelerators"] for n in (row["name"], *row["aliases"])]
    assert len(names) == len(set(names))
    assert len(accelerators()) == len(DATA["accelerators"]) >= 25


def test_units_are_bytes_and_flops_per_second() -> None:
    h100 = accelerator("h100-sxm")
    assert h100.memory_bytes == round(79.18 * 2**30)  # vLLM's log of an "80 GB" H100
    assert (h100.bandwidth, h100.flops["bf16"], h100.link_bandwidth) == (3.35e12, 9.89e14, 4.5e11)
    assert (h100.link_domain, h100.power_watts, h100.vendor) == (8, 700, "NVIDIA")
    assert accelerator("tpu-v5e").power_watts == 0  # not published


def test_rates_are_dense_and_double_with_half_the_bits() -> None:
    for a in accelerators():
        if a.vendor == "NVIDIA" and "fp8" in a.flops:
            assert a.flops["fp8"] == pytest.approx(2 * a.flops["bf16"], rel=0.02), a.name
        if "fp4" in a.flops:
            assert 1.9 <= a.flops["fp4"] / a.flops["fp8"] <= 4.1, a.name
    assert accelerator("l40s").flops["fp8"] == 733e12  # the datasheet's 1466 is with sparsity


def test_memory_is_less_than_the_box_says_and_says_how_it_is_known() -> None:
    boxes_gib = {"t4": 16, "l4": 24, "a100-80gb-sxm": 80, "h100-sxm": 80, "h200-sxm": 141, "b200-sxm": 192}
    for name, box in boxes_gib.items():
        assert 0.9 * box < accelerator(name).memory_bytes / 2**30 < box
    assert "NOMINAL" in accelerator("gaudi3").source
    assert all("memory" in a.source for a in accelerators())


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("b200_sxm", "b200-sxm"), ("h100_sxm", "h100-sxm"), ("gb200", "gb200"), ("a100_sxm", "a100-80gb-sxm"),
        ("NVIDIA-H100-80GB-HBM3", "h100-sxm"), ("Tesla T4", "t4"), ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"), ("rtx_pro_6000_server", "rtx-pro-6000"), ("MI300X", "mi300x"),
    ],
)  # fmt: skip
def test_what_drivers_and_benchmarks_call_it(said: str, ours: str) -> None:
    assert accelerator(said).name == ours


@pytest.mark.parametrize(
    ("said", "near"), [("a100", "a100-80gb-sxm"), ("h1000", "h100-sxm"), ("mi300", "mi300x"), ("xyzzy", "known: ")]
)
def test_an_unknown_name_gets_the_nearest(said: str, near: str) -> None:
    with pytest.raises(InputError, match=f"unknown accelerator '{said}'.*{near}"):
        accelerator(said)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_clear_error(text: str) -> None:
    try:
        assert accelerator(text) in accelerators()
    except InputError as error:
        assert "unknown accelerator" in str(error)


def test_every_measured_system_is_there(shared: Path) -> None:
    with (shared / "serving" / "benchmarks.csv").open(encoding="utf-8", newline="") as file:
        systems = {row["system"] for row in csv.DictReader(file)}
    systems |= {f.stem for f in (shared / "gpu-systems").glob("*.yaml") if "manifest" not in f.stem}
    assert systems and all(canonical_name(system) for system in systems)
