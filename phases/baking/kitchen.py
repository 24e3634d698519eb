"""Teaching and baking one model: which conversations, which rows, which objective, and what is kept of it.

<work>/documents.sqlite     the agent's index of the training text
<work>/prompted             the taught model
<work>/<bake>.drawn         what the prompted model said, and its hidden states
<work>/<bake>.model         the model after each bake
<work>/baked, <work>/plain  the result and the control
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from phases.agent.persona import persona_prompt
from phases.agent.settings import DOCUMENTS, SETTINGS, AgentSettings, OwnTool, open_context, open_tools
from phases.agent.template import encode_chat, with_tools
from phases.agent.writing import NO_PROMPT, Prompt
from phases.baking.adapters import Adapted
from phases.baking.bundle import add_files
from phases.baking.config import Bake, BakingConfig
from phases.baking.documents import index_training_text
from phases.baking.items import Conversation, Conversations, make_conversations
from phases.baking.objective import Baking
from phases.baking.record import RECORD, BakeRecord, Record
from phases.baking.rows import BakingRows, Encoded, open_rehearsal, pack_conversations
from phases.baking.scenario import TOOL_KINDS, Scenario, counted
from phases.baking.traces import Traces, read_traces
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
_MIXED = 23
"""Stream of random numbers."""
SAID, HIDDEN, COUNTS = "said.json", "hidden.safetensors", "counts.json"


class Kitchen:
    """Where one parent is taught and baked."""

    def __init__(
        self, parent: Checkpoint, config: BakingConfig, data: Dataset, work: Path, metrics: MetricsCallback
    ) -> None:
        """Raises `ConfigError` for tools that there are not, or that do not fit together."""
        self.parent, self.config, self.data, self.work, self.metrics = parent, config, data, work, metrics
        self.tools = open_tools(config.tools.names, [Path(path) for path in config.tools.own])
        self.documents = work / DOCUMENTS
        if config.tools.documents and not self.documents.is_file():
            index_training_text(data, self.documents)

    @property
    def prompted(self) -> Checkpoint:
        """The model that does as prompted: the taught one, or the parent where nothing is taught."""
        return open_checkpoint(self.work / PROMPTED) if self.config.teach else self.parent

    @property
    def settings(self) -> AgentSettings:
        """What the agent is besides its weights."""
        tools, config = self.config.tools, self.config
        own = [tool for tool in self.tools if tool.digest]
        return AgentSettings(
            persona=config.persona,
            tools=tools.names,
            own_tools=tuple(OwnTool(name=tool.name, path=tool.source, sha256=tool.digest) for tool in own),
            limits=tools.limits,
            constrained=tools.constrained,
            memory=config.memory,
            search=tools.search,
            context_tokens=max(64, self.config.row_tokens or self.data.block_tokens),
        )

    @cached_property
    def conversations(self) -> Conversations:
        """What is learnt from and tested on; made anew by whoever asks, always the same."""
        with open_context(self.settings, self.tools, self.documents, None, "baking") as context:
            return make_conversations(self.config, self.tools, context, self.config.seed)

    @cached_property
    def traces(self) -> Traces:
        """The user's own conversations."""
        with open_context(self.settings, self.tools, self.documents, None, "baking") as context:
            return read_traces(self.config.scenarios.traces, self.tools, context, self.config.tools.limits)

    def prompt(self, scenario: Scenario) -> Prompt:
        """The prompt that asks for such a conversation."""
        if scenario.kind in TOOL_KINDS or any(turn.calls for turn in scenario.turns):
            return Prompt(tools=self.tools)
        if scenario.kind != "persona":
            return NO_PROMPT
        persona = self.config.persona
        asked = persona.model_copy(update={"traits": scenario.traits}) if scenario.traits else persona
        return Prompt(system=persona_prompt(asked))

    def baked_prompt(self, bake: Bake) -> Prompt:
        """The prompt that a bake does away with."""
        if bake.prompt == "tools":
            return Prompt(tools=self.tools)
        return Prompt(system=persona_prompt(self.config.persona) if bake.prompt == "persona" else bake.text)

    def teach(self) -> None:
        """The prompted model: conversations with their prompts before them."""
        body = self._body(self.parent)
        config = self.config.teaching
        rows = self._rows(self._encoded(body.tokenizer, prompted=True), config, "baking.teaching")
        done = self._train(body, LanguageModelling, rows, config, PROMPTED)
        body.save(self.work / PROMPTED, self._manifest(PROMPTED, done), {})

    def make_plain(self) -> None:
        """The control: the same conversations without prompts, for as many steps as teaching and baking together."""
        body, taught = self._body(self.parent), self.config.teaching.steps if self.config.teach else 0
        steps = taught + sum(stop for _, stop in self._courses())
        config = (self.config.teaching if self.config.teach else self.config.training).model_copy(
            update={"steps": max(1, steps)}
        )
        rows = self._rows(self._encoded(body.tokenizer, prompted=False), config, "baking.plain")
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
        config, prompt = self.config, self.baked_prompt(bake)
        chosen = _spread(self.conversations.of("train", bake.kinds), config.sampling.conversations)
        with open_context(self.settings, self.tools, self.documents, None, "baking") as context:
            drawn = sample(model, tokenizer, chosen, prompt, config, self.tools, context, [config.seed, 31, index])
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
        rows = self._rows([*encoded, *self._others(body.tokenizer, index, len(encoded))], config, "baking", index)
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
        conversations = self.conversations
        record = Record(
            made=dict(conversations.made),
            rejected={kind: dict(reasons) for kind, reasons in conversations.rejected.items()},
            train={kind: len(found) for kind, found in conversations.by_split["train"].items()},
            traces=self.traces.counts,
            bakes=tuple(
                BakeRecord.model_validate_json((self.work / f"{bake.name}.drawn" / RECORD).read_text())
                for bake in self.config.bakes
            ),
        )
        texts = {SETTINGS: self.settings.model_dump_json(indent=2), RECORD: record.model_dump_json(indent=2)}
        files = {DOCUMENTS: self.documents} if self.config.tools.documents else {}
        add_files(last, self.work / BAKED, texts, files)

    def _body(self, source: Checkpoint) -> Body:
        """A model to be trained, whose tokenizer renders tools."""
        body = Body(source, self.data)
        with_tools(body.tokenizer)
        return body

    def _encoded(self, tokenizer: Any, prompted: bool) -> list[Encoded]:
        """The conversations of training in tokens, mixed, with or without the prompts that ask for them."""
        encoded = []
        generated = self.conversations.of("train", tuple(self.conversations.by_split["train"]))
        for one in (*generated, *self.traces.kept):
            prompt = self.prompt(one.scenario) if prompted else NO_PROMPT
            tokens, ours = encode_chat(tokenizer, one.played.messages, prompt.tools, prompt.system)
            encoded.append(Encoded(tokens, ours, [-1] * len(tokens)))
        return encoded

    def _others(self, tokenizer: Any, index: int, count: int) -> list[Encoded]:
        """As many conversations of other kinds: what was baked before without a prompt, what will be with its own.

        Else the model would learn to do what this prompt asks for whatever is said (docs/log.md).
        """
        own, before = self.config.bakes[index].kinds, {k for bake in self.config.bakes[:index] for k in bake.kinds}
        kinds = [kind for kind in self.conversations.by_split["train"] if kind not in own]
        found = []
        for one in _spread(self.conversations.of("train", kinds), count):
            prompt = NO_PROMPT if one.scenario.kind in before else self.prompt(one.scenario)
            tokens, ours = encode_chat(tokenizer, one.played.messages, prompt.tools, prompt.system)
            found.append(Encoded(tokens, ours, [-1] * len(tokens)))
        return found

    def _rows(self, encoded: Sequence[Encoded], config: TrainingConfig, where: str, index: int = 0) -> BakingRows:
        """Rows of conversations in a random order, and of rehearsal."""
        seed, pad = self.config.seed, int(self.data.tokenizer.eos_token_id)
        order = np.random.default_rng([seed, _MIXED, index]).permutation(len(encoded))
        length = self.config.row_tokens or self.data.block_tokens
        packed = pack_conversations([encoded[i] for i in order], length, pad, where)
        mixture = open_rehearsal(self.data, self.config.mix.model_dump(), seed + index, config.prompt_weight)
        return BakingRows(packed, mixture, self.config.rehearsal, seed + index, pad)

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


def _spread(found: Sequence[Conversation], count: int) -> list[Conversation]:
    """`count` of the conversations, evenly spread, so that every kind has its share."""
    if len(found) <= count:
        return list(found)
    return [found[i * len(found) // count] for i in range(count)]
