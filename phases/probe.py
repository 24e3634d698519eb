"""A probe: what a model can do, in one forward pass an item, so that thousands of candidates can be judged.

An item counts as solved when every token of its completion is the argmax given the tokens before it. That is
exactly when greedy decoding writes the completion token by token, so the value equals exact match by greedy
decoding up to completions that reach the same answer by other tokens (`evaluation` measures that one; a test
compares the two). The third speciality is next-token accuracy on held-out text when the model exits at half depth.

Every speciality comes as one float per unit (item or text block), so that differences can be paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from phases.dataset import Dataset, Split
from phases.exits import exit_hidden_states
from phases.tasks.item import Item, render_completion, render_prompt

SPECIALITIES = ("reasoning", "memory", "adaptive")
Scores = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of similar length."""

    tokens_BT: torch.Tensor
    answer_BT: torch.Tensor
    """bool: the tokens that must be predicted."""
    index: list[int]
    """Where each row stood in the input order."""

    def to(self, device: torch.device) -> "Batch":
        """The same rows where a model can read them."""
        return Batch(self.tokens_BT.to(device), self.answer_BT.to(device), self.index)


@dataclass(frozen=True)
class Probe:
    """Fixed inputs for repeated scoring."""

    items: dict[str, list[Batch]]
    text_NT: torch.Tensor
    """(N, T+1) held-out text blocks."""

    def score(self, model: Any) -> Scores:
        """One value a unit for each speciality; `model` is any HF causal LM in evaluation mode, wherever it is."""
        scores = {name: solved(model, batches) for name, batches in self.items.items()}
        return {**scores, "adaptive": half_depth_accuracy(model, self.text_NT)}


def mean_score(scores: Scores) -> float:
    """Mean over the specialities of the mean over their units."""
    return float(np.mean([np.mean(values) for values in scores.values()]))


def build_probe(data: Dataset, split: Split, items: int, blocks: int) -> Probe:
    """A probe on the first `items` items of each task speciality and the first `blocks` text blocks of a split."""
    by_name = {name: data.items(split, name)[:items] for name in ("reasoning", "memory")}
    text = np.asarray(data.blocks(split, "text")[:blocks]).astype(np.int64)
    tokenizer = data.tokenizer
    return Probe(
        {name: encode_items(tokenizer, chosen) for name, chosen in by_name.items() if chosen},
        torch.from_numpy(text),
    )


def encode_items(tokenizer: Any, items: Sequence[Item], batch: int = 64) -> list[Batch]:
    """Tokenise items into right-padded batches, longest last."""
    rows = []
    for item in items:
        prompt = tokenizer(render_prompt(tokenizer, item.prompt), add_special_tokens=False)["input_ids"]
        answer = tokenizer(render_completion(tokenizer, item), add_special_tokens=False)["input_ids"]
        rows.append((prompt, answer))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    return [_pad([rows[i] for i in order[a : a + batch]], order[a : a + batch]) for a in range(0, len(rows), batch)]


def _pad(rows: list[tuple[list[int], list[int]]], index: list[int]) -> Batch:
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    marks = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        tokens[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        marks[i, len(prompt) : len(prompt) + len(answer)] = True
    return Batch(tokens, marks, index)


@torch.inference_mode()
def solved(model: Any, batches: Sequence[Batch]) -> npt.NDArray[np.float64]:
    """(n,) 1.0 where greedy decoding writes the whole completion, in the items' own order.

    Causal attention makes right padding harmless; logits are computed at the completion's positions only.
    """
    result = np.zeros(sum(len(b.index) for b in batches))
    for batch in (b.to(model.device) for b in batches):
        hidden_BTD = model.base_model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        wanted = batch.answer_BT[:, 1:]
        guess = model.get_output_embeddings()(hidden_BTD[:, :-1][wanted]).argmax(-1)
        right = torch.ones_like(wanted)
        right[wanted] = guess == batch.tokens_BT[:, 1:][wanted]
        result[batch.index] = right.all(1).double().cpu().numpy()
    return result


@torch.no_grad()
def answer_losses(model: Any, batches: Sequence[Batch]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """((n,) mean nats a token of each completion, (n,) what `solved` gives), in the items' own order."""
    nats_N, right_N = (np.zeros(sum(len(b.index) for b in batches)) for _ in range(2))
    for batch in (b.to(model.device) for b in batches):
        hidden_BTD = model.base_model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        wanted_BT, target_BT = batch.answer_BT[:, 1:], batch.tokens_BT[:, 1:]
        logits_NV = model.get_output_embeddings()(hidden_BTD[:, :-1][wanted_BT]).float()
        loss_BT, wrong_BT = torch.zeros_like(wanted_BT, dtype=logits_NV.dtype), torch.zeros_like(wanted_BT)
        loss_BT[wanted_BT] = F.cross_entropy(logits_NV, target_BT[wanted_BT], reduction="none")
        wrong_BT[wanted_BT] = logits_NV.argmax(-1) != target_BT[wanted_BT]
        nats_N[batch.index] = (loss_BT.sum(1) / wanted_BT.sum(1)).double().cpu().numpy()
        right_N[batch.index] = (~wrong_BT.any(1)).double().cpu().numpy()
    return nats_N, right_N


@torch.inference_mode()
def half_depth_accuracy(model: Any, text_NT: torch.Tensor, batch: int = 16) -> npt.NDArray[np.float64]:
    """(N,) share of next tokens that the exit at half depth gets right, per block."""
    depth = max(1, model.config.num_hidden_layers // 2)
    parts = []
    for rows in torch.split(text_NT.to(model.device), batch):
        hidden_BTD = exit_hidden_states(model, rows[:, :-1], (depth,))[0]
        guess = model.get_output_embeddings()(hidden_BTD).argmax(-1)
        parts.append((guess == rows[:, 1:]).double().mean(1))
    return torch.cat(parts).cpu().numpy()
