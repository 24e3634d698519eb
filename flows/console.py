"""What a run says while it works: plain lines on stderr, which stay whole between progress bars.

Inside a run they also go to the log that Prefect's page shows (PREFECT_LOGGING_EXTRA_LOGGERS in `flows.quiet`).
"""

import contextlib
import logging
import sys

from tqdm import tqdm

LOGGER = logging.getLogger("forge")
LOGGER.setLevel(logging.INFO)


def say(line: str) -> None:
    """Print one line of progress to stderr, and log it."""
    LOGGER.info(line)
    with contextlib.suppress(BrokenPipeError):  # whoever read it (a worker) was killed: the work goes on
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """`0.4 s`, `93 s`, `12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
