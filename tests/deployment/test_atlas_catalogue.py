"""The shipped catalogue: its form, what it holds, how quickly it is read, and how it is asked."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deployment.atlas import catalogue, importing, own
from deployment.atlas.storing import as_json, from_json
from phases.errors import InputError
from tests.deployment.goldens_contexts import CONTEXTS

CONTENT: dict[str, Any] = json.loads(catalogue.FILE.read_text())
SCHEMA = json.loads(catalogue.FILE.with_name("models.schema.json").read_text())


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "atlas.json"))


def test_it_has_the_form_of_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(CONTENT, SCHEMA)


def test_the_schema_refuses_a_field_that_it_does_not_know() -> None:
    wrong = {**CONTENT["models"][0], "tensor_parallel": 8}
    with pytest.raises(jsonschema.ValidationError, match="tensor_parallel"):
        jsonschema.validate({"version": 1, "models": [wrong]}, SCHEMA)


def test_it_reads_back_as_it_was_written() -> None:
    for data in CONTENT["models"]:
        assert as_json(from_json(data)) == data


def test_it_is_large_enough_and_every_model_says_where_from() -> None:
    models = catalogue.shipped()
    assert len({(model.family, model.parameters) for model in models}) >= 60
    assert len({model.name for model in models}) == len(models) >= 120
    for model in models:
        assert model.tasks and model.source and model.context > 0, model.name
        assert all(0 < score.score <= 100 and score.source.startswith("https://") for score in model.quality)


def test_it_is_read_within_thirty_milliseconds() -> None:
    def once() -> float:
        catalogue.shipped.cache_clear()
        start = time.process_time()
        catalogue.shipped()
        return time.process_time() - start

    assert min(once() for _ in range(5)) < 0.03


def test_asking_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from deployment.atlas import catalogue; catalogue.models();"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'huggingface_hub', 'pandas') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("name", ["Qwen/Qwen3-32B", "qwen/qwen3-32b", "qwen3-32b", " Qwen3-32B "])
def test_a_model_by_its_name(name: str) -> None:
    assert catalogue.model(name).name == "Qwen/Qwen3-32B"


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'Qwen/Qwen3-33B' is not in the atlas; near it: Qwen/Qwen3-32B"):
        catalogue.model("Qwen/Qwen3-33B")


def test_a_name_that_several_have_has_to_be_given_in_full(tmp_path: Path) -> None:
    from dataclasses import replace

    own.keep(replace(catalogue.model("Qwen/Qwen3-8B"), name="me/Qwen3-8B"))
    with pytest.raises(InputError, match="several are called so: me/Qwen3-8B, Qwen/Qwen3-8B"):
        catalogue.model("qwen3-8b")


def test_filters_apply_together() -> None:
    found = catalogue.select(
        catalogue.models(), task="code", licence="permissive", max_parameters=40e9, min_context=200_000
    )
    assert "Qwen/Qwen3.5-27B" in {model.name for model in found}
    for model in found:
        assert "code" in model.tasks and model.licence in catalogue.PERMISSIVE
        assert model.parameters <= 40e9 and model.context >= 200_000
    assert {model.family for model in catalogue.select(catalogue.models(), family="gpt_oss")} == {"gpt_oss"}
    assert catalogue.select(catalogue.models()) == catalogue.models()


@pytest.mark.parametrize("filters", [{"task": "poetry"}, {"licence": "wtfpl"}, {"family": "gpt5"}])
def test_a_filter_that_nothing_has_says_what_there_is(filters: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"no model has it; there are [a-z]"):
        catalogue.select(catalogue.models(), **filters)


def test_importing_the_real_configs_gives_the_shipped_models(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "models.json"
    assert importing.main([str(shared / "model-configs"), "--out", str(out)]) == 0
    made = {data["name"]: data for data in json.loads(out.read_text())["models"]}
    shipped = {data["name"]: data for data in CONTENT["models"]}
    assert len(made) == 86
    assert made == {name: shipped[name] for name in made}


def test_contexts_are_what_a_server_admits_by_itself(shared: Path) -> None:
    """Models whose config is not among the 86: against a table that was written apart from the catalogue."""
    told = {name: context for context, names in CONTEXTS.items() for name in names.split()}
    read = set(importing.configs(shared / "model-configs"))
    assert {model.name: model.context for model in catalogue.shipped() if model.name not in read} == told


def test_a_card_corrects_a_context(tmp_path: Path) -> None:
    """Figures from a table that has the context with YaRN: importing them again does not bring it back."""
    config = {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 131072,
    }  # fmt: skip
    (tmp_path / "Qwen--Qwen2.5-7B-Instruct_config.json").write_text(json.dumps(config))
    (model,), refused = importing.catalogued([tmp_path], None)
    assert (model.context, refused) == (32768, [])


@pytest.mark.parametrize("existing", ['{"models": []}', "{}", '{"models": [1]}', '{"models": 3}'])
def test_importing_says_in_one_line_what_it_cannot_do(existing: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.json"
    out.write_text(existing)
    (tmp_path / "me--mine_config.json").write_text("{}")
    folder = tmp_path / "none" if existing == '{"models": []}' else tmp_path
    assert importing.main([str(folder), "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert out.read_text() == existing


def test_importing_names_what_it_leaves_out_and_keeps_what_was_there(tmp_path: Path, capsys: Any) -> None:
    folder, out = tmp_path / "configs", tmp_path / "models.json"
    out.write_text(json.dumps({"version": 1, "models": CONTENT["models"][:2]}))
    (folder / "me--mine").mkdir(parents=True)
    (folder / "me--mine" / "config.json").write_text('{"model_type": "unheard-of"}')
    assert importing.main([str(folder), "--out", str(out)]) == 2
    assert "me/mine: model_type = 'unheard-of'" in capsys.readouterr().err
    assert json.loads(out.read_text())["models"] == CONTENT["models"][:2]


def test_importing_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        importing.configs(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no org--name_config\.json"):
        importing.configs(tmp_path)
