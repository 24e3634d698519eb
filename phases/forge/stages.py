"""Training in stages: each is entered and left with a look at validation data, can be taken back, and can be resumed.

<folder>/history.json                what the finished stages did
<folder>/training_state.safetensors  where the model stands
<folder>/entry-<n>.safetensors       where it stood as stage n began: its dreamer, and the way back
<folder>/best.safetensors            where it stood when it was best
"""

import bisect
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from phases.checkpoint import Checkpoint, link_or_copy
from phases.dataset import Dataset
from phases.errors import ConfigError, TrainingError
from phases.forge.body import Body
from phases.forge.config import ForgeStage, ForgeTrainingConfig
from phases.forge.dream_filter import Cycle, sift
from phases.forge.dreams import Dream, dream, store_prompts
from phases.forge.history import (
    HISTORY,
    DreamCycle,
    History,
    LoopRecord,
    StageRecord,
    Standing,
    read_history,
    write_history,
)
from phases.forge.objective import Forging
from phases.forge.rows import StageRows
from phases.forge.standing import open_validation
from phases.phase import MetricsCallback
from phases.storage import explain_os_errors
from phases.training.loop import Span, train
from phases.training.optimizer import build_optimizers
from phases.training.state import STATE, TrainingState, restore_parameters

TRAIN_COST = 3.0
"""Passes over a token of a training step: forward 1, backward 2."""
DREAM_COST = 3.0
"""The same of writing a token: one by one it takes three times as long as in a pass over a whole text (measured)."""
BEST = "best.safetensors"


def rate_at(config: ForgeTrainingConfig, step: float) -> float:
    """The factor on the learning rates at a step of the whole course, linear within each stage."""
    number = min(bisect.bisect_right(config.bounds, step), len(config.stages)) - 1
    (first, last), (start, stop) = config.stages[number].rate, config.bounds[number : number + 2]
    return first + (last - first) * min(1.0, (step - start) / max(1, stop - start - 1))


