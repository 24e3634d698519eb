"""Whether a night's time is up: asked between the parts of long work, which then ends with what it has."""

from collections.abc import Callable

Over = Callable[[], str | None]
"""Why there is no more time, in one line; None: there is."""


def never() -> None:
    """No limit."""
