"""Two checkpoints' times side by side: in one fresh process, in turn, so that what else the machine does meets both.

    first, second = measure_beside(teacher, student)            # Latency each
    python -m evaluation.paired_latency TEACHER STUDENT         # the pairs alone, as JSON

Measured one after the other, the ratio of two models of a million parameters was .64 to .92 on one busy machine within
hours; the median of 100 pairs of short decodes was .805 to .836. So the second's times are the first's median times
the median ratio of the pairs.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.latency import Latency, decode_ms, measure_latency, prompt_ms, run_fresh

TOKENS, LEAST, MOST, SECONDS = 16, 5, 100, 15.0
"""Of a decode; pairs at least and at most; and for how long more than the least are taken."""
Pairs = list[tuple[float, float]]


def measure_beside(first: Path, second: Path) -> tuple[Latency, Latency]:
    """Both measured; memory, kernel and what was written in a process of each one's own. Raises `InputError`."""
    one, other = (measure_latency(path, repeats=1) for path in (first, second))
    found: dict[str, Pairs] = json.loads(run_fresh("evaluation.paired_latency", first, str(second)))
    decode, prompt = _beside(found["decode"]), _beside(found["prompt"])
    return tuple(  # type: ignore[return-value]
        dataclasses.replace(
            alone, ms_per_token_p50=ms, prompt_ms_per_token_p50=reading, tokens=TOKENS, repeats=len(found["decode"])
        )
        for alone, ms, reading in zip((one, other), decode, prompt, strict=True)
    )


def _beside(pairs: Pairs) -> tuple[float, float]:
    """The first's median, and that times the median ratio."""
    middle = statistics.median(one for one, _ in pairs)
    return middle, middle * statistics.median(other / one for one, other in pairs)


def in_turn(times: Sequence[Callable[[], float]], least: int, most: int, seconds: float) -> Pairs:
    """Pairs of what two functions return, called in turn, each first in every other pair."""
    pairs: Pairs = []
    began = time.monotonic()
    while len(pairs) < least or (len(pairs) < most and time.monotonic() - began < seconds):
        if len(pairs) % 2:
            second, first = times[1](), times[0]()
        else:
            first, second = times[0](), times[1]()
        pairs.append((first, second))
    return pairs


def _decode(model: Any, tokens: int) -> float:
    return decode_ms(model, tokens)[0]


def main() -> None:
    """Print one line of JSON: pairs of ms a token, decoding and reading a prompt."""
    from phases.checkpoint import load_model

    parser = argparse.ArgumentParser(description="Times of two checkpoints in turn.")
    parser.add_argument("paths", type=Path, nargs=2)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    arguments = parser.parse_args()
    models: list[Any] = [load_model(path) for path in arguments.paths]
    decodes = [partial(_decode, model, arguments.tokens) for model in models]
    prompts = [partial(prompt_ms, model) for model in models]
    found = {}
    for name, times, share in (("decode", decodes, 0.8), ("prompt", prompts, 0.2)):
        for once in times:
            once()  # the first is not measured
        found[name] = in_turn(times, LEAST, MOST, share * SECONDS)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
