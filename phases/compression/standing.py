"""Where a model stands beside its parent on the validation split: the judge's retention (`kept`), read, not played.

    standing = Standing(parent_model, open_exams(parent, data, lessons, items=512, blocks=128))
    standing.kept(model).mean

It is the judge's definition on another split, but for how an answer is got: the judge has questions decoded and an
agent's conversations played with its tools. Here they are read once, as they should go. A question is right when every
token of its answer is the likeliest after those before, which is what greedy decoding writes (`phases.probe`); of a
conversation the share of such replies counts, where the judge asks whether what came out is right. An agent's questions
are two of its domains, as they are to the judge. A parent whose design chooses among experts is read without them and
played with them: there the judge finds less kept, in domains, than is read here.

Shapes: B rows, T positions, D hidden, N units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phases.adas.trials import ITEMS
from phases.baking.rows import Encoded
from phases.checkpoint import Checkpoint
from phases.compression.kept import Kept
from phases.compression.lessons import Lessons
from phases.dataset import Dataset
from phases.probe import Batch, encode_items, solved
from phases.training.loss import row_nll

ROWS = 16
"""That are read at a time, of similar length where they are padded."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exams:
    """What is read."""

    questions: Mapping[str, Sequence[Batch]]
    """By stream."""
    conversations: Mapping[str, Sequence[Batch]]
    """By domain; none of a model that is no agent."""
    text_NT: torch.Tensor
    """(N, T+1) int64."""


def open_exams(parent: Checkpoint, data: Dataset, lessons: Lessons, items: int, blocks: int) -> Exams:
    """At most `items` questions of each task and conversations of each domain, and `blocks` of text, evenly spread."""
    asked = {name: spread(data.items("validation", name), items) for name in ITEMS.values()}
    rows = data.blocks("validation", "text")
    text = np.asarray(rows[spread(range(len(rows)), blocks)]).astype(np.int64)
    return Exams(
        {name: encode_items(parent.tokenizer(), found, ROWS) for name, found in asked.items() if found},
        {domain: _batches(spread(found, items)) for domain, found in lessons.held_out.items()},
        torch.from_numpy(text),
    )


class Standing:
    """Exams, and what the parent makes of them."""

    def __init__(self, parent: Any, exams: Exams) -> None:
        """`parent`: in evaluation mode."""
        self.exams = exams
        self._parents = self._read(parent)

    def kept(self, model: Any) -> Kept:
        """What a model, in evaluation mode, has kept."""
        (tasks, domains, text), (their_tasks, their_domains, their_text) = self._read(model), self._parents
        return Kept(
            {name: (values, their_tasks[name]) for name, values in tasks.items()},
            {name: (values, their_domains[name]) for name, values in domains.items()},
            (their_text, text),
        )

    def _read(self, model: Any) -> tuple[dict[str, Values], dict[str, Values], Values]:
        """Right answers by task, shares of right replies by domain, nats of every block."""
        tasks = {name: solved(model, batches) for name, batches in self.exams.questions.items()}
        domains = {name: replies(model, batches) for name, batches in self.exams.conversations.items()}
        if domains:
            domains |= {domain: tasks[stream] for domain, stream in ITEMS.items() if stream in tasks}
        return tasks, domains, _nats(model, self.exams.text_NT)


@torch.inference_mode()
def replies(model: Any, batches: Sequence[Batch]) -> Values:
    """(N,) share of each conversation's replies of which every token is the likeliest, in their own order."""
    share_N = np.zeros(sum(len(batch.index) for batch in batches))
    for batch in (one.to(model.device) for one in batches):
        hidden_BTD = model.base_model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        wanted_BT = batch.answer_BT[:, 1:]
        hit_BT = torch.zeros_like(wanted_BT)
        guess = model.get_output_embeddings()(hidden_BTD[:, :-1][wanted_BT]).argmax(-1)
        hit_BT[wanted_BT] = guess == batch.tokens_BT[:, 1:][wanted_BT]
        for place, hits, wanted in zip(batch.index, hit_BT.cpu().numpy(), wanted_BT.cpu().numpy(), strict=True):
            edges = np.flatnonzero(np.diff(np.concatenate(([0], wanted.astype(np.int8), [0]))))
            share_N[place] = np.mean([hits[a:b].all() for a, b in zip(edges[::2], edges[1::2], strict=True)])
    return share_N


@torch.inference_mode()
def _nats(model: Any, text_NT: torch.Tensor) -> Values:
    """(N,) nats of each block."""
    found, head_VD = [], model.get_output_embeddings().weight
    for rows_BT in torch.split(text_NT.to(model.device), ROWS):
        hidden_BTD = model.base_model(input_ids=rows_BT[:, :-1], use_cache=False).last_hidden_state
        nats_N = row_nll(hidden_BTD.flatten(0, 1), head_VD, rows_BT[:, 1:].flatten())
        found.append(nats_N.view(len(rows_BT), -1).double().sum(1).cpu())
    return torch.cat(found).numpy()


def spread(every: Sequence[Any], most: int) -> list[Any]:
    """Evenly, in their order."""
    count = min(len(every), most)
    return [every[i * len(every) // count] for i in range(count)]


def _batches(encoded: Sequence[Encoded]) -> list[Batch]:
    """Right-padded, which causal attention does not see."""
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].tokens))
    found = []
    for chosen in (order[start : start + ROWS] for start in range(0, len(order), ROWS)):
        shape = len(chosen), len(encoded[chosen[-1]].tokens)
        tokens_BT, ours_BT = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        for row, one in enumerate(encoded[i] for i in chosen):
            tokens_BT[row, : len(one.tokens)] = torch.tensor(one.tokens)
            ours_BT[row, : len(one.tokens)] = torch.tensor(one.ours)
        found.append(Batch(tokens_BT, ours_BT, chosen))
    return found
