"""Teaching and baking one model: which conversations, which rows, which objective, and what is kept of it.

<work>/documents.sqlite     the agent's index of the training text
<work>/prompted             the taught model
<work>/<bake>.drawn         what the prompted model said, and its hidden states
<work>/<bake>.model         the model after each bake
<work>/baked, <work>/plain  the result and the control
"""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from phases.agent.settings import DOCUMENTS, SETTINGS, open_context
from phases.agent.template import with_tools
from phases.baking.adapters import Adapted
from phases.baking.bundle import add_files
from phases.baking.config import CONVERSATIONS, Bake, BakingConfig
from phases.baking.documents import index_training_text
from phases.baking.lessons import Lessons, spread
from phases.baking.objective import Baking
from phases.baking.record import RECORD, BakeRecord, Record
from phases.baking.rows import BakingRows, Encoded
from phases.baking.scenario import counted
from phases.baking.trajectories import read_prompted, sample
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint
from phases.dataset import Dataset
from phases.forge.body import Body
from phases.phase import MetricsCallback, is_finished
from phases.storage import atomic_directory, write_json
from phases.tasks.collect import apportion
from phases.training.config import TrainingConfig
from phases.training.loop import Span, Trained, train
from phases.training.objective import LanguageModelling, Objective
from phases.training.schedule import warmup_stable_decay

BAKED, PROMPTED, PLAIN = "baked", "prompted", "plain"
SAID, HIDDEN, COUNTS = "said.json", "hidden.safetensors", "counts.json"


