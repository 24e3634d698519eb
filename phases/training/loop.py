"""The one training loop: every phase that trains calls `train`.

`accelerate` gives devices and several processes; autocast, accumulation, clipping, the schedule, the NaN guard and the
resumable state are here. A step's rows and randomness depend on the seed and the step only, so a killed run that is
started again ends in the same bits, and 1 × 8 micro-batches or two processes give the gradient of 8 × 1.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from phases.errors import ConfigError, TrainingError
from phases.phase import MetricsCallback, ignore_metrics
from phases.training.batches import Rows, RowSource, shard
from phases.training.config import TrainingConfig
from phases.training.objective import Objective
from phases.training.optimizer import build_optimizers, set_rate, step_all
from phases.training.processes import check_same, open_accelerator
from phases.training.schedule import warmup_stable_decay
from phases.training.state import TrainingState, clear_state

LOG_EVERY = 10
"""Steps between two reported losses: reading a loss makes the device wait."""


@dataclass(frozen=True)
class Trained:
    """What a training run did."""

    steps: int
    tokens: int
    final_loss: float
    """Mean loss of the last reported step, nats a weighted token."""

    @property
    def metrics(self) -> dict[str, float]:
        """As a manifest has them."""
        return {"loss": self.final_loss, "steps": self.steps, "tokens": self.tokens}


@dataclass(frozen=True)
class Span:
    """A part of a training run, whose state stays in the work directory for the part after it."""

    start: int
    """Its first step; those between it and where the state stands are left out."""
    stop: int
    """The step that it ends before."""
    rate: Callable[[int], float]
    """The factor on the learning rates at a step, instead of the config's schedule."""


def train(
    objective: Objective,
    source: RowSource,
    config: TrainingConfig,
    work: Path,
    *,
    name: str,
    seed: int,
    metrics: MetricsCallback = ignore_metrics,
    span: Span | None = None,
) -> Trained:
    """Train `objective.model` in place for `config.steps` steps, continuing from a state in `work` if there is one.

    With a `span` it does that part of the steps only. `metrics(step, {"<name>/loss": …})` gets loss (nats a token),
    gradient norm, rate, tokens a second, and what the objective itself observes. Raises `TrainingError` at the first
    loss or gradient that is not finite, and `ConfigError` when the rows do not divide among the processes. Of several
    processes each trains on its share of the rows; the main one reports and saves.
    """
    # Accelerate's own precision is fixed for the life of a process; autocast is not.
    accelerator, half = open_accelerator(), _half_precision(config, objective.model)
    _check_rows(config, accelerator.num_processes, name)
    main = accelerator.is_main_process
    state = TrainingState(objective.model, build_optimizers(objective.model, config))
    wrapped = accelerator.prepare(objective)
    if state.restore(work):
        objective.remember(state.memory)
    start, stop, rate = (0, config.steps, _schedule(config)) if span is None else (span.start, span.stop, span.rate)
    state.step = max(state.step, start)
    check_same(f"{name}: the saved step", state.step)
    objective.train()
    since, saved = time.perf_counter(), time.monotonic()
    fresh = 0
    disable = None if main else True  # None: only where stderr is no terminal
    with tqdm(total=stop, initial=state.step, desc=name, unit="step", leave=False, disable=disable) as bar:
        for step in range(state.step, stop):
            torch.manual_seed(seed * 1_000_003 + step)
            rows = source.rows(step, config.batch_rows)
            factor = rate(step) * objective.rate
            set_rate(state.optimizers, factor)
            total = _backward(accelerator, wrapped, rows, config, step / config.steps, half)
            objective.filter_gradients()
            norm = accelerator.clip_grad_norm_(objective.parameters(), config.clip)
            _check_finite(norm, name, step)
            with objective.stepping():
                step_all(state.optimizers)
            state.step, fresh = step + 1, fresh + rows.weight_BT.numel()
            state.tokens += rows.weight_BT.numel()
            bar.update()
            if step % LOG_EVERY == 0 or step + 1 == stop:
                state.loss = float(accelerator.reduce(total, "sum"))
                speed = fresh / (time.perf_counter() - since)
                since, fresh = time.perf_counter(), 0
                bar.set_postfix(loss=f"{state.loss:.3f}", tok_s=f"{speed:,.0f}", refresh=False)
                if main:
                    seen = {f"{name}/{key}": value for key, value in objective.curves().items()}
                    metrics(step, {**_curves(name, state.loss, float(norm), factor, speed), **seen})
            if main and (time.monotonic() - saved > config.save_seconds or (span and step + 1 == stop)):
                state.memory = objective.memory()
                state.save(work)
                saved = time.monotonic()
    objective.eval()
    if main and span is None:
        clear_state(work)
    return Trained(state.step, state.tokens, state.loss)


def _schedule(config: TrainingConfig) -> Callable[[int], float]:
    return lambda step: warmup_stable_decay(step, config.steps, config.warmup, config.decay, config.final_rate)


def _backward(
    accelerator: Any, wrapped: Any, rows: Rows, config: TrainingConfig, progress: float, half: bool
) -> torch.Tensor:
    """Gradients of the weighted mean over the whole batch; returns this process's share of that mean."""
    processes, device = accelerator.num_processes, accelerator.device
    weight = rows.weight_BT.sum()
    total = torch.zeros((), device=device)
    for part in range(config.accumulation):
        # Cut into micro-batches first: one process would compute the same ones, with the same draws.
        micro = shard(shard(rows, config.accumulation, part), processes, accelerator.process_index)
        last = part + 1 == config.accumulation
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                marks = () if micro.marks_BTC is None else (micro.marks_BTC.to(device),)
                summed = wrapped(micro.tokens_BT.to(device), micro.weight_BT.to(device), progress, *marks)
            # Data parallelism averages over processes; the mean over the batch wants the sum.
            accelerator.backward(summed * (processes / weight))
        total += summed.detach() / weight
    return total


def _check_rows(config: TrainingConfig, processes: int, name: str) -> None:
    """Raise `ConfigError` unless every process gets as many rows as the others in each micro-batch."""
    if processes > 1 and config.batch_rows % (processes * config.accumulation):
        raise ConfigError(
            f"{name}: batch_rows={config.batch_rows} is not a multiple of {processes} processes × "
            f"{config.accumulation} micro-batches; change batch_rows, accumulation or --num_processes"
        )


def _half_precision(config: TrainingConfig, model: Any) -> bool:
    """Whether to compute in bfloat16 (weights stay float32)."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if torch.cuda.is_available():
        return True
    return bool(model.config.hidden_size >= 256 and torch.cpu._is_avx512_bf16_supported())


def _check_finite(norm: torch.Tensor, name: str, step: int) -> None:
    if not torch.isfinite(norm):
        raise TrainingError(
            f"{name}: the gradient is not finite (NaN) at step {step}; lower this phase's learning rates (--set "
            "<phase>.….learning_rate=…) or check the data for broken rows; nothing was written"
        )


def _curves(name: str, loss: float, norm: float, factor: float, speed: float) -> dict[str, float]:
    return {
        f"{name}/loss": loss,
        f"{name}/gradient_norm": norm,
        f"{name}/rate_factor": factor,
        f"{name}/tokens_per_s": speed,
    }
