"""What a judge returns: metrics, controls, gates, and small tables for the report."""

from collections.abc import Callable, Sequence

from pydantic import Field

from evaluation.config import EvaluationConfig
from evaluation.metric import Control, Gate, Metric
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.strict import StrictModel

Cell = str | int | float | None


class Table(StrictModel):
    """A small table; None is a figure that was not measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Judgement(StrictModel):
    """The verdict on one checkpoint."""

    metrics: tuple[Metric, ...] = ()
    controls: tuple[Control, ...] = ()
    gates: tuple[Gate, ...] = ()
    tables: dict[str, Table] = Field({})
    """By name: `matrix`, `recall`, `exit_depth`, `evolution`, …"""

    @property
    def passed(self) -> bool:
        """All gates hold; a judgement without gates has not passed."""
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    def metric(self, name: str) -> Metric:
        """The metric of a name. Raises `KeyError` that lists the names there are."""
        found = [metric for metric in self.metrics if metric.name == name]
        if not found:
            raise KeyError(f"no metric {name!r}; there are {[m.name for m in self.metrics]}")
        return found[0]


Judge = Callable[[Checkpoint, Sequence[Checkpoint], Dataset, EvaluationConfig], Judgement]
"""judge(checkpoint, parents, data, config): the checkpoint and parents were reloaded from disk."""
