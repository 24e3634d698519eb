"""How far a project is, and which steps there are.

evaluating → distilling → validating → ready → deployed → archived is the straight way. A night that gives no student
leads back (validating → distilling), or to where the champion still is (validating → deployed); the next night begins
from anywhere but an archive, and what is archived stays so.
"""

from typing import Literal, get_args

from phases.errors import InputError

Stage = Literal["evaluating", "distilling", "validating", "ready", "deployed", "archived"]
STAGES: tuple[Stage, ...] = get_args(Stage)
FIRST: Stage = "evaluating"
ALLOWED: dict[Stage, tuple[Stage, ...]] = {
    "evaluating": ("distilling", "archived"),
    "distilling": ("validating", "evaluating", "archived"),
    "validating": ("ready", "deployed", "distilling", "archived"),
    "ready": ("deployed", "distilling", "archived"),
    "deployed": ("distilling", "ready", "archived"),
    "archived": (),
}


def check_move(project: str, before: Stage, after: Stage) -> None:
    """Raises InputError for a step that there is not."""
    if after not in STAGES:
        raise InputError(f"project '{project}': there is no stage '{after}'; stages: {', '.join(STAGES)}")
    if after not in ALLOWED[before]:
        allowed = ", ".join(ALLOWED[before]) or "nothing: begin a new project"
        raise InputError(f"project '{project}' is {before} and cannot become {after}; it can become {allowed}")
