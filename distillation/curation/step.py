"""`Step`: what one step of curation did, for the data set's card and the night's report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distillation.record import Record

EXAMPLES = 3
_SHOWN = 160


@dataclass(frozen=True)
class Step:
    """Counts in and out, and why the rest went."""

    name: str
    before: int
    after: int
    removed: Mapping[str, int] = field(default_factory=dict)
    """How many records were removed for which reason; the sum is `before` − `after`."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A few questions for each reason."""
    findings: Mapping[str, int] = field(default_factory=dict)
    """What was found in records that stay, or changed in them."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Further figures."""

    def as_json(self) -> dict[str, Any]:
        """As cards and reports have it."""
        return {
            "name": self.name,
            "in": self.before,
            "out": self.after,
            "removed": dict(sorted(self.removed.items())),
            "examples": {reason: list(texts) for reason, texts in sorted(self.examples.items())},
            "findings": dict(sorted(self.findings.items())),
            "figures": dict(sorted(self.figures.items())),
        }


def taken_out(
    name: str,
    records: Sequence[Record],
    reasons: Mapping[int, str],
    *,
    findings: Mapping[str, int] | None = None,
    figures: Mapping[str, float] | None = None,
) -> tuple[list[Record], Step]:
    """The records without those that have a reason to go, by index, and the step that says so."""
    removed: dict[str, int] = {}
    examples: dict[str, tuple[str, ...]] = {}
    for index, reason in sorted(reasons.items()):
        removed[reason] = removed.get(reason, 0) + 1
        shown = examples.get(reason, ())
        if len(shown) < EXAMPLES:
            examples[reason] = (*shown, shortened(records[index].prompt))
    kept = [record for i, record in enumerate(records) if i not in reasons]
    return kept, Step(name, len(records), len(kept), removed, examples, findings or {}, figures or {})


def shortened(text: str) -> str:
    """A text's beginning on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
