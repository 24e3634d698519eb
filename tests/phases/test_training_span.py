"""Training in parts: spans, marks of rows, what an objective remembers, its say on the rate and on gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.cognate.shape import Shape, llama_config
from phases.dataset import Dataset
from phases.training import loop
from phases.training.batches import Mixture, Rows
from phases.training.config import TrainingConfig
from phases.training.loop import Span, train
from phases.training.objective import LanguageModelling, Objective
from phases.training.schedule import warmup_stable_decay
from phases.training.state import STATE, TrainingState, restore_parameters

SHORT = TrainingConfig(steps=6, batch_rows=4, save_seconds=1e9)
SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64)


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config(SHAPE, 257, 0))


def span(start: int, stop: int) -> Span:
    return Span(start, stop, lambda step: warmup_stable_decay(step, 6, SHORT.warmup, SHORT.decay, SHORT.final_rate))


class Watched(Mixture):
    """Remembers which steps were asked for; marks every token of every row with the token itself."""

    def __init__(self, data: Dataset, marked: bool = False) -> None:
        super().__init__(data, {"text": 1.0, "memory": 1.0}, 3, 0.05)
        self.steps: list[int] = []
        self.marked = marked

    def rows(self, step: int, count: int) -> Rows:
        self.steps.append(step)
        rows = super().rows(step, count)
        marks_BTC = torch.stack([rows.tokens_BT[:, 1:], rows.tokens_BT[:, :-1]], -1) if self.marked else None
        return Rows(rows.tokens_BT, rows.weight_BT, marks_BTC)


class Knowing(LanguageModelling):
    """Slows down by what it remembers, and doubles gradients."""

    def __init__(self, model: Any, factor: float = 1.0) -> None:
        super().__init__(model)
        self.seen, self.factor = torch.zeros(2, dtype=torch.float64), factor
        self.calls: list[str] = []

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.calls.append("forward" if marks_BTC is None else "marked")
        if marks_BTC is not None:
            assert torch.equal(marks_BTC[..., 0], tokens_BT[:, 1:])
            assert torch.equal(marks_BTC[..., 1], tokens_BT[:, :-1])
        self.seen += torch.tensor([1.0, progress], dtype=torch.float64)
        self.rate = 1 / (1 + float(self.seen[0]))
        return super().forward(tokens_BT, weight_BT, progress)

    def filter_gradients(self) -> None:
        self.calls.append("filter")
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.factor)

    def memory(self) -> dict[str, torch.Tensor]:
        return {"seen": self.seen, "flag": torch.tensor([True, False])}

    def remember(self, memory: dict[str, torch.Tensor]) -> None:
        assert memory["flag"].tolist() == [True, False]
        self.seen = memory["seen"].clone()
        self.rate = 1 / (1 + float(self.seen[0]))


def go(
    objective: Objective, data: Dataset, work: Path, config: TrainingConfig = SHORT, source: Any = None, **more: Any
) -> Any:
    return train(objective, source or Watched(data), config, work, name="t", seed=3, **more)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("objective", [LanguageModelling, Knowing])
def test_parts_are_the_whole_bit_for_bit(
    objective: type[Objective], optimizer: Any, tiny_data: Dataset, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"optimizer": optimizer})
    whole = model()
    done = go(objective(whole), tiny_data, tmp_path, config)
    assert not list(tmp_path.iterdir())
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        parts, source = model(), Watched(tiny_data)  # a new process each time: all that is left is the state
        last = go(objective(parts), tiny_data, tmp_path, config, source, span=span(start, stop))
        assert source.steps == list(range(start, stop)) and (last.steps, last.tokens) == (stop, stop * 4 * 32)
    assert last == done
    assert all(torch.equal(p, dict(whole.named_parameters())[name]) for name, p in parts.named_parameters())


def test_a_finished_span_is_not_trained_again_and_its_state_stays(tiny_data: Dataset, tmp_path: Path) -> None:
    first, again, source = model(), model(), Watched(tiny_data)
    done = go(LanguageModelling(first), tiny_data, tmp_path, span=span(0, 3))
    assert (tmp_path / STATE).is_file()
    assert go(LanguageModelling(again), tiny_data, tmp_path, SHORT, source, span=span(0, 3)) == done
    assert source.steps == []
    assert torch.equal(again.lm_head.weight, first.lm_head.weight)


def test_steps_before_a_span_are_left_out(tiny_data: Dataset, tmp_path: Path) -> None:
    go(LanguageModelling(model()), tiny_data, tmp_path, span=span(0, 2))
    source = Watched(tiny_data)
    done = go(LanguageModelling(model()), tiny_data, tmp_path, SHORT, source, span=span(4, 6))
    assert source.steps == [4, 5] and (done.steps, done.tokens) == (6, 4 * 4 * 32)


def test_rates_are_the_spans_times_the_objectives(
    tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []
    step_all, seen = loop.step_all, dict[int, float]()

    def watching(optimizers: Any) -> None:
        rates.append([group["lr"] for o in optimizers for group in o.param_groups])
        step_all(optimizers)

    monkeypatch.setattr(loop, "step_all", watching)
    metrics = {"metrics": lambda step, values: seen.update({step: values["t/rate_factor"]})}
    go(Knowing(model()), tiny_data, tmp_path, span=Span(0, 3, lambda step: 1 + step / 2), **metrics)
    go(Knowing(model()), tiny_data, tmp_path, span=Span(3, 4, lambda step: 0.5), **metrics)
    expected = [1.0, 1.5 / 2, 2 / 3, 0.5 / 4]  # before its first step the objective has no say
    for found, factor in zip(rates, expected, strict=True):
        assert found == pytest.approx([0.002 * factor, 0.002 * factor, 0.01 * factor])
    assert seen == pytest.approx({0: expected[0], 2: expected[2], 3: expected[3]})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_marks_go_with_their_rows_and_filtering_is_once_a_step(
    accumulation: int, tiny_data: Dataset, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"steps": 2, "accumulation": accumulation})
    for marked, name in ((True, "marked"), (False, "forward")):
        knowing = Knowing(model())
        go(knowing, tiny_data, tmp_path, config, Watched(tiny_data, marked))
        assert knowing.calls == [*[name] * accumulation, "filter"] * 2


def test_gradients_are_filtered_before_they_are_clipped(tiny_data: Dataset, tmp_path: Path) -> None:
    norms = {}
    for factor in (1.0, 3.0):
        seen: dict[int, float] = {}
        knowing = Knowing(model(), factor)
        one = SHORT.model_copy(update={"steps": 1})
        go(knowing, tiny_data, tmp_path, one, metrics=lambda s, v, seen=seen: seen.update({s: v["t/gradient_norm"]}))
        norms[factor] = seen[0]
    assert norms[3.0] == pytest.approx(3 * norms[1.0])


def test_memory_and_parameters_come_back_as_they_were(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1).requires_grad_(False))
    memory = {
        "a.b": torch.tensor([1.0, float("nan")], dtype=torch.float64),
        "i": torch.zeros(0, 3, dtype=torch.int64),
        "n": torch.tensor(7),
    }
    TrainingState(net, [], step=4, tokens=9, memory=memory).save(tmp_path)
    (tmp_path / STATE).rename(tmp_path / "other.safetensors")
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1).requires_grad_(False))
    state, kept = TrainingState(other, []), other[1].weight.clone()
    assert not state.restore(tmp_path) and state.restore(tmp_path, "other.safetensors")
    assert (state.step, state.tokens) == (4, 9) and state.memory.keys() == memory.keys()
    assert all(torch.equal(state.memory[n], t) or n == "a.b" for n, t in memory.items())
    assert state.memory["a.b"].dtype == torch.float64 and state.memory["a.b"].isnan().tolist() == [False, True]
    assert torch.equal(other[0].weight, net[0].weight) and torch.equal(other[1].weight, kept)
    with torch.no_grad():
        other[0].weight.zero_()
    restore_parameters(other, tmp_path / "other.safetensors")
    assert torch.equal(other[0].weight, net[0].weight) and torch.equal(other[1].weight, kept)
