"""The training loop and its parts against closed forms and slow references."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from phases.dataset import Dataset
from phases.errors import ConfigError, TrainingError
from phases.training import processes
from phases.training.batches import Mixture, Rows, shard
from phases.training.config import TrainingConfig
from phases.training.loop import Trained, train
from phases.training.objective import LanguageModelling, Objective
from phases.training.optimizer import build_optimizers, is_layer_matrix
from phases.training.schedule import warmup_stable_decay

SHORT = TrainingConfig(steps=6, batch_rows=8, save_seconds=0.0)


def run(
    model: LlamaForCausalLM,
    data: Dataset,
    work: Path,
    config: TrainingConfig = SHORT,
    objective: type[Objective] = LanguageModelling,
    **more: object,
) -> Trained:
    mixture = Mixture(data, {"text": 1.0, "memory": 1.0}, seed=3, prompt_weight=config.prompt_weight)
    return train(objective(model), mixture, config, work, name="t", seed=3, **more)  # type: ignore[arg-type]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_schedule_rises_stays_and_falls() -> None:
    factors = [warmup_stable_decay(s, 100, 0.1, 0.2, 0.1) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 and factors[79] == 1.0
    assert factors[99] == pytest.approx(0.1) and factors[89] == pytest.approx(0.55)
    assert min(factors) > 0


def test_muon_gets_layer_matrices_only(tiny_model: LlamaForCausalLM) -> None:
    names = {n for n, p in tiny_model.named_parameters() if is_layer_matrix(n, p)}
    assert len(names) == 3 * 7 and not any("norm" in n or "embed" in n for n in names)
    adamw, muon = build_optimizers(tiny_model, SHORT)
    count = sum(len(g["params"]) for o in (adamw, muon) for g in o.param_groups)
    assert count == len(list(tiny_model.parameters()))


def test_mixture_is_a_function_of_the_step(tiny_data: Dataset) -> None:
    def make() -> Mixture:
        return Mixture(tiny_data, {"text": 3, "reasoning": 1}, 5, 0.1)

    forward = make()
    in_order = [forward.rows(step, 8).tokens_BT for step in range(20)]
    assert torch.equal(make().rows(17, 8).tokens_BT, in_order[17])
    assert not torch.equal(in_order[0], in_order[1])


def test_mixture_keeps_proportions_and_epochs(tiny_data: Dataset) -> None:
    mixture = Mixture(tiny_data, {"text": 3, "reasoning": 1}, 5, 0.1)
    rows = [tuple(row.tolist()) for step in range(5) for row in mixture.rows(step, 8).tokens_BT]
    text = {tuple(row.tolist()) for row in tiny_data.blocks("train", "text")}
    from_text = [row for row in rows if row in text]
    assert len(from_text) == 30 and len(set(from_text)) == 30


def test_mixture_weights_prompt_answer_and_padding(tiny_data: Dataset) -> None:
    weight = Mixture(tiny_data, {"memory": 1}, 5, 0.25).rows(0, 4).weight_BT
    torch.testing.assert_close(weight.sum(1), torch.ones(4))
    values = weight[0].unique()
    assert len(values) == 3 and values[0] == 0 and values[2] == pytest.approx(4 * values[1])
    assert (weight[:, -4:] == 0).all()


def test_mixture_names_a_missing_stream(tiny_data: Dataset) -> None:
    with pytest.raises(ConfigError, match="no stream audio; it has: copying, memory, reasoning, text"):
        Mixture(tiny_data, {"audio": 1}, 0, 0.1)


def test_shards_partition_the_batch() -> None:
    rows = Rows(torch.arange(12).reshape(6, 2), torch.arange(6.0).reshape(6, 1))
    parts = [shard(rows, 3, i) for i in range(3)]
    assert sorted(torch.cat([p.tokens_BT for p in parts])[:, 0].tolist()) == [0, 2, 4, 6, 8, 10]


def test_training_lowers_the_loss(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> None:
    seen: dict[int, float] = {}
    config = TrainingConfig(steps=60, batch_rows=16)
    run(tiny_model, tiny_data, tmp_path, config, metrics=lambda s, v: seen.update({s: v["t/loss"]}))
    assert seen[59] < 0.8 * seen[0]
    assert not list(tmp_path.iterdir())  # the state of a finished run is gone


def test_accumulation_does_not_change_the_result(tiny_data: Dataset, tmp_path: Path) -> None:
    results = []
    for accumulation in (1, 4):
        torch.manual_seed(0)
        model = LlamaForCausalLM(_config())
        run(model, tiny_data, tmp_path, SHORT.model_copy(update={"accumulation": accumulation, "optimizer": "adamw"}))
        results.append(weights(model))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_killed_run_ends_in_the_same_bits(killed_at: int, tiny_data: Dataset, tmp_path: Path) -> None:
    def model() -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(_config())

    class Killed(Exception):
        pass

    class Dying(LanguageModelling):
        left = killed_at

        @contextlib.contextmanager
        def stepping(self) -> Iterator[None]:
            yield
            self.left -= 1
            if self.left < 0:
                raise Killed

    whole, broken = model(), model()
    run(whole, tiny_data, tmp_path)
    with pytest.raises(Killed):
        run(broken, tiny_data, tmp_path, objective=Dying)
    resumed = model()
    run(resumed, tiny_data, tmp_path)
    assert torch.equal(weights(whole), weights(resumed))


def test_precision_may_change_within_a_process(tiny_data: Dataset, tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16", "fp32"):
        torch.manual_seed(0)
        model = LlamaForCausalLM(_config())
        losses.append(run(model, tiny_data, tmp_path, SHORT.model_copy(update={"precision": precision})).final_loss)
        assert model.model.norm.weight.dtype == torch.float32
    assert losses[0] == losses[2] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_nan_stops_with_one_line(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> None:
    tiny_model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(
        TrainingError, match=r"gradient is not finite \(NaN\) at step 0; lower this phase's learning rates"
    ):
        run(tiny_model, tiny_data, tmp_path)


def test_a_truncated_state_is_started_over(tiny_data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(_config())
    (tmp_path / "training_state.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert run(model, tiny_data, tmp_path).steps == SHORT.steps


@dataclass
class Group:
    """Accelerate's state of one of several processes."""

    num_processes: int
    process_index: int

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """This is the second of two processes; what the main one sends is taken from the list."""
    sent: list[list[Any]] = []
    monkeypatch.setattr(processes, "group", lambda: Group(2, 1))
    monkeypatch.setattr(processes, "broadcast_object_list", lambda answer: answer.__setitem__(slice(None), sent.pop()))
    return sent


