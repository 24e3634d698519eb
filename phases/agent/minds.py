"""The models of an agent: its weights with a mixture of experts, or one expert alone, and with thoughts.

minds = Minds(open_checkpoint("checkpoints/laptop/adas"))
model = minds.model(design)                     # opened when it is first needed, and kept
model = minds.model(design, expert="python")    # the weights with that expert alone
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from phases.agent.design import Design, Mixture, Thoughts
from phases.agent.experts import Experts, has_experts
from phases.agent.template import with_tools
from phases.checkpoint import Checkpoint
from phases.quiet_star.decoder import Thinking, thinking_model
from phases.quiet_star.storage import load_thinker, thinks
from phases.quiet_star.thinker import Thinker


class Minds:
    """Opens an agent's models."""

    def __init__(self, checkpoint: Checkpoint, vectors: Path | None = None) -> None:
        """`vectors`: the folder with the expert files; the checkpoint's own where none is given, if it has any."""
        self.checkpoint = checkpoint
        self.tokenizer = with_tools(checkpoint.tokenizer())
        self.vectors = vectors if vectors is not None else checkpoint.path if has_experts(checkpoint.path) else None
        self.thinks = thinks(checkpoint.path)
        """Whether thoughts change anything."""

    @cached_property
    def experts(self) -> Experts | None:
        """Its experts. Raises `CheckpointError` for files that do not fit the checkpoint."""
        return None if self.vectors is None else Experts.open(self.checkpoint, self.vectors)

    @cached_property
    def _thinker(self) -> Thinker:
        return load_thinker(self.checkpoint.path)[0]

    @cached_property
    def _base(self) -> Any:
        # A thinker's model without thoughts is the plain one.
        return self._thinker.model if self.thinks else self.checkpoint.model()

    def model(self, design: Design, expert: str | None = None) -> Any:
        """The model that a design asks for, in evaluation mode. Without experts or thoughts those settings do nothing.

        Thoughts of equal seeds are equal: a thinking model is made anew every time, and begins anew to draw.
        """
        plain = self._base
        # Asked only where it matters: vectors beside weights that hold a mixture already belong to other weights.
        if (expert is not None or design.mixture != Mixture()) and self.experts is not None:
            plain = self.experts.model(design.mixture, expert)
        return self._thinking(plain, design.thoughts) if design.thoughts.tokens and self.thinks else plain

    def _thinking(self, plain: Any, thoughts: Thoughts) -> Any:
        """The model with thoughts. Its attention reads threads from then on, and without any as it did before."""
        base = self._thinker
        thinker = Thinker(plain, base.head, base.start, base.end).eval()
        settings = {name: getattr(thoughts, name) for name in ("tokens", "samples", "temperature", "pause")}
        return thinking_model(thinker, Thinking(everywhere=False, **settings))
