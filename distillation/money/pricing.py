"""What a request costs: at a provider's prices a token, or on a machine that is paid by the hour.

    c = t_in·[(1 − h)·p_in + h·p_cache] + t_out·p_out        h: share of the prompt that is charged as cached
    p = P_hour / (3600 · tokens_per_s · utilisation)          a token on a machine of one's own

Tokens a second are those of the machine when it is busy; utilisation is the share of the paid time in which it is.
Everything is an `Amount`: what is not known stays so.
"""

import math
from dataclasses import dataclass
from decimal import Decimal

from distillation.money.amount import NOTHING, Amount, known

HOURS_PER_MONTH = Decimal(730)
_SECONDS_PER_HOUR = known(3600)


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """Dollars for each token."""

    usd_per_token_in: Amount
    usd_per_token_cached: Amount
    """Of a prompt token that the provider had in its cache."""
    usd_per_token_out: Amount
    usd_per_request: Amount = NOTHING
    """On top of the tokens."""


def request_cost(prompt_tokens: Amount, completion_tokens: Amount, cached_share: Amount, price: TokenPrice) -> Amount:
    """USD for one request."""
    fresh = (known(1) - cached_share) * price.usd_per_token_in + cached_share * price.usd_per_token_cached
    return prompt_tokens * fresh + completion_tokens * price.usd_per_token_out + price.usd_per_request


def hosted_token_usd(usd_per_hour: Amount, tokens_per_s: Amount, utilisation: Amount) -> Amount:
    """USD for one token on a machine that is paid by the hour."""
    return usd_per_hour / (_SECONDS_PER_HOUR * tokens_per_s * utilisation)


def hosted_price(
    usd_per_hour: Amount, tokens_per_s: Amount, prompt_tokens_per_s: Amount, utilisation: Amount
) -> TokenPrice:
    """The same as prices for tokens read and written; a cached prompt token counts as any other."""
    read = hosted_token_usd(usd_per_hour, prompt_tokens_per_s, utilisation)
    return TokenPrice(read, read, hosted_token_usd(usd_per_hour, tokens_per_s, utilisation))


def always_on_usd(usd_per_hour: Amount, requests: Amount, usd_per_request: Amount) -> Amount:
    """USD a month for machines that run day and night: as many whole ones as the requests need, one at least.

    `usd_per_request` is what a request costs on a machine that is paid only while it is needed.
    """
    month = usd_per_hour * Amount(HOURS_PER_MONTH)
    if month.value == 0:
        return month
    needed = requests * usd_per_request / month
    return needed if needed.value is None else month * known(max(1, math.ceil(needed.value)))
