"""Contrastive search: of the likeliest tokens, the one whose state is least like those of what was read.

    texts = ContrastiveSearch(Reader(model, decoding), stop, decoding, constraint)(prompts, limits)

The token with the largest (1 − α) · p − α · max cos(h, hⱼ) is taken, of the k likeliest that fit: p is its chance, h
the last hidden state after it, hⱼ those of the prompt and of what was written (arXiv 2202.06417). For every token all k
are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from phases.agent.constraint import Constraint, allowed
from phases.agent.depth import Reader
from phases.agent.design import Decoding
from phases.agent.penalties import penalised
from phases.decoding import Rows, Text, batches

CANDIDATES = 4
"""k, where a design has no `top_k`; the paper takes 3 to 10."""


@dataclass(frozen=True)
class Standing:
    """Where B rows stand."""

    read_BTD: torch.Tensor
    """Hidden states of all that was read, of length 1."""
    logits_BV: torch.Tensor
    score_BV: torch.Tensor
    """What candidates are chosen by: the logits, or a contrast of layers, less penalties."""

    def of(self, rows: Sequence[int]) -> "Standing":
        """That of some rows, in this order."""
        return Standing(self.read_BTD[rows], self.logits_BV[rows], self.score_BV[rows])


class ContrastiveSearch:
    """Writes texts that do not repeat themselves."""

    def __init__(
        self, reader: Reader, stop: set[int], decoding: Decoding, constraint: Constraint | None = None
    ) -> None:
        """Raises `ValueError` for a design without contrastive search."""
        if decoding.contrastive is None:
            raise ValueError("decoding.contrastive is not set; give the weight of unlikeness, as 0.6")
        self.reader, self.stop, self.decoding, self.constraint = reader, stop, decoding, constraint
        self.weight, self.count = decoding.contrastive, decoding.top_k or CANDIDATES

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], batch: int = 64) -> list[Text]:
        """The text of each prompt; `batch` rows are read at a time. Raises `ValueError` for an empty prompt."""
        texts = [Text([], []) for _ in prompts]
        for alive in batches(prompts, limits, max(1, batch // self.count)):
            rows = Rows(self.reader.model, [prompts[i] for i in alive])
            standing = self._read(rows, [[]] * len(alive))
            while True:
                standing = self._write_one(rows, standing, alive, texts)
                going = [
                    row
                    for row, i in enumerate(alive)
                    if texts[i].tokens[-1] not in self.stop and len(texts[i].tokens) < limits[i]
                ]
                if not going:
                    break
                if len(going) < len(alive):
                    rows.select(going)
                    standing, alive = standing.of(going), [alive[row] for row in going]
        return texts

    def _read(self, rows: Rows, written: Sequence[Sequence[int]], before_BTD: torch.Tensor | None = None) -> Standing:
        """Read what is new, after what was read before."""
        hidden_BTD = rows.read()
        read_BTD = normalize(hidden_BTD, dim=-1)
        logits_BV = rows.predict(hidden_BTD[:, -1])
        both_BTD = read_BTD if before_BTD is None else torch.cat([before_BTD, read_BTD], 1)
        return Standing(both_BTD, logits_BV, penalised(self.reader.score(logits_BV, written), written, self.decoding))

    def _write_one(self, rows: Rows, standing: Standing, alive: Sequence[int], texts: Sequence[Text]) -> Standing:
        """Add a token to each text, which the rows have then read."""
        written = [texts[i].tokens for i in alive]
        parents, tokens = self._candidates(standing, alive, written)
        chance_BV, plain_BV = standing.score_BV.softmax(-1), standing.logits_BV.float().log_softmax(-1)
        rows.select(parents)
        visible_NT = rows.mask_BT.bool()
        rows.append(torch.tensor(tokens, device=chance_BV.device))
        longer = [[*written[row], token] for row, token in zip(parents, tokens, strict=True)]
        after = self._read(rows, longer, standing.read_BTD[parents])
        likeness_NT = (after.read_BTD[:, :-1] @ after.read_BTD[:, -1:].mT).squeeze(-1)
        likeness_N = likeness_NT.masked_fill(~visible_NT, -1).amax(-1)
        values = ((1 - self.weight) * chance_BV[parents, tokens] - self.weight * likeness_N).tolist()
        best = [
            max((place for place, parent in enumerate(parents) if parent == row), key=values.__getitem__)
            for row in range(len(alive))
        ]
        for row, place in enumerate(best):
            written[row].append(tokens[place])
            texts[alive[row]].logprobs.append(float(plain_BV[row, tokens[place]]))
        rows.select(best)
        return after.of(best)

    def _candidates(
        self, standing: Standing, alive: Sequence[int], written: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[int]]:
        """The tokens of every row that come into question, and the rows that they belong to."""
        found = [
            (row, token)
            for row, i in enumerate(alive)
            for token in allowed(
                self.constraint, i, written[row], self.count, standing.score_BV[row], standing.logits_BV[row]
            )
        ]
        return [row for row, _ in found], [token for _, token in found]
