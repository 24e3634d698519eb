"""`estimate`: everything the physics says of one replica under one load, every number with its interval and origin.

    figures = estimate(model, accelerator, Serving(tp=2), Load(1024, 256, concurrency=16))
    figures.ttft.value, figures.tpot.low, figures.memory.kv_pool, figures.parts["weights"]

`prepare` does once what does not depend on the load; its `at` then takes some 0.1 ms and `Prepared.replica` answers in
microseconds, so a sweep asks them many times. TPOT is (end-to-end − TTFT) / (tokens − 1); throughput counts output
tokens. Times are of the shipped fit (`coefficients.json`), corrected by what was observed of the system
(`calibration.py`), and never below the floor.
"""

import math
from dataclasses import dataclass, replace

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics import batching, decode
from deployment.physics.calibration_store import Correction, Factor, correction
from deployment.physics.coefficients import Coefficients, shipped
from deployment.physics.intervals import Spread, spread
from deployment.physics.latency import Case, slot_wait
from deployment.physics.memory import max_sequences, memory_plan
from deployment.physics.replica import Replica, replica
from deployment.physics.requests import check_load, check_split
from deployment.physics.speculation import tokens_per_step
from deployment.physics.systems import features
from deployment.physics.terms import work
from deployment.serving import Estimate, Figure, Load, MemoryPlan, Provenance, Serving
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

    memory: MemoryPlan
    replica: Replica
    case: Case
    known: Coefficients
    factors: decode.Factors
    spreads: tuple[Spread, Spread]
    """TTFT's and TPOT's."""
    corrected: Correction
    notes: tuple[str, ...]

    def at(self, load: Load) -> Estimate:
        """The estimate under this load, whose lengths are those of the preparation."""
        if load.concurrency is not None:
            return self._closed(load.concurrency)
        assert load.rate is not None
        return self._open(load.rate)

    def _closed(self, concurrency: float) -> Estimate:
        """So many requests always in flight."""
        server = self.replica
        batch = min(concurrency, server.slots)
        tpot = server.tpot(batch)
        waiting = float(slot_wait(concurrency, batch, server.output * tpot))
        wait = batching.Wait(server.queued(concurrency) + waiting, 1.0)
        notes: tuple[str, ...] = ()
        if concurrency > batch:
            notes = (f"the cache holds {batch:.0f} sequences of this length: {concurrency - batch:.0f} requests wait",)
        return self._answer(batch, server.first(concurrency), tpot, wait, None, notes)

    def _open(self, rate: float) -> Estimate:
        """Requests that arrive at random."""
        server = self.replica
        batch = batching.steady_batch(rate, server.output, server.slots, server.tpot)
        prompts = batching.prompt_wait(rate, server.prompt)
        if not math.isfinite(batch + prompts.mean):
            return self._overloaded(rate)
        tpot = server.tpot(batch)
        slots = batching.slot_wait(batch, server.slots, server.output * tpot)
        return self._answer(batch, server.first(batch), tpot, batching.together((prompts, slots)), rate, ())

    def _overloaded(self, rate: float) -> Estimate:
        """A queue that grows without end: a full replica, and a first token that never comes."""
        full = self._closed(self.replica.slots)
        most = full.throughput.value / self.replica.output
        note = f"{rate:g} requests/s are more than the {most:.3g} that the replica serves: the queue grows without end"
        endless = dict.fromkeys(batching.NORMAL, ENDLESS)
        return replace(full, ttft=ENDLESS, ttft_percentiles=endless, notes=(*full.notes, note))

    def _answer(
        self,
        batch: float,
        first: float,
        tpot: float,
        wait: batching.Wait,
        rate: float | None,
        notes: tuple[str, ...],
    ) -> Estimate:
        """All figures of a steady state with `batch` sequences running."""
        server = self.replica
        floor = float(decode.floor_seconds(self.case.decode, max(1.0, batch))) / self.case.yielded
        tokens = batching.token_percentiles(tpot, server.delay, batch, server.output)
        times = self._figure(tpot, self.corrected.tpot, self.spreads[1], floor)
        return Estimate(
            memory=self.memory,
            batch=batch,
            ttft=self._ttft(first + wait.mean),
            tpot=times,
            throughput=_throughput(batch, None if rate is None else rate * server.output, times),
            ttft_percentiles={percent: self._ttft(first + wait.percentile(percent)) for percent in batching.NORMAL},
            tpot_percentiles={
                percent: self._figure(value, self.corrected.tpot, self.spreads[1], floor)
                for percent, value in tokens.items()
            },
            floor_tpot=floor,
            parts=self._parts(batch),
            notes=(*self.notes, *notes),
        )

    def _parts(self, batch: float) -> dict[str, float]:
        """Seconds of one output token by term; their sum is TPOT before any correction."""
        parts = decode.parts(self.known.terms, self.factors, self.case.decode, batch, self.case.checked)
        named = {name: float(value) / self.case.yielded for name, value in parts.items()}
        return {**named, "prompts": self.replica.delay * batch / self.replica.output}

    def _ttft(self, seconds: float) -> Figure:
        return self._figure(seconds, self.corrected.ttft, self.spreads[0], 0.0)

    def _figure(self, seconds: float, seen: Factor, about: Spread, floor: float) -> Figure:
        """A time with its correction and interval, none of the three below the floor."""
        low, high = seen.narrowed(about)
        value = seconds * seen.factor
        origin: Provenance = "measured" if seen.points else "fitted"
        return Figure(max(floor, value), max(floor, seconds * low), max(floor, seconds * high), origin)


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
    check_split(model, serving)
    known, memory = shipped(), memory_plan(model, accelerator, serving)
    slots = max_sequences(model, accelerator, serving, round(prompt_tokens + output_tokens / 2))
    if slots < 1:
        room = f"{memory.kv_pool / 2**30:.1f} GiB are left for the cache"
        raise InputError(f"{model.name} does not fit on {serving.accelerators} × {accelerator.name}: {room}")
    kind = features(model, accelerator, serving)
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
        features=kind,
        checked=1.0 + serving.draft_tokens,
        yielded=tokens_per_step(serving.acceptance, serving.draft_tokens),
    )
    factors = known.factors(kind)
    spreads, notes = spread(known, model, accelerator, serving)
    if corrected is None:
        corrected = correction(model.name, accelerator.name, serving.engine)
    return Prepared(memory, replica(known, factors, case), case, known, factors, spreads, corrected, notes)


def _throughput(batch: float, arriving: float | None, tpot: Figure) -> Figure:
    """Output tokens per second. Closed loop: B each TPOT (Little's law); open loop: what arrives leaves."""
    if arriving is not None:
        return Figure(arriving, arriving, arriving, "analytic")
    return Figure(batch / tpot.value, batch / tpot.high, batch / tpot.low, tpot.provenance)
