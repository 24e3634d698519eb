"""What a model pays for held-out text, block by block, at full depth or at an early exit.

Every token of a packed split is predicted exactly once (blocks overlap by one token), so Σ nats over the blocks is
the text's cost under the model at this context length. The head is applied to a slice of positions at a time: at
V = 32,000 the logits of one 16 × 256 batch would take 524 MB in float32, here they stay under `LOGITS_BYTES`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from evaluation.ratio import BlockLosses
from phases.dataset import Dataset, Split
from phases.exits import exit_hidden_states

LOGITS_BYTES = 64 * 2**20
"""Upper bound of the float32 logits that are held at a time."""


def text_blocks(data: Dataset, split: Split, limit: int | None = None) -> tuple[torch.Tensor, npt.NDArray[np.float64]]:
    """(N, T+1) int64 tokens of a split's text blocks and the (N,) bytes that they stand for.

    A limit takes blocks that are spread evenly over the split, so that all its sources are among them.
    """
    blocks = data.blocks(split, "text")
    chosen = spread(len(blocks), limit)
    tokens_NT = torch.from_numpy(np.asarray(blocks[chosen]).astype(np.int64))
    return tokens_NT, np.asarray(data.text_bytes(split)[chosen], dtype=np.float64)


def spread(count: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Indices of `limit` (None: all) of `count` units, evenly spread, in order."""
    size = count if limit is None else min(count, limit)
    return (np.arange(size) * count // max(1, size)).astype(np.int64)


@torch.inference_mode()
def block_losses(
    model: Any, tokens_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64], depth: int | None = None, batch: int = 16
) -> BlockLosses:
    """The model's nats for each block; `depth` = k reads the exit after layer k (None: full depth)."""
    parts = [_batch_nats(model, rows_BT.to(model.device), depth) for rows_BT in torch.split(tokens_NT, batch)]
    return BlockLosses(torch.cat(parts).numpy(), bytes_N, tokens_NT.shape[1] - 1)


def _batch_nats(model: Any, rows_BT: torch.Tensor, depth: int | None) -> torch.Tensor:
    """(B,) nats of each row, summed in float64."""
    if depth is None:
        hidden_BTD = model.model(input_ids=rows_BT[:, :-1], use_cache=False).last_hidden_state
    else:
        hidden_BTD = exit_hidden_states(model, rows_BT[:, :-1], (depth,))[0]
    nats_BT = token_nats(model.lm_head, hidden_BTD.flatten(0, 1), rows_BT[:, 1:].flatten())
    return nats_BT.view(rows_BT.shape[0], -1).double().sum(1).cpu()


def token_nats(head: Any, hidden_ND: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """(N,) negative log-likelihood of each target in nats, by slices of bounded size."""
    rows = rows_per_slice(head)
    pairs = zip(torch.split(hidden_ND, rows), torch.split(target_N, rows), strict=True)
    return torch.cat([F.cross_entropy(head(h).float(), t, reduction="none") for h, t in pairs])


def rows_per_slice(head: Any) -> int:
    """Positions whose float32 logits fit in `LOGITS_BYTES`."""
    return max(1, LOGITS_BYTES // (4 * int(head.weight.shape[0])))
