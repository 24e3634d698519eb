"""`prefect.yaml` and the form that Prefect's page makes of it: what a submitted form means is the shipped profile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object

from flows.distill_parameters import ProjectConfig, load_project
from flows.parameters import SEEDED, ForgeConfig, flatten, load_config
from flows.recommend_flow import RecommendConfig
from flows.site import POOL

DEPLOYMENTS = yaml.safe_load((Path(__file__).resolve().parents[2] / "prefect.yaml").read_text())["deployments"]
PROFILES = {"forge": "laptop", "forge-smoke": "smoke"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema that Prefect keeps for the flow's parameters."""
    return parameter_schema(import_object("flows.forge_flow.forge")).model_dump()


def resolved(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The schema of a property, a reference followed."""
    return schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def submitted(schema: dict[str, Any], part: dict[str, Any], given: Any) -> Any:
    """What Prefect's form sends: what is given, and in objects the schema's default of every property that is not."""
    properties = resolved(schema, part).get("properties")
    if properties is None or not isinstance(given, dict):
        return given
    filled = {key: given.get(key, value.get("default")) for key, value in properties.items()}
    return {key: submitted(schema, properties[key], value) for key, value in filled.items()} | {
        key: value for key, value in given.items() if key not in properties
    }


def named(name: str) -> dict[str, Any]:
    return next(deployment for deployment in DEPLOYMENTS if deployment["name"] == name)


@pytest.mark.parametrize("name", PROFILES)
def test_parameters_are_the_shipped_profile(name: str) -> None:
    given = named(name)["parameters"]["config"]
    assert ForgeConfig.parse(given, name) == load_config(PROFILES[name])


@pytest.mark.parametrize("name", PROFILES)
def test_submitted_form_is_the_shipped_profile(name: str, schema: dict[str, Any]) -> None:
    sent = submitted(schema, schema["properties"]["config"], named(name)["parameters"]["config"])
    assert "decay" in sent["cognate"]["branch"] and sent["data"]["seed"] is None
    assert ForgeConfig.parse(sent, name) == load_config(PROFILES[name])


def test_nightly_run_is_smoke_with_a_day_in_its_name() -> None:
    nightly = named("smoke-nightly")
    config = ForgeConfig.parse(nightly["parameters"]["config"], "nightly")
    assert config.model_copy(update={"dated": False, "reuse": True}) == load_config("smoke")
    assert config.dated and not config.reuse  # a check that takes last night's result checks nothing
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "slug": "nightly"}]


def test_what_is_planned_is_what_the_request_says() -> None:
    config = RecommendConfig.parse(named("recommend")["parameters"]["config"], "recommend")
    assert config == RecommendConfig() and config.request.traffic.users == 100


def test_a_night_is_the_shipped_template() -> None:
    for name in ("distill", "distill-nightly"):
        assert ProjectConfig.parse(named(name)["parameters"]["config"], name) == load_project("cost_saver")
    assert named("distill-nightly")["schedules"][0]["cron"] == "0 3 * * *"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_every_deployment(deployment: dict[str, Any]) -> None:
    flow = {"recommend": "recommend", "distill": "distill"}.get(deployment["name"].split("-")[0], "forge")
    assert "/" not in deployment["entrypoint"] and import_object(deployment["entrypoint"]).name == flow
    assert deployment["description"] and deployment["tags"][0] == "forge"
    assert deployment["work_pool"]["name"] == POOL
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema["definitions"].items()


@pytest.mark.parametrize("flow", ["forge_flow.forge", "recommend_flow.recommend", "distill_flow.distill"])
def test_every_setting_is_described(flow: str) -> None:
    schema = parameter_schema(import_object(f"flows.{flow}")).model_dump()
    silent = [
        f"{name}.{key}"
        for name, definition in objects(schema)
        for key, value in definition.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == [] and schema["properties"]["config"]["description"]


def test_choices_bounds_and_sections(schema: dict[str, Any]) -> None:
    config = schema["definitions"]["ForgeConfig"]
    assert config["additionalProperties"] is False
    assert config["properties"]["runner"]["enum"] == ["threads", "processes", "dask", "ray"]
    assert config["properties"]["chain"]["items"]["enum"] == [
        "cognate",
        "evomerge",
        "quiet_star",
        "bitnet",
        "forge",
        "baking",
        "adas",
        "compression",
    ]
    trunk = resolved(schema, schema["definitions"]["CognateConfig"]["properties"]["trunk"])
    assert trunk["properties"]["steps"]["minimum"] == 1 and trunk["properties"]["steps"]["default"] == 640
    optional = schema["definitions"]["CognateConfig"]["properties"]["shape"]
    assert optional["title"] == "Shape"  # the page shows a choice only between titled objects
    for section in SEEDED:
        properties = resolved(schema, config["properties"][section])["properties"]
        assert properties["seed"]["default"] is None and {"type": "null"} in properties["seed"]["anyOf"]


def test_schema_has_the_defaults_of_the_code(schema: dict[str, Any]) -> None:
    sent = submitted(schema, schema["properties"]["config"], {"seed": 0})
    assert ForgeConfig.parse(sent, "form") == ForgeConfig()
    assert flatten(sent)["cognate.branch.decay"] == 0.8
