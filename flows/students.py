"""What becomes of a student: registered, promoted or left; and whether the champion of before is still whole."""

import contextlib

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from distillation.night.faculty import Faculty
from distillation.night.schooling import Schooled
from distillation.night.workshop import LAST
from distillation.project.night import Night as OpenNight
from distillation.project.project import Project
from distillation.project.student import Student
from distillation.teachers.local import LocalTeacher
from distillation.training.distil import Distilled
from flows import champion as champions
from flows.console import say
from flows.distill_parameters import ProjectConfig
from flows.night import Examined, Night
from flows.registry import Origin, Version, register
from flows.tracking import MlflowClient, Tracker, existing
from phases.errors import ForgeError, InputError

PROMOTE = "promote"
NAMES = {"promote": "Promoted", "roll back": "RolledBack", "not enough data": "NotEnoughData"}


def identities(faculty: Faculty) -> list[str]:
    """Who its teachers are: a checkpoint's digest, an endpoint's address and model."""
    return [one.checkpoint.digest if isinstance(one, LocalTeacher) else one.identity for one in faculty.teachers]


def champion_before(project: Project, night: int) -> Student | None:
    """The champion when the night began: not what a first attempt at this same night has promoted."""
    now = project.champion
    if now is None or now.night != night:
        return now
    return next((one for one in project.students() if one.digest == now.champion_before), None)


def check_champion(config: ProjectConfig, project: Project) -> str | None:
    """Roll back a champion whose registered files are damaged or gone; one line about it, None where all is well.

    While MLflow is away nothing is known, and nothing is done.
    """
    champion = project.champion
    if champion is None:
        return None
    try:
        with existing(config.out) as client:
            number = _number(client, config.agent, champion.digest)
            if number is None:
                return None  # someone else's version is in use: promoted by hand, which is theirs to keep
            try:
                champions.verify(client, client.get_model_version(config.agent, str(number)))
                return None
            except InputError as error:
                reason = str(error)
            back = _take_back(client, config.agent)
    except ForgeError as error:
        say(f"distill: the champion was not checked ({error})")
        return None
    standing = project.roll_back(reason)
    (config.folder / LAST).unlink(missing_ok=True)  # the next night makes a student anew
    if standing is None and project.stage == "deployed":
        project.move("distilling", reason)
    message = f"{reason}; rolled back to {back}"
    say(f"distill: {message}")
    return message


def _number(client: MlflowClient, name: str, digest: str) -> int | None:
    """The version that is the champion, if it is the student with this digest."""
    model = client.get_registered_model(name)
    number = model.aliases.get(champions.CHAMPION)
    if number is None:
        return None
    version = client.get_model_version(name, str(number))
    return int(number) if version.tags.get("checkpoint.digest") == digest else None


def _take_back(client: MlflowClient, name: str) -> str:
    """To the champion before, or to nobody: then the teacher answers."""
    try:
        return f"{name} {champions.rollback(client, name).champion}"
    except InputError:
        client.delete_registered_model_alias(name, champions.CHAMPION)
        return "the teacher: there is no earlier champion that is whole"


def register_student(
    config: ProjectConfig, night: Night, schooled: Schooled, made: Distilled, examined: Examined, tracker: Tracker
) -> Version | None:
    """A version of the registered model, passed or not; None while MLflow is away."""
    origin = Origin(
        profile=config.template,
        run=f"{config.project} night {night.workshop.number}",
        data_digest=schooled.version,
        gates_passed=examined.verdicts.decision == PROMOTE,
        flow_run_id=flow_run.get_id(),
        flow_run_url=flow_run.get_flow_run_ui_url(),
    )
    return register(tracker, config.agent, made.student, origin)


def settle(
    config: ProjectConfig,
    project: Project,
    opened: OpenNight,
    night: Night,
    faculty: Faculty,
    schooled: Schooled,
    made: Distilled,
    examined: Examined,
    version: Version | None,
    fingerprint: str,
) -> State[str]:
    """Promote or leave; close the night in the database, with its money and its part of the error rate."""
    verdicts, account = examined.verdicts, examined.account.assessment
    answers = next(one.kept for one in verdicts.criteria if one.name == "answers")
    report = str(night.workshop.night / "report.md")
    project.record_student(
        made.student.digest,
        opened.number,
        str(made.student.path),
        teachers=identities(faculty),
        retention=answers.ratio,
        saved_usd_per_month=account.saved_usd_per_month,
        break_even_day=account.break_even_day,
        report=report,
    )
    name, why = NAMES[verdicts.decision], "; ".join(verdicts.reasons)
    if verdicts.decision == PROMOTE:
        project.move("ready", why, report)
        name = "Promoted" if _promoted(config, project, made, version, why, report) else "Ready"
    elif project.champion is not None:
        project.move("deployed", why, report)
    else:
        project.move("distilling", why, report)
    spent = night.workshop.ledger.spent(opened.number)
    night.workshop.remember(fingerprint, name)
    opened.finish(
        verdict=verdicts.decision,
        data_version=schooled.version,
        alpha_spent=verdicts.alpha,
        usd=None if spent.unpriced else spent.usd,
        invested_usd=account.invested_usd,
        spending=verdicts.spending.as_json(),
        report=report,
    )
    say(f"distill: {name}: {why}")
    return Completed(name=name, message=why, data=str(night.workshop.night))


def _promoted(
    config: ProjectConfig, project: Project, made: Distilled, version: Version | None, why: str, report: str
) -> bool:
    """Make it the champion, here and in the registry; False where that is left to `forge promote`."""
    if not config.promote or version is None:
        return False
    with contextlib.suppress(ForgeError), existing(config.out) as client:
        if not version.promoted_before:
            champions.promote(client, version.name, version.number)
        project.promote(made.student.digest, why)
        project.move("deployed", why, report)
        say(f"{version.name} {version.number}: the champion now, {version.link}")
        return True
    say(f"{version.name} {version.number}: not promoted, MLflow is away; `forge promote {version.name}` does it later")
    return False
