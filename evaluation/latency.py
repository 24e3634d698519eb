"""What a checkpoint costs to run: milliseconds a token and peak memory, in a process of its own.

    python -m evaluation.latency CHECKPOINT --tokens 64 --repeats 5

A fresh process, so that neither another model's memory nor a warm cache is counted. It loads the checkpoint as any
user of transformers would, and decodes greedily with a KV cache, end-of-text ignored so that every repeat writes
equally many tokens. The peak resident memory is the whole process's: interpreter and torch are part of it.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors

from evaluation.report import Agent
from phases.checkpoint import Checkpoint
from phases.errors import InputError
from phases.quiet_star.storage import HEAD

PROMPT_TOKENS, PREFILL_TOKENS = 16, 256


@dataclass(frozen=True)
class Latency:
    """One measurement."""

    ms_per_token_p50: float
    """Median over the repeats of a whole decode's time by its tokens, the prompt's pass included."""
    prompt_ms_per_token_p50: float
    """Median over the repeats of reading a prompt of `PREFILL_TOKENS` at once, by its tokens."""
    peak_rss_bytes: int
    tokens: int
    repeats: int
    threads: int
    kernel: str | None = None
    """What multiplied with packed weights; None for a model that is not packed."""
    written: str = ""
    """SHA-256 of the tokens that were decoded: another process should write the same."""


def measure_latency(path: Path, tokens: int = 64, repeats: int = 5) -> Latency:
    """Measure in a fresh process. Raises `InputError` with the process's last line when it fails."""
    line = run_fresh("evaluation.latency", path, f"--tokens={tokens}", f"--repeats={repeats}")
    return Latency(**json.loads(line))


def run_fresh(module: str, path: Path, *arguments: str) -> str:
    """The last line that a module prints about a checkpoint in a process of its own. Raises `InputError`."""
    command = [sys.executable, "-m", module, str(path), *arguments]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise InputError(f"{path}: its latency could not be measured ({last}); check that it loads and generates")
    return done.stdout.strip().splitlines()[-1]


def decode_timed(path: Path, tokens: int, repeats: int) -> Latency:
    """Measure in this process: one unmeasured decode, then the repeats."""
    import torch

    from phases.checkpoint import load_model
    from phases.packed.modules import kernel_of

    model = load_model(path)
    runs = [decode_ms(model, tokens) for _ in range(repeats + 1)]
    median = statistics.median(ms for ms, _ in runs[1:])
    reading = statistics.median([prompt_ms(model) for _ in range(repeats + 1)][1:])
    digest = hashlib.sha256(json.dumps(runs[-1][1]).encode()).hexdigest()
    return Latency(
        median, reading, peak_rss_bytes(), tokens, repeats, torch.get_num_threads(), kernel_of(model), digest
    )


def decode_ms(model: Any, tokens: int) -> tuple[float, list[int]]:
    """Milliseconds a token of one decode, and the tokens."""
    from evaluation.generation import greedy

    # Any ids will do: the time of a decode does not depend on which tokens it meets.
    prompt = [i % model.config.vocab_size for i in range(PROMPT_TOKENS)]
    start = time.perf_counter()
    written = greedy(model, [prompt], tokens, stop=set())[0]
    return 1000 * (time.perf_counter() - start) / len(written), written


def prompt_ms(model: Any) -> float:
    """Milliseconds a token of one pass over a prompt."""
    import torch

    length = min(PREFILL_TOKENS, int(model.config.max_position_embeddings))
    tokens_BT = torch.arange(length)[None] % model.config.vocab_size
    start = time.perf_counter()
    with torch.no_grad():
        model(input_ids=tokens_BT, logits_to_keep=1)
    return 1000 * (time.perf_counter() - start) / length


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident.

    On Linux from its own status: getrusage's figure begins with that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if found is not None:
            return int(found.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere


def count_parameters(path: Path, thoughts: bool = False) -> tuple[int, int]:
    """(numbers in the weight files, bytes of those files), read from the headers; tied weights are written once.

    `thoughts`: with the mixing head of a checkpoint that thinks.
    """
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise InputError(f"{path}: no model.safetensors; give a checkpoint folder with safetensors weights")
    if thoughts and (path / HEAD).is_file():
        files.append(path / HEAD)
    count = 0
    for file in files:
        with safetensors.safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                size = 1
                for length in opened.get_slice(name).get_shape():
                    size *= length
                count += size
    return count, sum(file.stat().st_size for file in files)


def describe_agent(
    checkpoint: Checkpoint,
    latency: Latency | None,
    packed: Checkpoint | None = None,
    retention: float | None = None,
    experts: int = 0,
) -> Agent:
    """The report's agent section; without a latency those figures are null. Sizes are those of `packed` if there is.

    `experts`: bytes that it needs besides its weights (`evaluation.expert_size`).
    """
    shipped, parameters = packed or checkpoint, count_parameters(checkpoint.path, thoughts=True)[0]
    return Agent(
        path=str(checkpoint.path),
        packed=None if packed is None else str(packed.path),
        bytes_on_disk=shipped.bytes_on_disk,
        parameters=parameters,
        expert_bytes=experts,
        ratio_vs_fp32=4 * parameters / (count_parameters(shipped.path, thoughts=True)[1] + experts),
        retention=retention,
        latency_ms_per_token_p50=None if latency is None else latency.ms_per_token_p50,
        prompt_ms_per_token_p50=None if latency is None else latency.prompt_ms_per_token_p50,
        peak_rss_bytes=None if latency is None else latency.peak_rss_bytes,
        kernel=None if latency is None else latency.kernel,
    )


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description="Milliseconds a token and peak memory of a checkpoint.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(asdict(decode_timed(arguments.path, arguments.tokens, arguments.repeats))))


if __name__ == "__main__":
    main()
