"""What a model pays for held-out text, block by block, at full depth or at an early exit.

Every token of a packed split is predicted exactly once (blocks overlap by one token), so Σ nats over the blocks is
the text's cost under the model at this context length. The head is applied to a slice of positions at a time: at
V = 32,000 the logits of one 16 × 256 batch would take 524 MB in float32, here they stay under `LOGITS_BYTES`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from evaluation.ratio import BlockLosses
from phases.architecture import decoder_layers
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


def block_losses(model: Any, tokens_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64], batch: int = 16) -> BlockLosses:
    """The model's nats for each block at full depth."""
    return depth_losses(model, tokens_NT, bytes_N, (len(decoder_layers(model)),), batch)[0]


@torch.inference_mode()
def depth_losses(
    model: Any, tokens_NT: torch.Tensor, bytes_N: npt.NDArray[np.float64], depths: Sequence[int], batch: int = 16
) -> list[BlockLosses]:
    """The nats for each block at the exits after `depths` layers, in one pass of the deepest."""
    parts = [_batch_nats(model, rows_BT.to(model.device), depths) for rows_BT in torch.split(tokens_NT, batch)]
    nats_KN = torch.cat(parts, 1).numpy()
    return [BlockLosses(nats_N, bytes_N, tokens_NT.shape[1] - 1) for nats_N in nats_KN]


def _batch_nats(model: Any, rows_BT: torch.Tensor, depths: Sequence[int]) -> torch.Tensor:
    """(K, B) nats of each row at each of K depths, summed in float64."""
    target_N = rows_BT[:, 1:].flatten()
    sums = []
    for hidden_BTD in exit_hidden_states(model, rows_BT[:, :-1], depths):
        nats_N = token_nats(model.get_output_embeddings(), hidden_BTD.flatten(0, 1), target_N)
        sums.append(nats_N.view(len(rows_BT), -1).double().sum(1))
    return torch.stack(sums).cpu()


def token_nats(head: Any, hidden_ND: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """(N,) negative log-likelihood of each target in nats, by slices of bounded size."""
    rows = rows_per_slice(head)
    pairs = zip(torch.split(hidden_ND, rows), torch.split(target_N, rows), strict=True)
    return torch.cat([F.cross_entropy(head(h).float(), t, reduction="none") for h, t in pairs])


def rows_per_slice(head: Any) -> int:
    """Positions whose float32 logits fit in `LOGITS_BYTES`."""
    return max(1, LOGITS_BYTES // (4 * int(head.out_features)))
