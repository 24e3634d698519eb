"""What compressed weights cost to run, and codecs to encode and decode.

A model's milliseconds are those of `evaluation.latency` in fresh processes, in turn, so that drift of the machine falls
on all; its peak memory is what the system says of such a process after its end. Codecs work on Gaussian matrices in one
thread.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evaluation.latency import Latency
from phases.compression.hyper import Hyper
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ

CODECS: tuple[Coding, ...] = (Ternary(), VPTQ(vector=8, iterations=20), SeedLM(), Hyper(bits=4))
SIZES = (256, 1024)
TOKENS, REPEATS = 64, 5
WAITER = """
import os, sys

child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))  # bytes there, KiB elsewhere
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Running:
    """Medians over the rounds, and of the rounds' ratios to the first model."""

    name: str
    ms_a_token: float
    peak_rss_bytes: float
    ms_ratio: float
    ms_range: tuple[float, float]
    rss_ratio: float
    rounds: int
    kernel: str | None


def running(paths: Mapping[str, Path], rounds: int) -> list[Running]:
    """Every model in a fresh process, `rounds` times in turn; every other round backwards."""
    found: dict[str, list[Latency]] = {name: [] for name in paths}
    for number in range(rounds):
        for name in list(paths)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(_in_fresh_process(paths[name]))
    first = found[next(iter(paths))]
    return [_running(name, own, first) for name, own in found.items()]


def _in_fresh_process(path: Path) -> Latency:
    asked = ["-m", "evaluation.latency", str(path), f"--tokens={TOKENS}", f"--repeats={REPEATS}"]
    line, peak = with_peak([sys.executable, *asked])
    return replace(Latency(**json.loads(line)), peak_rss_bytes=peak)


def with_peak(command: Sequence[str]) -> tuple[str, int]:
    """(the last line that a command prints, bytes that it had resident at most), by `wait4` of its parent.

    Raises `CalledProcessError`. That parent is a small process of its own, as what the system tells begins with the
    peak of the one that starts another.
    """
    done = subprocess.run([sys.executable, "-S", "-c", WAITER, *command], stdout=subprocess.PIPE, text=True, check=True)
    *_, line, peak = done.stdout.splitlines()
    return line, int(peak)


def _running(name: str, own: Sequence[Latency], first: Sequence[Latency]) -> Running:
    pairs = list(zip(first, own, strict=True))
    times = [a.ms_per_token_p50 / b.ms_per_token_p50 for a, b in pairs]
    return Running(
        name=name,
        ms_a_token=statistics.median(one.ms_per_token_p50 for one in own),
        peak_rss_bytes=statistics.median(one.peak_rss_bytes for one in own),
        ms_ratio=statistics.median(times),
        ms_range=(min(times), max(times)),
        rss_ratio=statistics.median(a.peak_rss_bytes / b.peak_rss_bytes for a, b in pairs),
        rounds=len(own),
        kernel=own[0].kernel,
    )


@dataclass(frozen=True)
class Throughput:
    """One codec on one matrix."""

    codec: str
    size: int
    bits_a_weight: float
    encoded_per_s: float
    """Weights."""
    decoded_per_s: float


def throughput(sizes: Sequence[int] = SIZES, codecs: Sequence[Coding] = CODECS) -> list[Throughput]:
    """One encoding, and the median of three decodings; VPTQ fits a codebook of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_throughput(codec, size) for codec in codecs for size in sizes]
    finally:
        torch.set_num_threads(threads)


def _throughput(codec: Coding, size: int) -> Throughput:
    weight_OI = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    codec.decode(codec.encode(weight_OI[:32, :32]))  # tables that are made once
    encoded, seconds = _timed(lambda: codec.encode(weight_OI))
    decoding = statistics.median(_timed(lambda: codec.decode(encoded))[1] for _ in range(3))
    count = weight_OI.numel()
    return Throughput(codec.name, size, encoded.bits_a_weight, count / seconds, count / decoding)


def _timed(job: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = job()
    return result, time.perf_counter() - start


def running_table(rows: Sequence[Running]) -> str:
    """Aligned plain text; ratios are the first model's figures over each one's."""
    first = rows[0].name
    lines = [f"{'model':34} {'ms a token':>11} {'peak RSS, MB':>13}  {first} over it: time (range), memory"]
    for row in rows:
        low, high = row.ms_range
        lines.append(
            f"{row.name:34} {row.ms_a_token:11.2f} {row.peak_rss_bytes / 1e6:13.1f}  {row.ms_ratio:5.2f}× "
            f"({low:.2f} – {high:.2f}), {row.rss_ratio:.3f}×  {row.kernel or 'torch'}, {row.rounds} rounds"
        )
    return "\n".join(lines)


def throughput_table(rows: Sequence[Throughput]) -> str:
    """Aligned plain text."""
    lines = [
        f"{'codec':10} {'matrix':>12} {'bits a weight':>14} {'encoded/s':>12} {'decoded/s':>14}  weights, one thread"
    ]
    for row in rows:
        lines.append(
            f"{row.codec:10} {f'{row.size} × {row.size}':>12} {row.bits_a_weight:14.3f} {row.encoded_per_s:12,.0f} "
            f"{row.decoded_per_s:14,.0f}"
        )
    return "\n".join(lines)
