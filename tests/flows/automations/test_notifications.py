"""Webhooks: what is posted when, and what is not."""

import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow, tags
from prefect.events.actions import CallWebhook
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import notifications, watchdog
from flows.automations import server
from flows.notifications import RULES, announce_failed_gate, main, notify, payload_template
from phases.errors import InputError

FIELDS = {"what", "run", "flow_run", "state", "message", "phase", "gates", "policy", "url", "time", "text"}


@pytest.mark.parametrize(
    "url", ["", "hooks.example/T0KEN", "ftp://x/T0KEN", "http://", "http://[T0KEN", "http://a b/T0KEN"]
)
def test_what_is_no_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InputError, match="webhook: not an http:// or https:// address") as caught:
        notify(url)
    assert "T0KEN" not in str(caught.value)


def test_without_a_server_the_user_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORGE_WEBHOOK_URL", "http://hooks.example/T0KEN")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main([]) == 2
    assert "no server answers at http://127.0.0.1" in (said := capsys.readouterr().err) and "T0KEN" not in said
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main([]) == 2
    assert "PREFECT_API_URL: not set" in capsys.readouterr().err
    monkeypatch.delenv("FORGE_WEBHOOK_URL")
    assert main([]) == 2 and "FORGE_WEBHOOK_URL: not set" in capsys.readouterr().err


def test_announcing_never_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("Failed to reach API")

    monkeypatch.setattr(notifications, "emit_event", refuses)
    announce_failed_gate("smoke", "cognate", "margin 0.1 < 0.2", "rollback", uuid4())
    announce_failed_gate("smoke", "cognate", "margin 0.1 < 0.2", "rollback", None)


@pytest.mark.parametrize("what", RULES)
def test_templates_are_accepted_and_ask_for_every_field(what: str) -> None:
    template = payload_template(what, "http://127.0.0.1:4200/")
    CallWebhook(block_document_id=uuid4(), payload=template)
    assert all(f'"{name}": {{{{' in template for name in FIELDS)


@pytest.mark.usefixtures("prefect_server")
def test_a_failed_run_posts_once_and_removing_ends_it(receiver: Any) -> None:
    @flow
    def fails(config: dict[str, str]) -> None:
        raise ValueError("as it should")

    notify(receiver.url)
    notify(receiver.url)
    with tags("forge"):
        fails({"run": "smoke"}, return_state=True)
    fails({"run": "not ours"}, return_state=True)
    deadline = time.monotonic() + 30
    while not receiver.posts and time.monotonic() < deadline:
        time.sleep(0.1)
    notify(None)
    notify(None)
    with server() as client:
        assert not [found.name for found in client.read_automations() if found.name in RULES.values()]
    time.sleep(1)
    assert [(post["what"], post["run"]) for post in receiver.posts] == [("run failed", "smoke")]


@pytest.mark.slow
def test_one_of_each_however_often(site: Any, receiver: Any) -> None:
    def automations() -> dict[str, tuple[str, str]]:
        found = httpx.post(f"{site.api}/automations/filter", json={}).json()
        return {rule["name"]: (rule["id"], rule["updated"]) for rule in found}

    notify("http://hooks.example/older", site.api)
    watchdog.watch(60, site.api)
    before = automations()
    notify(receiver.url, site.api)
    watchdog.watch(60, site.api)
    assert automations() == before and set(before) == {*RULES.values(), watchdog.NAME}
    notify(None, site.api)
    watchdog.unwatch(site.api)
    assert automations() == {}
    with site.client() as client:
        assert client.read_block_documents() == []


@pytest.mark.slow
def test_each_thing_that_goes_wrong_is_posted_once(site: Any, receiver: Any) -> None:
    notify(receiver.url, site.api)
    site.run("completes,fails,times_out,misses", "forge")
    site.run("fails")  # somebody else's
    site.wait_for(lambda: len(receiver.posts) >= 3, 30)
    time.sleep(3)
    notify(None, site.api)
    assert sorted((post["what"], post["run"]) for post in receiver.posts) == [
        ("gate failed", "misses"),
        ("run failed", "fails"),
        ("run failed", "times_out"),
    ]
    assert all(post.keys() == FIELDS for post in receiver.posts)
    failed = next(post for post in receiver.posts if post["run"] == "fails")
    assert 'no <such> "thing"\nas this' in failed["message"] and failed["text"].startswith("run failed: fails: ")
    assert failed["state"] == "Failed" and failed["flow_run"] and failed["time"].endswith("+00:00")
    assert failed["url"].startswith(site.api.removesuffix("api") + "runs/flow-run/")
    (missed,) = receiver.about("gate failed")
    assert (missed["phase"], missed["gates"], missed["policy"]) == ("cognate", "margin 0.1 < 0.2", "stop")
    assert missed["url"].startswith(site.api.removesuffix("api") + "runs/flow-run/")
    actions = {"filter": {"event": {"prefix": ["prefect.automation."]}}}
    events = httpx.post(f"{site.api}/events/filter", json=actions).raise_for_status().text
    assert "call-webhook" in events and receiver.token not in events
    assert receiver.token not in (site.folder / "server.log").read_text()
