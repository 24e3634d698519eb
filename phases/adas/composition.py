"""How much of each expert: the cross-entropy method over their weights (Transformer², arXiv 2501.06252).

    found = cross_entropy_method(lambda weights: loss_with(weights), ("python", "facts"), CompositionConfig(), seed=0)
    losses = compose(parent, vectors, held_out, CompositionConfig(), seed=0)          # and writes what it found

Weights α are drawn from a diagonal Gaussian, which moves to the best draws, its elite (Rubinstein 1999), from α = 0 and
σ = 0.1. Two things are as in CMA-ES (arXiv 1604.00772): the better of the elite count for more, and the new spread is
measured around the *old* mean, so that it grows in the direction of progress, where the elite's own would shrink before
an optimum some σ away is in reach. What is found is where the distribution ends: on quadratics with noise the draw that
happened to measure best is 1.3 to 2 times as far above the optimum.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from phases.adas.learning import domain_losses
from phases.adas.vectors import Kind, record_found
from phases.agent.design import Mixture
from phases.agent.experts import Experts
from phases.baking.rows import Encoded
from phases.checkpoint import Checkpoint
from phases.errors import CheckpointError
from phases.json_lines import append_lines, read_lines
from phases.phase import MetricsCallback, ignore_metrics
from phases.strict import StrictModel

_DRAWS = 41
"""Stream of random numbers."""
_DIGITS = 4
"""Of a weight after the point: what is written down is exactly what was tried."""
FLOOR = 0.1
"""Nats a token that hardly matter."""
PARENT = "none"
"""In place of an expert's name: the parent."""


class CompositionConfig(StrictModel):
    """How the experts' weights are found."""

    trials: int = Field(8, ge=1)
    """Validation conversations of each domain whose loss is measured."""
    iterations: int = Field(10, ge=1)
    """Distributions, one after the other."""
    population: int = Field(8, ge=2)
    """Draws from each."""
    elite: float = Field(0.5, gt=0, le=1)
    """Share of the draws, the best, that the next distribution is made from; two at least."""
    sigma: float = Field(0.1, gt=0)
    """Spread of the first distribution; its mean is 0, the parent."""
    smoothing: float = Field(0.3, gt=0, le=1)
    """How fast the spread follows that of the elite; 1: at once."""
    antithetic: bool = True
    """Draw in pairs that mirror each other."""
    retention: float = Field(2.0, ge=0)
    """How many times more a domain counts where it becomes worse than the parent."""


class Tried(StrictModel):
    """Weights, measured."""

    iteration: int
    """0: the parent; then one a distribution; the last one is the mean that the search ends with."""
    weights: dict[str, float]
    value: float
    """What is minimised."""


class Found(StrictModel):
    """What a search found."""

    weights: dict[str, float]
    """The last distribution's mean; where the parent is better, the best that were tried, the parent among them."""
    value: float
    sigma: dict[str, float]
    """Spread of the last distribution."""
    history: tuple[Tried, ...]
    """All that was tried, in order."""


Objective = Callable[[Mapping[str, float]], float]
Note = Callable[[Tried], None]


def _ignore(tried: Tried) -> None:
    """Nobody takes notes."""


def cross_entropy_method(
    objective: Objective,
    names: Sequence[str],
    config: CompositionConfig,
    seed: int,
    known: Sequence[Tried] = (),
    note: Note = _ignore,
) -> Found:
    """Weights by name for which `objective` is least.

    A pure function of the objective and the seed: `known` is what an earlier search has tried, in order, and is not
    measured again; `note` gets everything else as soon as it is. Raises `CheckpointError` when `known` is of another
    search.
    """
    history: list[Tried] = []

    def tried(iteration: int, alpha_K: npt.NDArray[np.float64]) -> float:
        weights = {name: round(float(a), _DIGITS) + 0.0 for name, a in zip(names, alpha_K, strict=True)}
        if len(history) < len(known):
            one = known[len(history)]
            if (one.iteration, one.weights) != (iteration, weights):
                raise CheckpointError("the log of tried weights is of another search; delete it and run again")
        else:
            value = objective(weights)
            # Worse than anything, but still JSON.
            one = Tried(iteration=iteration, weights=weights, value=value if math.isfinite(value) else 1e9)
            note(one)
        history.append(one)
        return one.value

    mean_K, sigma_K = np.zeros(len(names)), np.full(len(names), config.sigma)
    tried(0, mean_K)
    for iteration in range(1, config.iterations + 1):
        draws_NK = mean_K + sigma_K * _normals(config, len(names), seed, iteration)
        values = [tried(iteration, alpha_K) for alpha_K in draws_NK]
        mean_K, sigma_K = _next(mean_K, sigma_K, draws_NK, values, config)
    tried(config.iterations + 1, mean_K)
    best = history[-1] if history[-1].value < history[0].value else min(history, key=lambda one: one.value)
    sigma = {name: float(s) for name, s in zip(names, sigma_K, strict=True)}
    return Found(weights=best.weights, value=best.value, sigma=sigma, history=tuple(history))


