"""A decoder that reads a text once and then continues it at many positions at once, without copying its keys.

`read_text` records the keys and values of every layer while any Llama-, Qwen- or Mistral-style model of transformers
reads a text. `continue_threads` gives the same model tokens that hang at anchors of that text. Both go through the
attention registry of transformers, so the models' own code (projections, norms, rotary positions) is used as it is.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from phases.quiet_star.attention import own_visible, thread_attention, visible

NAME = "forge_threads"
"""Our attention's name in the registry of transformers."""
KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Text:
    """What a model keeps of a text that it has read."""

    place_BT: torch.Tensor
    """(B, T) position of every token, negative for padding."""
    layers: dict[int, KeyValue] = field(default_factory=dict)
    """Keys and values (B, K, T', F) by layer; T' < T where a sliding cache has dropped the oldest."""

    def detached(self) -> "Text":
        """The same without a way back for gradients."""
        return Text(self.place_BT, {i: (k.detach(), v.detach()) for i, (k, v) in self.layers.items()})


@dataclass
class Threads:
    """R threads a row that hang at anchors of a text, and what they have said so far."""

    text: Text
    anchor_BR: torch.Tensor
    """(B, R) place of the last token of the text that a thread sees."""
    said: int = 0
    """J: own tokens so far."""
    layers: dict[int, KeyValue] = field(default_factory=dict)
    """Own keys and values (B, K, R, J, F) by layer; kept only while a thread is continued step by step."""
    keep: bool = True
    """Whether more tokens will follow."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: Any) -> Any:
        """(B, R·L, H, F) from queries (B, H, R·L, F) and the new tokens' keys and values (B, K, R·L, F)."""
        rows, threads = self.anchor_BR.shape
        heads, count, features = q.shape[1:]
        groups, new = k.shape[1], count // threads
        own = (k.reshape(rows, groups, threads, new, features), v.reshape(rows, groups, threads, new, features))
        if self.said:
            own = tuple(torch.cat(pair, 3) for pair in zip(self.layers[layer], own, strict=True))  # type: ignore[assignment]
        if self.keep:
            self.layers[layer] = own
        text = self.text.layers[layer]
        place_BT = self.text.place_BT[:, -text[0].shape[2] :]
        step = torch.arange(1 + self.said, 1 + self.said + new, device=q.device)
        seen = visible(self.anchor_BR, self.anchor_BR[..., None] + step, place_BT, window)
        out = thread_attention(
            q.reshape(rows, groups, heads // groups, threads, new, features),
            text,
            own,
            seen,
            own_visible(new, self.said, window, q.device),
            scale,
        )
        return out.flatten(1, 2).flatten(2, 3).transpose(1, 2)


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **arguments: Any
) -> tuple[torch.Tensor, None]:
    """The entry in the registry: ordinary attention, which records when it is asked to, or that of threads."""
    text, threads = arguments.pop("text", None), arguments.pop("threads", None)
    if threads is None:
        if text is not None:
            text.layers[module.layer_idx] = (key, value)
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **arguments
        )
        return result
    window = arguments.get("sliding_window")
    return threads.attend(module.layer_idx, query, key, value, arguments["scaling"], window), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def enable_threads(model: Any) -> None:
    """Let a model read texts and threads; without either it attends as before.

    It stays so: the backward pass of activation checkpointing runs the layers again.
    """
    model.config._attn_implementation = NAME


def read_text(decoder: Any, place_BT: torch.Tensor, **arguments: Any) -> tuple[torch.Tensor, Text, Any]:
    """Read tokens with a decoder (`model.model`): (hidden states (B, T, D), what it keeps, the decoder's own output).

    `arguments` are the decoder's: `input_ids`, a cache, a mask … `place_BT` covers everything that it then remembers.
    """
    assert decoder.config._attn_implementation == NAME, "enable_threads first"
    text = Text(place_BT)
    output = decoder(**arguments, text=text)
    return output.last_hidden_state, text, output


def continue_threads(decoder: Any, threads: Threads, tokens_BRL: torch.Tensor) -> torch.Tensor:
    """(B, R, L, D) hidden states of the next L tokens of every thread; positions go on from the anchor by one."""
    assert decoder.config._attn_implementation == NAME, "enable_threads first: else the text would be left out"
    rows, count, new = tokens_BRL.shape
    step = torch.arange(1 + threads.said, 1 + threads.said + new, device=tokens_BRL.device)
    position_BN = (threads.anchor_BR[..., None] + step).flatten(1)
    # A mask of four dimensions is handed on as it is, so none is built; ours needs none.
    mask = torch.zeros(1, 1, 1, 1, device=tokens_BRL.device)
    output = decoder(
        input_ids=tokens_BRL.flatten(1),
        position_ids=position_BN,
        attention_mask=mask,
        use_cache=False,
        threads=threads,
    )
    if threads.keep:  # else the backward pass of activation checkpointing would find them further on
        threads.said += new
    hidden: torch.Tensor = output.last_hidden_state.view(rows, count, new, -1)
    return hidden
