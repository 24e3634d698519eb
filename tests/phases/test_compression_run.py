"""The compression phase end to end on tiny models: what it writes, what it resumes, what it refuses."""

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from phases.bitnet.config import BitnetConfig
from phases.bitnet.run import run as make_ternary
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.compression.allocation import BudgetError
from phases.compression.config import CompressionConfig
from phases.compression.press import AGENT, CONTROL, HEADER_LEAST, UNTRAINED, Press
from phases.compression.report import CompressionReport, read_report
from phases.compression.run import run
from phases.compression.standing import Standing
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.training.config import TrainingConfig

TRAINING = TrainingConfig(steps=3, batch_rows=2, save_seconds=0.0).model_dump()
TINY = CompressionConfig.parse(
    {
        "ratios": (6.0, 5.0),
        "codecs": {"thresholds": (0.5, 1.0), "vectors": (4, 8), "codebook_size": 16, "group": 16, "hyper_bits": (4,)},
        "calibration_rows": 2,
        "standing_rows": 3,
        "training": TRAINING,
    },
    "test",
)


def saved(model: PreTrainedModel, data: Dataset, path: Path) -> Checkpoint:
    return save_checkpoint(path, model, data.tokenizer, Manifest("cognate"))


@pytest.fixture
def parent(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    """A ternary one."""
    config = BitnetConfig.parse({"quantisation": {"group": 16}, "training": TRAINING}, "test")
    return make_ternary([saved(tiny_model, tiny_data, tmp_path / "float")], config, tmp_path / "parent", data=tiny_data)


def test_what_is_written(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    curves: dict[str, float] = {}
    made = run([parent], TINY, tmp_path / "out", data=tiny_data, metrics=lambda step, values: curves.update(values))
    assert set(made.siblings) == {AGENT, UNTRAINED, CONTROL}
    assert {"rung-0/loss", "rung-0/kl_from_parent", f"{CONTROL}/loss"} <= set(curves)
    report = read_report(made.siblings[AGENT].path)
    assert report == read_report(made.path)
    rung = report.rungs[report.taken]
    numbers = sum(p.numel() for p in parent.model().parameters())
    assert rung.budget == int(4 * numbers / rung.ratio) and rung.bytes <= rung.budget
    assert [stage.name for stage in rung.stages] == ["ternary", "vptq", "hyper", "seedlm"]
    assert sum(c.weights for c in report.carried) == numbers
    assert sum(c.bytes for c in report.carried) == rung.bytes
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".work")]


def test_the_plain_checkpoint_is_the_artefact_decoded(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    plain, agent = made.model(), made.siblings[AGENT].model()
    tokens = torch.arange(24).view(2, 12)
    with torch.no_grad():
        # Kernels round activations to 8 bits.
        torch.testing.assert_close(agent(tokens).logits, plain(tokens).logits, rtol=0.05, atol=0.05)
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())


