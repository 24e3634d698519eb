"""What a run ends with: the artefact in its place with a model card, and none of another run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.metric import Metric, gate, mean_metric, paired_control
from evaluation.model_card import model_card
from evaluation.render import with_error
from evaluation.report import Agent, DataSource, PhaseReport, Report
from evaluation.retention import retained
from evaluation.size_plot import journey, size_plot
from flows.parameters import load_config
from flows.shipping import CARD, ship
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.compression.config import CompressionConfig
from phases.compression.press import AGENT
from phases.compression.run import run
from phases.data.prepare import prepare_data

CONFIG = {
    "ratios": [3.0],
    "codecs": {"names": ["ternary"], "thresholds": [0.5], "group": 32},
    "calibration_rows": 1,
    "standing_rows": 1,
    "training": {"steps": 1, "batch_rows": 2},
    "mix": {"text": 1.0, "reasoning": 0.0, "memory": 0.0, "copying": 0.0},
}


@pytest.fixture(scope="module")
def kept(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("shipped")
    data = prepare_data(load_config(file=tiny_file).data, None, folder / "data")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 96, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.vocabulary, **shape, **ends))
    parent = save_checkpoint(folder / "parent", model, data.tokenizer, Manifest("adas"))
    return run([parent], CompressionConfig.parse(CONFIG, "test"), folder / "compression", data=data)


def phase(name: str, status: str = "passed", **metrics: float) -> PhaseReport:
    found = tuple(Metric(name=f"{name}/{n}", split="test", value=v, n=5, unit="share") for n, v in metrics.items())
    return PhaseReport(
        phase=name,
        status=status,
        parameters=1000,
        metrics=found,
        gates=(gate("small", f"{name}/bytes", 1, "<", 2),),  # type: ignore[arg-type]
    )


@pytest.fixture
def report(kept: Checkpoint) -> Report:
    agent = Agent(path=str(kept.path), bytes_on_disk=9, parameters=1000, ratio_vs_fp32=20.0)
    known = {"reasoning_exact_match": 0.5, "recall_accuracy": 0.9, "bits_per_byte": 1.5}
    phases = (
        phase("cognate", **known),
        phase("quiet_star", "rolled_back", bits_per_byte=9.0),
        phase("compression", **{**known, "bytes": 200.0, "retention": 0.96, "reasoning_exact_match": 0.4}),
    )
    data = (DataSource(name="text", licence="PSF-2.0", tokens=7, digest="d"),)
    return Report(
        run="a", profile="p", commit="c" * 40, seed=0, started="2026-01-01T00:00:00+00:00", seconds=1,
        machine={"cores": 2}, data=data, phases=phases, agent=agent,
    )  # fmt: skip


def test_the_agent_is_the_artefact_with_its_card(kept: Checkpoint, report: Report, tmp_path: Path) -> None:
    out = ship(kept, tmp_path, report)
    assert out == tmp_path / AGENT
    made, artefact = open_checkpoint(out), kept.siblings[AGENT]
    weights = [(one.path / "model.safetensors").read_bytes() for one in (made, artefact)]
    assert weights[0] == weights[1] and made.manifest["phase"] == "agent"
    card = (out / CARD).read_text()
    assert "20 times" in card and "| retention | test | 0.96 |" in card and "PSF-2.0" in card and "200" in card
    assert not (artefact.path / CARD).exists()
    tokens = torch.arange(6)[None]
    assert torch.equal(made.model()(tokens).logits, artefact.model()(tokens).logits)
    assert ship(kept, tmp_path, report) == out  # again, over the first


def test_the_card_has_the_controls_and_an_error_and_n_with_every_figure(report: Report) -> None:
    right = {"parent": [1, 1, 1, 1, 0, 1], "compression": [1, 1, 0, 1, 0, 1], "full_precision": [1, 1, 1, 1, 1, 0]}
    scores = {name: np.array(values, float) for name, values in right.items()}
    metrics = [mean_metric(f"{name}/recall_accuracy", "test", values) for name, values in scores.items()]
    names = ("parent", "full_precision")
    control = [
        paired_control(n, "memory/recall_accuracy", scores["compression"], scores[n], f"budget of {n}") for n in names
    ]
    gates = (gate("enough", "compression/recall_accuracy", metrics[1].value, ">=", 0.5),)
    last = PhaseReport(
        phase="compression", status="passed", parameters=1000, metrics=metrics, controls=control, gates=gates
    )
    card = model_card(report.model_copy(update={"phases": (*report.phases[:-1], last)}))
    value, parent = "0.67 ± 0.21", "0.83 ± 0.17"
    assert f"| recall_accuracy | test | {value} | {parent} | 6 | share |" in card
    assert f"| enough | {value} | >= | 0.5 | passed | 6 |" in card
    # The independent reference has every item; the card has the report alone.
    share = retained(scores["compression"], scores["full_precision"])
    assert share is not None
    kept = with_error(*share)
    assert (
        f"| full_precision | recall_accuracy | {value} | {parent} | -0.17 ± 0.31 | {kept} | 6 | budget of full" in card
    )
    assert f"| compression | passed | 4,000 | {value} | 6 | not measured | not measured |" in card


def test_a_run_without_compression_keeps_no_agent_of_another(kept: Checkpoint, report: Report, tmp_path: Path) -> None:
    ship(kept, tmp_path, report)
    assert ship(kept.siblings[AGENT], tmp_path, report) is None and not (tmp_path / AGENT).exists()
    assert ship(None, tmp_path, report) is None


def test_size_and_quality_follow_what_each_phase_handed_on(report: Report) -> None:
    points = journey(report)
    assert [(p.phase, p.weight_bytes) for p in points] == [
        ("cognate", 4000),
        ("quiet_star", 4000),
        ("compression", 200),
    ]
    assert [p.tasks.value for p in points if p.tasks] == pytest.approx([0.7, 0.7, 0.65])
    assert [p.bits_per_byte.value for p in points if p.bits_per_byte] == [1.5, 1.5, 1.5]
    assert [p.tasks.n for p in points if p.tasks] == [10, 10, 10]
    figure = size_plot(report)
    assert [bar.get_height() for bar in figure.axes[1].patches] == [4.0, 4.0, 0.2]
