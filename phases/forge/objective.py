"""What a step of forge training minimises, and what it watches: the text's loss, and whatever its stage adds to it.

The marks of a row (`phases.forge.rows`) say which answer belongs to which fresh task item, which rows are dreams, and
at which temperature a dream was written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from phases.bitnet.distil import distillation_loss
from phases.forge.chaos import lyapunov_exponent
from phases.forge.config import ForgeStage, ForgeTrainingConfig
from phases.forge.fresh import solved_by_task
from phases.forge.grokfast import GradientFilter
from phases.forge.rows import DREAM, ITEM, LABEL, StageRows
from phases.forge.self_model import SelfModelHead, WithHead, self_states
from phases.phase import MetricsCallback, ignore_metrics
from phases.training.loss import linear_cross_entropy
from phases.training.objective import Objective

JVP_COST = 6.0
"""Passes over a token that a Jacobian-vector product takes as long as (measured)."""


class Forging(Objective):
    """Language modelling with the ingredients of the current stage."""

    def __init__(
        self, model: Any, config: ForgeTrainingConfig, source: StageRows, metrics: MetricsCallback = ignore_metrics
    ) -> None:
        """`model`: the language model, which is wrapped together with a head when it is to learn about itself.

        `metrics` gets the loop's signals at every step.
        """
        torch.manual_seed(config.seed)  # of the head's weights
        own, temperatures = config.self_model, len(config.dreams.temperatures)
        head = SelfModelHead(model.config, own, temperatures) if own.enabled else None
        super().__init__(model if head is None else WithHead(model, head))
        self.body, self.config, self.source = model, config, source
        # In a list, so that the teacher is no part of this module: it neither trains nor is saved.
        self.teachers: list[Any] = []
        self.filter = GradientFilter(self.model, config.grokfast) if config.grokfast.enabled else None
        self.stage = config.stages[0]
        self.course = (0, 1)
        self.cost = 0.0
        self.metrics, self.step = metrics, 0
        self.measured = -1
        """The step at which the exponent was last measured: on its first micro-batch only."""
        self.seen: dict[str, torch.Tensor | float] = {}
        self.solved: list[tuple[torch.Tensor, torch.Tensor]] = []

    def enter(self, stage: ForgeStage, course: tuple[int, int], teacher: Any = None) -> None:
        """Begin a stage: (the step at which the loop's course would have begun without pauses, its length in steps),
        and the dreamer as the teacher on dreams."""
        self.stage, self.course, self.teachers = stage, course, [] if teacher is None else [teacher]
        self.seen = {}
        self.rate = self.source.loop.rate if self.controlled else 1.0

    @property
    def head(self) -> SelfModelHead | None:
        """The self-modelling head; None when it is switched off."""
        return self.model.head if isinstance(self.model, WithHead) else None

    @property
    def controlled(self) -> bool:
        """Whether the loop acts in this stage."""
        return self.stage.control and self.config.chaos.enabled

    @property
    def modelling_itself(self) -> bool:
        """Whether the head is trained in this stage."""
        return self.stage.self_model and self.config.self_model.enabled

    def forward(
        self, tokens_BT: torch.Tensor, weight_BT: torch.Tensor, progress: float, marks_BTC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ weight · loss, nats."""
        inputs_BT, target_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
        self.step = step = round(progress * self.config.training.steps)
        if self.controlled and step % self.config.chaos.every == 0 and step != self.measured:
            self._measure_exponent(inputs_BT, step)
        own_head = self.head if self.modelling_itself else None
        with self._noise():
            if own_head is not None:
                hidden_BTD, source_BTD, later_BTD = self_states(self.body, own_head, inputs_BT)
            else:
                hidden_BTD = self.body.base_model(input_ids=inputs_BT, use_cache=False).last_hidden_state
        loss = self._text_loss(hidden_BTD, inputs_BT, target_BT, weight_BT, marks_BTC)
        if self.controlled and marks_BTC is not None:
            self._count_solved(hidden_BTD, target_BT, marks_BTC[..., ITEM])
        if own_head is not None:
            own = own_head.loss(source_BTD, later_BTD, inputs_BT, weight_BT)
            self.seen["self_r2"] = 1 - own.detach() / weight_BT.sum()
            loss = loss + self.config.self_model.weight * own
            if marks_BTC is not None and self.config.self_model.temperature:
                loss = loss + self._recognition(own_head, hidden_BTD, weight_BT, marks_BTC)
        return loss

    def _text_loss(
        self,
        hidden_BTD: torch.Tensor,
        inputs_BT: torch.Tensor,
        target_BT: torch.Tensor,
        weight_BT: torch.Tensor,
        marks_BTC: torch.Tensor | None,
    ) -> torch.Tensor:
        """Cross-entropy; on dreams partly the divergence from the dreamer."""
        head = self.body.get_output_embeddings().weight
        dream_B = torch.zeros(len(inputs_BT), dtype=torch.bool) if marks_BTC is None else marks_BTC[:, 0, DREAM] > 0
        if not self.teachers or not dream_B.any() or not self.config.dreams.teacher:
            return linear_cross_entropy(hidden_BTD, head, target_BT, weight_BT)
        teacher = self.teachers[0].to(inputs_BT.device)
        with torch.no_grad():
            theirs = teacher.base_model(input_ids=inputs_BT[dream_B], use_cache=False).last_hidden_state
        self.cost += float(inputs_BT[dream_B].numel())
        dreamt, nll, divergence = distillation_loss(
            hidden_BTD[dream_B],
            head,
            theirs,
            teacher.get_output_embeddings().weight,
            target_BT[dream_B],
            weight_BT[dream_B],
            self.config.dreams.teacher,
        )
        self.seen["dream_nll"], self.seen["dream_kl"] = (x / weight_BT[dream_B].sum() for x in (nll, divergence))
        real = ~dream_B
        true = linear_cross_entropy(hidden_BTD[real], head, target_BT[real], weight_BT[real])
        both: torch.Tensor = dreamt + true
        return both

    def _recognition(
        self, head: SelfModelHead, hidden_BTD: torch.Tensor, weight_BT: torch.Tensor, marks_BTC: torch.Tensor
    ) -> torch.Tensor:
        """At which temperature each dream was written, or that a true text was not."""
        at = marks_BTC[..., LABEL] >= 0
        if not at.any():
            return hidden_BTD.new_zeros(())
        loss, right = head.recognise(hidden_BTD[at], marks_BTC[..., LABEL][at])
        self.seen["recognised"] = right
        # As much say as the text's loss has, whatever number of dreams the batch has.
        scaled: torch.Tensor = self.config.self_model.temperature * weight_BT.sum() / int(at.sum()) * loss
        return scaled

    @torch.no_grad()
    def _count_solved(self, hidden_BTD: torch.Tensor, target_BT: torch.Tensor, item_BT: torch.Tensor) -> None:
        """Which of the fresh items this very step's model, as it trains, would have solved."""
        asked = item_BT >= 0
        guess_BT = torch.full_like(target_BT, -1)
        guess_BT[asked] = self.body.get_output_embeddings()(hidden_BTD[asked]).argmax(-1)
        task_I, tasks = self.source.task_I.to(item_BT.device), len(self.source.tasks)
        self.solved.append(solved_by_task(guess_BT, target_BT, item_BT, task_I, tasks))

    def _measure_exponent(self, inputs_BT: torch.Tensor, step: int) -> None:
        chaos = self.config.chaos
        rows = inputs_BT[: chaos.rows]
        found = lyapunov_exponent(
            self.body, rows, directions=chaos.directions, seed=self.config.seed * 1_000_003 + step
        )
        self.cost += JVP_COST * chaos.directions * rows.numel()
        self.measured = step
        begin, length = self.course
        self.source.loop.observe_exponent(found.value, (step - begin) / length)

    @contextmanager
    def _noise(self) -> Iterator[None]:
        """Gaussian noise on the embeddings, relative to their own size (after NEFTune, arXiv 2310.05914)."""
        strength = self.source.loop.noise if self.controlled else 0.0
        if not strength:
            yield
            return

        def add(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            size = output.detach().square().mean().sqrt()
            return output + strength * size * torch.randn_like(output)

        hook = self.body.get_input_embeddings().register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()

    def filter_gradients(self) -> None:
        """Grokfast, if it is on."""
        if self.filter is not None:
            self.filter.apply()

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """After the step, the loop takes in which items were solved."""
        yield
        if self.solved:
            right_K, asked_K = (torch.stack(counts).sum(0) for counts in zip(*self.solved, strict=True))
            self.solved = []
            self.source.loop.observe_success(right_K, asked_K)
        if self.controlled:
            self.rate = self.source.loop.rate
            curves = self.source.loop.curves()
            self.metrics(self.step, {f"forge/loop/{name}": value for name, value in curves.items()})

    def memory(self) -> dict[str, torch.Tensor]:
        """The loop, the positions in the fresh tasks, the replay buffer, the filter, and the cost so far."""
        kept = {**self.source.memory(), "cost": torch.tensor(self.cost, dtype=torch.float64)}
        return kept | ({f"grokfast.{n}": t for n, t in self.filter.state().items()} if self.filter else {})

    def remember(self, memory: dict[str, torch.Tensor]) -> None:
        """Take up what `memory` gave."""
        self.cost = float(memory["cost"])
        self.source.remember(memory)
        if self.filter is not None:
            self.filter.load({n.removeprefix("grokfast."): t for n, t in memory.items() if n.startswith("grokfast.")})
        self.rate = self.source.loop.rate if self.controlled else 1.0

    def curves(self) -> dict[str, float]:
        """What the last forward pass saw of dreams and of itself."""
        return {name: float(value) for name, value in self.seen.items()}
