"""What was observed of a system, kept, and what it says of the next prediction.

Every observation is the logarithm of measured / predicted (by the shipped coefficients, uncorrected). A system's own
factor is normal about 0 with the spread that is left between systems; its observations scatter about it. So the
correction is the posterior of a normal mean (Gelman et al., Bayesian Data Analysis, chapter 2): few points move it
little, many move it all the way. Neighbours (two of model, accelerator and engine in common, or the engine alone)
count by their likeness, so a fleet of alike systems is a little better known after one run.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from deployment.exclusive import exclusive
from deployment.physics.intervals import Spread
from phases.errors import InputError
from phases.storage import replace_text

BETWEEN = {"ttft": 0.42, "tpot": 0.27}
"""Standard deviation of systems' own log factors: of the medians, out of fold, of 29 measured systems."""
WITHIN = {"ttft": 0.30, "tpot": 0.12}
"""Of observations of one system about its factor: loads differ by more than the formulas say; the same 29."""
SHARED = {3: 1.0, 2: 0.25}
"""Weight of an observation by how many of model, accelerator and engine are the same; the engine alone: `ENGINE`."""
ENGINE = 0.05
VARIABLE = "FORGE_CALIBRATION"


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured point of a system, as log measured / predicted."""

    model: str
    accelerator: str
    engine: str
    ttft: float
    tpot: float
    measurement: str = ""
    """SHA-256 of the file that it is from, which counts once; empty: it was observed by itself."""

    @property
    def system(self) -> str:
        """What it corrects."""
        return f"{self.model} on {self.accelerator} ({self.engine})"


@dataclass(frozen=True, slots=True)
class Factor:
    """What a figure is multiplied by, and how much is left of its uncertainty."""

    factor: float = 1.0
    left: float = 1.0
    """Of the interval's width."""
    points: float = 0.0
    """Observations of the very system."""

    def narrowed(self, spread: Spread) -> tuple[float, float]:
        """Factors of the lower and the upper end about the uncorrected figure."""
        return self.factor * math.exp(spread.low * self.left), self.factor * math.exp(spread.high * self.left)


@dataclass(frozen=True, slots=True)
class Correction:
    """Both figures' factors."""

    ttft: Factor = Factor()
    tpot: Factor = Factor()


def file() -> Path:
    """Where observations are kept: `checkpoints/calibration.json` of the working directory, or FORGE_CALIBRATION."""
    return Path(os.environ.get(VARIABLE) or "checkpoints/calibration.json")


def observations(path: Path | None = None) -> tuple[Observation, ...]:
    """All that are kept; none where there is no file. Raises InputError for a file that is broken."""
    path = path or file()
    try:
        found = path.stat()
    except OSError:
        return ()
    stamp = (found.st_mtime_ns, found.st_ino)  # clocks of files are coarse; one that was replaced has a new number
    if path not in _READ or _READ[path][0] != stamp:
        _READ[path] = (stamp, _read(path))
    return _READ[path][1]


_READ: dict[Path, tuple[tuple[int, int], tuple[Observation, ...]]] = {}


def _read(path: Path) -> tuple[Observation, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(Observation(**entry) for entry in content["observations"])
        if not all(math.isfinite(entry.ttft) and math.isfinite(entry.tpot) for entry in found):
            raise ValueError("a ratio is not finite")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no calibration that can be read ({error}); restore it, or delete it and calibrate again (results "
            "that were recorded before: with another --store)"
        ) from None


def keep(new: list[Observation], path: Path | None = None) -> None:
    """Add observations to those that are kept, also while other processes do; the file is replaced as a whole.

    Raises InputError where a measurement of the same system is there already: twice the same would only look surer.
    """
    path = path or file()
    try:
        with exclusive(path):
            before = _read(path) if path.exists() else ()
            known = {(entry.system, entry.measurement) for entry in before if entry.measurement}
            for entry in new:
                if (entry.system, entry.measurement) in known:
                    raise InputError(
                        f"{path}: it holds these very results for {entry.system} already; what was measured once is no "
                        "surer twice: measure again"
                    )
            content = {"observations": [asdict(entry) for entry in (*before, *new)]}
            replace_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); set {VARIABLE} to another file") from None


def correction(model: str, accelerator: str, engine: str, known: tuple[Observation, ...] | None = None) -> Correction:
    """What all observations say of this system; `Correction()` where there are none."""
    known = observations() if known is None else known
    if not known:
        return Correction()
    weighed = [(_alike(entry, model, accelerator, engine), entry) for entry in known]
    return Correction(_factor("ttft", weighed), _factor("tpot", weighed))


def _alike(entry: Observation, model: str, accelerator: str, engine: str) -> float:
    same = (entry.model == model) + (entry.accelerator == accelerator) + (entry.engine == engine)
    return SHARED.get(same, ENGINE if entry.engine == engine else 0.0)


def _factor(figure: str, weighed: list[tuple[float, Observation]]) -> Factor:
    """Posterior mean and what is left of the spread."""
    prior, noise = 1 / BETWEEN[figure] ** 2, 1 / WITHIN[figure] ** 2
    own = [getattr(entry, figure) for weight, entry in weighed if weight == 1.0]
    near = [(weight, getattr(entry, figure)) for weight, entry in weighed if 0 < weight < 1]
    precision, total = prior + noise * len(own), noise * sum(own)
    if near:
        weights = sum(weight for weight, _ in near)
        # However often a neighbour was observed, it says no more of this system than it is like it.
        trust = min(noise * weights, prior * sum(weight**2 for weight, _ in near) / weights)
        precision += trust
        total += trust * sum(weight * value for weight, value in near) / weights
    left = math.sqrt((1 / precision + 1 / noise) / (1 / prior + 1 / noise))
    return Factor(math.exp(total / precision), left, float(len(own)))
