"""A model that thinks before it predicts, for everything that takes a model: `generate`, lm-eval, our own measures.

    model = thinking_model(thinker, Thinking(tokens=8))
    model.generate(**tokenizer("def ", return_tensors="pt"))

It is the same transformers model with another decoder inside: the hidden states that come out are already mixed with
those after a thought. Thoughts do not stay in the context: each position has its own, as in training.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field

from phases.quiet_star.thinker import Thinker, mixed_states, pauses, sample_thoughts
from phases.quiet_star.threads import Text, read_text
from phases.strict import StrictModel

Mode = Literal["on", "off", "shuffled"]
THREADS = 1024
"""Threads that think at the same time when every position does."""


class Thinking(StrictModel):
    """How a model thinks when it is used."""

    mode: Mode = "on"
    """`shuffled` gives every position the thought of another one: a thought's form without its content."""
    tokens: int = Field(8, ge=0)
    """Length of a thought, delimiters left out."""
    samples: int = Field(1, ge=1)
    """Thoughts a position; their predictions' logits are averaged."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of sampling the thought."""
    everywhere: bool = True
    """Think at every new position (scoring a text), or at the last one only (writing)."""
    seed: int = 0
    """Seed of the thoughts."""
    pause: bool = False
    """A thought is start delimiters only: the control, which has nothing to say."""


@dataclass(frozen=True)
class Thought:
    """What was thought at P positions, and how much of the predictions came from it."""

    tokens_BSPN: torch.Tensor
    """(B, S, P, n) tokens that were read, so another position's when shuffled; delimiters left out."""
    weight_BSP: torch.Tensor
    """(B, S, P) mixing weights."""


class ThinkingDecoder(torch.nn.Module):
    """Stands in for a model's decoder (`model.model`)."""

    def __init__(self, thinker: Thinker, thinking: Thinking) -> None:
        super().__init__()
        self.inner, self.thinker, self.thinking = thinker.model.model, thinker, thinking
        self.generator = torch.Generator(next(thinker.parameters()).device).manual_seed(thinking.seed)
        self.newest: Thought | None = None
        """The thoughts of the newest positions; of the last `THREADS` at most."""
        self._earlier: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """The decoder's own parts: layers, norm, embeddings, config."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **arguments: Any) -> Any:
        """The decoder's output with mixed hidden states (B, T, D)."""
        cache = arguments.get("past_key_values")
        before = 0 if cache is None else int(cache.get_seq_length())
        place_BT = places(input_ids, attention_mask, before)
        hidden_BTD, text, output = read_text(
            self.inner, place_BT, input_ids=input_ids, attention_mask=attention_mask, **arguments
        )
        new = input_ids.shape[1] if self.thinking.everywhere else 1
        thinking = slice(input_ids.shape[1] - new, None)
        anchor_BR = place_BT[:, -new:]
        step = max(1, THREADS // (len(input_ids) * self.thinking.samples))
        parts = zip(torch.split(hidden_BTD[:, thinking], step, 1), torch.split(anchor_BR, step, 1), strict=True)
        mixed = [self._mixed(text, plain_BPD, anchor_BP) for plain_BPD, anchor_BP in parts]
        output.last_hidden_state = torch.cat([hidden_BTD[:, : thinking.start], *mixed], 1)
        return output

    def _mixed(self, text: Text, plain_BPD: torch.Tensor, anchor_BP: torch.Tensor) -> torch.Tensor:
        """(B, P, D) hidden states after a thought at each of P anchors, mixed with those before it."""
        thinking, (rows, places) = self.thinking, anchor_BP.shape
        anchor_BR = anchor_BP.repeat(1, thinking.samples)
        thought_BRN = self._think(text, anchor_BR)
        if thinking.mode == "shuffled":
            thought_BRN = self._of_another(text, thought_BRN)
        mixed_BPD, weight_BSP = mixed_states(self.thinker, text, plain_BPD, anchor_BR, thought_BRN)
        self.newest = Thought(thought_BRN.view(rows, thinking.samples, places, -1), weight_BSP)
        return mixed_BPD

    def _think(self, text: Text, anchor_BR: torch.Tensor) -> torch.Tensor:
        """(B, R, n) a thought for every anchor."""
        thinking = self.thinking
        if thinking.pause:
            return pauses(self.thinker, anchor_BR, thinking.tokens).tokens_BRN
        sampled, _ = sample_thoughts(
            self.thinker, text, anchor_BR, thinking.tokens, thinking.temperature, self.generator
        )
        return sampled.tokens_BRN

    def _of_another(self, text: Text, thought_BRN: torch.Tensor) -> torch.Tensor:
        """Every thread gets another's thought; a lonely one that of the last step, or of the text's first token."""
        if thought_BRN.shape[:2].numel() > self.thinking.samples:
            return shuffle(thought_BRN)
        earlier = self._earlier
        if earlier is None:
            earlier = self._think(text, anchor_BR=thought_BRN.new_zeros(thought_BRN.shape[:2]))
        self._earlier = thought_BRN
        return earlier


def shuffle(thought_BRN: torch.Tensor) -> torch.Tensor:
    """(B, R, n) the thought of the thread before, of the row before: another place, and another text if there is one.

    Rows alone would not do: those of a multiple-choice item have the prompt in common.
    """
    return thought_BRN.roll((1, 1), (0, 1))


def places(input_ids: torch.Tensor, attention_mask: torch.Tensor | None, before: int) -> torch.Tensor:
    """(B, before + T) position of every token that the decoder then remembers; −1 for padding on the left."""
    rows, new = input_ids.shape
    if attention_mask is None:
        return torch.arange(before + new, device=input_ids.device).expand(rows, -1)
    return torch.where(attention_mask > 0, attention_mask.cumsum(1) - 1, -1)


def thinking_model(thinker: Thinker, thinking: Thinking) -> Any:
    """The thinker's model with thoughts in its predictions; the model itself when they are off."""
    if thinking.mode == "off":
        return thinker.model
    model = copy.copy(thinker.model)
    model._modules = {**thinker.model._modules, "model": ThinkingDecoder(thinker, thinking).eval()}
    return model
