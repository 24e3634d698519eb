"""What is drawn from: the model's distribution with its unlikely end cut off, or at a temperature of the moment.

    Sampler([0.7] * len(prompts), seed, warp(Decoding(temperature=0.7, top_p=0.9)))

Each cut keeps one token at least and gives the others logits of −∞; those that are kept stay as they are. Several are
made one after the other, in the order of this file, each on what the one before has left: the temperature first, so
that probabilities are those that are drawn from.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from phases.agent.design import Decoding
from phases.decoding import Warp

NONE = float("-inf")
"""Logit of a token that is not drawn."""
EDT_BASE, EDT_EXPONENT = 0.8, 1.0
"""N and θ of arXiv 2403.14541, which takes 0.8 and looks for θ by task."""
COLDEST = 0.01
"""Least factor of a temperature: at less only one token is drawn anyway, and its logit would grow without bound."""


def entropy(logits_BV: torch.Tensor) -> torch.Tensor:
    """(B, 1) entropy of the softmax, nats."""
    entropy_B1: torch.Tensor = torch.special.entr(logits_BV.softmax(-1)).sum(-1, keepdim=True)
    return entropy_B1


def entropy_temperature(logits_BV: torch.Tensor, temperature_B1: torch.Tensor) -> torch.Tensor:
    """(B, 1) temperature · N^(θ / entropy): the surer the model, the colder (arXiv 2403.14541)."""
    exponent_B1 = EDT_EXPONENT / entropy(logits_BV).clamp(min=1e-9)
    return temperature_B1 * (EDT_BASE**exponent_B1).clamp(min=COLDEST)


def top_n_sigma(logits_BV: torch.Tensor, sigmas: float) -> torch.Tensor:
    """Keep logits within so many standard deviations of the largest (arXiv 2411.07641), −∞ left out of these."""
    finite_BV = logits_BV.isfinite()
    count_B1 = finite_BV.sum(-1, keepdim=True)
    mean_B1 = logits_BV.masked_fill(~finite_BV, 0).sum(-1, keepdim=True) / count_B1
    square_BV = (logits_BV - mean_B1).masked_fill(~finite_BV, 0) ** 2
    sigma_B1 = (square_BV.sum(-1, keepdim=True) / (count_B1 - 1).clamp(min=1)).sqrt()
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) - sigmas * sigma_B1, NONE)


def top_k(logits_BV: torch.Tensor, count: int) -> torch.Tensor:
    """Keep the `count` likeliest tokens, and those as likely as the last of them."""
    last_B1 = logits_BV.topk(min(count, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < last_B1, NONE)


def top_p(logits_BV: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens that hold the probability `mass` together (arXiv 1904.09751)."""
    ordered_BV, token_BV = logits_BV.sort(descending=True)
    chance_BV = ordered_BV.softmax(-1)
    return _scattered(logits_BV, token_BV, chance_BV.cumsum(-1) - chance_BV >= mass)


def min_p(logits_BV: torch.Tensor, share: float) -> torch.Tensor:
    """Keep tokens at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) + math.log(share), NONE)


def typical(logits_BV: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy and that hold `mass` together (arXiv 2202.00666)."""
    surprise_BV = -logits_BV.log_softmax(-1)
    ordered_BV, token_BV = (surprise_BV - entropy(logits_BV)).abs().sort()
    chance_BV = logits_BV.softmax(-1).gather(-1, token_BV)
    last_B1 = (chance_BV.cumsum(-1) < mass).sum(-1, keepdim=True).clamp(max=logits_BV.shape[-1] - 1)
    return _scattered(logits_BV, token_BV, ordered_BV > ordered_BV.gather(-1, last_B1))


def epsilon(logits_BV: torch.Tensor, least: float | torch.Tensor) -> torch.Tensor:
    """Keep tokens that are at least so likely, and the likeliest (arXiv 2210.15191)."""
    below_BV = (logits_BV.softmax(-1) < least) & (logits_BV < logits_BV.amax(-1, keepdim=True))
    return logits_BV.masked_fill(below_BV, NONE)


def eta(logits_BV: torch.Tensor, least: float) -> torch.Tensor:
    """`epsilon` with the threshold min(ε, √ε · exp(−entropy)) (arXiv 2210.15191)."""
    return epsilon(logits_BV, (math.sqrt(least) * (-entropy(logits_BV)).exp()).clamp(max=least))


def _scattered(logits_BV: torch.Tensor, token_BV: torch.Tensor, cut_BV: torch.Tensor) -> torch.Tensor:
    """The logits without those whose place in an order is cut; the first of the order stays."""
    cut_BV = cut_BV.clone()
    cut_BV[:, 0] = False
    return logits_BV.masked_fill(torch.zeros_like(cut_BV).scatter(-1, token_BV, cut_BV), NONE)


def warp(decoding: Decoding) -> Warp:
    """Everything about drawing that a design asks for, at whichever temperature."""
    cuts: tuple[tuple[Callable[[torch.Tensor, Any], torch.Tensor], float | None], ...] = (
        (top_n_sigma, decoding.top_n_sigma),
        (top_k, decoding.top_k),
        (top_p, decoding.top_p),
        (min_p, decoding.min_p),
        (typical, decoding.typical_p),
        (epsilon, decoding.epsilon),
        (eta, decoding.eta),
    )

    def warped(logits_BV: torch.Tensor, temperature_B1: torch.Tensor) -> torch.Tensor:
        if decoding.entropy_temperature:
            temperature_B1 = entropy_temperature(logits_BV, temperature_B1)
        logits_BV = logits_BV / temperature_B1
        for cut, setting in cuts:
            logits_BV = logits_BV if setting is None else cut(logits_BV, setting)
        return logits_BV

    return warped
