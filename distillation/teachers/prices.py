"""What a provider charges for a token: the price list of `genai-prices`, or a price of the user's own.

    price = find_price("gpt-4o-mini", provider="openai")
    price.usd(prompt_tokens=1200, cached_tokens=1000, completion_tokens=80)

The list is the one in the installed package: it is never downloaded, and its version stands in every price. A price
that is not known is None, or an InputError where money matters; it is never 0. Prices that depend on the hour are the
dearest of the day; one with units that an answer does not report (reasoning apart, citations) is not known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from pydantic import Field

from phases.strict import StrictModel

PACKAGE = "genai-prices"
_UNCOUNTED = ("output_reasoning_mtok", "output_citation_mtok", "input_text_messages_kcount")
"""Units of text that an OpenAI-compatible answer does not count apart."""
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars for each token, exactly as the list has them."""

    usd_per_token_in: Decimal
    usd_per_token_cached: Decimal
    """Of a prompt token that the provider had in its cache; the full price where the list names no other."""
    usd_per_token_out: Decimal
    usd_per_request: Decimal = Decimal(0)

    def usd(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Decimal:
        """c = t_in·[(1 − h)·p_in + h·p_cache] + t_out·p_out, and what a request costs by itself."""
        prompt = (prompt_tokens - cached_tokens) * self.usd_per_token_in + cached_tokens * self.usd_per_token_cached
        return prompt + completion_tokens * self.usd_per_token_out + self.usd_per_request


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, where that stands, and when it was so."""

    model: str
    provider: str
    rates: Rates
    above: tuple[tuple[int, Rates], ...]
    """Rates of requests whose prompt has more tokens than the number, in rising order."""
    batch: Rates | None
    """Of the provider's batch API; None: the list has none."""
    source: str
    date: str
    """The day that it holds for; empty: a user's own that is not dated."""

    def usd(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """Of one request."""
        rates = self.rates
        for start, dearer in self.above:
            rates = dearer if prompt_tokens > start else rates
        return float(rates.usd(prompt_tokens, cached_tokens, completion_tokens))

    def as_json(self) -> dict[str, Any]:
        """For a report, in dollars a million tokens."""
        named = {"in": self.rates.usd_per_token_in, "cached": self.rates.usd_per_token_cached}
        rates = named | {"out": self.rates.usd_per_token_out}
        million = {f"usd_per_million_{name}": float(value * _MILLION) for name, value in rates.items()}
        return {"model": self.model, "provider": self.provider, **million, "source": self.source, "date": self.date}


class OwnPrice(StrictModel):
    """A price that you know; it goes before the price list."""

    usd_per_million_in: float = Field(ge=0)
    """Dollars for a million prompt tokens; 0 is a price."""
    usd_per_million_cached: float | None = Field(default=None, ge=0)
    """Of prompt tokens from the provider's cache; empty: as the others."""
    usd_per_million_out: float = Field(ge=0)
    """Dollars for a million written tokens."""
    date: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    """When you looked it up."""

    def price(self, model: str) -> Price:
        """As everything else has prices."""
        cached = self.usd_per_million_in if self.usd_per_million_cached is None else self.usd_per_million_cached
        dollars = (self.usd_per_million_in, cached, self.usd_per_million_out)
        rates = Rates(*(Decimal(repr(value)) / _MILLION for value in dollars))
        return Price(model, "", rates, (), None, "config", self.date)


def find_price(model: str, provider: str = "", address: str = "", on: date | None = None) -> Price | None:
    """The list price of a model of a provider (by its name, or by its API's address); None where there is none."""
    from genai_prices.data_snapshot import get_snapshot  # two seconds: only who asks for prices waits

    try:
        found, info = get_snapshot().find_provider_model(model, None, provider or None, address or None)
    except LookupError:
        return None
    return _price(found.id, info, on or datetime.now(UTC).date())


@dataclass(frozen=True, slots=True)
class Hint:
    """A way to pay less for the same tokens."""

    kind: str
    """`provider`, `batch` or `cache`."""
    text: str
    usd_now: float
    usd_then: float


def provider_hints(
    price: Price, prompt_tokens: int, completion_tokens: int, repeated_share: float = 0.0
) -> tuple[Hint, ...]:
    """What the same tokens would cost otherwise at list prices, the cheapest first; only what is cheaper.

    `repeated_share` of the prompt is the same in every request, so that a provider's cache may hold it.
    """
    now = float(price.rates.usd(prompt_tokens, 0, completion_tokens))
    ways = []
    at = price.provider or "the provider"
    if price.batch is not None:
        usd = float(price.batch.usd(prompt_tokens, 0, completion_tokens))
        ways.append(Hint("batch", f"the batch API of {at}, with answers within its hours", now, usd))
    repeated = int(prompt_tokens * repeated_share)
    cached = float(price.rates.usd(prompt_tokens, repeated, completion_tokens))
    share = f"{repeated_share:.0%} of the prompt from the cache of {at}: put what repeats first"
    ways.append(Hint("cache", share, now, cached))
    for other in same_model(price):
        usd = float(other.rates.usd(prompt_tokens, 0, completion_tokens))
        ways.append(
            Hint("provider", f"{other.model} at {other.provider}; look at its quantisation and terms", now, usd)
        )
    return tuple(sorted((way for way in ways if way.usd_then < now), key=lambda way: (way.usd_then, way.text)))


def same_model(price: Price) -> Iterator[Price]:
    """The same model at other providers of the list: equal names, but for the maker's before the slash."""
    from genai_prices.data_snapshot import get_snapshot

    on = date.fromisoformat(price.date) if price.date else datetime.now(UTC).date()
    for provider in get_snapshot().providers:
        for info in provider.models:
            if provider.id != price.provider and _bare(info.id) == _bare(price.model):
                other = _price(provider.id, info, on)
                if other is not None:
                    yield other


def _bare(model: str) -> str:
    return model.lower().rsplit("/", 1)[-1]


def _price(provider: str, info: Any, on: date) -> Price | None:
    """The dearest price of the day; None where a unit is charged that nobody counts here, or nothing is."""
    hours = [datetime.combine(on, time(), UTC) + timedelta(hours=hour) for hour in range(24)]
    known = [_at(provider, info, hour) for hour in hours]
    if any(price is None for price in known):
        return None
    return max((price for price in known if price), key=lambda p: p.rates.usd(1000, 0, 1000))


def _at(provider: str, info: Any, moment: datetime) -> Price | None:
    listed, batched = info.get_prices(moment), info.get_prices(moment, {"processing": "batch"})
    if listed.input_mtok is None or listed.output_mtok is None or any(getattr(listed, unit) for unit in _UNCOUNTED):
        return None
    parts = (listed.input_mtok, listed.cache_read_mtok, listed.output_mtok)
    starts = sorted({tier.start for part in parts for tier in getattr(part, "tiers", ())})
    once = Decimal(getattr(listed, "requests_kcount", None) or 0) / 1000
    above = tuple((start, _rates(listed, once, start + 1)) for start in starts)
    batch = _rates(batched, once) if batched != listed else None
    source = f"{PACKAGE} {version(PACKAGE)}"
    return Price(info.id, provider, _rates(listed, once), above, batch, source, moment.date().isoformat())


def _rates(listed: Any, once: Decimal, prompt_tokens: int = 0) -> Rates:
    cached = listed.input_mtok if listed.cache_read_mtok is None else listed.cache_read_mtok
    parts = (listed.input_mtok, cached, listed.output_mtok)
    usual, from_cache, written = (_tier(part, prompt_tokens) / _MILLION for part in parts)
    return Rates(usual, from_cache, written, once)


def _tier(part: Any, prompt_tokens: int) -> Decimal:
    """The price of the tier that a prompt of that length is in: it holds for all its tokens."""
    value: Decimal = getattr(part, "base", part)
    for tier in getattr(part, "tiers", ()):
        value = tier.price if prompt_tokens > tier.start else value
    return value
