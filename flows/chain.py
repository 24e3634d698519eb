"""The chain of phases, in order. A new phase joins it here, in `ForgeConfig` and in `evaluation.judges`.

A phase is named by its module and imported when it runs: listing the chain must not cost the seconds that torch takes.
"""

import ast
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from phases.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from phases.phase import Phase

PhaseName = Literal["cognate", "evomerge", "quiet_star", "bitnet", "forge", "baking", "adas", "compression"]
CHAIN: tuple[PhaseName, ...] = get_args(PhaseName)
"""Every phase, in the order in which they run."""


def find_phase(name: str) -> "Phase":
    """The phase of a name. Raises `ConfigError` that lists the names there are."""
    if name not in CHAIN:
        raise ConfigError(f"phase '{name}': unknown; choose from {', '.join(CHAIN)}")
    phase: Phase = importlib.import_module(_module(name)).PHASE
    return phase


def summaries() -> dict[str, str]:
    """Name to one line for every phase, read from the source of its `PHASE` without importing it."""
    return {name: _summary(_module(name)) for name in CHAIN}


def check_order(names: Sequence[PhaseName]) -> None:
    """Raise `ValueError` when a chain is empty, repeats a phase or has them out of order."""
    if list(names) != sorted(set(names), key=CHAIN.index) or not names:
        raise ValueError(f"name each phase once and in order: {', '.join(CHAIN)}")


def _module(name: str) -> str:
    return f"phases.{name}.run"


def _summary(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PHASE":
            assert isinstance(node.value, ast.Call)
            return str(ast.literal_eval(node.value.args[1]))
    raise AssertionError(f"{module} has no PHASE")
