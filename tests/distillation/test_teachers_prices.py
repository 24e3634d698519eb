"""Prices against the list's own calculator, and what is refused."""

import socket
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from distillation.teachers.prices import OwnPrice, Price, find_price, provider_hints, same_model
from phases.errors import ConfigError

DAY = date(2026, 11, 1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the list is in the package; nothing may be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def known_price(model: str, provider: str, on: date) -> Price:
    price = find_price(model, provider, on=on)
    assert price is not None
    return price


@pytest.mark.parametrize("prompt", [10, 199_999, 200_000, 200_001, 900_000])
@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-pro", "google"),
        ("sonar", "perplexity"),
    ],
)
def test_costs_are_those_of_the_lists_own_calculator(model: str, provider: str, prompt: int) -> None:
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=prompt, cache_read_tokens=prompt // 3, output_tokens=77)
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    oracle = calc_price(usage, model, provider_id=provider, genai_request_timestamp=noon).total_price
    price = known_price(model, provider, DAY)
    assert price.usd(prompt, prompt // 3, 77) == pytest.approx(float(oracle), rel=1e-12)
    assert price.source.startswith("genai-prices ") and price.date == "2026-11-01"


def test_an_address_finds_its_provider() -> None:
    price = find_price("gpt-4o-mini", address="https://api.openai.com/v1", on=DAY)
    assert price == known_price("gpt-4o-mini", "openai", DAY)
    assert find_price("gpt-4o-mini", address="http://127.0.0.1:8000/v1") is None


def test_a_price_of_the_hour_is_the_dearest_of_the_day() -> None:
    price = known_price("deepseek-chat", "deepseek", date(2025, 3, 1))
    assert (price.rates.usd_per_token_in, price.rates.usd_per_token_out) == (Decimal("0.27e-6"), Decimal("1.1e-6"))


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("no-such-model", "openai"),
        ("gpt-4o", "no-such-provider"),
        ("text-embedding-3-small", "openai"),  # nothing is written
        ("sonar-deep-research", "perplexity"),  # reasoning and citations are charged apart
        ("mistral-nemo:free", "mistral"),  # the list has no figure, which is not 0
    ],
)
def test_what_is_not_known_has_no_price(model: str, provider: str) -> None:
    assert find_price(model, provider) is None


def test_own_prices() -> None:
    price = OwnPrice(usd_per_million_in=0.1, usd_per_million_cached=0.01, usd_per_million_out=0.3).price("mine")
    assert price.usd(1_000_000, 0, 0) == 0.1 and price.usd(1_000_000, 1_000_000, 1_000_000) == 0.31
    assert OwnPrice(usd_per_million_in=0, usd_per_million_out=0).price("mine").usd(5, 0, 5) == 0.0
    with pytest.raises(ConfigError, match="usd_per_million_out"):
        OwnPrice.parse({"usd_per_million_in": 1, "usd_per_million_out": -1}, "price")


def test_json_has_a_million_tokens() -> None:
    told = known_price("gpt-4o", "openai", DAY).as_json()
    assert (told["usd_per_million_in"], told["usd_per_million_cached"], told["usd_per_million_out"]) == (2.5, 1.25, 10)


def test_hints_are_cheaper_and_their_figures_right() -> None:
    price = known_price("gpt-4o", "openai", DAY)
    hints = provider_hints(price, 1000, 100, repeated_share=0.5)
    by_kind = {hint.kind: hint for hint in hints}
    assert by_kind["batch"].usd_then == pytest.approx(0.00175) and by_kind["batch"].usd_now == pytest.approx(0.0035)
    assert by_kind["cache"].usd_then == pytest.approx(0.0035 - 500 * 1.25e-6)
    assert all(hint.usd_then < hint.usd_now for hint in hints)
    assert [hint.usd_then for hint in hints] == sorted(hint.usd_then for hint in hints)


def test_the_same_model_elsewhere_has_the_same_name() -> None:
    price = known_price("meta-llama/llama-3.3-70b-instruct", "novita", DAY)
    others = list(same_model(price))
    assert len(others) > 3 and "novita" not in {other.provider for other in others}
    assert {other.model.lower().rsplit("/")[-1] for other in others} == {"llama-3.3-70b-instruct"}


def test_no_hint_where_nothing_is_cheaper() -> None:
    assert provider_hints(OwnPrice(usd_per_million_in=1, usd_per_million_out=1).price("mine"), 100, 10) == ()
