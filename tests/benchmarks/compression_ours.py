"""Our own codecs without any training: each alone at several rates, and all of them as the allocator divides a budget.

    ours = Ours(checkpoint, parent, data, folder)
    ours.stored(VPTQ(vector=8)).file_bytes, ours.mixed()

Settings, calibration and importances are those of the phase (`compression.json` of the checkpoint). Each is written as
an artefact, whose file's size counts.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from evaluation.report import FILE as REPORT
from flows.parameters import load_config
from phases.bitnet.run import run as run_bitnet
from phases.checkpoint import MANIFEST, Checkpoint, open_checkpoint
from phases.cognate.run import run as run_cognate
from phases.compression.allocation import BudgetError
from phases.compression.artefact import write_artefact
from phases.compression.config import CompressionConfig
from phases.compression.hyper import Hyper
from phases.compression.options import vptq_settings
from phases.compression.press import Press
from phases.compression.report import read_report
from phases.compression.run import run as run_compression
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, Stored
from phases.compression.ternary import Ternary
from phases.data.prepare import prepare_data
from phases.dataset import Dataset, open_dataset
from phases.packed.plan import WEIGHTS
from phases.phase import ignore_metrics
from tests.benchmarks.compression_rivals import Small

SEEDLM = (SeedLM(block=24, latent=4), SeedLM(block=12, latent=4), SeedLM(block=8, latent=3))
"""1½, 3 and 4 bits a weight; the latter two are the paper's."""
HYPER = (Hyper(bits=1.5), Hyper(bits=2), Hyper(bits=3), Hyper(bits=4))
RATIOS = (24.0, 20.0, 16.0, 12.0, 10.0, 8.0, 7.0)
"""How many times smaller than float32 all codecs together are to be."""
ROOM = 5_000
"""Bytes of a budget that are kept for the file's header."""


class Ours:
    """A parent under all codecs."""

    def __init__(self, checkpoint: Checkpoint, parent: Checkpoint, data: Dataset, folder: Path) -> None:
        self.parent, self.folder = parent, folder
        config = CompressionConfig.model_validate(read_report(checkpoint.path).config)
        self.codecs, self.press = config.codecs, Press(parent, data, config, folder, ignore_metrics)
        self.staging = self.press.staging()

    def alone(self) -> Iterator[tuple[Coding, str]]:
        """Codecs that carry all matrices."""
        for threshold in self.codecs.thresholds:
            yield Ternary(threshold, self.codecs.group, self.codecs.scale_bits), f"threshold {threshold:g}"
        for vptq in vptq_settings(self.codecs):
            yield vptq, f"vectors of {vptq.vector}"
        for seeded in SEEDLM:
            yield seeded, f"{seeded.bits:g} bits"
        for hyper in HYPER:
            yield hyper, f"{hyper.bits:g} bits"

    def stored(self, codec: Coding) -> Small:
        """Every matrix under one codec."""
        if isinstance(codec, SeedLM | Hyper):
            for name in self.press.names:
                if (name, codec) not in self.staging.table.encoded:
                    encoded = codec.encode(self.staging.parent[name], self.staging.importances.get(name))
                    self.staging.table.encoded[name, codec] = encoded
        return self._written(self.staging.store(dict.fromkeys(self.press.names, codec)))

    def mixed(self) -> Iterator[tuple[str, Small]]:
        """The phase's own plan at several ratios; not those at which nothing fits, or nothing needs as many bytes."""
        total, before = 4 * sum(parameter.numel() for parameter in self.staging.params.values()), 0
        for ratio in RATIOS:
            try:
                plan = self.staging.plan(int(total / ratio) - ROOM)
            except BudgetError:
                continue
            if plan.stored.bytes > before:
                yield f"ratio {ratio:g}", self._written(plan.stored)
            before = plan.stored.bytes

    def _written(self, stored: Stored) -> Small:
        place = self.folder / "artefact"
        size = weights_file(write_artefact(self.parent, stored, place).path)
        shutil.rmtree(place)
        return Small(stored.weights(), stored.bytes, size)


def weights_file(path: Path) -> int:
    """Bytes of the file of weights of a checkpoint."""
    return (path / WEIGHTS).stat().st_size


Family = tuple[Checkpoint, Checkpoint, Dataset]
"""(a compression checkpoint, what it was made of, their data)."""


def family_of_a_run(folder: Path) -> Family | None:
    """That of a finished run; None where there is none, or it has no compressed model."""
    place = folder / "compression"
    if not (folder / REPORT).is_file() or not (place / MANIFEST).is_file():
        return None
    checkpoint = open_checkpoint(place)
    (wanted,) = checkpoint.manifest["parents"]
    others = (open_checkpoint(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}")))
    parent = next((one for one in others if one.digest == wanted), None)
    return None if parent is None else (checkpoint, parent, open_dataset(folder / "data"))


def family_of_a_smoke_run(folder: Path) -> Family:
    """One with a ternary parent, made in a minute."""
    config = load_config("smoke")
    data = prepare_data(config.data, None, folder / "data")
    trunk = run_cognate([], config.cognate, folder / "cognate", data=data)
    parent = run_bitnet([trunk], config.bitnet, folder / "bitnet", data=data)
    return run_compression([parent], config.compression, folder / "compression", data=data), parent, data
