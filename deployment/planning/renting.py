"""The offers that can be the cheapest for some fleet.

A whole instance is paid for, so eight accelerators at one replica of one are eight times the price of what works.
Nothing but an instance's size and price decides what a fleet costs on it, so of each size only the cheapest counts; a
marketplace's machine is let once, so it counts beside the others.
"""

from collections import defaultdict
from collections.abc import Iterable

from deployment.hardware import Offer
from deployment.planning.fleet import CPU


def by_accelerator(offers: Iterable[Offer]) -> dict[str, list[Offer]]:
    """Offers grouped, each group sorted by price and then by name, so that ties always fall alike."""
    grouped: dict[str, list[Offer]] = defaultdict(list)
    for offer in offers:
        grouped[offer.accelerator].append(offer)
    for group in grouped.values():
        group.sort(key=lambda o: (o.price, o.cloud, o.instance, o.region, o.spot))
    return dict(grouped)


def contenders(offers: dict[str, list[Offer]]) -> dict[str, list[Offer]]:
    """Of each accelerator the first offer of every size; CPUs differ in cores and memory, so all of theirs stay."""
    return {name: group if name == CPU else _first_of_each_size(group) for name, group in offers.items()}


def _first_of_each_size(offers: Iterable[Offer]) -> list[Offer]:
    first: dict[tuple[int, bool], Offer] = {}
    for offer in offers:
        first.setdefault((offer.count, offer.marketplace), offer)
    return list(first.values())
