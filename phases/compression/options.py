"""Every way to store each matrix, with what it takes and what it costs: the allocator's table.

    table = measure_options(model, latent, importances, calibration, CodecsConfig(), seed=0)
    table.options["model.embed_tokens.weight"]          # [Option(codec, bytes, loss), …]

A matrix at a time is put into the parent as an option would decode it, and the divergence on held-out rows is read.
SeedLM is offered to the matrices that feel coarse codes most, weight for weight, up to its share of the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from phases.compression.allocation import Option
from phases.compression.calibration import Calibration
from phases.compression.codec import Encoded
from phases.compression.config import CodecsConfig
from phases.compression.hyper import Hyper
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, squeezed
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ

Weights = Mapping[str, torch.Tensor]
SEEDLM = (SeedLM(block=8, latent=3), SeedLM(block=12, latent=4))
"""The paper's settings of 4 and 3 bits a weight."""
NOTHING = 1e-3
"""Nats a token: what is larger than an option that loses less is not looked at."""


@dataclass(frozen=True)
class Table:
    """What was measured."""

    options: dict[str, list[Option]]
    encoded: dict[tuple[str, Coding], Encoded]
    """Of SeedLM and hyper-compression, which train no more."""


def measure_options(
    model: Any,
    latent: Weights,
    importances: Weights,
    calibration: Calibration,
    config: CodecsConfig,
    seed: int,
) -> Table:
    """Measure all of them. `model`: the parent's, plain, whose weights are as before when this returns.

    `latent`: of every matrix what ternary codecs round; the others encode what the model computes with.
    """
    params = dict(model.named_parameters())
    # Codecs encode on the CPU, wherever the model is.
    weights = {name: params[name].detach().cpu() for name in latent}
    trial = _Trial(params, calibration, model)
    books = _codebooks(weights, importances, config, seed)
    table = Table({name: [] for name in latent}, {})
    for name in tqdm(latent, desc="compression: options", unit="matrix", leave=False, disable=None):
        found = table.options[name]
        for codec in _candidates(config):
            if isinstance(codec, VPTQ):
                encoded = codec.assign(weights[name], books[codec], importances.get(name))
                decoded, size = codec.decode(encoded, books[codec]), squeezed(encoded, codec, config.scale_bits).bytes
            else:
                source = latent[name] if isinstance(codec, Ternary) else weights[name]
                encoded = codec.encode(source, importances.get(name))
                decoded, size = codec.decode(encoded), encoded.bytes
            if any(o.bytes <= size and o.loss < NOTHING for o in found):
                continue
            found.append(Option(codec, size, trial.loss(name, decoded)))
            if isinstance(codec, Hyper):
                table.encoded[name, codec] = encoded
    if "seedlm" in config.names:
        chosen = sensitive(table.options, weights, config.seed_ratio)
        # In the order of the layers, as a trial goes on where the last one was.
        for name in filter(chosen.__contains__, latent):
            for seeded in SEEDLM:
                encoded = seeded.encode(weights[name], importances.get(name))
                loss = trial.loss(name, seeded.decode(encoded))
                table.options[name].append(Option(seeded, encoded.bytes, loss))
                table.encoded[name, seeded] = encoded
    return table


def sensitive(options: Mapping[str, list[Option]], weights: Weights, share: float) -> list[str]:
    """The matrices that lose most a weight in their smallest option, as many as hold no more than `share` of all."""
    left = share * sum(weights[name].numel() for name in options)
    worst = {
        name: min(found, key=lambda o: o.bytes).loss / weights[name].numel() if found else 0.0
        for name, found in options.items()
    }
    chosen = []
    for name in sorted(worst, key=lambda n: (-worst[n], n)):
        if weights[name].numel() <= left:
            chosen.append(name)
            left -= weights[name].numel()
    return chosen


class _Trial:
    """One matrix at a time in the parent."""

    def __init__(self, params: Mapping[str, torch.nn.Parameter], calibration: Calibration, model: Any) -> None:
        self.params, self.calibration, self.model = params, calibration, model

    def loss(self, name: str, decoded: torch.Tensor) -> float:
        """Divergence from the parent with that matrix."""
        param = self.params[name]
        before = param.data
        param.data = decoded.to(before)
        try:
            return self.calibration.divergence(self.model, changed=name)
        finally:
            param.data = before


def _candidates(config: CodecsConfig) -> list[Ternary | VPTQ | Hyper]:
    """All but SeedLM."""
    found: list[Ternary | VPTQ | Hyper] = []
    if "ternary" in config.names:
        found += [Ternary(t, config.group, config.scale_bits) for t in config.thresholds]
    if "vptq" in config.names:
        found += vptq_settings(config)
    if "hyper" in config.names:
        found += [Hyper(bits=bits) for bits in config.hyper_bits]
    return found


def vptq_settings(config: CodecsConfig) -> list[VPTQ]:
    """One for each length of vectors."""
    return [VPTQ(vector=v, codebook_size=config.codebook_size, iterations=20) for v in config.vectors]


def _codebooks(weights: Weights, importances: Weights, config: CodecsConfig, seed: int) -> dict[VPTQ, torch.Tensor]:
    """A codebook for each setting, fitted to all matrices: which will share it is not known yet."""
    return {codec: codec.fit(weights, importances, seed) for codec in vptq_settings(config)}
