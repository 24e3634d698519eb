"""Whether a night's time is up: asked between the parts of long work, which then ends with what it has."""

from collections.abc import Callable

from phases.errors import InputError

Over = Callable[[], str | None]
"""Why there is no more time, in one line; None: there is."""


def never() -> None:
    """No limit."""


def ends_before(step: str, over: Over) -> None:
    """Raises `InputError` where no time is left for `step`: the night ends, and can be taken up again."""
    why = over()
    if why is not None:
        raise InputError(f"{why}, so the night ends before {step}; all is kept: raise budget.seconds, run it again")
