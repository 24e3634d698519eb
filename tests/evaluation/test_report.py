"""The report's contract, its two renderings, and a round trip."""

import json
from pathlib import Path

import pytest

from evaluation.judgement import Judgement, Table
from evaluation.metric import Control, Metric, gate
from evaluation.render import number, render_markdown, render_table, text_table, with_error
from evaluation.report import Agent, CheckpointEntry, Report, data_sources, phase_report, read_report, write_report
from phases.errors import InputError

MATRIX = Table(
    title="Specialities",
    columns=("model", "reasoning", "reasoning ±"),
    rows=(("trunk", 0.5, 0.01), ("memory", 0.25, None)),
)


def example(agent: Agent | None = None) -> Report:
    judgement = Judgement(
        metrics=(Metric(name="trunk/bits_per_byte", split="test", value=2.5, stderr=0.012, n=64, unit="bits/byte"),),
        controls=(
            Control(
                name="random search", metric="m", ours=0.5, control=0.4, difference=0.1, stderr=0.02, n=9, budget="40"
            ),
        ),
        gates=(gate("a gate", "trunk/bits_per_byte", 2.5, "<", 3.0), gate("another", "m", 0.1, ">", 0.2)),
        tables={"matrix": MATRIX},
    )
    phase = phase_report(
        "cognate", "failed", judgement, parameters=1_000_000, seconds=12.5,
        checkpoint=CheckpointEntry(path="checkpoints/a/cognate", digest="ab" * 32),
    )  # fmt: skip
    sources = data_sources(
        {"sources": [{"name": "pydoc", "licence": "PSF-2.0", "tokens": 5, "digest": "c" * 64, "documents": 3}]}
    )
    return Report(
        run="a", profile="laptop", commit="abc", seed=0, started="2026-01-01T00:00:00+00:00", seconds=60,
        machine={"cores": 2}, data=sources, phases=(phase,), agent=agent,
    )  # fmt: skip


def test_the_json_has_the_contracts_keys(tmp_path: Path) -> None:
    agent = Agent(path="x", bytes_on_disk=5, parameters=1, ratio_vs_fp32=1.0)
    write_report(tmp_path, example(agent))
    body = json.loads((tmp_path / "report.json").read_text())
    assert set(body) == {
        "run", "profile", "commit", "seed", "started", "seconds", "machine", "data", "phases", "agent",
        "recommendation",
    }  # fmt: skip
    assert set(body["data"][0]) == {"name", "licence", "tokens", "digest"}
    assert set(body["phases"][0]) - {"tables"} == {
        "phase", "status", "parameters", "bytes_on_disk", "seconds", "checkpoint", "parents", "metrics", "controls",
        "gates",
    }  # fmt: skip
    assert set(body["phases"][0]["metrics"][0]) == {"name", "split", "value", "stderr", "n", "unit", "parent"}
    assert set(body["agent"]) == {
        "path", "bytes_on_disk", "parameters", "ratio_vs_fp32", "retention", "latency_ms_per_token_p50",
        "prompt_ms_per_token_p50", "peak_rss_bytes", "packed", "kernel", "expert_bytes",
    }  # fmt: skip
    assert body["agent"]["retention"] is None and body["recommendation"] is None


def test_round_trip(tmp_path: Path) -> None:
    write_report(tmp_path, example())
    assert read_report(tmp_path) == example()


@pytest.mark.parametrize(("text", "message"), [(None, "there is no report"), ('{"run": "a"', "truncated or altered")])
def test_a_report_that_cannot_be_read(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(tmp_path)


def test_markdown_says_what_was_not_measured() -> None:
    text = render_markdown(example())
    assert "bytes on disk not measured" in text
    assert text.rstrip().endswith("## Recommendation\n\nnot measured")
    assert "| another | 0.1 | > | 0.2 | FAILED |" in text
    assert "| trunk/bits_per_byte | test | 2.500 ± 0.012 | not measured | 64 | bits/byte |" in text
    assert "| trunk | 0.500 ± 0.010 |" in text


def test_terminal_table_is_aligned_and_narrow() -> None:
    text = render_table(example(Agent(path="p" * 300, bytes_on_disk=5, parameters=1, ratio_vs_fp32=1.0)))
    assert max(len(line) for line in text.splitlines()) <= 110
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("cognate "))
    header = next(line for line in lines if line.startswith("phase "))
    assert header.index("status") == row.index("failed")


@pytest.mark.parametrize("columns", [3, 12, 30])
def test_any_table_fits(columns: int) -> None:
    text = text_table(["column name"] * columns, [["a value that is quite long"] * columns] * 2)
    assert max(len(line) for line in text.splitlines()) <= 110


def test_numbers_for_people() -> None:
    assert [number(v) for v in (None, 3, 1234567, 0.123456, 12345.6, "x")] == [
        "not measured", "3", "1,234,567", "0.1235", "12,346", "x",
    ]  # fmt: skip
    assert with_error(0.51234, 0.0123) == "0.512 ± 0.012"
    assert with_error(0.5, None) == "0.5" and with_error(1.0, 0.0) == "1 ± 0"
