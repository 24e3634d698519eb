"""What the agent has left of the model before it was compressed, from made-up outcomes."""

from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.judgement import Judgement
from evaluation.metric import Metric
from flows.summary import retention


def outcome(phase: str, right: tuple[float, float], parent: tuple[float, float], status: str = "passed") -> Any:
    """Shares of right answers of reasoning and memory, of what the phase made and of its parent."""
    names = ("reasoning_exact_match", "recall_accuracy")
    values = {
        f"{who}/{name}": v
        for who, pair in ((phase, right), ("parent", parent))
        for name, v in zip(names, pair, strict=True)
    }
    metrics = tuple(Metric(name=name, split="test", value=v, n=10, unit="share") for name, v in values.items())
    stage = SimpleNamespace(phase=SimpleNamespace(name=phase))
    return SimpleNamespace(stage=stage, status=status, judgement=Judgement(metrics=metrics))


THINKING = outcome("quiet_star", (0.9, 0.9), (0.1, 0.1))
TERNARY = outcome("bitnet", (0.4, 0.3), (0.5, 0.6))


def test_what_the_last_compressing_phase_kept() -> None:
    assert retention([THINKING, TERNARY]) == pytest.approx((0.8 + 0.5) / 2)


def test_training_on_counts_against_the_model_before_compression() -> None:
    forged = outcome("forge", (0.45, 0.6), (0.4, 0.3))
    assert retention([THINKING, TERNARY, forged]) == pytest.approx((0.9 + 1.0) / 2)


def test_what_was_learnt_since_hides_no_loss() -> None:
    forged = outcome("forge", (1.0, 0.3), (0.4, 0.3))
    assert retention([THINKING, TERNARY, forged]) == pytest.approx((1.0 + 0.5) / 2)


def test_a_phase_that_was_rolled_back_changes_nothing() -> None:
    forged = outcome("forge", (0.9, 0.9), (0.4, 0.3), "rolled_back")
    assert retention([THINKING, TERNARY, forged]) == pytest.approx((0.8 + 0.5) / 2)


@pytest.mark.parametrize("status", ["rolled_back", "failed"])
def test_without_compression_nothing_was_measured(status: str) -> None:
    refused = outcome("bitnet", (0.4, 0.3), (0.5, 0.6), status)
    forged = outcome("forge", (0.9, 0.9), (0.5, 0.6))
    assert retention([THINKING]) is None and retention([THINKING, refused]) is None
    assert retention([THINKING, refused, forged]) is None and retention([refused]) is None


def test_a_task_that_nobody_could_do_does_not_count() -> None:
    assert retention([outcome("bitnet", (0.4, 0.3), (0.5, 0.0))]) == pytest.approx(0.8)
    assert retention([outcome("bitnet", (0.4, 0.3), (0.0, 0.0))]) is None


def test_the_compression_phase_says_itself_what_is_kept() -> None:
    compressed = outcome("compression", (0.9, 0.9), (0.4, 0.3))
    own = Metric(name="compression/retention", split="test", value=0.93, n=10, unit="of the parent")
    compressed.judgement = Judgement(metrics=(*compressed.judgement.metrics, own))
    assert retention([THINKING, TERNARY, compressed]) == 0.93
    refused = SimpleNamespace(**{**vars(compressed), "status": "rolled_back"})
    assert retention([THINKING, TERNARY, refused]) == pytest.approx((0.8 + 0.5) / 2)
