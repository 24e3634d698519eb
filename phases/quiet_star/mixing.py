"""The mixing head: how much of a prediction comes from the thought (arXiv 2403.09629, section 4.3).

The head is linear over hidden states followed by the shared language-model head, so mixing hidden states is mixing
logits. The paper calls the share of the *old* prediction w, its code that of the thought; here w is the thought's.
The authors' weight is unbounded and starts at exactly 0; ours is a sigmoid, so that it is an interpolation.
"""

import math

import torch


class MixingHead(torch.nn.Module):
    """w = σ(MLP([h; h_thought])), a scalar a thought; the last layer starts at zero, so that w starts constant."""

    def __init__(self, width: int, start: float = 0.5) -> None:
        super().__init__()
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(2 * width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, 1),
        )
        last = self.mlp[-1]
        assert isinstance(last, torch.nn.Linear)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, math.log(start / (1 - start)))

    def forward(self, plain: torch.Tensor, thought: torch.Tensor) -> torch.Tensor:
        """(…, 1) weight of the thought from hidden states (…, D) before and after it."""
        both = torch.cat([plain, thought], -1)
        first: torch.nn.Linear = self.mlp[0]  # type: ignore[assignment]
        return torch.sigmoid(self.mlp(both.to(first.weight.dtype)).float())


def mix(plain: torch.Tensor, thought: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(1 − w) · plain + w · thought, for hidden states or logits (…, D) and weights that broadcast over them."""
    return plain + weight.to(plain.dtype) * (thought - plain)
