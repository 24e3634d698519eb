"""Webhooks: the Prefect server posts JSON when a run fails or crashes, or a gate is not met.

    FORGE_WEBHOOK_URL=https://hooks.example/token python -m flows.notifications     # --remove: no more of them

The server posts, not the flow, so the message of a crash comes although its process is gone. The address may hold a
token: it lives in an encrypted block on the server and is never printed. docs/notifications.md has the fields.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.events import emit_event
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import PREFECT_UI_URL
from prefect.types import SecretDict
from prefect.utilities.urls import url_for
from pydantic import SecretStr

from flows.automations import TAGGED, keep, remove, server
from phases.errors import ForgeError, InputError

if TYPE_CHECKING:
    from phases.phase import OnFail

BLOCK = "forge-webhook"
GATE_EVENT = "forge.gate.failed"
URL_VARIABLE = "FORGE_WEBHOOK_URL"
LONGEST_MESSAGE = 1000
"""Characters of a state's message that are sent on; chat services refuse long ones."""

RULES = {
    "run failed": "forge: tell of failed runs",
    "run crashed": "forge: tell of crashed runs",
    "gate failed": "forge: tell of failed gates",
}
"""What happened, and the name of the automation that tells of it."""


def notify(url: str | None, api_url: str | None = None) -> None:
    """Have the server (at `api_url`, else PREFECT_API_URL) post to `url` from now on; None stops it.

    Raises `InputError` for an address that is none, and when there is no server.
    """
    if url is not None:
        check_address(url)
    with server(api_url) as client:
        if url is None:
            for name in RULES.values():
                remove(client, name)
            _remove_block()
            return
        block, pages = _keep_block(url), PREFECT_UI_URL.value() or ""
        for what, name in RULES.items():
            action = CallWebhook(block_document_id=block, payload=payload_template(what, pages))
            keep(client, AutomationCore(name=name, trigger=trigger(what), actions=[action]))


def trigger(what: str) -> EventTrigger:
    """Which events mean that it happened.

    Runs by the type of their state, because its name may be any. A run that ends because of a gate is told of once,
    by the gate.
    """
    if what == "gate failed":
        match = {"prefect.resource.id": "forge.run.*"}
        return EventTrigger(posture=Posture.Reactive, expect={GATE_EVENT}, match=ResourceSpecification(match))
    state = {"prefect.state-type": what.removeprefix("run ").upper(), "prefect.state-name": "!GateFailed"}
    return EventTrigger(
        posture=Posture.Reactive,
        expect={"prefect.flow-run.*"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*", **state}),
        match_related=ResourceSpecification(TAGGED),
    )


def announce_failed_gate(run: str, phase: str, gates: str, policy: "OnFail", flow_run_id: str | UUID | None) -> None:
    """Tell the server that a phase did not meet its gates; whoever subscribed hears of it.

    `gates` says which and by how much, for people. Never raises: the run is worth more than the message.
    """
    try:
        page = url_for("flow-run", obj_id=flow_run_id) if flow_run_id else None
        related = [{"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}]
        emit_event(
            GATE_EVENT,
            resource={"prefect.resource.id": f"forge.run.{run}", "prefect.resource.name": run},
            related=related if flow_run_id else [],
            payload={"run": run, "phase": phase, "gates": gates, "policy": policy, "url": page},
        )
    except Exception:  # a server that is gone, a payload that is too large
        logging.getLogger(__name__).warning("a failed gate could not be announced", exc_info=True)


def check_address(url: str) -> None:
    """Raise `InputError`, which does not show it, for what cannot be posted to."""
    if not _is_address(url):
        raise InputError("webhook: not an http:// or https:// address; give the whole address that the service shows")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in url)
    except ValueError:  # whose text would show the address
        return False


def _keep_block(url: str) -> UUID:
    headers = SecretDict({"Content-Type": "application/json"})
    saved = Webhook(method="POST", url=SecretStr(url), headers=headers).save(BLOCK, overwrite=True)
    assert isinstance(saved, UUID)  # a coroutine in an event loop, where nobody may call this
    return saved


def _remove_block() -> None:
    with contextlib.suppress(ValueError):  # there is none
        Webhook.delete(BLOCK)


def payload_template(what: str, pages: str) -> str:
    """The Jinja template of the JSON that is posted; `pages` is where Prefect's pages are.

    Every field is there every time, null when unknown. `text` says it in one line: Slack and Mattermost show it.
    """
    fields = {"what": f"'{what}'", **(_OF_A_GATE if what == "gate failed" else _of_a_run(pages))}
    name = f"({fields['run']}) | default({fields['flow_run']}, true)"
    fields["text"] = f"'{what}: ' ~ ({name}) ~ ': ' ~ ({fields['message']})"
    lines = [f'"{field}": {{{{ ({value}) | default(none) | tojson }}}}' for field, value in fields.items()]
    return "{" + ", ".join(lines) + "}"


# Jinja expressions over the event that set the rule off, and over its run, which the server looks up.
_OF_A_GATE = {
    "run": "event.payload.run",
    "flow_run": "flow_run.name",
    "state": "flow_run.state.name",
    "message": "event.payload.phase ~ ': gates not met: ' ~ event.payload.gates ~ '; ' ~ event.payload.policy",
    "phase": "event.payload.phase",
    "gates": "event.payload.gates",
    "policy": "event.payload.policy",
    "url": "event.payload.url",
    "time": "event.occurred.isoformat()",
}


def _of_a_run(pages: str) -> dict[str, str]:
    page = json.dumps(f"{pages.rstrip('/')}/runs/flow-run/")
    return {
        **dict.fromkeys(_OF_A_GATE, "none"),
        "run": "flow_run.parameters.config.run",
        "flow_run": "event.resource.get('prefect.resource.name')",
        "state": "event.resource.get('prefect.state-name')",
        "message": f"(event.resource.get('prefect.state-message') or '') | truncate({LONGEST_MESSAGE})",
        "url": f"{page} ~ (event.resource.id | replace('prefect.flow-run.', ''))",
        "time": "event.occurred.isoformat()",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up or remove the webhooks; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.notifications", description=notify.__doc__)
    parser.add_argument("--remove", action="store_true", help=f"post no more; else {URL_VARIABLE} has the address")
    removing = parser.parse_args(arguments).remove
    url = None if removing else os.environ.get(URL_VARIABLE)
    try:
        if url is None and not removing:
            raise InputError(f"{URL_VARIABLE}: not set; set it to the address to post to, or give --remove")
        notify(url)
    except ForgeError as error:
        print(f"forge: {error}", file=sys.stderr)
        return error.exit_code
    print("no more webhooks" if url is None else "webhooks: on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
