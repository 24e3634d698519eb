"""The human gate: a run whose gates have passed waits, suspended, until somebody decides about its agent in the UI.

A suspended run has no process and holds no lock. Its form is `Decision`; when it is submitted the worker runs the flow
again, which skips everything that is done and comes back here with the answer. The decision is kept in
`<run>/approval.json` under the agent's digest: nobody is asked twice about the same agent.
"""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.approval_config import ApprovalConfig
from phases.errors import InputError
from phases.storage import write_json
from phases.strict import StrictModel

FILE = "approval.json"


class Decision(RunInput):
    """What is asked."""

    decision: Literal["approve", "reject"] = Field(description="Approve: the agent becomes the champion.")
    comment: str = Field("", description="Why; kept with the agent's version.")


class Approval(StrictModel):
    """A decision about one agent."""

    digest: str
    """Of the agent's checkpoint."""
    decision: Literal["approve", "reject"]
    comment: str
    at: str
    """ISO 8601 with time zone."""


def decide(config: ApprovalConfig, folder: Path, digest: str, summary: str) -> Approval | None:
    """The decision about an agent; None when none is required. Suspends the run when nobody has decided yet.

    `summary` is Markdown that stands over the form.
    """
    if not config.required:
        return None
    known = _read(folder / FILE, digest)
    if known is not None:
        return known
    form = Decision.with_initial_data(description=summary)
    answer = suspend_flow_run(wait_for_input=form, timeout=round(config.hours * 3600), key=f"approval-{digest[:16]}")
    at = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    approval = Approval(digest=digest, decision=answer.decision, comment=answer.comment, at=at)
    write_json(folder / FILE, approval.model_dump())
    return approval


def check_approval(config: ApprovalConfig) -> None:
    """Raise `InputError` when a decision is required of a run that cannot wait: one that no worker would run again."""
    if config.required and not deployment.id:
        raise InputError(
            "approval.required: only a run of a deployment can wait; start it in the UI that `forge up` opens"
        )


def _read(path: Path, digest: str) -> Approval | None:
    with contextlib.suppress(OSError, ValueError):
        approval = Approval.model_validate(json.loads(path.read_text(encoding="utf-8")))
        return approval if approval.digest == digest else None
    return None
