"""`ApprovalConfig`: the optional human gate before promotion. Read by `flows.approval`."""

from pydantic import Field

from phases.strict import StrictModel


class ApprovalConfig(StrictModel):
    """A person's decision before the finished agent becomes the champion."""

    required: bool = False
    """Suspend the run when its gates have passed, until somebody approves or rejects it in the Prefect UI."""
    hours: float = Field(72.0, gt=0, le=8760)
    """How long to wait for the decision; after that the run fails and nothing is promoted."""
