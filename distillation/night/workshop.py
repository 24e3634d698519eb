"""Where a night works: the project's folder, its stores, its ledger, its budget; and what tells one night from another.

<out>/<project>/inbox/            records that were pushed
<out>/<project>/captures.sqlite   teacher calls from outside
<out>/<project>/answers.sqlite    what teachers answered for learning
<out>/<project>/sealed.sqlite     what they answered to sealed questions: never learnt from
<out>/<project>/ledger.jsonl      what it all cost
<out>/<project>/versions/<hash>/  data set versions
<out>/<project>/last.json         the last finished night's fingerprint
<out>/<project>/night-0001/       one night: report.json, student/, baseline/, work/
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from distillation.curation.retention import delete_files, empty_versions, expired
from distillation.money.budget import Budget, BudgetConfig
from distillation.money.ledger import Ledger
from distillation.record import Record
from distillation.records.folder import read_folder, remove_records
from distillation.teachers.store import CaptureStore
from phases.fingerprint import source_fingerprint
from phases.storage import sha256_json, write_json

INBOX, CAPTURES, ANSWERS, SEALED, LAST = "inbox", "captures.sqlite", "answers.sqlite", "sealed.sqlite", "last.json"
TALKS, VERSIONS, QUARANTINE = "conversations", "versions", "quarantine"
ARRIVED = "arrived"
"""In `Record.more` of what was pushed: when, ISO 8601."""
CODE = (
    "distillation.training.distil",
    "distillation.training.data_curve",
    "distillation.night.schooling",
    "distillation.night.conversations",
    "distillation.night.sitting",
    "distillation.validation.gate",
    "distillation.night.accounting",
    "evaluation.paired_latency",
)
"""What decides how a night ends, besides its settings and its data."""


@dataclass(frozen=True)
class Workshop:
    """One night's place of work."""

    project: Path
    number: int

    @property
    def night(self) -> Path:
        """The night's own folder."""
        return self.project / f"night-{self.number:04d}"

    @property
    def ledger(self) -> Ledger:
        """What the project has cost."""
        return Ledger(self.project / "ledger.jsonl", self.number)

    def budget(self, config: BudgetConfig) -> Budget:
        """What is left of the night's; a resumed one goes on from what it had spent."""
        return Budget.of(config, self.ledger.spent(self.number))

    def captured(self, retention_days: int | None, began: datetime | None = None) -> list[Record]:
        """Calls from outside. What has been kept for more days is deleted first: see `DataConfig.retention_days`.

        The days are counted back from when the night `began` (None: now). One that is taken up again counts from its
        first attempt, so that it goes on with the questions and answers that it began with.
        """
        if retention_days is not None:
            self._forget(retention_days, began or datetime.now(UTC))
        if not (self.project / CAPTURES).is_file():
            return []
        with CaptureStore(self.project / CAPTURES) as store:
            return list(store.records())

    def _forget(self, days: int, now: datetime) -> None:
        limit = now - timedelta(days=days)
        for path in (self.project / name for name in (CAPTURES, ANSWERS, SEALED)):
            if path.is_file():
                with CaptureStore(path) as store:
                    store.delete_before(limit)
        dated = ((record, _arrived(record)) for record in read_folder(self.project / INBOX))
        over = expired(((record, at) for record, at in dated if at is not None), days, now)
        remove_records(self.project / INBOX, {record.key for record in over})
        empty_versions(self.project / VERSIONS, limit)
        delete_files(self.project / QUARANTINE, limit)
        # This night's own work is what it goes on from; the earlier ones' is nobody's any more.
        for night in self.project.glob("night-*"):
            if night != self.night:
                delete_files(night / "work", limit)

    def remember(self, fingerprint: str, decision: str) -> None:
        """That this night has ended so; holds once the night is finished in the database too."""
        write_json(self.project / LAST, {"fingerprint": fingerprint, "night": self.number, "decision": decision})

    def last(self) -> dict[str, Any]:
        """What the last night remembered; nothing where there is none or it is not whole."""
        try:
            found = json.loads((self.project / LAST).read_text(encoding="utf-8"))
            return {"fingerprint": str(found["fingerprint"]), "night": int(found["night"])} | {
                "decision": str(found["decision"])
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def fingerprint(settings: Any, teachers: Sequence[str], version: str, held_out: Sequence[Record]) -> str:
    """What a night's result depends on: settings, teachers, data, the test, and the code."""
    code = [source_fingerprint(name) for name in CODE]
    return sha256_json([settings, list(teachers), version, sorted(record.key for record in held_out), code])


def _arrived(record: Record) -> datetime | None:
    """When a pushed record came; None where that is not known."""
    try:
        return datetime.fromisoformat(record.more[ARRIVED])
    except (KeyError, ValueError):
        return None
