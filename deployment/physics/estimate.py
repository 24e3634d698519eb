"""`estimate`: everything the physics says of one replica under one load, every number with its interval and origin.

    figures = estimate(model, accelerator, Serving(tp=2), Load(1024, 256, concurrency=16))
    figures.ttft.value, figures.tpot.low, figures.memory.kv_pool, figures.parts["weights"]

`setup` finds what no request changes, `prepare_lengths` what no load changes; `at` then takes some 0.1 ms, and `ttft`
and `tpot` of a steady state some microseconds, so a sweep asks them many times. TPOT is (end-to-end − TTFT) /
(tokens − 1); throughput counts output tokens. Times are of the shipped fit (`coefficients.json`), corrected by what
was observed of the system (`calibration.py`), and never below the floor.
"""

import math
from dataclasses import dataclass

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics import batching, decode
from deployment.physics.calibration_store import Correction, Factor
from deployment.physics.engines import facts
from deployment.physics.intervals import Spread
from deployment.physics.latency import Case
from deployment.physics.memory import max_sequences
from deployment.physics.replica import Replica, replica
from deployment.physics.requests import check_load
from deployment.physics.setup import Setup, setup
from deployment.physics.speculation import tokens_per_step
from deployment.physics.steady import Steady, steady
from deployment.physics.terms import work
from deployment.serving import Estimate, Figure, Load, Provenance, Serving
from phases.errors import InputError

ENDLESS = Figure(math.inf, math.inf, math.inf, "analytic")


def estimate(model: Model, accelerator: Accelerator, serving: Serving, load: Load) -> Estimate:
    """Memory, batch, TTFT, TPOT, throughput, percentiles and parts of one replica under one load.

    Raises InputError for a load or a split that cannot be, and where not even one sequence fits.
    """
    check_load(load, model, serving)
    return prepare(model, accelerator, serving, load.prompt_tokens, load.output_tokens).at(load)


def offline_throughput(
    model: Model, accelerator: Accelerator, serving: Serving, prompt_tokens: int, output_tokens: int
) -> Figure:
    """Output tokens per second of a replica that always has work: the batch that the KV pool allows."""
    ready = prepare(model, accelerator, serving, prompt_tokens, output_tokens)
    return ready.at(Load(prompt_tokens, output_tokens, concurrency=ready.replica.slots)).throughput


@dataclass(frozen=True, slots=True)
class Prepared:
    """A system with prompts and answers of one length; `at` gives the estimate for a load of these lengths."""

    system: Setup
    replica: Replica
    case: Case

    def at(self, load: Load) -> Estimate:
        """The estimate under this load, whose lengths are those of the preparation."""
        return self.figures(steady(self.replica, load))

    def figures(self, state: Steady) -> Estimate:
        """All figures of a steady state."""
        tpot = self.tpot(state)
        arriving = None if state.rate is None or state.overloaded else state.rate * self.replica.output
        return Estimate(
            memory=self.system.memory,
            batch=state.batch,
            ttft=self.ttft(state),
            tpot=tpot,
            throughput=_throughput(state.batch, arriving, tpot),
            ttft_percentiles={percent: self.ttft(state, percent) for percent in batching.NORMAL},
            tpot_percentiles={percent: self.tpot(state, percent) for percent in batching.NORMAL},
            floor_tpot=self._floor(state.batch),
            parts=self._parts(state.batch),
            notes=(*self.system.notes, *_notes(state)),
        )

    def ttft(self, state: Steady, percent: int | None = None) -> Figure:
        """Time to the first token: the mean, or what so many percent of the requests do not exceed."""
        if state.overloaded:
            return ENDLESS
        return _figure(state.ttft(percent), self.system.corrected.ttft, self.system.spreads[0], 0.0)

    def tpot(self, state: Steady, percent: int | None = None) -> Figure:
        """Time per token after the first: the mean, or what so many percent of the requests do not exceed."""
        seconds, server = state.tpot, self.replica
        if percent is not None:
            seconds = batching.token_percentile(state.tpot, server.delay, state.batch, server.output, percent)
        return _figure(seconds, self.system.corrected.tpot, self.system.spreads[1], self._floor(state.batch))

    def _floor(self, batch: float) -> float:
        return float(decode.floor_seconds(self.case.decode, max(1.0, batch)) / self.case.yielded)

    def _parts(self, batch: float) -> dict[str, float]:
        """Seconds of one output token by term; their sum is TPOT before any correction."""
        system = self.system
        parts = decode.parts(system.known.terms, system.factors, self.case.decode, batch, self.case.checked)
        named = {name: float(value) / self.case.yielded for name, value in parts.items()}
        return {**named, "prompts": self.replica.delay * batch / self.replica.output}


def prepare(
    model: Model,
    accelerator: Accelerator,
    serving: Serving,
    prompt_tokens: int,
    output_tokens: int,
    corrected: Correction | None = None,
) -> Prepared:
    """What does not depend on the load; `corrected`: instead of what was observed of the system.

    Raises InputError for a split that cannot be, or where nothing fits.
    """
    return prepare_lengths(setup(model, accelerator, serving, corrected), prompt_tokens, output_tokens)


def prepare_lengths(system: Setup, prompt_tokens: int, output_tokens: int) -> Prepared:
    """The system with prompts and answers of so many tokens. Raises InputError where not even one of them fits."""
    model, accelerator, serving = system.model, system.accelerator, system.serving
    tokens = round(prompt_tokens + output_tokens / 2)
    slots = max_sequences(model, accelerator, serving, tokens, system.memory)
    if slots < 1:
        room = f"{system.memory.kv_pool / 2**30:.1f} GiB are left for the cache"
        raise InputError(f"{model.name} does not fit on {serving.accelerators} × {accelerator.name}: {room}")
    counts = work(model, accelerator, serving, prompt_tokens, output_tokens)
    case = Case(
        prefill=counts,
        decode=counts,
        output_tokens=float(output_tokens),
        concurrency=1.0,
        slots=float(slots),
        prefill_workers=1.0,
        decode_workers=1.0,
        disaggregated=0.0,
        features=system.features,
        checked=1.0 + serving.draft_tokens,
        yielded=tokens_per_step(serving.acceptance, serving.draft_tokens),
    )
    chunks = math.ceil(counts.prompt_tokens / facts(serving.engine, serving.version).max_batched_tokens(accelerator))
    return Prepared(system, replica(system.known, system.factors, case, max(1, chunks)), case)


def _figure(seconds: float, seen: Factor, about: Spread, floor: float) -> Figure:
    """A time with its correction and interval, none of the three below the floor."""
    low, high = seen.narrowed(about)
    value = seconds * seen.factor
    origin: Provenance = "measured" if seen.points else "fitted"
    return Figure(max(floor, value), max(floor, seconds * low), max(floor, seconds * high), origin)


def _throughput(batch: float, arriving: float | None, tpot: Figure) -> Figure:
    """Output tokens per second. Closed loop: B each TPOT (Little's law); open loop: what arrives leaves."""
    if arriving is not None:
        return Figure(arriving, arriving, arriving, "analytic")
    return Figure(batch / tpot.value, batch / tpot.high, batch / tpot.low, tpot.provenance)


def _notes(state: Steady) -> tuple[str, ...]:
    """What a reader has to know of this load."""
    if state.overloaded:
        rate = f"{state.rate:g} requests/s are more than the {state.most:.3g} that the replica serves"
        return (f"{rate}: the queue grows without end",)
    if state.waiting > 0:
        held = f"the cache holds {state.batch:.0f} sequences of this length"
        return (f"{held}: {state.waiting:.0f} requests wait",)
    return ()
