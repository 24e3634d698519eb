"""`curate`: from records to what is trained on, in a fixed order, each step with its counts and reasons.

    curated = curate(records, sealed, CurationConfig(), seed=0)
    curated.records, curated.steps

1. *Personal data* becomes placeholders first: nothing after it, keys included, knows what was there.
2. *Exact duplicates* and questions with conflicting right answers.
3. *Quality* comes before near-duplicates, so that of a cluster the first *good* record stays.
4. *Near-duplicates* among questions; several completions of one question are no near-duplicates.
5. *Decontamination* against the sealed questions, as they are and with placeholders, and a second look at what stays
   that shares no search with the first.
6. *Balance* between groups.

Records are put in an order of their own before (those with more known of them first, then by key), so the same records
and seed give the same data set however they were split into files.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from distillation.curation.balance import balance
from distillation.curation.config import CurationConfig
from distillation.curation.decontamination import Sealed, decontaminate
from distillation.curation.exact import drop_duplicates
from distillation.curation.leaks import check_no_leak
from distillation.curation.near_duplicates import NearDuplicates, near_duplicates
from distillation.curation.pii import Kind, redact, redact_record
from distillation.curation.quality import keep_good
from distillation.curation.step import Step, taken_out
from distillation.record import Message, Record
from phases.errors import DataError


@dataclass(frozen=True)
class Curated:
    """What stays, and what each step did."""

    records: list[Record]
    """Sorted by key."""
    steps: list[Step]


def curate(
    records: Sequence[Record],
    sealed: Sequence[Sealed],
    config: CurationConfig,
    seed: int,
    known: Sequence[Record] = (),
) -> Curated:
    """The records to train on. `known`: more questions of theirs, where these are some of them: what all share is told
    from a leak by them. Raises `DataError` when none stay, `LeakageError` when the second look finds a leak.
    """
    kept, step = _redacted(records, config.redact)
    steps = [step]
    sealed = [(*wordings, *(redact(text, config.redact)[0] for text in wordings)) for wordings in sealed]
    kept = in_order(kept)
    kept, step = drop_duplicates(kept, keep_conflicts=config.keep_conflicts)
    steps.append(step)
    kept, step = keep_good(kept, config.quality)
    steps.append(step)
    if config.near_duplicates is not None:
        kept, step = _unlike(kept, config.near_duplicates, seed)
        steps.append(step)
    among = kept
    kept, step = decontaminate(among, sealed, config.decontamination, known)
    steps.append(step)
    kept, step = balance(kept, config.balance, seed)
    steps.append(step)
    check_no_leak(kept, sealed, config.decontamination, among=[*known, *among])
    if not kept:
        raise DataError(_nothing_left(steps))
    return Curated(sorted(kept, key=lambda record: record.key), steps)


def in_order(records: Sequence[Record]) -> list[Record]:
    """Those with a known right answer first, then the answered, then by key; equal ones by everything else."""
    placed = sorted((not record.reference, not record.completion, record.key, i) for i, record in enumerate(records))
    ordered = []
    for _, equal in groupby(placed, key=lambda place: place[:3]):
        same = [records[place[3]] for place in equal]
        ordered += sorted(same, key=_rest) if len(same) > 1 else same
    return ordered


def _rest(record: Record) -> str:
    """What a record's key does not tell."""
    rest = [record.source, record.teacher, record.licence, record.edge, record.weight, sorted(record.more.items())]
    return json.dumps(rest)


def _redacted(records: Sequence[Record], kinds: Sequence[Kind]) -> tuple[list[Record], Step]:
    found: Counter[str] = Counter()
    touched, result = 0, []
    for record in records:
        redacted, counts = redact_record(record, kinds)
        result.append(redacted)
        found += counts
        touched += bool(counts)
    figures = {"records with personal data": touched}
    return taken_out("personal data", result, {}, findings=dict(found), figures=figures)


def _unlike(records: Sequence[Record], config: NearDuplicates, seed: int) -> tuple[list[Record], Step]:
    """One question of each cluster, with all records of that very question."""
    first: dict[tuple[Message, ...], Record] = {}
    for record in records:
        first.setdefault(record.messages, record)
    chosen = list(first.values())
    texts = ["\n".join(m.content for m in record.messages if m.role != "system") for record in chosen]
    apart = [record.reference for record in chosen] if config.references_tell_apart else None
    found = near_duplicates(texts, config, seed, apart)
    gone = {record.messages for record, keep in zip(chosen, found.keep, strict=True) if not keep}
    reasons = {i: f"near-duplicate (≥ {config.threshold:g})" for i, r in enumerate(records) if r.messages in gone}
    figures = {"pairs compared": found.compared, "pairs not compared": found.not_compared}
    return taken_out("near-duplicates", records, reasons, figures=figures)


def _nothing_left(steps: Sequence[Step]) -> str:
    if not steps[0].before:
        return "curation: no records came in; give a source with records"
    reasons = Counter({reason: n for step in steps for reason, n in step.removed.items()}).most_common(3)
    told = ", ".join(f"{reason}: {n}" for reason, n in reasons)
    return f"curation: none of {steps[0].before} records is left ({told}); mend the source or loosen curation"
