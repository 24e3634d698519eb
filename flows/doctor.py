"""`forge doctor`: what is installed, what the machine is like, what may be wrong, and the command that mends it.

    forge doctor [--out DIR] [--online] [--deep] [--json]

One line a finding: ok, warning or wrong. Exit code 2 when something is wrong. It changes nothing, asks no network
unless told to, takes a few seconds (importing Prefect's server in a process of its own is most of it), and works in a
broken installation: a check that cannot be made is itself a finding.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.checkup import install, machine, runs, services
from flows.checkup.finding import INSTALL, Finding, Scope, wrong

Check = Callable[[Scope], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *(install.python, install.packages, install.prefect_server, install.devices, install.extras, install.commit),
    *(machine.cores, machine.memory, machine.disk, machine.ports),
    *(services.prefect, services.mlflow, services.hub),
    *(runs.database, runs.leftovers, runs.checkpoints),
)
WRONG = 2


def doctor(arguments: argparse.Namespace) -> int:
    """Look at everything and print what was found; the exit code."""
    began = time.monotonic()
    findings = examine(Scope(out=arguments.out or Path("checkpoints"), online=arguments.online, deep=arguments.deep))
    levels = [finding.level for finding in findings]
    counts = {"wrong": levels.count("wrong"), "warnings": levels.count("warning")}
    seconds = round(time.monotonic() - began, 1)
    if arguments.json:
        said = {**counts, "seconds": seconds, "findings": [vars(finding) for finding in findings]}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print("\n".join(map(str, findings)))
        print(f"{counts['wrong']} wrong, {counts['warnings']} warnings, {seconds} s", file=sys.stderr)
    return WRONG if "wrong" in levels else 0


def examine(scope: Scope, checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """The findings of every check, in order. Never raises."""
    # Two of them wait for an interpreter that imports for seconds, some for a server that does not answer.
    with ThreadPoolExecutor(4) as pool:
        return [finding for found in pool.map(lambda check: _attempt(check, scope), checks) for finding in found]


def _attempt(check: Check, scope: Scope) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(scope))
    except Exception as error:  # whatever is broken here, the other checks are worth having
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        mend = INSTALL if isinstance(error, ImportError) else None
        found.append(wrong(check.__name__, f"could not be checked ({reason})", mend))
    return found
