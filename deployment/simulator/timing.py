"""How long an engine's work takes, by the physics: a prompt of so many tokens, a decoding step of so many sequences.

    timing = make_timing(candidate)
    timing.step(16), timing.prefill(1024), timing.overhead(1024)      # seconds

All are tables of estimates, with straight lines between: an estimate takes milliseconds and a step may take one. A step
is what one costs without prompts in it. A prompt costs the engine what it adds to everybody's TPOT, (TPOT − step) ·
output tokens / batch; the rest of a lone request's TTFT (HTTP, tokenisation, its first step) delays it alone.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.planning.candidate import Candidate
from deployment.serving import Estimate, Load, Serving
from phases.errors import InputError

Estimator = Callable[[Model, Accelerator, Serving, Load], Estimate]
Points = tuple[tuple[float, float], ...]
"""(x, seconds), x rising."""
_SELDOM = 1e-6
"""Requests per second that never meet."""
_PROMPTS = (1 / 8, 1 / 2, 1, 2, 8)
"""Lengths of prompts that are estimated, as multiples of the planned one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one replica. Seconds and tokens."""

    steps: Points
    """By sequences decoded together."""
    prefills: Points
    """By tokens of the prompt: that the engine is busy with it."""
    overheads: Points
    """By tokens of the prompt: that only its own first token waits for."""
    slots: int
    """Most sequences at once."""
    kv_tokens: int
    """Tokens, of prompts and answers, that the KV pool holds."""
    step_tokens: int
    """Most tokens in one step: of prompts, and one for each running sequence."""
    tokens_per_step: float = 1.0
    """That one step yields for a sequence; above 1 with speculation."""

    def step(self, sequences: float) -> float:
        """A decoding step, without prompts."""
        return _line(self.steps, sequences) if sequences else 0.0

    def prefill(self, tokens: float) -> float:
        """A whole prompt, alone."""
        return _line(self.prefills, tokens)

    def overhead(self, tokens: float) -> float:
        """What a request waits before the engine has it."""
        return _line(self.overheads, tokens)

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Timing":
        """From a plan's JSON. Raises `InputError` for another shape."""
        try:
            names = ("steps", "prefills", "overheads")
            steps, prefills, overheads = (tuple((float(x), float(y)) for x, y in data[name]) for name in names)
            slots, kv_tokens, step_tokens = (int(data[name]) for name in ("slots", "kv_tokens", "step_tokens"))
            made = cls(steps, prefills, overheads, slots, kv_tokens, step_tokens, float(data["tokens_per_step"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the plan's timing cannot be read ({error}); write the plan anew") from None
        if not (
            steps and prefills and overheads and min(slots, kv_tokens, step_tokens) > 0 and made.tokens_per_step >= 1
        ):
            raise InputError("the plan's timing is empty or not above 0; write the plan anew")
        return made


def _line(points: Points, x: float) -> float:
    """Between points a straight line; outside, that of the outermost two, never below 0."""
    if len(points) == 1:
        return points[0][1] * (x / points[0][0])
    at = min(max(bisect_left([p[0] for p in points], x), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))


def make_timing(candidate: Candidate, estimator: Estimator | None = None) -> Timing:
    """Of a candidate's replica; on CPUs from the measured time per token, one request at a time."""
    if candidate.accelerator is None:
        token, context = candidate.estimate.tpot.value, candidate.serving.max_context or candidate.model.context
        return Timing(((1.0, token),), ((1.0, token),), ((1.0, 0.0),), 1, context, context)
    from deployment.physics.engines import facts
    from deployment.physics.speculation import tokens_per_step

    if estimator is None:
        from deployment.physics.estimate import estimate

        estimator = estimate
    serving, accelerator = candidate.serving, candidate.accelerator
    engine = facts(serving.engine, serving.version)
    # Data parallelism: so many engines behind one address.
    slots = engine.max_sequences(accelerator) * serving.dp
    kv_tokens = _kv_tokens(candidate)
    together = candidate.load.prompt_tokens + candidate.load.output_tokens
    most = max(1, min(slots, kv_tokens // together))
    prefills, overheads = _prompts(candidate, accelerator, most, estimator)
    yielded = tokens_per_step(serving.acceptance, serving.draft_tokens) if serving.draft_tokens else 1.0
    return Timing(
        # An estimate's parts are seconds a token.
        steps=tuple((x, y * yielded) for x, y in _tokens(candidate, accelerator, most, estimator)),
        prefills=prefills,
        overheads=overheads,
        slots=slots,
        kv_tokens=kv_tokens,
        step_tokens=engine.max_batched_tokens(accelerator) * serving.dp,
        tokens_per_step=yielded,
    )


def _kv_tokens(candidate: Candidate) -> int:
    """Tokens of sequences as long as the planned ones."""
    from deployment.physics.keys_values import bytes_per_sequence

    serving, load = candidate.serving, candidate.load
    tokens = load.prompt_tokens + load.output_tokens
    each = bytes_per_sequence(candidate.model, tokens, serving.kv_bits, serving.tp) / serving.pp
    held = int(candidate.estimate.memory.kv_pool / each * tokens) * serving.dp if each else tokens
    return max(held, tokens)


def _tokens(candidate: Candidate, accelerator: Accelerator, most: int, estimator: Estimator) -> Points:
    """Seconds of a step for one token of each, at 1, 2, 4, … sequences, and at the most that fit."""
    sizes = sorted({*(2**i for i in range(ceil(most).bit_length()) if 2**i < most), most})
    load = candidate.load
    points = []
    for size in sizes:
        asked = Load(load.prompt_tokens, load.output_tokens, concurrency=size)
        found = estimator(candidate.model, accelerator, candidate.serving, asked)
        points.append((float(size), _step(found)))
    return tuple(points)


def _step(found: Estimate) -> float:
    """Seconds a token without what others' prompts add, which an estimate lists among its parts."""
    return sum(seconds for name, seconds in found.parts.items() if name != "prompts")


def _prompts(candidate: Candidate, accelerator: Accelerator, most: int, estimator: Estimator) -> tuple[Points, Points]:
    """What prompts cost the engine, and what they cost their own requests besides."""
    load, serving = candidate.load, candidate.serving
    longest = serving.max_context or candidate.model.context
    lengths = sorted({max(1, round(load.prompt_tokens * share)) for share in _PROMPTS})
    output = max(2, load.output_tokens)
    users = max(1, min(most, round(candidate.estimate.batch)))
    prefills, overheads = [], []
    for tokens in [n for n in lengths if n + output <= longest] or [lengths[0]]:
        alone = estimator(candidate.model, accelerator, serving, Load(tokens, output, rate=_SELDOM)).ttft.value
        busy = estimator(candidate.model, accelerator, serving, Load(tokens, output, concurrency=users))
        among_others = (busy.tpot.value - _step(busy)) * output / busy.batch
        engine = min(max(among_others, 0.0), alone)
        prefills.append((float(tokens), engine))
        overheads.append((float(tokens), alone - engine))
    return tuple(prefills), tuple(overheads)
