"""The watchdog: the Prefect server marks a run Crashed when its heartbeats stop.

    PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 prefect worker start …      # and once, with the server up: watch()

A worker notices that the process of its run died. When the worker died too (a power cut, the out-of-memory killer),
the run would stay Running for good, and a deployment with one slot would never run again. This is Prefect's documented
automation (docs.prefect.io, "Detect zombie flows") with two differences: it is scoped to our runs, and it knows the
states in which a run that is well has no process: a suspended run waits for its approval without a heartbeat.
"""

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.automations import TAGGED, keep, remove, server

NAME = "forge: crash runs without a heartbeat"
HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 30
"""What PREFECT_FLOWS_HEARTBEAT_FREQUENCY must be for the flows; Prefect takes no less."""
WINDOW_SECONDS = 90
"""Three heartbeats: one may be lost, and one late."""
ENDS = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "RolledBack", "Rejected", "GateFailed")
"""Final states by name, because events are called so: Prefect's and our own (`flows.states`). One that is missing here
does no harm: the server refuses to crash a run that has ended."""
WAITING = ("Suspended",)
"""States of a run that lives on without a process."""


def watch(window_seconds: float = WINDOW_SECONDS, api_url: str | None = None) -> None:
    """Have the server crash any run of ours that sends no heartbeat for so long; at least 10 s.

    Raises `InputError` when there is no server.
    """
    with server(api_url) as client:
        keep(client, rule(window_seconds))


def unwatch(api_url: str | None = None) -> None:
    """Take the watchdog away. Raises `InputError` when there is no server."""
    with server(api_url) as client:
        remove(client, NAME)


def rule(window_seconds: float) -> AutomationCore:
    """The automation: after a heartbeat, the next one or an end is expected within the window."""
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in (*ENDS, *WAITING))},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(TAGGED),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(seconds=window_seconds),
    )
    message = f"No heartbeat for {window_seconds:g} s: the process and its worker are gone"
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    description = "Marks a run Crashed when its process and its worker died."
    return AutomationCore(name=NAME, description=description, trigger=trigger, actions=[action])
