"""Projects: stages, lineage and champions, the portfolio, and databases that are not ours."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distillation.project.portfolio import Projects, open_projects
from distillation.project.project import Project
from distillation.project.stages import ALLOWED, STAGES, Stage
from distillation.project.student import standing
from phases.errors import InputError, MissingDependency


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "distillation.db"


@pytest.fixture
def projects(file: Path) -> Projects:
    return Projects(file, clock=lambda: datetime(2026, 7, 1, 2, 3, 4, tzinfo=UTC))


@pytest.fixture
def project(projects: Projects) -> Project:
    return projects.begin("support", teacher="big", teacher_digest="t1")


WAY: dict[Stage, tuple[Stage, ...]] = {
    "evaluating": (),
    "distilling": ("distilling",),
    "validating": ("distilling", "validating"),
    "ready": ("distilling", "validating", "ready"),
    "deployed": ("distilling", "validating", "deployed"),
    "archived": ("archived",),
}


@pytest.mark.parametrize("before", STAGES)
def test_only_allowed_steps(projects: Projects, before: Stage) -> None:
    for after in STAGES:
        project = projects.begin(f"to-{after}", teacher="big")
        for stage in WAY[before]:
            project.move(stage, "on the way")
        if after in ALLOWED[before]:
            assert project.move(after, "why", "report.json") and project.stage == after
        elif after != before:
            with pytest.raises(InputError, match=f"is {before} and cannot become {after}; it can become"):
                project.move(after, "why")


def test_every_step_is_kept_with_time_reason_and_report(project: Project) -> None:
    project.move("distilling", "night 1", "night-0001/report.json")
    assert not project.move("distilling", "once more")
    (step,) = project.history()
    assert (step.at, step.before, step.after) == ("2026-07-01T02:03:04+00:00", "evaluating", "distilling")
    assert (step.reason, step.report) == ("night 1", "night-0001/report.json")
    with pytest.raises(InputError, match="there is no stage 'done'"):
        project.move("done", "")  # type: ignore[arg-type]


def test_archived_projects_have_no_nights(project: Project) -> None:
    project.move("archived", "no longer used")
    with pytest.raises(InputError, match="is archived"):
        project.begin_night()


def test_lineage_leads_from_the_champion_to_the_first(project: Project) -> None:
    for night, digest in enumerate("abc", start=1):
        project.record_student(digest, night, f"night-{night}/student", teachers=["t1"], retention=0.9 + night / 100)
        if digest != "b":
            project.promote(digest, "passed")
    assert [s.digest for s in project.lineage()] == ["c", "a"]
    assert [s.champion_before for s in project.students()] == ["", "a", "a"]
    assert project.champion is not None and project.champion.teachers == ("t1",)


def test_rolling_back_leads_to_the_champion_before(project: Project) -> None:
    for digest in "ab":
        project.record_student(digest, 1, "path", teachers=["t1"])
        project.promote(digest, "passed")
        project.promote(digest, "again: no step")
    back = project.roll_back("worse in use")
    assert back is not None and back.digest == "a"
    assert project.roll_back("also") is None and project.champion is None
    with pytest.raises(InputError, match="no champion to roll back from"):
        project.roll_back("once more")
    assert standing([("promoted", "a"), ("promoted", "b"), ("rolled back", "b"), ("promoted", "c")]) == ["a", "c"]


def test_a_resumed_night_brings_its_student_up_to_date(project: Project) -> None:
    project.record_student("a", 1, "path", teachers=["t1"])
    project.promote("a", "passed")
    again = project.record_student("a", 1, "path", teachers=["t1", "t2"], saved_usd_per_month=0.1, break_even_day=3.5)
    assert (again.champion_before, again.teachers, again.saved_usd_per_month) == ("", ("t1", "t2"), 0.1)
    assert len(project.students()) == 1
    with pytest.raises(InputError, match="has no student 'z'; record it"):
        project.promote("z", "")


def test_the_portfolio_sums_what_is_known_and_counts_what_is_not(projects: Projects, project: Project) -> None:
    with project.begin_night() as night:
        project.record_student("a", 1, "p", teachers=["t1"], retention=0.97, saved_usd_per_month=120, break_even_day=6)
        project.promote("a", "passed")
        night.finish(verdict="promote", usd=3, invested_usd=23.6)
    other = projects.begin("other", teacher="bigger")
    other.record_student("b", 1, "p", teachers=["t2"])
    other.promote("b", "passed")
    other.begin_night()
    projects.begin("new", teacher="big")
    projects.begin("old", teacher="big").move("archived", "over")
    portfolio = projects.portfolio()
    rows = {row.name: row for row in portfolio.rows}
    assert list(rows) == ["new", "old", "other", "support"]
    assert (rows["support"].champion, rows["support"].retention, rows["support"].break_even_day) == ("a", 0.97, 6)
    assert (rows["support"].last_night, rows["support"].last_verdict, rows["other"].last_status) == (
        1, "promote", "running",
    )  # fmt: skip
    assert rows["new"].last_night is None and rows["new"].teacher == "big"
    totals = portfolio.totals
    assert (totals.projects, totals.champions, totals.saved_usd_per_month, totals.saved_unknown) == (3, 2, 120, 1)
    assert (totals.invested_usd, totals.invested_unknown) == (23.6, 1)
    assert portfolio.as_json()["projects"][3]["saved_usd_per_month"] == 120


def test_projects_are_found_again_by_name(file: Path, project: Project) -> None:
    assert open_projects(f"sqlite:///{file}").open("support").id == project.id
    assert open_projects(file).begin("support", teacher="new").id == project.id
    assert open_projects(file).open("support").teacher == "new"
    with pytest.raises(InputError, match=r"no project 'suport' .*; did you mean support\?"):
        open_projects(file).open("suport")
    for name in ("", "../up", "a b", "x" * 101):
        with pytest.raises(InputError, match="project name"):
            open_projects(file).begin(name, teacher="big")


def test_a_damaged_file_is_one_line(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="is not a database; the file is damaged: restore it") as caught:
        open_projects(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_breaks_while_it_is_used_is_one_line(file: Path, project: Project) -> None:
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE distillation_nights")
    connection.close()
    with pytest.raises(InputError, match="no such table: distillation_nights; the file is damaged"):
        project.nights()


def test_somebody_elses_file_is_left_alone(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"belongs to something else \(it has the table 'photos'\); name another"):
        open_projects(file)
    assert file.read_bytes() == before


def test_another_version_is_refused(file: Path, project: Project) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE distillation_version SET version = 2")
    connection.close()
    with pytest.raises(InputError, match="tables are of version 2, this program's of 1; use the program that made it"):
        open_projects(file)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///:memory:", "give a file instead of a database in memory"),
        ("nonsense://x", "nonsense"),
        ("://", "cannot be read: give a file, or a URL"),
    ],
)
def test_urls_that_lead_nowhere_are_one_line(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_projects(url)


def test_a_missing_driver_is_named_without_the_password() -> None:
    with pytest.raises(MissingDependency, match="pip install pg8000") as caught:
        open_projects("postgresql+pg8000://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unable to open database file; it has to be a file in a folder"):
        open_projects(tmp_path)
