"""An agent as its design says: what it keeps, which expert answers, how many answers it tries, and which one it gives.

    acting = Acting(Minds(checkpoint), tools, settings, library=read_library(checkpoint.path))
    turns = acting.take_turns(conversations, context)

Conversations are played at the same time and share batches; the samples of a vote are more rows of these. With the
default design it is a `BatchWriter` that takes turns, and costs as much. Nothing is kept from one conversation for
another, so that what a design costs can be counted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial

from phases.agent.calls import Message
from phases.agent.conversation import Contexts, Turn, Watch, nobody
from phases.agent.deferring import commit, tentative
from phases.agent.design import Design
from phases.agent.grounding import Silent
from phases.agent.library import EMPTY, Example, Library
from phases.agent.looking_up import told
from phases.agent.minds import Minds
from phases.agent.playing import Player
from phases.agent.prompting import REFLECT, parts, unsure, with_question
from phases.agent.routing import Dispatcher, reply_loss
from phases.agent.row import Row
from phases.agent.settings import AgentSettings
from phases.agent.tool import Tool, ToolContext
from phases.agent.voting import answer_of, call_key, choose, least_to_settle, settled
from phases.agent.writing import BatchWriter, Prompt


class Acting:
    """Takes an agent's turns."""

    def __init__(
        self,
        minds: Minds,
        tools: Sequence[Tool],
        settings: AgentSettings,
        *,
        library: Library = EMPTY,
        system: str | None = None,
        show_tools: bool = False,
        temperature: float | None = None,
        seed: Sequence[int] = (0,),
        batch: int = 64,
    ) -> None:
        """`settings.design` is obeyed; what else is given comes before it: a system prompt, a temperature above 0.

        Raises `ConfigError` for a tool whose calls cannot be kept well-formed, `CheckpointError` for expert files that
        do not fit.
        """
        self.minds, self.tools, self.settings = minds, tuple(tools), settings
        self.design = design = _drawn(settings.design, temperature)
        self.batch = batch
        calling = {"calls": design.calling.calls, "result_chars": design.calling.result_chars}
        self.limits = settings.limits.model_copy(update={k: v for k, v in calling.items() if v is not None})
        shown = self.tools if show_tools or design.prompting.show_tools else ()
        self.prompt = Prompt(settings.system if system is None else system, shown)
        self._writers: dict[str | None, BatchWriter] = {}
        self._player = Player(self.writer, self.tools, minds.tokenizer, self.limits, design, library, seed)
        self._dispatcher: Dispatcher | None = None
        if design.mixture.dispatch != "none" and minds.experts is not None and library.examples:
            self._dispatcher = Dispatcher(design.mixture.dispatch, library, minds.experts.names, self._loss)

    def writer(self, expert: str | None = None) -> BatchWriter:
        """The writer with the weights of an expert; without one, with the design's mixture."""
        if expert not in self._writers:
            design, settings = self.design, self.settings
            constrained = design.calling.constrained
            self._writers[expert] = BatchWriter(
                self.minds.model(design, expert),
                self.minds.tokenizer,
                self.tools,
                self.limits,
                prompt=self.prompt,
                constrained=settings.constrained if constrained is None else constrained,
                batch=self.batch,
                budget=design.remembering.context_tokens or settings.context_tokens,
                decoding=design.decoding,
                summary=design.remembering.summary,
            )
        return self._writers[expert]

    def take_turns(
        self, conversations: Sequence[Sequence[Message]], contexts: Contexts, watch: Watch = nobody
    ) -> list[Turn]:
        """The assistant's turn in each conversation, whose last message is the user's."""
        of: Callable[[int], ToolContext] = (lambda _: contexts) if isinstance(contexts, ToolContext) else contexts
        rows = [self._row(i, messages, cache(partial(of, i))) for i, messages in enumerate(conversations)]
        if self._dispatcher is not None:
            asked = [str(messages[-1]["content"]) for messages in conversations]
            for row, expert in zip(rows, self._dispatcher.experts_for(asked), strict=True):
                row.expert = None if expert in self.design.mixture.spared else expert
        for row in rows:
            self._player.begin(row, watch)
        if self.design.voting.samples > 1:
            rows = self._chosen(rows, watch)
        else:
            self._player.play(rows, watch)
        turns = [row.result() for row in rows]
        if self.design.prompting.reflect != "never":
            self._reflect(rows, turns, conversations)
        return turns

    def _row(self, number: int, messages: Sequence[Message], context: Callable[[], ToolContext]) -> Row:
        """A turn that has not begun."""
        said = str(messages[-1]["content"])
        for fact in told(said) if self.design.remembering.keep else ():
            if (memory := context().memory) is not None:
                memory.remember(fact, context().session)
        first, *later = parts(said, self.design.prompting)
        return Row(number, with_question(messages, first), context, later=tuple(later))

    def _chosen(self, rows: Sequence[Row], watch: Watch) -> list[Row]:
        """Of several samples of each row the one that is taken, with all that comes of it."""
        voting = self.design.voting
        firsts = self._firsts(rows) if voting.branch else None
        most = [voting.samples if firsts is None else min(voting.samples, len(firsts[i])) for i in range(len(rows))]
        samples: list[list[Row]] = [[] for _ in rows]
        while True:
            new: list[Row] = []
            for i, row in enumerate(rows):
                for place in self._next(samples[i], most[i]):
                    sample = self._sample(row, place, None if firsts is None else firsts[i])
                    samples[i].append(sample)
                    new.append(sample)
            if not new:
                break
            self._player.play(new, watch)
        chosen = [some[self._choice(some)] for some in samples]
        self._commit(rows, chosen, watch)
        return chosen

    def _next(self, samples: Sequence[Row], most: int) -> range:
        """Places of the samples that are written next: all at once, or until the majority is settled."""
        done = len(samples)
        if not self.design.voting.adaptive:
            return range(done, most)
        if done:
            return range(done, done if settled([_key(row) for row in samples], most) else done + 1)
        return range(least_to_settle(most))

    def _sample(self, row: Row, place: int, firsts: Sequence[int] | None) -> Row:
        """A sample of a row. Without branches the first is written as without a vote, the others are drawn."""
        number = row.number * self.design.voting.samples + place
        drawn = firsts is None and place > 0
        first = () if firsts is None else (firsts[place],)
        return row.copy(
            number, cache(lambda: tentative(row.context())), self.design.voting.temperature if drawn else None, first
        )

    def _firsts(self, rows: Sequence[Row]) -> list[list[int]]:
        """The likeliest tokens that each row may begin with."""
        found: dict[int, list[int]] = {}
        for expert in {row.expert: None for row in rows}:
            some = [row for row in rows if row.expert == expert]
            requests = [self._player.request(row) for row in some]
            tokens = self.writer(expert).firsts(requests, self.design.voting.samples)
            found |= {row.number: own for row, own in zip(some, tokens, strict=True)}
        return [found[row.number] for row in rows]

    def _choice(self, samples: Sequence[Row]) -> int:
        ran = [all(call.verdict == "done" for call in row.calls) for row in samples]
        return choose([_key(row) for row in samples], [row.logprobs for row in samples], ran, self.design.voting.select)

    def _commit(self, rows: Sequence[Row], chosen: Sequence[Row], watch: Watch) -> None:
        """What the chosen ones did in their memories is done; tools of the user's own are called now."""
        for row, sample in zip(rows, chosen, strict=True):
            commit(sample.context())
            sample.context, sample.tentative, sample.draw = row.context, False, None
            sample.number = row.number
            self._player.show(sample, watch)
        self._player.go_on([row for row in chosen if row.waiting is not None], watch)

    def _reflect(self, rows: Sequence[Row], turns: Sequence[Turn], conversations: Sequence[Sequence[Message]]) -> None:
        """Let answers be said anew, all of them or those that were unsure; one that is no answer changes nothing."""
        again = [row.number for row, turn in zip(rows, turns, strict=True) if self._doubts(row, turn)]
        for expert in {rows[number].expert: None for number in again}:
            some = [number for number in again if rows[number].expert == expert]
            requests = []
            for number in some:
                read = [*conversations[number], *turns[number].messages, {"role": "user", "content": REFLECT}]
                own = self._player.request(rows[number])
                rules = (*own.rules, Silent(self._player.form))
                requests.append(dataclasses.replace(own, messages=read, begun=(), rules=rules))
            texts = self.writer(expert).write(requests, [*self._player.seed, self._player.rounds])
            for number, text in zip(some, texts, strict=True):
                if text.whole and text.text.strip():
                    turns[number].messages[-1] = {"role": "assistant", "content": text.text.strip()}
        self._player.rounds += 1

    def _doubts(self, row: Row, turn: Turn) -> bool:
        """Whether an answer is to be said anew. A result that is given as it is, is not."""
        if turn.ended != "said" or not turn.text or (turn.calls and self.design.calling.reply == "result"):
            return False
        return self.design.prompting.reflect == "always" or unsure(row.written[-1].logprobs)

    def _loss(self, expert: str, example: Example) -> float:
        return reply_loss(self.minds.model(self.design, expert), self.minds.tokenizer, example)


def _key(row: Row) -> str:
    """What a sample is compared by: its answer, or the call that it waits for."""
    return answer_of(row.result()) if row.waiting is None else call_key(row.waiting[1])


def _drawn(design: Design, temperature: float | None) -> Design:
    """The design at another temperature."""
    if not temperature:
        return design
    return design.model_copy(update={"decoding": design.decoding.model_copy(update={"temperature": temperature})})
