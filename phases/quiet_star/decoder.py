"""A model that thinks before it predicts, for everything that takes a model: `generate`, lm-eval, our own measures.

    model = thinking_model(thinker, Thinking(tokens=8))
    model.generate(**tokenizer("def ", return_tensors="pt"))

It is the same transformers model with another decoder inside: the hidden states that come out are already mixed with
those after a thought. Thoughts do not stay in the context: each position has its own, as in training.
"""

import copy
from typing import Any, Literal

import torch

from phases.quiet_star.mixing import mix
from phases.quiet_star.thinker import Thinker, read_thoughts, sample_thoughts
from phases.quiet_star.threads import Text, read_text
from phases.strict import StrictModel

Mode = Literal["on", "off", "shuffled"]
THREADS = 1024
"""Threads that think at the same time when every position does."""


class Thinking(StrictModel):
    """How a model thinks when it is used."""

    mode: Mode = "on"
    """`shuffled` gives every position the thought of another one: a thought's form without its content."""
    tokens: int = 8
    """Length of a thought, delimiters left out."""
    samples: int = 1
    """Thoughts a position; their predictions' logits are averaged."""
    temperature: float = 1.0
    """Temperature of sampling the thought."""
    everywhere: bool = True
    """Think at every new position (scoring a text), or at the last one only (writing)."""
    seed: int = 0
    """Seed of the thoughts."""


class ThinkingDecoder(torch.nn.Module):
    """Stands in for a model's decoder (`model.model`)."""

    def __init__(self, thinker: Thinker, thinking: Thinking) -> None:
        super().__init__()
        self.inner, self.thinker, self.thinking = thinker.model.model, thinker, thinking
        self.generator = torch.Generator(next(thinker.parameters()).device).manual_seed(thinking.seed)
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
        mixed = [
            self._mixed(text, plain, anchor)
            for plain, anchor in zip(hidden_BTD[:, thinking].split(step, 1), anchor_BR.split(step, 1), strict=True)
        ]
        output.last_hidden_state = torch.cat([hidden_BTD[:, : thinking.start], *mixed], 1)
        return output

    def _mixed(self, text: Text, plain_BPD: torch.Tensor, anchor_BP: torch.Tensor) -> torch.Tensor:
        """(B, P, D) hidden states after a thought at each of P anchors, mixed with those before it."""
        thinking, (rows, places) = self.thinking, anchor_BP.shape
        anchor_BR = anchor_BP.repeat(1, thinking.samples)
        drawn, _ = sample_thoughts(
            self.thinker, text, anchor_BR, thinking.tokens, thinking.temperature, self.generator
        )
        thought_BRN = drawn.tokens_BRN
        if thinking.mode == "shuffled":
            thought_BRN = self._of_another(text, thought_BRN)
        _, after_BRKD = read_thoughts(self.thinker, text, anchor_BR, thought_BRN, thought_BRN[..., :0])
        after = after_BRKD.view(rows, thinking.samples, places, -1)
        plain = plain_BPD[:, None].expand_as(after)
        return mix(plain, after, self.thinker.head(plain, after)).mean(1)

    def _of_another(self, text: Text, thought_BRN: torch.Tensor) -> torch.Tensor:
        """Every thread gets another's thought; a lonely one that of the last step, or of the text's first token."""
        if thought_BRN.shape[:2].numel() > 1:
            return shuffle(thought_BRN)
        earlier = self._earlier
        if earlier is None:
            first = torch.zeros_like(thought_BRN[..., 0])
            earlier = sample_thoughts(
                self.thinker, text, first, self.thinking.tokens, self.thinking.temperature, self.generator
            )[0].tokens_BRN
        self._earlier = thought_BRN
        return earlier


def shuffle(thought_BRN: torch.Tensor) -> torch.Tensor:
    """(B, R, n) the thought of the same thread of the next row, so of another text; of the next thread in one row."""
    return thought_BRN.roll(1, 0 if len(thought_BRN) > 1 else 1)


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
