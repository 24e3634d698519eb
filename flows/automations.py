"""Automations of the Prefect server, kept by name: rules that it follows by itself, whatever has become of the flow.

They live in the server's database, so they outlast every process; `keep` may be called as often as one likes. What
they react to is scoped to runs with the tag `forge`: a rule that watches every run of a busy server locks its sqlite.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from phases.errors import InputError

TAG = "forge"
"""Tag of our deployments and runs; a run outside every deployment gets it from `prefect.tags`."""
TAGGED = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
"""`match_related` of a trigger for the events of our runs."""


@contextlib.contextmanager
def server(api_url: str | None = None) -> Iterator[SyncPrefectClient]:
    """A client of the server at `api_url`, else of the one that `PREFECT_API_URL` names. Not for use in an event loop.

    Raises `InputError` when none is named or it does not answer: a rule in a temporary server would die with it.
    """
    if (api_url := api_url or PREFECT_API_URL.value()) is None:
        raise InputError("PREFECT_API_URL: not set; start `prefect server start` and set it to http://HOST:4200/api")
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            yield client
    except PrefectHTTPStatusError as error:
        raise InputError(f"Prefect: its server refused ({error.response.status_code}); {_MEND}") from None
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        raise InputError(f"Prefect: no server answers at {api_url}; {_MEND}") from None


_MEND = "start `prefect server start`, or mend PREFECT_API_URL"


def keep(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create the automation, or bring the one of its name up to date; one of each name stays.

    One that is as wanted is left alone: an update gives its trigger a new identity, and the server forgets which
    runs it was waiting for.
    """
    found = client.read_automations_by_name(wanted.name)
    for spare in found[1:]:
        client.delete_automation(spare.id)
    if not found:
        client.create_automation(wanted)
    elif _content(found[0]) != _content(wanted):
        client.update_automation(found[0].id, wanted)


def remove(client: SyncPrefectClient, name: str) -> None:
    """Delete every automation of this name."""
    for found in client.read_automations_by_name(name):
        client.delete_automation(found.id)


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    fields = {"name", "description", "enabled", "trigger", "actions"}
    content: dict[str, Any] = automation.model_dump(include=fields)
    return content