class Kitchen:
    """Where one parent is taught and baked."""

    def __init__(
        self, parent: Checkpoint, config: BakingConfig, data: Dataset, work: Path, metrics: MetricsCallback
    ) -> None:
        """Raises `ConfigError` for tools that there are not, or that do not fit together."""
        self.parent, self.config, self.data, self.work, self.metrics = parent, config, data, work, metrics
        self.documents = work / DOCUMENTS
        self.lessons = Lessons(config, data, self.documents)
        if config.tools.documents and not self.documents.is_file():
            index_training_text(data, self.documents)

    @property
    def prompted(self) -> Checkpoint:
        """The model that does as prompted: the taught one, or the parent where nothing is taught."""
        return open_checkpoint(self.work / PROMPTED) if self.config.teach else self.parent

    def teach(self) -> None:
        """The prompted model: conversations with their prompts before them."""
        body = self._body(self.parent)
        config = self.config.teaching
        rows = self.lessons.rows(self.lessons.encoded(body.tokenizer, prompted=True), config, "baking.teaching")
        done = self._train(body, LanguageModelling, rows, config, PROMPTED)
        body.save(self.work / PROMPTED, self._manifest(PROMPTED, done), {})

    def make_plain(self) -> None:
        """The control: the same conversations without prompts, for as many steps as teaching and baking together."""
        body, taught = self._body(self.parent), self.config.teaching.steps if self.config.teach else 0
        steps = taught + sum(stop for _, stop in self._courses())
        config = (self.config.teaching if self.config.teach else self.config.training).model_copy(
            update={"steps": max(1, steps)}
        )
        rows = self.lessons.rows(self.lessons.encoded(body.tokenizer, prompted=False), config, "baking.plain")
        done = self._train(body, LanguageModelling, rows, config, PLAIN)
        body.save(self.work / PLAIN, self._manifest(PLAIN, done), {})

    def bake_all(self) -> None:
        """Teach, then one bake after the other, each from where the one before it ended."""
        if self.config.teach and not is_finished(self.work / PROMPTED):
            self.teach()
        model = self.prompted
        for index, bake in enumerate(self.config.bakes):
            out, drawn = self.work / f"{bake.name}.model", self.work / f"{bake.name}.drawn"
            if not drawn.is_dir():
                self._draw(bake, index, model, drawn)
            if not is_finished(out):
                self._bake(bake, index, model, drawn, out)
            model = open_checkpoint(out)
        self._finish(model)

    def _draw(self, bake: Bake, index: int, source: Checkpoint, out: Path) -> None:
        """What the prompted model says by itself, read once more for its distributions."""
        model, tokenizer = source.model(), with_tools(source.tokenizer())
        config, prompt = self.config, self.lessons.baked_prompt(bake)
        chosen = spread(self.lessons.conversations.of("train", bake.kinds), config.sampling.conversations)
        with open_context(self.lessons.settings, self.lessons.tools, self.documents, None, "baking") as context:
            drawn = sample(
                model, tokenizer, chosen, prompt, config, self.lessons.tools, context, [config.seed, 31, index]
            )
        # What the prompted model cannot do itself must not be baked in; the record says so, and no gate will hold.
        kept = drawn.kept if drawn.share >= config.sampling.floor else ()
        hidden_MD, encoded = read_prompted(model, tokenizer, kept, prompt)
        with atomic_directory(out) as folder:
            save_file({"hidden": hidden_MD, "head": model.get_output_embeddings().weight.detach()}, folder / HIDDEN)
            write_json(folder / SAID, [[one.tokens, list(map(int, one.ours)), one.marks] for one in encoded])
            write_json(
                folder / COUNTS,
                {"asked": drawn.asked, "kept": len(kept), "right": len(drawn.kept), "reasons": counted(drawn.reasons)},
            )

    def _bake(self, bake: Bake, index: int, source: Checkpoint, drawn: Path, out: Path) -> None:
        """Train one model towards its prompted self."""
        body, config = self._body(source), self.config.training
        teacher = load_file(drawn / HIDDEN)
        said = json.loads((drawn / SAID).read_text(encoding="utf-8"))
        counts = json.loads((drawn / COUNTS).read_text(encoding="utf-8"))
        if not said:
            body.save(out, self._manifest(bake.name, None), {})
            record = BakeRecord(name=bake.name, **counts, left_out=0, steps=0, kl_start=None, kl_end=None)
            write_json(drawn / RECORD, record.model_dump())
            return
        encoded = [Encoded(tokens, [bool(o) for o in ours], marks) for tokens, ours, marks in said]
        rows = self.lessons.rows(
            [*encoded, *self.lessons.others(body.tokenizer, index, len(encoded))], config, "baking", index
        )
        steps, stop = self._courses()[index]
        course = config.model_copy(update={"steps": steps})
        seen: list[float] = []

        def watch(step: int, values: Mapping[str, float]) -> None:
            seen.append(values[f"{bake.name}/kl_to_prompted"])
            self.metrics(step, values)

        done = self._train(
            body, lambda model: Baking(model, teacher["hidden"], teacher["head"]), rows, course, bake.name, stop, watch
        )
        body.save(out, self._manifest(bake.name, done), {})
        record = BakeRecord(
            name=bake.name,
            **counts,
            left_out=rows.packed.left_out,
            steps=stop,
            kl_start=seen[0] if seen else None,
            kl_end=seen[-1] if seen else None,
        )
        write_json(drawn / RECORD, record.model_dump())

    def _finish(self, last: Checkpoint) -> None:
        """The result: the last bake's model with what makes it an agent beside it."""
        conversations = self.lessons.conversations
        record = Record(
            made=dict(conversations.made),
            rejected={kind: dict(reasons) for kind, reasons in conversations.rejected.items()},
            train={kind: len(found) for kind, found in conversations.by_split["train"].items()},
            traces=self.lessons.traces.counts,
            bakes=tuple(
                BakeRecord.model_validate_json((self.work / f"{bake.name}.drawn" / RECORD).read_text())
                for bake in self.config.bakes
            ),
        )
        texts = {
            SETTINGS: self.lessons.settings.model_dump_json(indent=2),
            RECORD: record.model_dump_json(indent=2),
            CONVERSATIONS: self.config.model_dump_json(indent=2),
        }
        files = {DOCUMENTS: self.documents} if self.config.tools.documents else {}
        add_files(last, self.work / BAKED, "baking", texts, files)

    def _body(self, source: Checkpoint) -> Body:
        """A model to be trained, whose tokenizer renders tools."""
        body = Body(source, self.data)
        with_tools(body.tokenizer)
        return body

    def _train(
        self,
        body: Body,
        objective: Callable[[Any], Objective],
        rows: BakingRows,
        config: TrainingConfig,
        name: str,
        stop: int | None = None,
        metrics: MetricsCallback | None = None,
    ) -> Trained:
        """Train all weights or adapters, up to the step `stop` of the config's course; the state is kept meanwhile."""
        folder = self.work / f"{name}.state"
        folder.mkdir(exist_ok=True)
        adapted = None
        if self.config.tuning == "lora":
            adapted = Adapted(body, self.config.adapter)
            config = config.model_copy(update={"optimizer": "adamw"})  # Muon is for whole matrices
        span = Span(0, stop or config.steps, partial(_rate, config))
        done = train(
            objective(body.model),
            rows,
            config,
            folder,
            name=name,
            seed=self.config.seed,
            metrics=metrics or self.metrics,
            span=span,
        )
        body.model.cpu()
        if adapted is not None:
            adapted.merge()
        shutil.rmtree(folder)
        return done

    def _courses(self) -> list[tuple[int, int]]:
        """(steps of its whole course, steps that are done) of every bake."""
        bakes, total = self.config.bakes, self.config.training.steps
        steps = [1 + extra for extra in apportion(total - len(bakes), [bake.share for bake in bakes])]
        return [(n, max(1, round(bake.amount * n))) for n, bake in zip(steps, bakes, strict=True)]

    def _manifest(self, name: str, done: Trained | None) -> Manifest:
        return Manifest(
            phase=f"baking/{name}",
            config=self.config.model_dump(mode="json"),
            seed=self.config.seed,
            parents=(self.parent.digest,),
            data=(self.data.digest,),
            metrics={} if done is None else done.metrics,
        )


def _rate(config: TrainingConfig, step: int) -> float:
    return warmup_stable_decay(step, config.steps, config.warmup, config.decay, config.final_rate)
