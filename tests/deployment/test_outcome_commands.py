"""`forge calibrate`, `forge outcomes` and `forge triage`: what they print, keep and refuse."""

import json
from pathlib import Path

import pytest

from flows.cli import main

SYSTEM = ["--model", "Qwen/Qwen3-8B", "--accelerator", "l40s"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where files go by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORGE_CALIBRATION", raising=False)
    return tmp_path


def results(path: Path, tpot_ms: float) -> Path:
    """As `vllm bench serve` writes them."""
    load = {"completed": 200, "total_input_tokens": 204_800, "total_output_tokens": 51_200, "request_rate": 2.0}
    measured = {"request_throughput": 1.98, "mean_ttft_ms": 150.0, "mean_tpot_ms": tpot_ms, "max_concurrency": None}
    path.write_text(json.dumps({**load, **measured}))
    return path


def test_a_load_test_corrects_and_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(results(here / "r.json", 60.0))
    assert main(["calibrate", file, *SYSTEM, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["loads"] == 1 and told["tpot"]["error_after_percent"] < told["tpot"]["error_before_percent"]
    assert main(["outcomes"]) == 0
    said = capsys.readouterr().out
    assert "Qwen/Qwen3-8B on l40s (vllm) | tpot" in said and "biased, calibrated since" in said
    assert "measure again" in said and "calibrate with these" not in said
    assert main(["outcomes", "--list", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["observed_tpot"] == pytest.approx(0.06) and first["predicted_tpot"] > 0


def test_what_was_measured_moves_the_next_prediction(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(4):
        assert main(["calibrate", str(results(here / "r.json", 60.0 + index / 1000)), *SYSTEM]) == 0
    capsys.readouterr()
    assert main(["outcomes", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    predicted = [row["predicted_tpot"] for row in rows]
    assert predicted == sorted(predicted) and predicted[0] < predicted[-1] < 0.06


@pytest.mark.parametrize(
    ("file", "system", "wanted"),
    [
        ("r.json", [*SYSTEM, "--tp", "0"], "tp = 0"),
        ("none.json", SYSTEM, "none.json: no JSON"),
        ("r.json", [*SYSTEM, "--price", "-1"], "price = -1: give what one accelerator costs"),
        ("r.json", ["--model", "Qwen/Qwen3-8", "--accelerator", "l40s"], "near it: Qwen/Qwen3-8B"),
        ("r.json", ["--model", "Qwen/Qwen3-8B", "--accelerator", "l40z"], "l40"),
        ("r.json", [*SYSTEM, "--store", "nonsense://me:secret@x"], "nonsense://me:***@x: Can't load plugin"),
    ],
)
def test_bad_input_keeps_nothing(
    file: str, system: list[str], wanted: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(here / "r.json", 60.0)
    assert main(["calibrate", file, *system]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and wanted in said[0]
    assert not (here / "checkpoints" / "calibration.json").exists()


def test_a_file_is_recorded_once_for_a_system(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(results(here / "r.json", 60.0))
    assert main(["calibrate", file, *SYSTEM]) == 0
    kept = (here / "checkpoints" / "calibration.json").read_bytes()
    assert main(["calibrate", file, *SYSTEM]) == 2
    assert "it was recorded for Qwen/Qwen3-8B on l40s (vllm) on 20" in capsys.readouterr().err
    assert (here / "checkpoints" / "calibration.json").read_bytes() == kept
    assert main(["calibrate", file, *SYSTEM[:-1], "a100-80gb-sxm"]) == 0, "the other system may have been a slip"
    assert main(["calibrate", file, *SYSTEM[:-1], "l4"]) == 2
    assert "2 requests/s overload" in capsys.readouterr().err.replace("1.98", "2")


def test_a_file_corrects_once_whatever_store_its_outcomes_go_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(results(here / "r.json", 60.0))
    assert main(["calibrate", file, *SYSTEM]) == 0
    assert "l40s (vllm): 1 load, kept in" in capsys.readouterr().out
    kept = (here / "checkpoints" / "calibration.json").read_bytes()
    assert main(["calibrate", file, *SYSTEM, "--store", "other.sqlite"]) == 2
    assert "holds these very results for Qwen/Qwen3-8B on l40s (vllm) already" in capsys.readouterr().err
    assert (here / "checkpoints" / "calibration.json").read_bytes() == kept
    assert main(["outcomes", "--store", "other.sqlite", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [], "what corrected a prediction says nothing of how good it was"


def test_outcomes_that_are_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outcomes", "--list"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("No outcomes yet")
    assert main(["outcomes"]) == 0 and capsys.readouterr().out.startswith("No outcomes yet")
    assert main(["outcomes", "--store", "typo.sqlite"]) == 2
    assert "typo.sqlite: no outcomes are kept there" in capsys.readouterr().err
    assert list(here.iterdir()) == []
    assert main(["calibrate", str(results(here / "r.json", 60.0)), *SYSTEM]) == 0
    assert main(["outcomes", "--system", "Qwen"]) == 2
    assert "there are Qwen/Qwen3-8B on l40s (vllm)" in capsys.readouterr().err
    assert main(["outcomes"]) == 0 and "| last predicted | last observed |" in capsys.readouterr().out


def test_a_triage_has_reasons_and_costs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "need.yaml").write_text("{requests_per_day: 50000, prompt_tokens: 800, output_tokens: 200, examples: 2000}")
    command = ["triage", "need.yaml", *SYSTEM, "--bigger", "Qwen/Qwen3-32B", "--student", "Qwen/Qwen3-1.7B"]
    assert main([*command, "--price", "0.6"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Advice: ") and all(way in said for way in ("retrieval", "finetune", "distil", "merge"))
    assert main([*command, "--gap", "knowledge", "--knowledge-changes", "daily", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == "retrieval"
    narrow = ["--narrow", "--examples", "60000", "--agent", "Qwen/Qwen3-0.6B", "--json"]
    assert main([*command, *narrow]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    (forge,) = (one for one in options if one["way"] == "forge")
    assert forge["verdict"] == "fits" and "596 million" in forge["reasons"][0]
    assert forge["serving"]["rented"].startswith("1 × ")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (["--requests-per-day", "-3"], "requests_per_day"),
        (["--gap", "luck"], "gap"),
        (["nothere.yaml"], "cannot be read as YAML"),
        (["--price", "-1"], "price = -1.0"),
        (["--price", "nan"], "price = nan"),
        (["--siblings", "-3"], "siblings = -3"),
        (["--agent", "Qwen/Qwen3-0.5B"], "near it: Qwen/Qwen3-0.6B"),
        (["--bigger", "Qwen/Qwen3-0.6B"], "is not bigger than Qwen/Qwen3-8B (8.19 billion"),
        (["--student", "Qwen/Qwen3-32B"], "is not smaller than its teacher, Qwen/Qwen3-8B"),
    ],
)
def test_a_need_that_makes_no_sense(
    changes: list[str], wanted: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--requests-per-day", "10", "--prompt", "8", "--output", "2"]
    assert main(["triage", *SYSTEM, *base, *changes]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and wanted in said[0]
