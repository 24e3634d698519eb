"""What gates and runs end in, as Prefect states whose names say it: the UI's colours and filters go by them.

gate   Passed | RolledBack | RetryNextSeed | GateFailed
run    Completed | RolledBack | Rejected, and GateFailed when the chain was stopped
"""

from collections.abc import Sequence
from pathlib import Path

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.approval import Approval
from flows.gating import Outcome
from flows.summary import failed_gates


def gate_state(outcome: Outcome, retry: bool) -> State[Outcome]:
    """The state of a gate's task; its data is the outcome. `retry`: a failure is followed by another seed."""
    if outcome.status == "passed":
        return Completed(name="Passed", message=f"{len(outcome.judgement.gates)} gates", data=outcome)
    missed = f"gates not met: {failed_gates(outcome.judgement)}"
    if outcome.kept is not None:
        message = f"rolled back to {outcome.kept.path}; {missed}"
        return Completed(name="RolledBack", message=message, data=outcome)
    return Failed(name="RetryNextSeed" if retry else "GateFailed", message=missed, data=outcome)


def run_state(folder: Path, outcomes: Sequence[Outcome], approval: Approval | None) -> State[str]:
    """The state of a whole run; its data is the run's folder."""
    if approval is not None and approval.decision == "reject":
        return Completed(name="Rejected", message=f"not promoted: {approval.comment or 'no comment'}", data=str(folder))
    rolled_back = [outcome.stage.phase.name for outcome in outcomes if outcome.status == "rolled_back"]
    if rolled_back:
        message = f"{', '.join(rolled_back)} rolled back; what was before it stays"
        return Completed(name="RolledBack", message=message, data=str(folder))
    return Completed(data=str(folder))
