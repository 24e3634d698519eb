"""How old the prices are. A cloud changes its list a few times a year, spot prices daily: an old one misleads.

from deployment.market.freshness import stale
stale("2026-12-01")  # one line per cloud whose newest price is older than 180 days
"""

from collections.abc import Iterable
from datetime import date

from deployment.hardware import Offer
from deployment.market.offers import all_offers

STALE_AFTER_DAYS = 180


def newest(offers: Iterable[Offer] | None = None) -> dict[str, str]:
    """ISO day of the newest price of each cloud, by cloud; of `offers`, or of all there are."""
    days: dict[str, str] = {}
    for offer in all_offers() if offers is None else offers:
        days[offer.cloud] = max(days.get(offer.cloud, ""), offer.date)
    return dict(sorted(days.items()))


def ages_days(today: str, offers: Iterable[Offer] | None = None) -> dict[str, int]:
    """Days from the newest price of each cloud to `today` (ISO)."""
    now = date.fromisoformat(today)
    return {cloud: (now - date.fromisoformat(day)).days for cloud, day in newest(offers).items()}


def stale(today: str, offers: Iterable[Offer] | None = None, limit_days: int = STALE_AFTER_DAYS) -> list[str]:
    """One warning per cloud whose newest price is more than `limit_days` old on `today` (ISO); empty: all are fresh."""
    return [
        f"prices of {cloud} are {age} days old: import newer ones with python -m deployment.market.importing"
        for cloud, age in ages_days(today, offers).items()
        if age > limit_days
    ]
