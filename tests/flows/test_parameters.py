"""Profiles, files and `--set`: what they give, and the one line that a mistake gets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.chain import CHAIN, find_phase, summaries
from flows.parameters import ForgeConfig, flatten, load_config, profiles
from phases.errors import ConfigError


@pytest.mark.parametrize("name", ["smoke", "laptop", "full"])
def test_shipped_profile_is_valid(name: str) -> None:
    config = load_config(name)
    assert (config.profile, config.run, config.chain) == (name, name, CHAIN)


def test_every_shipped_file_is_tested() -> None:
    assert set(profiles()) == {"smoke", "laptop", "full"}


@pytest.mark.parametrize("path", profiles().values(), ids=lambda path: path.stem)
def test_yaml_holds_only_differences(path: Path) -> None:
    default = flatten(ForgeConfig().model_dump(mode="json"))
    same = {k: v for k, v in flatten(yaml.safe_load(path.read_text())).items() if default.get(k) == v}
    assert same == {}


def test_full_has_the_sizes_of_the_requirements() -> None:
    config = load_config("full")
    assert config.data.vocabulary == 32_000 and config.cognate.preset == "25m"
    assert (config.evomerge.generations, config.evomerge.population) == (50, 8)


def test_one_setting_leaves_its_neighbours_alone() -> None:
    before, after = load_config().cognate.branch, load_config(sets=["cognate.branch.steps=7"]).cognate.branch
    assert after == before.model_copy(update={"steps": 7})


def test_seed_reaches_every_section_that_has_none_of_its_own() -> None:
    config = load_config(sets=["seed=5", "cognate.seed=1"])
    phases = [config.section(name).seed for name in CHAIN]
    assert (config.seed, config.data.seed, phases, config.evaluation.seed) == (5, 5, [1, *[5] * (len(CHAIN) - 1)], 5)


def test_seed_reaches_sections_that_are_models() -> None:
    sections: dict[str, Any] = {"evomerge": ForgeConfig().evomerge.model_copy()}
    assert ForgeConfig(seed=3, **sections).evomerge.seed == 3


def test_own_file_names_the_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\ncognate: {trunk: {steps: 9}}\n")
    config = load_config(file=path)
    assert (config.profile, config.run, config.seed, config.cognate.trunk.steps) == ("mine", "mine", 4, 9)


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "laptop.yaml"
    path.write_text("")
    assert load_config(file=path).model_copy(update={"profile": "laptop"}) == ForgeConfig()


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("cognate.trunk.stepz=3", "unknown key 'cognate.trunk.stepz'.*allowed here: .*steps"),
        ("colour=red", "unknown key 'colour'.*allowed here: adas, agent, approval, baking, bitnet, chain, cognate"),
        ("cognate.trunk.steps=many", "'cognate.trunk.steps' = 'many'.*valid integer"),
        ("cognate.trunk.steps=0", "'cognate.trunk.steps' = 0.*greater than or equal to 1"),
        ("runner=spark", "'runner' = 'spark'.*'threads', 'processes', 'dask' or 'ray'"),
        ("run=../elsewhere", "'run' = '../elsewhere'"),
        (
            "chain=[evomerge, cognate]",
            "'chain'.*in order: cognate, evomerge, .*, baking, adas, compression",
        ),
        ("chain=[]", "'chain'.*in order: cognate, evomerge, .*, baking, adas, compression"),
        ("seed", "write it as key.key=value"),
        ("seed.x=1", "'seed' has no keys of its own"),
        ("seed=[1", "not valid YAML"),
        ("run.x=1", "'run' has no keys of its own"),
    ],
)
def test_wrong_setting_is_one_line(setting: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted) as caught:
        load_config(sets=[setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a: [", "not valid YAML"),
        (b"- 1\n- 2\n", "holds a list, not settings"),
        (b"\xff\xfe", "not UTF-8"),
        (b"data: {vocabulary: 5}", "'data.vocabulary' = 5"),
    ],
)
def test_wrong_file_is_one_line(content: bytes, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=wanted) as caught:
        load_config(file=path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_file_and_unknown_profile() -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: no such file"):
        load_config(file=Path("nowhere.yaml"))
    with pytest.raises(ConfigError, match="profile 'big': unknown; choose from full, laptop, smoke"):
        load_config("big")


def test_form_of_the_user_interface_has_every_description() -> None:
    schema = ForgeConfig.model_json_schema()
    undescribed = [key for key, value in schema["properties"].items() if "description" not in value]
    assert undescribed == []


def test_summaries_agree_with_the_phases() -> None:
    assert summaries() == {name: find_phase(name).summary for name in CHAIN}


def test_unknown_phase_lists_the_known() -> None:
    with pytest.raises(
        ConfigError,
        match="phase 'bake': unknown; choose from cognate, evomerge, .*, baking, adas, compression",
    ):
        find_phase("bake")
