"""A design, played on the real model with the real tools: how often it is right in each domain, at how much work.

    played = play(CountingMinds(parent), course, settings, course.trials["validation"])
    played.right["python"].mean(), played.work

Work is counted, not timed, so that the same search gives the same archive on every machine: the tokens that went
through each decoder layer, padding included, over all layers and conversations. An answer that is drawn nine times, an
early exit and a long prompt all show in it; the attention over long contexts and the tools' own time do not. The judge
measures the time as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phases.adas.trials import Course, Trials
from phases.agent.acting import Acting
from phases.agent.design import Design
from phases.agent.library import Library
from phases.agent.minds import Minds
from phases.agent.settings import AgentSettings
from phases.architecture import decoder_layers
from phases.baking.memories import Memories
from phases.baking.trajectories import converse
from phases.checkpoint import Checkpoint
from phases.quiet_star.decoder import ThinkingDecoder


@dataclass(frozen=True)
class Played:
    """What became of the conversations."""

    right: Mapping[str, npt.NDArray[np.float64]]
    """By domain: how right each conversation was, 0 to 1."""
    work: float
    """Tokens through all layers, a conversation."""
    stopped: bool = False
    """Whether it was beyond its budget before the end, so that nothing is known of what is right."""

    @property
    def mean(self) -> float:
        """Mean over the domains of their means."""
        return float(np.mean([np.mean(values) for values in self.right.values()]))


class BeyondBudget(Exception):
    """More work than was allowed."""


class Meter:
    """A hook that counts the tokens which go through the layers that it is on."""

    def __init__(self) -> None:
        self._passed, self._layers = 0, 1
        self.limit: float | None = None
        """`tokens` beyond which nothing goes on: `BeyondBudget` is raised."""

    def __call__(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        hidden_BTD = args[0] if args else kwargs["hidden_states"]
        self._passed += hidden_BTD.shape[0] * hidden_BTD.shape[1]
        if self.limit is not None and self.tokens > self.limit:
            raise BeyondBudget

    @property
    def tokens(self) -> float:
        """That went through all layers so far; through half of them counts half."""
        return self._passed / self._layers

    def __deepcopy__(self, memo: object) -> "Meter":
        """Models are copied with their hooks: the copy is to count here as well."""
        return self

    def watch(self, model: Any) -> None:
        """Count what goes through the layers of a model from now on; all models have as many."""
        layers = decoder_layers(model)
        self._layers = len(layers)
        for layer in layers:
            if not any(hook is self for hook in layer._forward_pre_hooks.values()):
                layer.register_forward_pre_hook(self, with_kwargs=True)


class CountingMinds(Minds):
    """The models of an agent, the work of whose decoder layers is counted."""

    def __init__(self, checkpoint: Checkpoint, vectors: Path | None = None) -> None:
        super().__init__(checkpoint, vectors)
        self.meter = Meter()

    def model(self, design: Design, expert: str | None = None) -> Any:
        """As without counting."""
        model = super().model(design, expert)
        self.meter.watch(_plain(model))
        return model


def play(
    minds: CountingMinds,
    course: Course,
    settings: AgentSettings,
    trials: Trials,
    library: Library,
    batch: int = 64,
    seed: int = 0,
    most: float | None = None,
) -> Played:
    """Every conversation of the trials by the agent of `settings`, all of them at the same time.

    It is stopped where its work is more than `most`.
    """
    every = [(domain, trial) for domain, found in trials.items() for trial in found]
    acting = Acting(minds, course.tools, settings, library=library, batch=batch, seed=(seed,))
    before, count = minds.meter.tokens, max(1, len(every))
    minds.meter.limit = None if most is None else before + most * count
    try:
        with Memories(course.context, [trial.scenario for _, trial in every]) as memories:
            done, _ = converse(acting.take_turns, [trial.scenario for _, trial in every], memories.of)
    except BeyondBudget:
        nothing = {domain: np.zeros(len(found)) for domain, found in trials.items()}
        return Played(nothing, (minds.meter.tokens - before) / count, stopped=True)
    finally:
        minds.meter.limit = None
    right: dict[str, list[float]] = {domain: [] for domain in trials}
    for (domain, trial), turns in zip(every, done, strict=True):
        right[domain].append(trial.right(turns, settings.persona))
    work = (minds.meter.tokens - before) / count
    return Played({domain: np.array(values) for domain, values in right.items()}, work)


def _plain(model: Any) -> Any:
    """The model under its thoughts."""
    body = model.base_model
    return body.thinker.model if isinstance(body, ThinkingDecoder) else model
