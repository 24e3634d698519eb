"""Self-modelling: an auxiliary head predicts a later layer's states from an earlier one's (arXiv 2407.10188).

A layer that predicts itself is the identity, so the target lies deeper than the source, no gradient flows into it, and
every R² stands beside that of copying the source. States are compared as the next layer reads them, divided by their
root mean square: a model's scale is then nothing to learn, and no single position of huge activations outweighs the
rest. The head is source + f(source) with f = 0 at first, so it starts as the copy: in a model of 4 layers and width
128 its held-out R² was 0.57 after 30 steps (copying 0.40, the best linear map 0.73), without the skip 0.14.

Depth k is the residual stream after k layers and before any norm: 0 the embeddings, L what the last layer leaves.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from phases.architecture import decoder_layers, layer_output
from phases.errors import ConfigError
from phases.forge.config import SelfModel

LEAST_VARIANCE = 1e-3
"""Of a row's targets, as a share of their mean square: a row of one repeated token has none."""
RANDOM_SEED = 5
"""Of the control's table: the same in every run, so that it need not be saved."""


class SelfModelHead(torch.nn.Module):
    """What predicts the model's own later states, and recognises its own writing."""

    random_VD: torch.Tensor

    def __init__(self, config: Any, settings: SelfModel, temperatures: int) -> None:
        """`config`: the language model's; `temperatures`: how many it dreams at. Weights are drawn by torch's own seed.

        Raises `ConfigError` when source and target are the same layer.
        """
        super().__init__()
        self.settings, width = settings, config.hidden_size
        self.depths = layer_depths(settings, config.num_hidden_layers)
        last = torch.nn.Linear(settings.hidden or width, width)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        first = [torch.nn.Linear(width, settings.hidden), torch.nn.GELU()] if settings.hidden else []
        self.predictor = torch.nn.Sequential(*first, last)
        self.recogniser = torch.nn.Linear(width, temperatures + 1)
        if settings.what == "random":
            generator = torch.Generator().manual_seed(RANDOM_SEED)
            table = torch.randn(config.vocab_size, width, generator=generator)
            self.register_buffer("random_VD", table, persistent=False)

    def forward(self, source_BTD: torch.Tensor, target_BTD: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
        """(B, T) squared error over the target's variance: the mean over a row's positions is 1 − R².

        The variance is the total one (summed over features, of all positions of a row), so that it divides by no
        feature that hardly varies, and a row's loss does not depend on which rows it shares a batch with. No gradient
        flows through target or variance.
        """
        source = source_BTD.detach() if self.settings.detached else source_BTD
        wanted = self.wanted(target_BTD, tokens_BT)
        variance_B = wanted.var(1, correction=0).mean(-1).clamp(min=LEAST_VARIANCE)
        return (self.predict(source) - wanted).square().mean(-1) / variance_B[:, None]

    def loss(
        self, source_BTD: torch.Tensor, target_BTD: torch.Tensor, tokens_BT: torch.Tensor, weight_BT: torch.Tensor
    ) -> torch.Tensor:
        """Σ weight · (1 − R²), where a position counts by its weight."""
        loss_BT: torch.Tensor = self(source_BTD, target_BTD, tokens_BT)
        return (weight_BT * loss_BT).sum()

    def predict(self, source: torch.Tensor) -> torch.Tensor:
        """(…, D) what the head says of states (…, D); float32, where the target has root mean square 1."""
        states = _normalised(source)
        correction: torch.Tensor = self.predictor(states).float()
        # A random target is no later state of the source: there copying is no start.
        return correction if self.settings.what == "random" else states + correction

    @torch.no_grad()
    def wanted(self, target: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(…, D) what the head is to say: the later states (…, D), or the control's map of the tokens (…)."""
        return _normalised(self.random_VD[tokens] if self.settings.what == "random" else target)

    def recognise(self, hidden_ND: torch.Tensor, label_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(summed cross-entropy in nats, share recognised) of texts by the last hidden state of their last token.

        A label is the index of the temperature that the model wrote at, or their number for what it did not write.
        """
        hidden = hidden_ND.detach() if self.settings.detached else hidden_ND
        logits = self.recogniser(hidden.to(self.recogniser.weight.dtype)).float()
        right = logits.argmax(-1) == label_N
        return F.cross_entropy(logits, label_N, reduction="sum"), right.float().mean()


class WithHead(torch.nn.Module):
    """A language model and its self-modelling head, as one module to train."""

    def __init__(self, model: Any, head: SelfModelHead) -> None:
        super().__init__()
        self.model, self.head = model, head

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.model.config


def layer_depths(settings: SelfModel, layers: int) -> tuple[int, int]:
    """Source and target as depths 0 … `layers`. Raises `ConfigError` when they are one and the same."""
    source, target = round(settings.source * layers), round(settings.target * layers)
    if source == target:
        raise ConfigError(
            f"self_model: source={settings.source} and target={settings.target} are both layer {source} of {layers}; "
            "set them further apart"
        )
    return source, target


def self_states(
    model: Any, head: SelfModelHead, tokens_BT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(last, source, target) states (B, T, D) of one pass of the language model, with gradients.

    `last` is after the final norm, as the language-model head reads it; the others are residual streams.
    """
    layers, caught = decoder_layers(model), {}

    def entering(module: Any, args: tuple[Any, ...]) -> None:
        caught["source"] = args[0]

    def leaving(module: Any, args: tuple[Any, ...], output: Any) -> None:
        caught["target"] = layer_output(output)

    hooks = [
        layers[head.depths[0]].register_forward_pre_hook(entering),
        layers[head.depths[1] - 1].register_forward_hook(leaving),
    ]
    try:
        last_BTD: torch.Tensor = model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return last_BTD, caught["source"], caught["target"]


@dataclass(frozen=True)
class Prediction:
    """How well held-out states are predicted."""

    r2: float
    """R² of the head: 1 − squared error / total variance, over all positions."""
    copy: float
    """R² of the source itself as the prediction."""
    linear_copy: float
    """R² of the source with the best slope and offset for each feature, fitted to these very states."""
    variance: float
    """Of the target's activations, mean over features, in their own units: near 0 they have collapsed."""
    spread: float
    """The same of the states that are predicted, of root mean square 1: a share of 1."""


@torch.no_grad()
def prediction_r2(
    head: SelfModelHead, source_BTD: torch.Tensor, target_BTD: torch.Tensor, tokens_BT: torch.Tensor
) -> Prediction:
    """The head against copying on held-out states, as `self_states` gives them."""
    source_ND, target_ND = _normalised(source_BTD.flatten(0, 1)), target_BTD.flatten(0, 1).float()
    wanted_ND = head.wanted(target_ND, tokens_BT.flatten())
    x, y = source_ND - source_ND.mean(0), wanted_ND - wanted_ND.mean(0)
    slope_D = (x * y).sum(0) / x.square().sum(0).clamp(min=torch.finfo(x.dtype).tiny)
    total = y.square().sum()
    errors = [head.predict(source_BTD.flatten(0, 1)) - wanted_ND, source_ND - wanted_ND, slope_D * x - y]
    r2, copy, linear_copy = (float(1 - error.square().sum() / total) for error in errors)
    return Prediction(r2, copy, linear_copy, float(target_ND.var(0, correction=0).mean()), float(y.square().mean()))


@dataclass(frozen=True)
class Recognition:
    """How well the model tells its own texts."""

    n: int
    """Texts."""
    accuracy: float
    """Share recognised."""
    chance: float
    """Share of the most frequent label."""
    standard_error: float
    """Of the accuracy, binomial."""


@torch.no_grad()
def recognition_accuracy(head: SelfModelHead, hidden_ND: torch.Tensor, label_N: torch.Tensor) -> Recognition:
    """Recognition of held-out texts, beside always naming the most frequent label."""
    n, accuracy = len(label_N), float(head.recognise(hidden_ND, label_N)[1])
    chance = int(label_N.bincount().max()) / n
    return Recognition(n, accuracy, chance, math.sqrt(accuracy * (1 - accuracy) / n))


def _normalised(states: torch.Tensor) -> torch.Tensor:
    """(…, D) float32 over their root mean square."""
    return F.rms_norm(states.float(), states.shape[-1:], eps=torch.finfo(torch.float32).eps)
