"""The licence gate."""

from pathlib import Path

import pytest

from distillation.teachers.endpoint import EndpointTeacherConfig
from distillation.teachers.licences import TERMS, check_licence, licence_of_address, terms_of
from distillation.teachers.local import LocalTeacherConfig
from distillation.teachers.teacher_config import judge_licence, open_teacher
from phases.errors import ConfigError


@pytest.mark.parametrize("licence", ["own", "Apache-2.0", "apache 2.0", "MIT"])
def test_open_licences_pass(licence: str) -> None:
    assert check_licence("t", licence, confirmed=False).allows_training == "yes"


@pytest.mark.parametrize("licence", ["openai", "anthropic", "google", "gemma", "llama3.1", "qwen", "mistral", "house"])
def test_conditions_and_unknown_terms_need_the_users_word(licence: str) -> None:
    with pytest.raises(ConfigError, match="teacher t, licence '.*set `licence_confirmed: true`"):
        check_licence("t", licence, confirmed=False)
    verdict = check_licence("t", licence, confirmed=True)
    assert verdict.confirmed and verdict.needs_confirmation and verdict.as_json()["licence"] == licence


@pytest.mark.parametrize("licence", ["llama2", "Llama-3"])
def test_a_no_is_not_confirmed_away(licence: str) -> None:
    with pytest.raises(ConfigError, match="agreement of your own"):
        check_licence("t", licence, confirmed=True)


def test_every_entry_says_where_it_stands() -> None:
    assert all(terms.url.startswith("https://") or name == "own" for name, terms in TERMS.items())
    assert terms_of("never heard of").allows_training == "unknown"


def test_terms_follow_from_the_address() -> None:
    assert licence_of_address("https://API.openai.com:443/v1") == "openai"
    assert licence_of_address("https://api.openai.com.example.org/v1") == "unknown"
    assert licence_of_address("http://127.0.0.1:1/v1") == "unknown"


def test_a_teacher_is_not_opened_without_its_licence(tmp_path: Path) -> None:
    endpoint = EndpointTeacherConfig(base_url="http://127.0.0.1:1/v1", model="m")
    with pytest.raises(ConfigError, match="licence 'unknown'"):
        open_teacher(endpoint)
    allowed = endpoint.model_copy(update={"licence_confirmed": True})
    assert judge_licence(allowed).confirmed and open_teacher(allowed).licence == "unknown"
    with pytest.raises(ConfigError, match="licence 'llama3'"):  # before the folder is looked at
        open_teacher(LocalTeacherConfig(checkpoint=tmp_path / "none", licence="llama3"))
