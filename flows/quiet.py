"""Environment of the libraries, to be set before the first of them is imported: no telemetry, no chatter, sane limits.

Nothing that the user has set is changed.
"""

import contextlib
import logging
import os
import sys

ALWAYS = {
    # Nobody's usage is reported anywhere.
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A busy machine needs more than the 20 s that Prefect gives its temporary server.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # With the defaults a burst of short tasks before the exit loses its last rows; an interval of 0.5 s keeps the idle
    # server at 15–24 % of a core, 1 s at 1 %.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Our lines also stand in the run's log in the UI; lines outside a run go nowhere.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "forge",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # A dead tracking server would block one call for 248 s.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # A thread that waits for another spins for microseconds, then sleeps. libgomp's default spins for milliseconds:
    # with one other busy process on two cores, training was six times slower; alone it loses nothing this way.
    "GOMP_SPINCOUNT": "20000",
    # Its workers and forked processes get into each other's way.
    "TOKENIZERS_PARALLELISM": "false",
}
UNLESS_VERBOSE = {
    # The terminal gets our own lines; everything still goes to Prefect's API.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # transformers would draw a bar for every checkpoint that it opens or writes.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def settle_environment(verbose: bool = False) -> None:
    """Set what the user has not set."""
    for name, value in (ALWAYS if verbose else ALWAYS | UNLESS_VERBOSE).items():
        os.environ.setdefault(name, value)


class _Said(logging.Handler):
    """Log records as plain lines on whatever stderr is by then; a bar that stands there is moved down."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # whoever logs here has it; `forge doctor` may not

        with contextlib.suppress(BrokenPipeError):
            tqdm.write(record.getMessage(), file=sys.stderr)


def show_choices() -> None:
    """Show what packed models log: which kernel runs, and why it is not a faster one."""
    log = logging.getLogger("phases.packed")
    if not log.handlers:
        log.addHandler(_Said())
        log.setLevel(logging.INFO)
