"""What a request may choose from: models of the atlas and offers of the market, filtered as it says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from deployment.atlas import catalogue as atlas
from deployment.hardware import Accelerator, Offer
from deployment.market import accelerators as hardware
from deployment.market import offers as market
from deployment.model import Model
from deployment.planning.fleet import CPU
from deployment.planning.own_agent import OwnAgent
from deployment.planning.renting import by_accelerator
from deployment.planning.request import Request
from deployment.planning.score import PERMISSIVE
from phases.errors import InputError


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models, and offers by accelerator, each cheapest first."""

    models: tuple[Model, ...]
    offers: dict[str, list[Offer]]
    accelerators: dict[str, Accelerator] = field(default_factory=dict)
    """By name, of those in `offers` that may be used, without CPUs."""
    agent: OwnAgent | None = None
    """The forge's agent that the only model is; it can be served on CPUs as well."""

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Sizes of the instances on offer, by accelerator."""
        return {name: tuple(sorted({o.count for o in offers})) for name, offers in self.offers.items()}


def catalogue(request: Request, agent: OwnAgent | None = None) -> Catalogue:
    """What the request may choose from; the `agent` of a forge instead of the atlas's models.

    Raises InputError for a name that is not known (with the nearest), and where the filters leave nothing.
    """
    chosen = (agent.model,) if agent else chosen_models(request)
    _check_words(request, chosen)
    wanted = tuple(name if name == CPU else hardware.accelerator(name).name for name in request.accelerators) or None
    found = market.offers(
        clouds=request.clouds or None,
        regions=request.regions or None,
        accelerators=wanted,
        spot=None if request.spot else False,
    )
    found = [offer for offer in found if offer.currency == "USD" and offer.price > 0]
    if not found:
        raise InputError(_nothing(request))
    grouped = by_accelerator(found)
    known = {name: hardware.accelerator(name) for name in grouped if name != CPU}
    vendors = {vendor.lower() for vendor in request.vendors}
    usable = {name: a for name, a in known.items() if not vendors or a.vendor.lower() in vendors}
    on_cpus = CPU in grouped and (agent is not None or CPU in request.accelerators)
    if not usable and not on_cpus:
        raise InputError(_nothing(request))
    return Catalogue(chosen, grouped, usable, agent)


def chosen_models(request: Request) -> tuple[Model, ...]:
    """The named models, or all that the filters leave."""
    named = tuple(atlas.model(name) for name in request.models)
    left = atlas.select(
        named or atlas.models(), task=request.task, family=request.family, max_parameters=request.max_parameters
    )
    if not left:
        raise InputError("no model is left: drop one of --task, --family, --max-parameters; `forge models` lists all")
    return tuple(left)


def _check_words(request: Request, chosen: Sequence[Model]) -> None:
    """Raises InputError, with the nearest, for a vendor, a licence or a score that there is none of: a slip."""
    everyone = (*atlas.models(), *chosen)
    licences = {model.licence.lower() for model in everyone} | PERMISSIVE | {"permissive"}
    scores = {score.benchmark for model in everyone for score in model.quality}
    _check("vendor", request.vendors, {one.vendor.lower() for one in hardware.accelerators()})
    _check("licence", request.licences, licences)
    _check("score", [request.quality.benchmark] if request.quality else [], scores)


def _check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    listed = {name.lower(): name for name in sorted(known)}
    for name in names:
        if name.lower() not in listed:
            near = [listed[one] for one in get_close_matches(name.lower(), listed, 3, 0.5)]
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(listed.values())}"
            raise InputError(f"nothing is of {what} '{name}': {hint}")


def _nothing(request: Request) -> str:
    """Why there is no offer, in the filters that were set."""
    filters = {
        "cloud": request.clouds, "region": request.regions, "accelerator": request.accelerators,
        "vendor": request.vendors,
    }  # fmt: skip
    said = "; ".join(f"{name} {', '.join(values)}" for name, values in filters.items() if values) or "these filters"
    everywhere = market.offers()
    clouds = ", ".join(sorted({offer.cloud for offer in everywhere}))
    spot = "" if request.spot else "; --spot allows those too"
    return f"nothing on offer for {said}{spot}. Clouds: {clouds}"
