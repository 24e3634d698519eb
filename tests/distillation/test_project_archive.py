"""What is left of an archived project, and what it knows of its teacher and its data."""

import zipfile
from pathlib import Path

import pytest

from distillation.project.archive import archive
from distillation.project.portfolio import open_projects
from distillation.project.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return open_projects(tmp_path / "distillation.db").begin("support", teacher="big")


def finish(project: Project, data: str, report: str = "", verdict: str = "fail") -> None:
    with project.begin_night() as night:
        night.finish(verdict=verdict, data_version=data, report=report)


def test_reports_outlive_the_folder_and_the_last_step_names_the_last(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "support"
    for night in (1, 2):
        made = folder / f"night-000{night}"
        (made / "student").mkdir(parents=True)
        for name in ("report.json", "report.md", "agreement.png"):
            (made / name).write_text(f"{night} {name}")
        finish(project, "d", str(made / "report.md"))
    finish(project, "d", verdict="nothing new")
    archive(project, folder, "over")
    (step,) = project.history()
    assert step.after == "archived" and step.report == str(folder / "night-0002" / "report.md")
    assert step.reason == "over; 2 nights' reports are in support.reports.zip"
    with zipfile.ZipFile(tmp_path / "support.reports.zip") as packed:
        assert sorted(packed.namelist()) == [
            f"night-000{night}/{name}" for night in (1, 2) for name in ("report.json", "report.md")
        ]
        assert packed.read("night-0002/report.md") == b"2 report.md"


def test_archiving_again_changes_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "support" / "night-0001").mkdir(parents=True)
    report = tmp_path / "support" / "night-0001" / "report.md"
    report.write_text("kept")
    archive(project, tmp_path / "support", "over")
    packed = (tmp_path / "support.reports.zip").read_bytes()
    report.write_text("changed")
    archive(project, tmp_path / "support", "again")
    assert (tmp_path / "support.reports.zip").read_bytes() == packed and len(project.history()) == 1


def test_a_project_without_reports_is_archived_too(project: Project, tmp_path: Path) -> None:
    archive(project, tmp_path / "support", "never begun")
    assert project.stage == "archived" and not (tmp_path / "support.reports.zip").exists()


def test_a_nights_data_follows_that_of_the_last_finished_night(project: Project) -> None:
    finish(project, "d1")
    with pytest.raises(RuntimeError), project.begin_night():
        raise RuntimeError
    assert [project.data_before(number) for number in (1, 2)] == ["", "d1"]
    finish(project, "d2")  # night 2, taken up again
    with pytest.raises(RuntimeError), project.begin_night():
        raise RuntimeError
    project.begin_night(resume=False)
    assert [project.data_before(number) for number in (2, 3, 4)] == ["d1", "d2", "d2"]


def test_the_teacher_is_known_once_it_was_opened(project: Project) -> None:
    assert project.teacher_digest == ""
    project.identify_teacher("http://127.0.0.1/v1 m")
    assert (project.teacher, project.teacher_digest) == ("big", "http://127.0.0.1/v1 m")