def _normals(config: CompositionConfig, count: int, seed: int, iteration: int) -> npt.NDArray[np.float64]:
    """(N, K) standard normal numbers; the second half mirrors the first where they are antithetic."""
    size = config.population
    normal_NK = np.random.default_rng([seed, _DRAWS, iteration]).standard_normal((size, count))
    if config.antithetic:
        normal_NK[(size + 1) // 2 :] = -normal_NK[: size // 2]
    return normal_NK


def _next(
    mean_K: npt.NDArray[np.float64],
    sigma_K: npt.NDArray[np.float64],
    draws_NK: npt.NDArray[np.float64],
    values: Sequence[float],
    config: CompositionConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(mean, spread) of the distribution after one whose draws have these values."""
    size = min(len(values), max(2, round(config.elite * len(values))))
    elite_EK = draws_NK[np.argsort(values, kind="stable")[:size]]
    share_E = np.log(size + 0.5) - np.log(np.arange(1, size + 1))
    share_E /= share_E.sum()
    variance_K = (1 - config.smoothing) * sigma_K**2 + config.smoothing * (share_E @ (elite_EK - mean_K) ** 2)
    return share_E @ elite_EK, np.sqrt(variance_K)


def relative_loss(losses: Mapping[str, float], parent: Mapping[str, float], retention: float) -> float:
    """Mean over the domains of their loss over the parent's; what is above 1 counts `retention` times more.

    Both losses are raised by `FLOOR`: a domain that is as good as solved would outweigh all others with its noise.
    """
    ratios = [(losses[domain] + FLOOR) / (parent[domain] + FLOOR) for domain in parent]
    return sum(ratio + retention * max(0.0, ratio - 1) for ratio in ratios) / len(ratios)


Losses = dict[str, dict[str, float]]
"""By expert (or `none`, the parent), by domain: nats a token."""


def compose(
    parent: Checkpoint,
    vectors: Path,
    held_out: Mapping[str, Sequence[Encoded]],
    config: CompositionConfig,
    seed: int,
    metrics: MetricsCallback = ignore_metrics,
) -> dict[Kind, Losses]:
    """Find the weights of each kind of expert and write them into the `experts.json` of the folder `vectors`.

    Returns what the parent and every single expert lose on the held-out conversations of each domain. What was tried
    stands beside the folder (`composition.<kind>.jsonl`), so that a killed search goes on where it stood.
    """
    experts = Experts.open(parent, vectors)
    losses: dict[Kind, Losses] = {}
    before = domain_losses(experts.base, held_out)
    for kind in experts.index.kinds:
        alone = {name: domain_losses(experts.model(Mixture(kind=kind), name), held_out) for name in experts.names}
        losses[kind] = {PARENT: before, **alone}
        log = vectors.parent / f"composition.{kind}.jsonl"
        known = read_lines(log, Tried.model_validate, "a line is no tried weights")

        def value(weights: Mapping[str, float], kind: Kind = kind) -> float:
            model = experts.model(Mixture(kind=kind, weights=dict(weights)))
            return relative_loss(domain_losses(model, held_out), before, config.retention)

        def note(tried: Tried, kind: Kind = kind, log: Path = log) -> None:
            append_lines(log, [tried.model_dump_json()])
            metrics(tried.iteration, {f"composition/{kind}/loss": tried.value})

        found = cross_entropy_method(value, experts.names, config, seed, known, note)
        record_found(vectors, kind, found.weights)
    return losses
