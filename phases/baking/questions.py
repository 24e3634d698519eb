"""Questions that a tool answers: sums too large to guess (run as Python) and what stands in the documents.

Arithmetic comes from reasoning-gym with numbers beyond those of the data's own tasks, and its answers are the
generator's, not the tool's. Questions to the documents are made from chunks that the store really returns for them; the
answer is what stands there behind the words that were asked for.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pydantic import Field, JsonValue

from phases.agent.documents import DocumentStore
from phases.agent.tool import ToolContext, ToolError, built_in
from phases.baking.scenario import GoldCall, Kind, Scenario, ScriptedTurn
from phases.errors import ConfigError
from phases.strict import StrictModel
from phases.tasks.collect import seeded
from phases.tasks.reasoning import ReasoningTask, reasoning_draws

ASKED = ("compute {}", "what is {}?", "work out {}", "calculate {}")
"""How a sum is asked for."""
LOOK_UP, WEB = (
    ('look up "{}"', 'what do the documents say on "{}"?', 'find "{}"'),
    ('search the web for "{}"', 'look online for "{}"'),
)
"""How words are asked for. In quotes, as in the call: a word after a space is another token than one after a quote, and
what a small model can do is copy tokens (docs/log.md)."""
ANSWER_CHARS = 16
"""Characters of an answer that is read off a document."""


class PythonTask(StrictModel):
    """One generator of reasoning-gym whose questions are answered by running Python."""

    name: str
    """`products`, `chain_sum`, `gcd`, `lcm` or `count_bits`."""
    params: dict[str, JsonValue] = Field({})
    """The generator's own parameters."""
    weight: float = Field(1.0, gt=0)
    """Share among these generators."""


def _itself(prompt: str) -> tuple[str, str]:
    """`37*28=` is Python as it stands."""
    expression = prompt.rstrip("=")
    return expression, expression


def _function(prompt: str) -> tuple[str, str]:
    """`gcd 12 18` is a function of `math`."""
    name, *numbers = prompt.split()
    return prompt, f"math.{name}({', '.join(numbers)})"


def _bits(prompt: str) -> tuple[str, str]:
    return prompt, f"bin({prompt.split()[1]}).count('1')"


CODE: Mapping[str, Callable[[str], tuple[str, str]]] = {
    "products": _itself,
    "chain_sum": _itself,
    "gcd": _function,
    "lcm": _function,
    "count_bits": _bits,
}
"""Generators whose short questions (`phases.tasks.compact`) can be written as (what is asked, Python that answers)."""


def python_scenarios(task: PythonTask, count: int, seed: int) -> Iterator[Scenario]:
    """`count` draws. Raises `ConfigError` for a generator that has no Python here, or wrong parameters."""
    if task.name not in CODE:
        raise ConfigError(f"baking.tools.python '{task.name}': choose from {', '.join(CODE)}")
    rng = seeded(seed, "python", task.name)
    for draw in reasoning_draws(ReasoningTask(name=task.name, params=task.params), count, seed):
        asked, code = CODE[task.name](draw.train.prompt)
        answer = draw.train.answer
        turn = ScriptedTurn(
            user=rng.choice(ASKED).format(asked),
            calls=(GoldCall(name="python", arguments={"code": code}),),
            reply=answer,
            answer=answer,
        )
        yield Scenario(kind="python", task=task.name, turns=(turn,))


def document_scenarios(
    store: DocumentStore, kind: Kind, context: ToolContext, seed: int
) -> Iterator[tuple[str, Callable[[], Scenario | None]]]:
    """(the words that are asked for, the question about them) of all chunks, in a random order.

    The question is None when the tool that `kind` names does not lead from the words to an answer.
    """
    order = list(range(store.count))
    seeded(seed, "documents", kind).shuffle(order)
    ask = _retrieve if kind == "retrieve" else _search
    asked: set[str] = set()
    for number in order:
        subject, rest = opening(store.chunk(number).text)
        if subject and subject not in asked:
            asked.add(subject)
            yield subject, partial(_scenario, kind, ask, subject, rest, context, seed)


Asking = Callable[[str, str, ToolContext, random.Random], ScriptedTurn | None]


def _scenario(kind: Kind, ask: Asking, subject: str, rest: str, context: ToolContext, seed: int) -> Scenario | None:
    turn = ask(subject, rest, context, seeded(seed, kind, subject))
    return None if turn is None else Scenario(kind=kind, task=kind, turns=(turn,))


def _retrieve(subject: str, rest: str, context: ToolContext, rng: random.Random) -> ScriptedTurn | None:
    """Ask for the words that a chunk begins with: its beginning is quoted, and what follows them is the answer."""
    result = _result("retrieve", subject, context)
    if result is None or not result.startswith(subject):
        return None  # another chunk wins
    answer = first_words(result[len(subject) :])
    if not _is_prose(answer) or not rest:
        return None
    call = GoldCall(name="retrieve", arguments={"query": subject})
    quoted = result[: result.index(answer, len(subject)) + len(answer)]
    return ScriptedTurn(user=rng.choice(LOOK_UP).format(subject), calls=(call,), reply=quoted, answer=answer)


def _search(subject: str, rest: str, context: ToolContext, rng: random.Random) -> ScriptedTurn | None:
    """Ask an engine for the words that a chunk begins with: the first hit is said, and its title is the answer."""
    result = _result("search", subject, context)
    first = re.match(r"1\. ([^:()\n]{3,40}):", result or "")
    if first is None:
        return None
    title = first_words(first[1])
    if not _is_prose(title):
        return None
    call = GoldCall(name="search", arguments={"query": subject})
    return ScriptedTurn(user=rng.choice(WEB).format(subject), calls=(call,), reply=f"1. {title}", answer=title)


def _is_prose(text: str) -> bool:
    """Words, not signs of a program: what somebody would want to be told."""
    return bool(re.fullmatch(r"[A-Za-z][\w ,.'-]{2,}", text))


def _result(name: str, query: str, context: ToolContext) -> str | None:
    try:
        return " ".join(built_in(name).run({"query": query}, context).split())
    except ToolError:
        return None


def opening(text: str) -> tuple[str, str]:
    """(the heading or the first word of a text, what follows); an empty heading where there are no words."""
    lines = text.strip().split("\n", 1)
    if len(lines) == 2 and re.fullmatch(r"[\w.]{4,32}", lines[0].strip()):
        return lines[0].strip(), lines[1].strip()
    subject, _, rest = " ".join(text.split()).partition(" ")
    return (subject, rest) if re.fullmatch(r"[A-Za-z][\w.]{3,15}", subject) else ("", "")


def first_words(text: str, characters: int = ANSWER_CHARS) -> str:
    """The first sentence, or as many of its words as fit."""
    sentence = re.split(r"(?<=[.!?])\s", text.strip(" :,;-—"), maxsplit=1)[0]
    return sentence if len(sentence) <= characters else sentence[:characters].rsplit(" ", 1)[0]
