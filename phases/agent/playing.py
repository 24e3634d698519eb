"""One turn after the other is written, calls and all, as a design says: many at once, in shared batches.

    player = Player(writer, tools, form, limits, design, library)
    player.play([Row(0, messages, context)], watch)

What holds for a single turn is here: the question as it is put, what is looked up first, which call is begun, what may
stand in it, a call that is taken back, the result as the reply. `phases.agent.acting` makes several and chooses.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from phases.agent.calls import Call, CallFormat, Message, Said
from phases.agent.conversation import CallRecord, Turn, TurnLimits, Watch, Written, advance, run_call
from phases.agent.design import Design
from phases.agent.grounding import Copied, Numbers, Rule, Silent
from phases.agent.library import Library, Nearest, in_turn
from phases.agent.looking_up import LOOK_UPS, NOTHING, first_calls, first_found, other, query_of
from phases.agent.prompting import asked, with_question
from phases.agent.routing import Classifier
from phases.agent.row import Row
from phases.agent.tool import Tool
from phases.agent.writing import BatchWriter, Request
from phases.decoding import encode

ANEW = 0.7
"""Temperature at which a call is written anew."""


class Player:
    """Plays turns."""

    def __init__(
        self,
        writer: Callable[[str | None], BatchWriter],
        tools: Sequence[Tool],
        tokenizer: Any,
        limits: TurnLimits,
        design: Design,
        library: Library,
        seed: Sequence[int],
    ) -> None:
        """`writer`: with the weights of an expert, or of none. Without examples in the library nothing is routed."""
        self.writer, self.tools, self.tokenizer, self.design = writer, tuple(tools), tokenizer, design
        self.limits, self.seed, self.form = limits, list(seed), CallFormat.of(tokenizer)
        self.names = {tool.name for tool in tools}
        self.harmless = {tool.name for tool in tools if tool.source == "built-in"}
        """Tools that do nothing but to the context."""
        asked_first = design.calling.route != "none" or design.remembering.recall_first or design.retrieving.first
        self.classifier = Classifier(library) if asked_first and library.examples else None
        self.nearest = Nearest(library) if design.prompting.nearest else None
        self.examples = in_turn(library, design.prompting.examples)
        self.rounds = 0

    def begin(self, row: Row, watch: Watch) -> None:
        """Look up what is to be read before a part of the question is answered."""
        for call in first_calls(row.question, self.design, self.names, self._due(row)):
            found = first_found(call, self.design, row.context())
            if found and len(row.turn.calls) < self._limits(row).calls:
                record = CallRecord("done", call.name, call.arguments, found)
                row.turn.messages += [Said("", (call,)).message(), _result(record)]
                row.turn.calls.append(record)
        self.show(row, watch)

    def play(self, rows: Sequence[Row], watch: Watch) -> None:
        """Write on until every row has said its piece, or waits."""
        going = list(rows)
        while going:
            texts = self._write(going)
            going = [row for row, text in zip(going, texts, strict=True) if self._goes_on(row, text, watch)]

    def go_on(self, rows: Sequence[Row], watch: Watch) -> None:
        """Do the calls that wait, and write on."""
        going = []
        for row in rows:
            assert row.waiting is not None
            (text, said), row.waiting = row.waiting, None
            if self._advance(row, text, said, watch):
                going.append(row)
        self.play(going, watch)

    def show(self, row: Row, watch: Watch) -> None:
        """Let the watcher see the calls that it has not seen."""
        if not row.tentative:
            for record in row.calls[row.shown :]:
                watch(record)
            row.shown = len(row.calls)

    def request(self, row: Row) -> Request:
        """What is to be written next."""
        question = asked(row.question, self.design.prompting)
        messages = [*with_question(row.messages, question), *row.turn.messages]
        begun = (*self._forced(row), *(() if row.written else row.first))
        return Request(messages, row.number, self._shown(row), begun, rules=self._rules(row))

    def _write(self, rows: Sequence[Row]) -> list[Written]:
        """The next text of each: those of one expert and one temperature in a batch."""
        texts: dict[int, Written] = {}
        kinds = {(row.expert, ANEW if row.tries else row.draw): None for row in rows}
        for expert, draw in kinds:
            some = [row for row in rows if (row.expert, ANEW if row.tries else row.draw) == (expert, draw)]
            requests = [self.request(row) for row in some]
            written = self.writer(expert).write(requests, [*self.seed, self.rounds], draw)
            texts |= {row.number: text for row, text in zip(some, written, strict=True)}
        self.rounds += 1
        return [texts[row.number] for row in rows]

    def _goes_on(self, row: Row, text: Written, watch: Watch) -> bool:
        row.written.append(text)
        said = self.form.parse(text.text)
        said = replace(said, calls=tuple(self._as_asked(call, row) for call in said.calls))
        if row.tentative and any(call.name in self.names - self.harmless for call in said.calls):
            row.waiting = (text, said)
            return False
        return self._advance(row, text, said, watch)

    def _advance(self, row: Row, text: Written, said: Said, watch: Watch) -> bool:
        """Add a text and do its calls; whether there is more to write."""
        messages, calls = len(row.turn.messages), len(row.turn.calls)
        records = advance(row.turn, text, said, partial(self._run, row), self._limits(row))
        failed = [record for record in records if record.verdict in ("malformed", "invalid", "failed")]
        if failed and len(failed) == len(records) and row.tries < self.design.calling.retries:
            del row.turn.messages[messages:], row.turn.calls[calls:], row.written[-1:]
            row.tries += 1
            return True
        row.tries = 0
        self.show(row, watch)
        if records and self.design.calling.reply == "result" and records[-1].verdict == "done":
            row.turn.messages.append({"role": "assistant", "content": records[-1].result})
            records = []
        return bool(records) or self._next_part(row, watch)

    def _next_part(self, row: Row, watch: Watch) -> bool:
        """Ask the next part of the question, if there is one."""
        if not row.later:
            return False
        row.messages = [*row.messages, *row.turn.messages, {"role": "user", "content": row.later[0]}]
        row.before, row.turn, row.later = [*row.before, row.turn], Turn(), row.later[1:]
        self.begin(row, watch)
        return True

    def _run(self, row: Row, call: Call, before: Sequence[CallRecord]) -> CallRecord:
        """Do a call. Where nothing was found, its result is the other tool's; it stays the call that was made."""
        record = run_call(call, self.tools, row.context(), before, self.limits)
        instead = other(call.name, self.names) if self.design.calling.fallback else None
        if instead and record.verdict == "done" and record.result == NOTHING:
            again = run_call(Call(instead, call.arguments), self.tools, row.context(), (), self.limits)
            if again.verdict == "done":
                return replace(record, result=again.result)
        return record

    def _as_asked(self, call: Call, row: Row) -> Call:
        """The call with its query in the form that the design asks for."""
        query = call.arguments.get("query")
        if call.name not in LOOK_UPS or not isinstance(query, str):
            return call
        return Call(call.name, {**call.arguments, "query": query_of(query, row.question, self.design.retrieving.query)})

    def _limits(self, row: Row) -> TurnLimits:
        """What is left to the part of the question that is asked now."""
        used = sum(len(turn.calls) for turn in row.before)
        return self.limits.model_copy(update={"calls": max(0, self.limits.calls - used)}) if used else self.limits

    def _due(self, row: Row) -> str:
        """The tool that is due; empty where none is, or nobody can tell."""
        return "" if self.classifier is None else self.classifier.tool(row.question)

    def _forced(self, row: Row) -> tuple[int, ...]:
        """The tokens that begin the call which is due, up to the name of its tool."""
        if self.design.calling.route != "force" or row.turn.calls or not self._may_call(row):
            return ()
        due = self._due(row)
        return opening(self.tokenizer, self.form, due) if due in self.names else ()

    def _may_call(self, row: Row) -> bool:
        """Where a design says how many calls there are, none is begun in vain; and none where none is due."""
        if self.design.calling.calls is not None and len(row.calls) >= self.limits.calls:
            return False
        return self.classifier is None or self.design.calling.route != "forbid" or bool(self._due(row))

    def _rules(self, row: Row) -> tuple[Rule, ...]:
        calling, rules = self.design.calling, list[Rule]()
        said = [str(message["content"]) for message in row.messages if message["role"] == "user"]
        if not self._may_call(row):
            rules.append(Silent(self.form))
        if calling.copied != "none":
            rules.append(Copied(self.form, self.tools, said, calling.copied))
        if calling.reply == "numbers" and row.calls:
            rules.append(Numbers([*said, *(call.result for call in row.calls)]))
        return tuple(rules)

    def _shown(self, row: Row) -> tuple[tuple[Message, ...], ...]:
        """The solved examples that stand before the conversation."""
        count = self.design.prompting.examples
        chosen = self.nearest.to(row.question, count) if self.nearest is not None else self.examples
        return tuple(example.messages for example in chosen)


def opening(tokenizer: Any, form: CallFormat, tool: str) -> tuple[int, ...]:
    """The tokens of a call up to its tool's name, of those that the model writes such calls with."""
    whole = encode(tokenizer, form.render(Call(tool, {"key": "value"})))
    wanted = form.opening + tool
    count = len(whole)
    while count and not wanted.startswith(str(tokenizer.decode(whole[:count]))):
        count -= 1
    return tuple(whole[:count])


def _result(record: CallRecord) -> Message:
    return {"role": "tool", "name": record.name, "content": record.result}
