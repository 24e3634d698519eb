"""Dreaming: a frozen copy of the model writes on from stored prompts of the training split.

    prompts = store_prompts(data, config, mix, seed, cycle)
    dreams = dream(dreamer, data.tokenizer, prompts, config, seed, cycle)
    kept, summary = sift(dreams, config)                      # phases.forge.dream_filter

A dream of a task writes its answer, which can be verified; a dream of running text writes on from the beginning of a
block. Rehearsing what one wrote oneself is pseudo-rehearsal (Robins 1995; LAMOL, arXiv 1909.03329); what a small
model dreams without a prompt is hardly ever valid. A cycle of 192 dreams of a model with 1 M
parameters takes three seconds on a core, a third of it to read the items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phases.dataset import Dataset, Split
from phases.decoding import MARGIN, Sampler, decode, encode, stop_ids
from phases.errors import ConfigError
from phases.forge.config import Dreams
from phases.tasks.item import Item, extract_answer, render_completion, render_prompt
from phases.training.loss import row_nll

STREAMS = ("text", "reasoning", "memory")


@dataclass(frozen=True)
class Prompt:
    """What a dream starts from."""

    tokens: tuple[int, ...]
    item: Item | None
    """The task that it asks; None for running text."""
    truth: tuple[int, ...]
    """How the training data goes on: the answer with its end-of-text, or at most `new_tokens` of text."""


@dataclass(frozen=True)
class Dream:
    """What was dreamt from a prompt."""

    prompt: Prompt
    written: tuple[int, ...]
    """The tokens written, the stop token included."""
    label: int
    """The temperature's index in `Dreams.temperatures`."""
    nats: float
    """Mean −log p of a written token under the dreamer at temperature 1."""
    finished: bool
    """Whether it ends with a stop token."""
    right: bool | None
    """Whether the answer is the task's; None for running text."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and what was written."""
        return self.prompt.tokens + self.written


def store_prompts(
    data: Dataset, config: Dreams, mix: Mapping[str, float], seed: int, cycle: int, split: Split = "train"
) -> list[Prompt]:
    """`config.prompts` prompts of a cycle (0, 1, …) from a split, the streams in proportion to the mix.

    A stream's prompts come in seeded permutations, one an epoch: no cycle repeats one before all have been dreamt
    from. Raises `ConfigError` for a stream that the data has nothing of, or blocks too short for a prompt.
    """
    prompts: list[Prompt] = []
    for number, (name, count) in enumerate(zip(STREAMS, _counts(mix, config.prompts), strict=True)):
        if not count:
            continue
        stored: Any = data.blocks(split, name) if name == "text" else data.items(split, name)
        if not len(stored):
            raise ConfigError(f"dreams: the data has no {name} to dream from; set mix.{name}=0 or prepare data with it")
        for place in _places(len(stored), count, cycle, [seed, 3, number]):
            found = stored[place]
            prompts.append(_text(found, config) if name == "text" else _task(data.tokenizer, found))
    return prompts


def _counts(mix: Mapping[str, float], total: int) -> list[int]:
    """Prompts of each stream, `total` in all: the largest remainders are rounded up."""
    shares = np.array([mix.get(name, 0.0) for name in STREAMS])
    exact = shares / shares.sum() * total
    counts = np.floor(exact).astype(int)
    for stream in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[stream] += 1
    return [int(count) for count in counts]


def _places(size: int, count: int, cycle: int, seed: Sequence[int]) -> Iterator[int]:
    """The indices that a cycle draws: each takes the next `count` of an endless line of permutations of `size`."""
    orders: dict[int, npt.NDArray[np.int64]] = {}
    for drawn in range(cycle * count, (cycle + 1) * count):
        epoch, place = divmod(drawn, size)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([*seed, epoch]).permutation(size)
        yield int(orders[epoch][place])


def _text(block: npt.NDArray[Any], config: Dreams) -> Prompt:
    start, end = config.prompt_tokens, config.prompt_tokens + config.new_tokens
    if len(block) <= start:
        raise ConfigError(f"dreams.prompt_tokens={start}: blocks have {len(block)} tokens; give less than that")
    tokens = [int(token) for token in block[:end]]
    return Prompt(tuple(tokens[:start]), None, tuple(tokens[start:]))


def _task(tokenizer: Any, item: Item) -> Prompt:
    asked, answer = render_prompt(tokenizer, item.prompt), render_completion(tokenizer, item)
    return Prompt(tuple(encode(tokenizer, asked)), item, tuple(encode(tokenizer, answer)))


def dream(model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: Dreams, seed: int, cycle: int) -> list[Dream]:
    """One dream of each prompt, in their order, by a frozen model in evaluation mode.

    Neighbouring prompts have neighbouring temperatures, so each stream gets equal shares; cycle c begins c further
    along. Text may write `config.new_tokens` tokens, a task as many as the longest true answer needs and a margin.
    """
    assert not model.training
    labels = [(i + cycle) % len(config.temperatures) for i in range(len(prompts))]
    longest = max((len(prompt.truth) for prompt in prompts if prompt.item), default=0)
    limits = [longest + MARGIN if prompt.item else config.new_tokens for prompt in prompts]
    sampler = Sampler([config.temperatures[label] for label in labels], [seed, 4, cycle])
    stop, asked = stop_ids(model, tokenizer), [prompt.tokens for prompt in prompts]
    written = decode(model, asked, limits, stop, sampler)
    nats = mean_nats(model, asked, written)
    return [
        Dream(prompt, tuple(tokens), label, mean, tokens[-1] in stop, _right(tokenizer, prompt, tokens))
        for prompt, tokens, label, mean in zip(prompts, written, labels, nats, strict=True)
    ]


def _right(tokenizer: Any, prompt: Prompt, written: Sequence[int]) -> bool | None:
    if prompt.item is None:
        return None
    return extract_answer(str(tokenizer.decode(written, skip_special_tokens=True))) == prompt.item.answer


@torch.inference_mode()
def mean_nats(
    model: Any, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]], batch: int = 64
) -> list[float]:
    """Mean −log p (nats) of the tokens written after each prompt, in one teacher-forced pass.

    Causal attention makes right padding harmless; logits are computed at what was written only.
    """
    sizes = [len(prompt) + len(tokens) for prompt, tokens in zip(prompts, written, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    result = [0.0] * len(sizes)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        tokens_BT = torch.zeros(len(chosen), sizes[chosen[-1]], dtype=torch.long)
        written_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        for row, i in enumerate(chosen):
            tokens_BT[row, : sizes[i]] = torch.tensor([*prompts[i], *written[i]])
            written_BT[row, len(prompts[i]) : sizes[i]] = True
        tokens_BT, written_BT = tokens_BT.to(model.device), written_BT[:, 1:].to(model.device)
        hidden_BTD = model.base_model(input_ids=tokens_BT[:, :-1], use_cache=False).last_hidden_state
        nats_N = row_nll(hidden_BTD[written_BT], model.get_output_embeddings().weight, tokens_BT[:, 1:][written_BT])
        parts = torch.split(nats_N.double(), [len(written[i]) for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            result[i] = float(part.mean())
    return result