class StagedTraining:
    """One model on its way through the stages."""

    def __init__(
        self, parent: Checkpoint, config: ForgeTrainingConfig, data: Dataset, folder: Path, metrics: MetricsCallback
    ) -> None:
        """Raises `CheckpointError` or `ConfigError` for what does not fit together."""
        self.data, self.config, self.folder, self.metrics = data, config, folder, metrics
        longest = config.dreams.prompt_tokens + config.dreams.new_tokens
        if config.dreams.enabled and longest > data.block_tokens:
            raise ConfigError(
                f"forge.dreams: prompt_tokens + new_tokens = {longest}, but rows have {data.block_tokens} tokens; "
                "lower them, or raise data.block_tokens"
            )
        self.body = Body(parent, data)
        self.source = StageRows(data, config)
        self.objective = Forging(self.body.model, config, self.source, metrics)
        self.validation = open_validation(data, config.validation_items, config.validation_blocks)
        mix = config.mix
        self.text_share = mix.text / (mix.text + mix.reasoning + mix.memory)
        if not (folder / STATE).is_file():
            self._state().save(folder)

    def run(self) -> History:
        """Go through all stages that are not done yet; the model is the best one afterwards."""
        history = read_history(self.folder) if (self.folder / HISTORY).is_file() else History()
        standing = _standing(history) or self.validation.measure(self.body.model)
        for index, stage in enumerate(self.config.stages):
            if index < len(history.stages):
                continue
            record = self._left_out(stage, standing, history) or self._stage(index, stage, standing)
            best = history.best
            if self._gains(record, history):
                best = stage.name
                _link(self.folder / STATE, self.folder / BEST)
            history = history.model_copy(update={"stages": (*history.stages, record), "best": best})
            write_history(self.folder / HISTORY, history)
            if index:  # the first entry is the parent: what is left when no stage was better
                self._entry(index).unlink(missing_ok=True)
            standing = _standing(history) or standing
            self._report(index, record)
        restore_parameters(self.objective.model, self.folder / BEST if history.best else self._entry(0))
        return history

    def _stage(self, index: int, stage: ForgeStage, entry: Standing) -> StageRecord:
        """Train one stage, or what is left of it."""
        start, stop = self.config.bounds[index : index + 2]
        entered = self._entry(index)
        if not entered.is_file():
            _link(self.folder / STATE, entered)
        before = self._state()
        if not before.restore(self.folder):  # damaged: the stage is done again
            _link(entered, self.folder / STATE)
        if not before.restore(self.folder, entered.name):
            shutil.rmtree(self.folder)  # else what is left of it would be taken for the stage's beginning
            raise TrainingError(f"{entered}: damaged, and removed with all its stages; run the same command again")
        self.objective.remember(before.memory)
        spent, used, kept = self.objective.cost, self.source.buffer.used, self.source.buffer.kept
        steps, held = self.source.loop.steps, self.source.loop.held
        dreamer = self.body.frozen() if stage.dreams and self.config.dreams.enabled else None
        arrivals, cycle, written = ([], None, 0) if dreamer is None else self._dreams(index, dreamer)
        self.source.enter(stage, start, arrivals)
        self.objective.enter(stage, self._course(index), dreamer)
        span = Span(start, stop, lambda step: rate_at(self.config, step))
        done = train(
            self.objective,
            self.source,
            self.config.training,
            self.folder,
            name="forge",
            seed=self.config.seed,
            metrics=self.metrics,
            span=span,
        )
        self.objective.cpu()
        leaving = self.validation.measure(self.body.model)
        harmed = leaving.loss(self.text_share) > entry.loss(self.text_share) + self.config.dreams.harm
        taken_back = cycle is not None and harmed
        tokens = done.tokens - before.tokens
        record = StageRecord(
            name=stage.name,
            steps=stop - start,
            entry=entry,
            exit=leaving,
            taken_back=taken_back,
            loss=done.final_loss,
            tokens=tokens,
            cost=TRAIN_COST * tokens + self.objective.cost - spent + DREAM_COST * written + self.validation.cost,
            loop=self._loop(steps, held) if self.objective.controlled else None,
            dreams=cycle and self._counted(cycle, used, kept),
        )
        if taken_back:
            _link(entered, self.folder / STATE)
        return record

    def _entry(self, index: int) -> Path:
        """Where the model stood as a stage began."""
        return self.folder / f"entry-{index}.safetensors"

    def _dreams(self, index: int, dreamer: Any) -> tuple[list[Dream], Cycle | None, int]:
        """(what passed the filters, what became of all, tokens that the dreamer read and wrote) as a stage begins."""
        config = self.config.dreams
        cycle = sum(before.dreams for before in self.config.stages[:index])
        prompts = store_prompts(self.data, config, self.config.mix.model_dump(), self.config.seed, cycle)
        written = dream(dreamer, self.data.tokenizer, prompts, config, self.config.seed, cycle)
        kept, counted = sift(written, config)
        kept = [one for one in kept if len(one.tokens) <= self.data.block_tokens]
        return kept, counted, sum(len(one.tokens) for one in written)

    def _counted(self, cycle: Cycle, used: int, kept: int) -> DreamCycle:
        """A cycle's numbers; `used` and `kept` are the buffer's counts before the stage."""
        pairs = zip(self.config.dreams.temperatures, cycle.by_temperature, strict=True)
        return DreamCycle(
            written=cycle.written,
            valid=cycle.valid,
            kept=self.source.buffer.kept - kept,
            used=self.source.buffer.used - used,
            refused=dict(cycle.refused),
            floor=cycle.floor,
            valid_by_temperature={str(t): valid / max(1, written) for t, (written, valid) in pairs},
            diversity=cycle.diversity,
        )

    def _loop(self, steps: int, held: int) -> LoopRecord:
        """The loop as a stage ended; `steps` and `held` are its counts before."""
        loop = self.source.loop
        return LoopRecord(
            steps=loop.steps - steps,
            held=loop.held - held,
            overall=loop.overall,
            success=loop.success,
            difficulty=loop.difficulty,
            exponent=loop.exponent,
            reference=loop.reference,
            rate=loop.rate,
            noise=loop.noise,
        )

    def _course(self, index: int) -> tuple[int, int]:
        """(step at which the loop's course would have begun without pauses, its length in steps)."""
        bounds, stages = self.config.bounds, self.config.stages
        steps = [stop - start if s.control else 0 for s, (start, stop) in zip(stages, pairwise(bounds), strict=True)]
        return bounds[index] - sum(steps[:index]), max(1, sum(steps))

    def _left_out(self, stage: ForgeStage, standing: Standing, history: History) -> StageRecord | None:
        """The record of a stage that is left out because several before it gained nothing."""
        gained = [self._gained(record) for record in history.stages]
        idle = next((past for past, gain in enumerate(reversed(gained)) if gain), len(gained))
        if stage.always or idle < self.config.patience:
            return None
        return StageRecord(name=stage.name, steps=0, entry=standing, exit=standing)

    def _gained(self, record: StageRecord) -> bool:
        """Whether a stage left the model better than it found it."""
        worse = record.exit.loss(self.text_share) >= record.entry.loss(self.text_share)
        return record.steps > 0 and not record.taken_back and not worse

    def _gains(self, record: StageRecord, history: History) -> bool:
        """Whether a stage left the model better than it ever was, the parent included."""
        if not record.steps or record.taken_back:
            return False
        ends = {past.name: past.exit for past in history.stages}
        first = history.stages[0].entry if history.stages else record.entry
        best = first if history.best is None else ends[history.best]
        return record.exit.loss(self.text_share) < best.loss(self.text_share)

    def _report(self, index: int, record: StageRecord) -> None:
        names = {
            "text": "text_nats",
            "answers": "answer_nats",
            "reasoning": "reasoning_solved",
            "memory": "memory_solved",
        }
        stands = {f"stage/{names[name]}": value for name, value in record.exit.model_dump().items()}
        self.metrics(index + 1, stands | {"stage/validation_nats": record.exit.loss(self.text_share)})

    def _state(self) -> TrainingState:
        optimizers = build_optimizers(self.objective.model, self.config.training)
        return TrainingState(self.objective.model, optimizers, memory=self.objective.memory())


def _standing(history: History) -> Standing | None:
    """Where the model stands after the stages that are done."""
    last = history.stages[-1] if history.stages else None
    return None if last is None else last.entry if last.taken_back else last.exit


def _link(source: Path, target: Path) -> None:
    """Make `target` a second name of `source`, atomically: states are never written to, only replaced."""
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with explain_os_errors(target):
        link_or_copy(str(source), str(temporary))
        temporary.replace(target)
