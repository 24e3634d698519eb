"""The pages themselves in headless Chromium: form, run, report, decision, MLflow; and the pictures of the README.

make browser     # installs Debian's Chromium where it is missing, runs this, puts the pictures into docs/images
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect, sync_playwright

from flows.parameters import ForgeConfig, load_config

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
WAIT_MS = 60_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; `make browser` installs Debian's"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def picture(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Takes a picture when the page has come to rest; into FORGE_PICTURES, else into a temporary folder."""
    folder = Path(os.environ.get("FORGE_PICTURES") or tmp_path_factory.mktemp("pictures"))

    def take(name: str) -> None:
        page.wait_for_timeout(2500)  # charts are drawn and spinners gone; nothing on the pages says when
        page.screenshot(path=folder / f"{name}.png")

    return take


def submit(servers: Any, page: Page, deployment: str, fill: Callable[[], None]) -> dict[str, Any]:
    """Fill in a deployment's form and send it; the run as the server answered."""
    page.goto(f"{servers.url}/deployments/deployment/{servers.deployment(deployment)['id']}/run")
    expect(page.get_by_text("Name of the run and of its folder; the same name again resumes it.")).to_be_visible()
    fill()
    with page.expect_response(lambda answer: "create_flow_run" in answer.url) as sent:
        page.get_by_role("button", name="Submit").click()
    answer: Response = sent.value
    assert answer.status == 201, answer.text()
    run: dict[str, Any] = answer.json()
    return run


def test_form_run_report_and_model(servers: Any, page: Page, picture: Callable[[str], None]) -> None:
    run = submit(servers, page, "forge-smoke", lambda: picture("prefect-form"))
    sent = ForgeConfig.parse(run["parameters"]["config"], "form")
    assert sent == load_config("smoke")  # what the page fills in is what the profile says
    page.goto(f"{servers.url}/runs/flow-run/{run['id']}")
    assert servers.wait(run["id"])["state_name"] == "RolledBack"
    page.reload()
    page.get_by_text("Task Runs", exact=True).first.click()
    for name in ("cognate", "evomerge gate", "promote"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    page.get_by_text("Logs", exact=True).first.click()
    expect(page.get_by_text("cognate: passed 8 gates").first).to_be_visible()
    picture("prefect-run")

    shown = {artifact["key"]: artifact for artifact in servers.call("POST", "/artifacts/filter", {})}
    page.goto(f"{servers.url}/artifacts/artifact/{shown['report']['id']}")
    expect(page.get_by_role("heading", name="smoke").first).to_be_visible()
    picture("prefect-report")

    page_of_run = f"{servers.url}/flow-runs/flow-run/{run['id']}"
    page.goto(shown["mlflow"]["data"].partition("](")[2].rstrip(")"))
    expect(page.get_by_text("Registered models").first).to_be_visible()
    expect(page.get_by_role("link", name="Prefect flow run")).to_have_attribute("href", page_of_run)
    page.get_by_role("link", name="cognate", exact=True).first.click()
    page.get_by_text("Model metrics", exact=True).first.click()
    expect(page.get_by_text("gradient_norm").first).to_be_visible()
    picture("mlflow-curves")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("matrix.png").first.click()
    picture("mlflow-matrix")

    page.goto(shown["model"]["data"].partition("](")[2].rstrip(")"))
    expect(page.get_by_text("@ champion").first).to_be_visible()
    expect(page.get_by_role("link", name=run["id"])).to_have_attribute("href", page_of_run)
    picture("mlflow-model")


def test_approval_on_the_page(servers: Any, page: Page, picture: Callable[[str], None]) -> None:
    run = servers.create("forge-smoke", chain=["cognate"], run="asked", agent="asked", approval={"required": True})
    servers.wait(run, {"PAUSED", "FAILED", "CRASHED", "COMPLETED"})
    page.goto(f"{servers.url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Promote the agent of run asked").first).to_be_visible()
    picture("prefect-approval")
    choice = page.locator(".p-select-button__control").last
    choice.focus()
    choice.press("ArrowDown")  # opens it
    page.locator(".p-select-option", has_text="approve").click()
    page.get_by_text("Why; kept with the agent's version.").locator("xpath=following::textarea[1]").fill("looks right")
    page.get_by_role("button", name="Submit").click()
    servers.until(lambda: servers.run(run)["state_name"] != "Suspended", 30)
    assert servers.wait(run)["state_name"] == "Completed"
    approval = json.loads((servers.runs / "asked" / "approval.json").read_text())
    assert (approval["decision"], approval["comment"]) == ("approve", "looks right")
