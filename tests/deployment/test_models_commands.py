"""`forge models`: what it prints, as text and as JSON, and what it says of mistakes."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from deployment.atlas import own
from flows.models_commands import add_arguments, models, number
from phases.errors import InputError


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "atlas.json"))


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    add_arguments(parser)
    return models(parser.parse_args(words))


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_list_is_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(capsys, "--task", "code", "--licence", "permissive", "--max-parameters", "40B")
    assert "Qwen/Qwen3-32B" in {row["name"] for row in rows}
    assert all(row["parameters"] <= 40e9 and "code" in row["tasks"] for row in rows)
    assert len(rows) < len(printed(capsys))


def test_the_table_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--family", "gpt_oss") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "2 models"
    assert "openai/gpt-oss-120b" in out[1] and "117B" in out[1] and "5.71B" in out[1]


def test_a_model_with_the_prds_formulas_beside_those_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "show", "gpt-oss-120b")
    assert shown["kv_bytes_first_token"] == 36 * 2 * 8 * 64 * 2
    assert shown["kv_bytes_per_token_by_the_prd"] == 36 * 2 * 2880 / 8 * 2
    assert shown["weights_bytes"] == pytest.approx(60.8 * 2**30, rel=0.005)
    assert run("show", "gpt-oss-120b") == 0
    assert "73,728 (73.7KB)" in capsys.readouterr().out


def test_a_config_is_added_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {
        "model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 16, "expand": 2,
        "n_groups": 2, "state_size": 16, "conv_kernel": 4, "vocab_size": 128, "max_position_embeddings": 4096,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    added = printed(capsys, "add", str(tmp_path / "config.json"), "--name", "me/mamba")
    assert added["kept in"] == str(tmp_path / "atlas.json")
    shown = printed(capsys, "show", "me/mamba")
    assert shown["kv_bytes_per_token"] == 0 and shown["kv_bytes_per_token_by_the_prd"] is None
    assert shown["kv_bytes_at_full_context"] == 3 * (8 * 16 * 16 + 3 * (8 * 16 + 2 * 2 * 16)) * 2


def test_measured_points_are_validated(capsys: pytest.CaptureFixture[str], shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("deployment.physics.validation")
    lines = (shared / "serving" / "benchmarks.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:20]))
    assert printed(capsys, "validate", str(tmp_path / "few.csv"))


@pytest.mark.parametrize(("text", "value"), [("40B", 40e9), ("1.5m", 1.5e6), ("7e9", 7e9), ("131072", 131072)])
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["many", "-3", "", "4 GB", "1e400"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no number such as 40B"):
        number(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show",), "needs one thing more"),
        (("show", "gpt-osss-120b"), "near it: openai/gpt-oss-120b"),
        (("list", "gpt-oss-120b"), "did you mean `show gpt-oss-120b`"),
        (("--task", "poetry"), "no model has it; there are chat"),
        (("--max-parameters", "1"), "no model is all of that"),
    ],
)
def test_mistakes_are_answered(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(*words)
