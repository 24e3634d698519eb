"""A night's plan: held-out questions lose personal data and keep their part; what counts as too old."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from distillation.curation.config import CurationConfig
from distillation.curation.curate import curate
from distillation.night.asking import AskConfig
from distillation.night.data import DataConfig, Gathered
from distillation.night.schooling import Schooling, held_out_redacted
from distillation.night.workshop import ARRIVED, INBOX, Workshop
from distillation.record import asked
from distillation.records.folder import append_records, read_folder

CURATION = CurationConfig.model_validate({"quality": {"threshold": 0}, "near_duplicates": None})


def schooling(project: Path, retention_days: int | None = None) -> Schooling:
    data = DataConfig(run=None, retention_days=retention_days, test_share=0.3, validation_share=0.2)
    return Schooling(Workshop(project, 2), data, CURATION, AskConfig(), 0)


def push(project: Path, arrived: datetime, count: int = 60) -> None:
    more = {ARRIVED: arrived.isoformat()}
    append_records(project / INBOX, [asked(f"Who is user{i}@example.org of {i}?", more=more) for i in range(count)])


def test_held_out_questions_lose_addresses_and_keep_their_part(tmp_path: Path) -> None:
    push(tmp_path, datetime.now(UTC))
    raw = schooling(tmp_path)
    plan = raw.plan(tmp_path, parent="before")
    held_out = [*plan.gathered.validation, *plan.sealed]
    assert plan.parent == "before" and len(plan.gathered.validation) > 3 and len(plan.sealed) > 9
    assert all("[EMAIL]" in record.prompt and "@" not in record.prompt for record in held_out)
    numbers = {record.prompt.split()[-1] for record in held_out}
    assert not numbers & {record.prompt.split()[-1] for record in plan.questions.records}
    off = Schooling(raw.workshop, raw.data, CURATION.model_copy(update={"redact": ()}), raw.ask, 0).plan(tmp_path)
    assert {record.prompt.split()[-1] for record in off.sealed} == {r.prompt.split()[-1] for r in plan.sealed}


def test_a_runs_own_questions_stay_as_they_are() -> None:
    made, own = asked("+49 30 901820?", source="run:reasoning"), asked("+49 30 901820?", source="own.jsonl:1")
    found = held_out_redacted(Gathered([], [made], [made, own], None), CURATION.redact)
    assert found.validation == [made] and found.sealed[0] == made and found.sealed[1].prompt == "[PHONE]?"


def test_questions_that_are_equal_without_addresses_are_one_trial() -> None:
    tickets = [asked(f"Reset the password of user{i}@example.org", source=f"own:{i}") for i in range(9)]
    answered = asked("Reset the password of x@example.org", completion="Done.", source="own:10")
    found = held_out_redacted(Gathered([], tickets[:4], [*tickets, answered], None), CURATION.redact)
    assert len(found.validation) == 1 and [record.completion for record in found.sealed] == ["Done."]


def test_a_share_of_the_questions_knows_what_all_of_them_share() -> None:
    lead = "Read the following list of words with care and answer with exactly one of these words, nothing else: "
    questions = [asked(f"{lead}a{i} b{i} c{i}", completion=f"a{i}") for i in range(70)]
    sealed = [(f"{lead}x{i} y{i} z{i}",) for i in range(30)]
    whole = curate(questions, sealed, CURATION, 0).records
    assert len(whole) == 70 and len(curate(questions[:8], sealed, CURATION, 0, whole).records) == 8


def test_a_resumed_night_counts_days_from_its_first_attempt(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    push(tmp_path, now - timedelta(days=31))
    push(tmp_path, now, 90)  # those of another name
    assert len(read_folder(tmp_path / INBOX)) == 90
    first = schooling(tmp_path, 30).plan(tmp_path, began=now - timedelta(days=2))
    assert len(read_folder(tmp_path / INBOX)) == 90
    again = schooling(tmp_path, 30).plan(tmp_path, began=now - timedelta(days=2))
    assert again.version == first.version
    assert schooling(tmp_path, 30).plan(tmp_path).version != first.version and len(read_folder(tmp_path / INBOX)) == 30
