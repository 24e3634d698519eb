"""Nights of the other templates on a tiny run: several teachers, worked steps, on from the champion, flat curves."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.report import read_report
from flows import night as night_steps
from flows import night_sizes
from flows.distill_parameters import ProjectConfig
from flows.parameters import ForgeConfig
from phases.checkpoint import open_checkpoint
from tests.flows.test_distill_flow import SETTINGS, champion_of, good, quick_latency, run  # noqa: F401

ENDED = ("NotEnoughData", "RolledBack")
TRAINING = {"steps": 3, "batch_rows": 4, "precision": "fp32"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_sizes, "measure_beside", lambda *paths: tuple(map(quick_latency, paths)))


def project(copy: ForgeConfig, **changes: Any) -> ProjectConfig:
    return ProjectConfig.parse({**SETTINGS, "project": "p", "out": str(copy.out), **changes}, "test")


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["route", "pool"])
def test_several_teachers_are_ranked_and_learnt_from(copy: ForgeConfig, combine: str) -> None:
    branches = [path for path in sorted((copy.out / "t" / "cognate" / "siblings").iterdir()) if path.is_dir()][:2]
    teachers = [{"kind": "local", "checkpoint": str(path), "licence": "own"} for path in branches]
    learn = {"training": TRAINING, "strategy": {"kind": "multi_teacher", "combine": combine, "sharpness": 0}}
    config = project(copy, teachers=teachers, distil=learn)
    assert run(config).name in ENDED
    folder = config.folder / "night-0001"
    (phase,) = read_report(folder).phases
    assert len(phase.tables["teachers"].rows) == 2 and (folder / "quality-cost.png").is_file()
    licences = [row for row in phase.tables["answers"].rows if str(row[0]).startswith("licence")]
    assert len(licences) == 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["before", "apart"])
def test_worked_steps_are_learnt(copy: ForgeConfig, form: str) -> None:
    learn = {"training": TRAINING, "strategy": {"kind": "rationale", "form": form, "alpha": 0.5}}
    assert run(project(copy, distil=learn)).name in ENDED


@pytest.mark.slow
@pytest.mark.usefixtures("good")
def test_the_second_night_goes_on_from_the_champion(copy: ForgeConfig) -> None:
    learn = {"training": TRAINING, "strategy": {"kind": "incremental"}}
    config = project(copy, distil=learn)
    assert run(config).name == "Promoted" and champion_of(config) == 1
    more = {**SETTINGS["data"], "questions": {"reasoning": 14, "memory": 12, "copying": 4}}  # type: ignore[dict-item]
    assert run(project(copy, distil=learn, data=more)).name == "Promoted" and champion_of(config) == 2
    first, second = (config.folder / f"night-{number:04d}" for number in (1, 2))
    champion = open_checkpoint(first / "student")
    assert champion.digest in open_checkpoint(second / "work" / "initial").manifest["parents"]


@pytest.mark.slow
def test_questions_are_answered_as_long_as_more_of_them_help(
    copy: ForgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    answered = night_steps.Schooling.answered

    def counted(self: Any, plan: Any, faculty: Any, budget: Any, checked: Any, share: float = 1.0) -> Any:
        shares.append(share)
        return answered(self, plan, faculty, budget, checked, share)

    monkeypatch.setattr(night_steps.Schooling, "answered", counted)
    size = {"shares": [0.4, 0.6, 0.8, 1.0], "steps": 1, "resamples": 50, "least_gain": 1000.0}
    config = project(copy, distil={"training": TRAINING, "data_size": size})
    assert run(config).name in ENDED and shares == [0.4, 0.6, 0.8]
    folder = Path(config.folder) / "night-0001"
    (phase,) = read_report(folder).phases
    assert len(phase.tables["learning_curve"].rows) == 3 and (folder / "learning-curve.png").is_file()
