"""What the columns of a row mean: four known schemas, or the user's own names.

| schema        | columns                                                                       |
|---------------|-------------------------------------------------------------------------------|
| `messages`    | OpenAI's chat format: a list of `role` and `content`; a last assistant's turn answers |
| `instruction` | Alpaca's: `instruction`, `input` (put under it), `output`                      |
| `prompt`      | `prompt`, `completion` (or `response`)                                         |
| `question`    | `question`, `answer`                                                           |

An answer may be missing: a teacher will be asked. `steps #### answer` (GSM8K, arXiv 2110.14168) is read as worked steps
and the right answer. Beside them `group`, `reference`, `rationale`, `weight`, `edge` and `licence` are understood under
these names; every other column is kept as text in `Record.more`.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from distillation.record import Message, Record, Role
from distillation.records.normal import clean
from phases.strict import StrictModel
from phases.tasks.item import MARK

KNOWN = {
    "messages": ("messages", "completion"),
    "instruction": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
    "question": ("question", "answer"),
}
"""Each schema's column of the question, and that of the answer."""
ROLES = get_args(Role)


class Columns(StrictModel):
    """Own names of columns; an empty one means the schema's usual name."""

    prompt: str = ""
    """The column with the question, as text or as a list of messages; with it the schema is not guessed."""
    completion: str = ""
    """The column with the answer to learn."""
    system: str = ""
    """The column with the system prompt."""
    group: str = "group"
    """The column with the task or domain."""
    reference: str = "reference"
    """The column with the right answer, for grading."""
    rationale: str = "rationale"
    """The column with worked steps."""
    weight: str = "weight"
    """The column with the record's say in the loss."""
    edge: str = "edge"
    """The column that marks edge cases (true, 1, yes)."""
    licence: str = "licence"
    """The column with the record's own licence."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Which columns are read as what."""

    name: str
    prompt: str
    completion: str
    columns: Columns

    @property
    def used(self) -> set[str]:
        """The columns that do not go to `Record.more`."""
        c = self.columns
        named = {c.system, c.group, c.reference, c.rationale, c.weight, c.edge, c.licence}
        alternatives = {"instruction": {"input"}, "prompt": {"response"}}.get(self.name, set())
        return named | alternatives | {self.prompt, self.completion}


class NotARecord(ValueError):
    """Why a row is none."""


def detect(names: Iterable[str], columns: Columns) -> Schema | None:
    """The schema of a row with these columns; None when none is known."""
    there = set(names)
    if columns.prompt:
        return Schema("own", columns.prompt, columns.completion, columns) if columns.prompt in there else None
    for name, (prompt, completion) in KNOWN.items():
        if prompt in there:
            if name == "prompt" and completion not in there and "response" in there:
                completion = "response"
            return Schema(name, prompt, columns.completion or completion, columns)
    return None


def to_record(row: Mapping[str, Any], schema: Schema, *, source: str, licence: str, group: str) -> Record:
    """The record of a row. Raises `NotARecord` with the reason."""
    if schema.prompt not in row:
        raise NotARecord(f"no column '{schema.prompt}'; it has: {', '.join(map(str, row))}")
    messages, completion = _conversation(row, schema)
    c = schema.columns
    steps, mark, answer = completion.rpartition(MARK.strip())
    answer_column = schema.name == "question" and len(completion.split()) <= 8
    reference = _text(row, c.reference) or (answer.strip() if mark else completion if answer_column else "")
    return Record(
        messages,
        completion,
        rationale=_text(row, c.rationale) or (steps.strip() if mark else ""),
        reference=reference,
        group=_text(row, c.group).strip() or group,
        source=source,
        licence=_text(row, c.licence).strip() or licence,
        edge=_flag(row.get(c.edge)),
        weight=_weight(row.get(c.weight)),
        more={str(k): _plain(v) for k, v in row.items() if k not in schema.used and v not in (None, "")},
    )


def _conversation(row: Mapping[str, Any], schema: Schema) -> tuple[tuple[Message, ...], str]:
    asked, completion = row[schema.prompt], _text(row, schema.completion) if schema.completion else ""
    if schema.name == "messages" and isinstance(asked, str) and asked.lstrip().startswith("["):
        asked = _json_list(asked)  # how a CSV holds a conversation
    if isinstance(asked, list):
        messages = [_message(m) for m in asked]
        if messages and messages[-1].role == "assistant":
            completion = messages.pop().content or completion
    else:
        prompt = _text(row, schema.prompt)
        extra = _text(row, "input") if schema.name == "instruction" else ""
        messages = [Message("user", f"{prompt}\n\n{extra}" if extra else prompt)]
    system = _text(row, schema.columns.system) if schema.columns.system else ""
    if system:
        messages.insert(0, Message("system", system))
    if not messages or messages[-1].role != "user":
        raise NotARecord("the last question is not a user's turn")
    if not messages[-1].content.strip():
        raise NotARecord(f"empty {schema.prompt}")
    return tuple(messages), completion


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise NotARecord("messages are not a JSON list") from None


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES or not isinstance(value.get("content"), str):
        raise NotARecord(f"a message needs a role of {', '.join(ROLES)} and a text as content")
    return Message(value["role"], clean(value["content"]))


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise NotARecord(f"column '{column}' is not a text")
    return clean(str(value))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _flag(value: Any) -> bool:
    return str(value).strip().casefold() in ("true", "1", "1.0", "yes")


def _weight(value: Any) -> float:
    if value in (None, ""):
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError):
        raise NotARecord(f"weight {value!r} is not a number") from None
    if not math.isfinite(weight) or weight < 0:
        raise NotARecord(f"weight {value!r} is not a number of at least 0")
    return weight