def test_alone_everything_is_a_plain_call() -> None:
    assert processes.is_main() and not processes.several()
    assert processes.on_main(lambda: 3) == 3
    with pytest.raises(ConfigError, match="mine"):
        processes.on_main(lambda: (_ for _ in ()).throw(ConfigError("mine")))
    processes.check_same("step", 1)


def test_helpers_take_the_answer_of_the_main_process(helper: list[list[Any]]) -> None:
    helper.append([True, "theirs"])
    assert processes.on_main(lambda: "mine") == "theirs"
    helper.append([False, None])
    with pytest.raises(processes.StoppedByMain, match="its own line says why"):
        processes.on_main(lambda: "mine")


def test_processes_that_restored_different_steps_stop(helper: list[list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gather_object", lambda values: [40, *values])
    with pytest.raises(TrainingError, match=r"the saved step differs between the processes \(40, 0\); --out must lie"):
        processes.check_same("t: the saved step", 0)


def test_a_lost_process_is_explained_and_other_errors_are_not() -> None:
    with pytest.raises(TrainingError, match="the same command resumes"), processes.joined():
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), processes.joined():
        raise RuntimeError("shapes do not fit")


def test_precision_of_the_launcher_is_refused(helper: list[list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match="--mixed_precision no"):
        processes.open_accelerator()


def _config() -> object:
    from phases.cognate.shape import Shape, llama_config

    return llama_config(Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64), 257, 0)
