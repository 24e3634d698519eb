"""The model in training: through the lattice when its parent is ternary, as it is otherwise, and back to a checkpoint.

What the parent brings along to think with rides along.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from phases.architecture import check_head, check_vocabulary
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import is_ternary, open_latent, ternary_files
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.quiet_star.storage import load_thinker, thinking_files, thinks


class Body:
    """A parent's model, ready to be trained."""

    def __init__(self, parent: Checkpoint, data: Dataset) -> None:
        """Raises `CheckpointError` for a model that cannot be trained here, or that was made for other data."""
        self.parent, self.tokenizer = parent, parent.tokenizer()
        self.quantised: Quantised | None = open_latent(parent) if is_ternary(parent.path) else None
        self.model: Any = parent.model() if self.quantised is None else self.quantised.model
        check_head(self.model, str(parent.path))
        check_vocabulary(self.model, self.tokenizer, data, str(parent.path))

    def frozen(self) -> Any:
        """A plain copy of the model as it is now, which does not train."""
        copy = self.parent.model()
        lattices = {} if self.quantised is None else self.quantised.lattices()
        now = dict(self.model.named_parameters()) | {name: lattice.dequantise() for name, lattice in lattices.items()}
        with torch.no_grad():
            for name, parameter in copy.named_parameters():
                parameter.copy_(now[name])
        return copy.requires_grad_(False)

    def fold(self) -> Any:
        """The model as a plain one, whose weights are on their lattice if it has one; it trains no more."""
        if self.quantised is not None:
            self.quantised.fold()
        return self.model.eval().requires_grad_(False)

    def save(self, out: Path, manifest: Manifest, texts: Mapping[str, str]) -> Checkpoint:
        """Write the checkpoint, with latent weights and `texts` beside it; the model is a plain one afterwards.

        Raises `TrainingError` for weights that are not finite.
        """
        tensors: dict[str, dict[str, torch.Tensor]] = {}
        files = dict(texts)
        if thinks(self.parent.path):
            thinking = thinking_files(*load_thinker(self.parent.path))
            tensors, files = {**tensors, **thinking[0]}, {**files, **thinking[1]}
        if self.quantised is not None:
            ternary = ternary_files(self.quantised)
            tensors, files = {**tensors, **ternary[0]}, {**files, **ternary[1]}
        return save_checkpoint(out, self.fold(), self.tokenizer, manifest, tensors=tensors, texts=files)
