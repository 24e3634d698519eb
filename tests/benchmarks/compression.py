"""Is the final compression ahead of other ways to be small at equal bytes, and what does it cost to run?

    python -m tests.benchmarks.compression CHECKPOINT PARENT DATA --out results
    make bench               # with the default run in checkpoints/laptop, else with a smoke run's, made on the spot

CHECKPOINT is one of the compression phase, PARENT what it was made of. Measured on the validation split, on whose
first rows the codecs were chosen; nothing here is fitted to the items. Written to --out, checkpoints/bench if none is
given: `compression.json` and the picture `compression.png`. About twenty minutes on one free core for a model of 1 M
parameters; SeedLM takes a third of them.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.config import EvaluationConfig
from evaluation.generation import exact_match
from evaluation.language import block_losses
from evaluation.machine import describe_machine
from evaluation.ratio import BlockLosses, bits_per_byte
from evaluation.retention import TASKS
from evaluation.specialities import held_out
from flows.quiet import settle_environment
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.compression.artefact import read_stored
from phases.compression.press import AGENT
from phases.compression.press import UNTRAINED as UNTRAINED_SIBLING
from phases.dataset import Dataset, open_dataset
from phases.errors import InputError
from tests.benchmarks.compression_curves import (
    FLOAT,
    MIXED,
    PACKED,
    TRAINED,
    UNTRAINED,
    Point,
    Verdict,
    compare,
    families,
)
from tests.benchmarks.compression_llama import quantise
from tests.benchmarks.compression_ours import Ours, family_of_a_run, family_of_a_smoke_run, weights_file
from tests.benchmarks.compression_rivals import Small, round_to_nearest, round_to_nf4, unchanged
from tests.benchmarks.compression_shown import as_rows, draw, rate_table, verdict_table
from tests.benchmarks.compression_speed import running, running_table, throughput, throughput_table

BATCH = 256
OUT = Path("checkpoints/bench")
DEFAULT_RUN = Path("checkpoints/laptop")
NO_LLAMA = "llama.cpp: not measured: make llama builds its Python binding (minutes); then run this again"
NAMES = ("compression.json", "compression.png")


@dataclass(frozen=True)
class Way:
    """A way to be small, before it is measured."""

    family: str
    setting: str
    small: Small
    note: str = ""


class Bench:
    """One compressed checkpoint among its rivals, all on the same units."""

    def __init__(
        self, checkpoint: Checkpoint, parent: Checkpoint, data: Dataset, items: int | None = None, name: str = ""
    ) -> None:
        """`items`: of each task at most. `name`: whose figures these are, where its path does not say it."""
        self.checkpoint, self.parent, self.data = checkpoint, parent, data
        self.name, self.not_measured = name or str(checkpoint.path), list[str]()
        self.units = held_out(data, EvaluationConfig(split="validation", items=items))
        self.model: Any = parent.model().requires_grad_(False)
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.parameters = sum(weight.numel() for weight in self.weights.values())
        self.matrices = [name for name, weight in self.weights.items() if weight.ndim == 2]

    def ways(self, folder: Path) -> Iterator[Way]:
        """Everything that is measured, one at a time."""
        yield Way(FLOAT, "parent", unchanged(self.weights))
        for family, name in ((TRAINED, AGENT), (UNTRAINED, UNTRAINED_SIBLING)):
            stored, file = read_stored(self.checkpoint.siblings[name].path)[0], self.checkpoint.siblings[name].path
            yield Way(family, "the artefact", Small(stored.weights(), stored.bytes, weights_file(file)))
        if PACKED in self.parent.siblings:
            file_bytes = weights_file(self.parent.siblings[PACKED].path)
            yield Way(PACKED, "of the parent", Small(self.weights, file_bytes, file_bytes), "lossless")
        for group in (32, 128):
            for bits in (1, 2, 3, 4):
                small = round_to_nearest(self.weights, self.matrices, bits, group)
                yield Way(f"round to nearest, {group}", f"{bits} bits", small)
            for bits in (2, 3, 4):
                small = round_to_nearest(self.weights, self.matrices, bits, group, zero_point=True)
                yield Way(f"round with zero point, {group}", f"{bits} bits", small)
        yield Way("bitsandbytes NF4, all", "double", round_to_nf4(self.weights, self.matrices))
        embeddings = {id(m.weight) for m in (self.model.get_input_embeddings(), self.model.get_output_embeddings())}
        body = [name for name in self.matrices if id(self.model.get_parameter(name)) not in embeddings]
        yield Way("bitsandbytes NF4", "double", round_to_nf4(self.weights, body), "embeddings float16, as it does it")
        yield from self._llama(folder)
        ours = Ours(self.checkpoint, self.parent, self.data, folder)
        for codec, setting in ours.alone():
            yield Way(f"{codec.name} alone", setting, ours.stored(codec))
        for setting, small in ours.mixed():
            yield Way(MIXED, setting, small)

    def _llama(self, folder: Path) -> Iterator[Way]:
        made = quantise(self.parent, folder, self.units.text_NT)
        if made is None:
            self.not_measured.append(NO_LLAMA)
            return
        alike: dict[tuple[str, bytes], list[str]] = {}
        for name, one in made.items():
            alike.setdefault((one.types, one.nats_N.tobytes()), []).append(name)
        for names in alike.values():
            one = made[names[0]]
            losses = BlockLosses(one.nats_N, self.units.bytes_N, self.units.text_NT.shape[1] - 1)
            own = bits_per_byte(losses, "", "").value
            same = f"; so are {', '.join(names[1:])}" if names[1:] else ""
            note = f"{one.types}{same}; {own:.3f} bits per byte by its own kernels"
            yield Way("llama.cpp", names[0], one.small, note)

    def measure(self, way: Way) -> Point:
        """Answers and losses of the model with these weights."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(way.small.weights[name])
        tokenizer = self.parent.tokenizer()
        tasks = {t: exact_match(self.model, tokenizer, self.units.items[t], BATCH).right_N for t in TASKS}
        text = block_losses(self.model, self.units.text_NT, self.units.bytes_N)
        return Point(way.family, way.setting, way.small.tensor_bytes, way.small.file_bytes, tasks, text, way.note)

    def points(self) -> list[Point]:
        """All of them; what was measured is said on stderr."""
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for way in self.ways(Path(folder)):
                start = time.perf_counter()
                found.append(self.measure(way))
                print(f"{way.family}, {way.setting}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        return found

    def paths(self) -> dict[str, Path]:
        """Models to run: the artefact, its plain weights, and the parent's packed file."""
        found = {"artefact": self.checkpoint.siblings[AGENT].path, "plain float32": self.checkpoint.path}
        packed = self.parent.siblings.get(PACKED)
        return found if packed is None else {**found, "packed, of the parent": packed.path}


def judge(points: Sequence[Point]) -> tuple[list[Verdict], list[Verdict]]:
    """(the artefact against every rival, all codecs without training against every rival)."""
    curves = families(points)
    parent = curves[FLOAT][0]
    rivals = {name: curve for name, curve in curves.items() if name not in (TRAINED, MIXED, FLOAT)}
    trained = [v for curve in rivals.values() for v in compare(curves[TRAINED], curve, parent)]
    rivals.pop(UNTRAINED)
    mixed = [v for curve in rivals.values() for v in compare(curves[MIXED], curve, parent)] if MIXED in curves else []
    return trained, mixed


def run(bench: Bench, pairs: int, out: Path) -> dict[str, Any]:
    """Measure, print, draw and write."""
    torch.set_num_threads(1)
    points = bench.points()
    parent = families(points)[FLOAT][0]
    right = ", ".join(f"{values.sum()} of {len(values)} {name} items" for name, values in parent.tasks.items())
    print(
        f"validation split, {len(parent.text.nats_N)} text blocks; the parent has right {right}; ± one standard error"
    )
    print("\n".join([rate_table(points, parent, bench.parameters), *bench.not_measured]))
    trained, mixed = judge(points)
    print("\nthe artefact less each rival; on equal bytes between two files of the rival, then its next larger file")
    print(verdict_table(trained))
    print("\nall codecs, nothing trained, less each rival at the rival's bytes")
    print(verdict_table(mixed))
    models, speeds = running(bench.paths(), pairs), throughput()
    print("\n" + running_table(models))
    print("\n" + throughput_table(speeds))
    result = {
        "model": bench.name,
        "not_measured": bench.not_measured,
        "machine": describe_machine(),
        "parameters": bench.parameters,
        "points": as_rows(points),
        "artefact_against": [{**asdict(v), "word": v.word} for v in trained],
        "all_codecs_against": [{**asdict(v), "word": v.word} for v in mixed],
        "running": [asdict(row) for row in models],
        "throughput": [asdict(row) for row in speeds],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / NAMES[0]).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    draw(points, parent, bench.parameters).savefig(out / NAMES[1])
    print(f"written to {out / NAMES[0]} and {out / NAMES[1]}", file=sys.stderr)
    return result


def run_default(pairs: int) -> dict[str, Any]:
    """On the default run, where it has been made, as a smaller model cannot tell codecs apart; else on a small one."""
    with tempfile.TemporaryDirectory() as folder:
        family, name = family_of_a_run(DEFAULT_RUN), str(DEFAULT_RUN)
        if family is None:
            family = family_of_a_smoke_run(Path(folder))
            name = "a smoke run's, too small to judge quality by its tasks: make forge, then run this again"
        bench = Bench(*family, name=name)
        print(f"compression: the model is {name} ({bench.parameters:,} parameters)")
        return run(bench, pairs, OUT)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compression")
    parser.add_argument("paths", type=Path, nargs="*", metavar="CHECKPOINT PARENT DATA", help="none: as make bench")
    parser.add_argument("--out", type=Path, default=OUT, help=f"a folder (default: {OUT})")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of the models that are timed")
    parser.add_argument("--items", type=int, help="of each task at most; all if not given")
    arguments = parser.parse_args()
    if len(arguments.paths) not in (0, 3):
        parser.error("give CHECKPOINT, PARENT and DATA, or none of them")
    settle_environment()
    warnings.simplefilter("ignore")
    if not arguments.paths:
        run_default(arguments.pairs)
        return
    try:
        checkpoint, parent = (open_checkpoint(path) for path in arguments.paths[:2])
        bench = Bench(checkpoint, parent, open_dataset(arguments.paths[2]), arguments.items)
    except InputError as error:
        parser.error(str(error))
    run(bench, arguments.pairs, arguments.out)


if __name__ == "__main__":
    main()
