"""Exact duplicates, and questions that have more than one right answer.

    kept, step = drop_duplicates(records)

Equal question, answer, reference and group is one record. A question whose right answer is stated differently teaches
and grades by chance: nobody here knows which is right, so all of them go (or stay, and are only counted). Several
completions of a question are several answers, not a conflict: teachers are sampled more than once.
"""

from collections.abc import Sequence

from distillation.curation.shingles import tokens
from distillation.curation.step import Step, taken_out
from distillation.record import Message, Record

DUPLICATE = "exact duplicate"
CONFLICT = "conflicting references"
SEVERAL = "questions with several completions"


def drop_duplicates(records: Sequence[Record], *, keep_conflicts: bool = False) -> tuple[list[Record], Step]:
    """The first of equal records, and no question with conflicting right answers unless they are to be kept."""
    seen: set[tuple[object, ...]] = set()
    reasons: dict[int, str] = {}
    by_prompt: dict[tuple[Message, ...], list[int]] = {}
    for i, record in enumerate(records):
        # What `Record.key` is the hash of, which takes longer to make than this does to compare.
        content = record.messages, record.completion, record.rationale, record.reference, record.group
        if content in seen:
            reasons[i] = DUPLICATE
        else:
            seen.add(content)
            by_prompt.setdefault(record.messages, []).append(i)
    several = [indices for indices in by_prompt.values() if len(indices) > 1]
    conflicts = [indices for indices in several if len({_answer(records[i]) for i in indices} - {""}) > 1]
    if not keep_conflicts:
        reasons |= {i: CONFLICT for indices in conflicts for i in indices}
    findings = {
        CONFLICT: len(conflicts),
        SEVERAL: sum(len({records[i].completion for i in indices} - {""}) > 1 for indices in several),
    }
    return taken_out("exact duplicates", records, reasons, findings={k: v for k, v in findings.items() if v})


def _answer(record: Record) -> str:
    """The right answer in one spelling; symbols count (`3 - 4`), case and space do not."""
    return " ".join(tokens(record.reference))
