"""How large and how fast a night's models are, and how long its questions: what a request costs follows from these."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from distillation.night.accounting import Sized
from distillation.night.sitting import Exam
from evaluation.latency import Latency, count_parameters, measure_latency
from evaluation.paired_latency import measure_beside
from phases.checkpoint import Checkpoint
from phases.storage import write_json


def sizes_of(checkpoints: Sequence[Checkpoint], night: Path) -> list[Sized]:
    """Of their smallest forms, student first. A teacher on this machine is measured beside it; once a night."""
    shipped = [one.siblings.get("packed", one) for one in checkpoints]
    path = night / "latency.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if any(one.digest not in known for one in shipped):
        student, *teacher = (one.path for one in shipped)
        measured = measure_beside(teacher[0], student)[::-1] if teacher else (measure_latency(student),)
        known = {one.digest: asdict(latency) for one, latency in zip(shipped, measured, strict=True)}
        write_json(path, known)
    return [
        Sized(Latency(**known[small.digest]), count_parameters(small.path)[1], count_parameters(one.path)[0])
        for one, small in zip(checkpoints, shipped, strict=True)
    ]


def tokens_of(exam: Exam, student: Checkpoint) -> tuple[float, float] | None:
    """Of a question and its answer on average, in the student's tokens."""
    tokenizer = student.tokenizer()
    texts = (
        [record.prompt for record in exam.records],
        [record.completion or record.reference for record in exam.records],
    )
    counts = [[len(ids) for ids in tokenizer(list(some))["input_ids"]] for some in texts]
    return (sum(counts[0]) / len(counts[0]), sum(counts[1]) / len(counts[1])) if exam.records else None