def test_equal_seeds_give_equal_digests(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    first, second = (run([parent], TINY, tmp_path / name, data=tiny_data) for name in ("a", "b"))
    ours, others = (one.siblings[AGENT].manifest["files"] for one in (first, second))
    assert {n: file["sha256"] for n, file in ours.items()} == {n: file["sha256"] for n, file in others.items()}


RATIOS = (11.0, 9.0)
"""At which other codecs carry the matrices."""


@pytest.fixture
def keep(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run in which ratio after ratio has this (retention, standard error), whatever it keeps."""

    def with_retentions(*script: tuple[float, float]) -> CompressionReport:
        now = [SimpleNamespace(mean=mean, stderr=stderr, groups={}) for mean, stderr in script]
        press_one = Press._press

        def next_rung(self: Press, number: int, *rest: Any) -> Any:
            monkeypatch.setattr(Standing, "kept", lambda *_: now[number])
            return press_one(self, number, *rest)

        monkeypatch.setattr(Press, "_press", next_rung)
        config = TINY.model_copy(update={"ratios": RATIOS})
        return read_report(run([parent], config, tmp_path / "out", data=tiny_data).path)

    return with_retentions


def test_the_ladder_goes_down_where_just_enough_is_kept(keep: Any) -> None:
    """.97 is above .95, but not by two standard errors of .015."""
    report = keep((0.97, 0.015), (0.97, 0.005))
    assert [(rung.ratio, rung.accepted) for rung in report.rungs] == [(11.0, False), (9.0, True)]
    assert report.taken == 1 and report.rungs[1].bytes > report.rungs[0].bytes
    assert report.missed == ("11× not reached: retention 0.970 ± 0.015, 0.95 and 2 standard errors asked",)


def test_the_ladder_ends_with_the_first_ratio_that_keeps_enough(keep: Any) -> None:
    report = keep((0.99, 0.01))
    assert [rung.ratio for rung in report.rungs] == [11.0] and report.rungs[0].accepted and report.missed == ()


def test_a_budget_with_room_for_nothing_better_is_not_trained_for(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    """At six times the options that lose least fit already."""
    steps: list[int] = []
    strict = TINY.model_copy(update={"retention": 1.0, "sigmas": 9.0})
    made = run(
        [parent],
        strict,
        tmp_path / "out",
        data=tiny_data,
        metrics=lambda step, values: steps.append("rung-1/loss" in values),
    )
    first, second = read_report(made.path).rungs
    assert second.budget > first.budget and second.bytes == first.bytes and not any(steps)


def test_where_no_ratio_keeps_enough_the_one_that_keeps_most_is_taken(keep: Any) -> None:
    report = keep((0.93, 0.01), (0.9, 0.01))
    assert len(report.rungs) == 2 and report.taken == 0
    assert report.missed[0].startswith("11× keeps most, and not enough: retention 0.930 ± 0.010")
    assert report.missed[1].startswith("9× not reached: retention 0.900 ± 0.010")


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_models_of_other_families_that_are_not_ternary(
    make_model: Any, family: str, tiny_data: Dataset, tmp_path: Path
) -> None:
    parent = saved(make_model(family, 32), tiny_data, tmp_path / "parent")
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    report = read_report(made.path)
    size = (made.siblings[AGENT].path / "model.safetensors").stat().st_size
    assert size < 4 * sum(p.numel() for p in parent.model().parameters()) / 2
    assert report.rungs[report.taken].bytes <= report.rungs[report.taken].budget


def test_a_ratio_that_nothing_fits_says_which_one_would(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    """More than the header is left, or less than nothing."""
    said = r"compression\.ratios: 500 leaves 288 bytes, .* need [\d,]+; the largest ratio that fits is ([\d.]+)"
    with pytest.raises(ConfigError, match=said) as caught:
        run([parent], TINY.model_copy(update={"ratios": (500.0,)}), tmp_path / "out", data=tiny_data)
    assert not (tmp_path / "out").exists()
    largest = float(str(caught.value).split()[-1])
    press = Press(parent, tiny_data, TINY, tmp_path / "work", lambda *_: None)
    staging = press.staging()
    assert staging.plan(int(4 * press.numbers / largest) - HEADER_LEAST).stored.bytes
    with pytest.raises(BudgetError):
        staging.plan(int(4 * press.numbers / (largest + 0.02)) - HEADER_LEAST)


def test_weights_that_float16_cannot_hold_are_named(
    tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path
) -> None:
    for name, value, said in (
        ("model.layers.1.mlp.up_proj.weight", float("nan"), "is not finite"),
        ("model.norm.weight", 1e5, r"has a number as large as 1e\+05, and float16 ends at 65504"),
    ):
        model = copy.deepcopy(tiny_model)
        model.get_parameter(name).data.view(-1)[3] = value
        parent = saved(model, tiny_data, tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{re.escape(name)} {said}"):
            run([parent], TINY, tmp_path / "out", data=tiny_data)


def test_layers_that_no_codec_handles_are_named(tiny_data: Dataset, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    parent = saved(GPT2LMHeadModel(config), tiny_data, tmp_path / "parent")
    with pytest.raises(CheckpointError, match=r"are not linear layers \(transformer\.h\.0\.attn\.c_attn\.weight\)"):
        run([parent], TINY, tmp_path / "out", data=tiny_data)


@pytest.mark.parametrize(("codec", "least"), [("ternary", 12.0), ("vptq", 8.0), ("hyper", 6.0)])
def test_each_codec_alone(parent: Checkpoint, codec: str, least: float, tiny_data: Dataset, tmp_path: Path) -> None:
    alone = TINY.codecs.model_copy(update={"names": (codec,), "seed_ratio": 1.0})
    config = TINY.model_copy(update={"codecs": alone, "ratios": (16.0, 8.0, 6.0, 4.0, 3.0)})
    report = read_report(run([parent], config, tmp_path / "out", data=tiny_data).path)
    assert {c.codec.split(",")[0] for c in report.carried} == {codec, "float16"}
    assert report.rungs[0].ratio <= least  # what does not fit is passed over


def test_a_packed_parent_is_refused(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="packed, which compression cannot train"):
        run([parent.siblings["packed"]], TINY, tmp_path / "out", data=tiny_data)


def test_a_finished_part_is_not_made_again(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phases.compression import press

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(press.Press, "_control", fail)
        with pytest.raises(RuntimeError, match="killed"):
            run([parent], TINY, tmp_path / "out", data=tiny_data)
    digest = open_checkpoint(tmp_path / "out.work" / AGENT).digest
    with monkeypatch.context() as patch:
        patch.setattr(press.Press, "_ladder", fail)
        made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert made.siblings[AGENT].digest == digest
