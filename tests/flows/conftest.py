"""One temporary Prefect server for the session, and the smallest run that is still real: own text, own tasks."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.quiet import settle_environment

settle_environment()  # before Prefect is imported, as the command line does

from evaluation.judgement import Judge, Judgement  # noqa: E402
from evaluation.judges import JUDGES  # noqa: E402
from evaluation.latency import Latency, decode_timed  # noqa: E402
from evaluation.measured import evaluate_checkpoint  # noqa: E402
from evaluation.metric import gate  # noqa: E402
from evaluation.report import Report, read_report  # noqa: E402
from flows import summary  # noqa: E402
from flows.parameters import ForgeConfig, load_config  # noqa: E402

WORDS = "the a small red old wheel river stone bird turns runs sleeps over under near one two three house tree"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary Prefect server and home; flows of the test session go there."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    settings = {PREFECT_HOME: home, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(updates=settings), prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 60 kB of distinct sentences."""
    generator = random.Random(0)
    lines = [" ".join(generator.choices(WORDS.split(), k=12)) + "." for _ in range(900)]
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def tiny_settings(text: Path) -> dict[str, Any]:
    """The whole chain in a few seconds; models of 5,000 parameters that learn next to nothing."""
    training = {"steps": 3, "batch_rows": 4, "precision": "fp32"}
    return {
        "data": {
            "sources": [{"kind": "files", "paths": [str(text)]}],
            "validation_share": 0.15,
            "test_share": 0.15,
            "passage_chars": 400,
            "vocabulary": 300,
            "block_tokens": 48,
            "decontaminate": False,
            "max_overlap": 1.0,
            "tasks": {
                "reasoning": [{"name": "chain_sum", "params": {"min_terms": 2, "max_terms": 2}}],
                "recall": {"pairs": [2], "max_queries": 1},
                "needle": {"share": 0.0},
                "reasoning_train_items": 60,
                "memory_train_items": 60,
                "copying": {"words": 1},
                "copying_train_items": 30,
                "validation_items": 8,
                "test_items": 8,
                "choice_items": 0,
            },
        },
        "cognate": {
            "shape": {"hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 16, "context": 1024},
            "trunk": training,
            "branch": training,
        },
        "evomerge": {
            "population": 4,
            "generations": 1,
            "searches": 1,
            "methods": ["linear"],
            "validation_items": 4,
            "validation_blocks": 2,
            "final_items": 4,
            "final_blocks": 2,
            "on_fail": "rollback",
        },
        "quiet_star": {
            "thoughts": {"tokens": 2, "positions": 4, "ahead": 2},
            "training": training,
            "mix": {"text": 1.0, "reasoning": 1.0, "memory": 0.0, "copying": 0.0},
        },
        "bitnet": {
            "quantisation": {"group": 16},
            "training": training,
            "mix": {"text": 1.0, "reasoning": 1.0, "memory": 0.0, "copying": 0.0},
        },
        "forge": {
            "training": {**training, "steps": 4},
            "stages": [
                {"name": "edge", "control": True},
                {"name": "dream", "dreams": True},
                {"name": "self", "self_model": True, "always": True},
            ],
            "chaos": {"enabled": True, "items": 20, "levels": 2, "every": 1, "rows": 1, "directions": 1},
            "dreams": {"enabled": True, "prompts": 8, "new_tokens": 8, "prompt_tokens": 8},
            "self_model": {"enabled": True},
            "mix": {"text": 1.0, "reasoning": 1.0, "memory": 0.0, "copying": 0.0},
            "validation_items": 8,
            "validation_blocks": 2,
        },
        "baking": {
            "scenarios": {
                "train": {"python": 4, "retrieve": 0, "search": 0, "memory": 3, "persona": 6},
                "held_out": 2,
                "distractors": [0],
            },
            "tools": {"limits": {"new_tokens": 8}},
            "teaching": training,
            "training": training,
            "sampling": {"conversations": 8},
            "row_tokens": 512,
            "mix": {"text": 1.0, "reasoning": 1.0, "memory": 0.0, "copying": 0.0},
        },
        "adas": {
            "lessons": 3,
            "library": 2,
            "experts": {"training": {**training, "steps": 1}},
            "composition": {"iterations": 1, "population": 2, "trials": 1},
            "search": {"iterations": 2, "population": 2, "singles": 2, "rungs": [1], "max_techniques": 2},
            "finalists": 1,
            "final_units": 2,
        },
        "compression": {
            "ratios": [3.0],
            "codecs": {"names": ["ternary", "vptq"], "vectors": [4], "codebook_size": 8, "group": 16},
            "calibration_rows": 1,
            "standing_rows": 2,
            "training": training,
            "lessons": 3,
            "mix": {"text": 1.0, "reasoning": 1.0, "memory": 0.0, "copying": 0.0},
        },
        "evaluation": {
            "trials": 2,
            "timed_trials": 1,
            "recall_conversations": 2,
            "stable_turns": 2,
            "blocks": 4,
            "resamples": 100,
            "thought_rows": 3,
            "thought_positions": 3,
            "thought_items": 2,
            "thought_lengths": [0, 2],
            "zero_shot_items": 2,
        },
    }


@pytest.fixture(scope="session")
def tiny_values(text_file: Path) -> dict[str, Any]:
    """`tiny_settings` as a fixture: test modules cannot import from here."""
    return tiny_settings(text_file)


@pytest.fixture(scope="session")
def tiny_file(tiny_values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings as the user's own file, for `--config`."""
    path = tmp_path_factory.mktemp("config") / "t.yaml"
    path.write_text(yaml.safe_dump(tiny_values), encoding="utf-8")
    return path


SHORT = ["cognate", "evomerge", "bitnet"]
"""Enough for what is about runs and not about phases: one makes siblings, one is rolled back, one passes after it."""


@pytest.fixture
def settings(tiny_file: Path) -> list[str]:
    """Of the tiny run `t`, for the command line."""
    return ["--config", str(tiny_file), "--set", f"chain={SHORT}"]


def measured_gate(name: str, largest: float) -> Judge:
    """A judge that measures for real and has one gate: perplexity below `largest`."""

    def judge(checkpoint: Any, parents: Any, data: Any, config: Any) -> Judgement:
        found = evaluate_checkpoint(checkpoint, data, config)
        value = found.metric("model/perplexity").value
        return found.model_copy(update={"gates": (gate(name, "model/perplexity", value, "<", largest),)})

    return judge


def quick_latency(path: Path) -> Latency:
    """Measured in this process and once: a fresh one takes seconds to import torch."""
    return decode_timed(path, tokens=4, repeats=1)


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracking is local whatever the environment says; the agent's latency is measured in this process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(summary, "measure_latency", quick_latency)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase 1 passes although a model of three steps is no better than its floors."""
    monkeypatch.setitem(JUDGES, "cognate", measured_gate("finite", 1e9))


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase 1 cannot pass."""
    monkeypatch.setitem(JUDGES, "cognate", measured_gate("impossible", 0.0))


@pytest.fixture(scope="session")
def original(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> ForgeConfig:
    """A finished run of every phase that tests only look at."""
    return finished(load_config(file=tiny_file), tmp_path_factory.mktemp("original") / "runs")


@pytest.fixture(scope="session")
def short(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> ForgeConfig:
    """A finished run of a few phases that tests copy."""
    config = load_config(file=tiny_file, sets=[f"chain={SHORT}"])
    return finished(config, tmp_path_factory.mktemp("short") / "runs")


def finished(config: ForgeConfig, out: Path) -> ForgeConfig:
    """The config of a run that was made in `out`."""
    from flows.forge_flow import forge

    config = config.model_copy(update={"out": out})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(summary, "measure_latency", quick_latency)
        patch.setitem(JUDGES, "cognate", measured_gate("finite", 1e9))
        forge(config)
    return config


@pytest.fixture
def done(original: ForgeConfig) -> Report:
    """The report of the finished run."""
    return read_report(original.folder)


@pytest.fixture
def copy(short: ForgeConfig, tmp_path: Path, lenient: None) -> ForgeConfig:
    """The finished short run in another place, to be tampered with."""
    shutil.copytree(short.out, tmp_path / "runs")
    return short.model_copy(update={"out": tmp_path / "runs"})


@pytest.fixture
def runs(short: ForgeConfig, tmp_path: Path) -> Path:
    """A fresh folder of runs; its tracking database is a copy, because making one takes seconds."""
    out = tmp_path / "runs"
    out.mkdir()
    for path in short.out.glob("mlflow.db*"):
        shutil.copy(path, out)
    return out


@pytest.fixture
def tiny(tiny_file: Path, runs: Path) -> ForgeConfig:
    """The config of a short run called `t` in a fresh folder."""
    return load_config(file=tiny_file, sets=[f"chain={SHORT}"]).model_copy(update={"out": runs})
