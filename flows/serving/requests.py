"""What a client asks for: the fields of OpenAI's requests that are understood, and the conversation in them.

Fields that would change the answer and cannot be obeyed are refused by name rather than ignored; those that only
describe the client (`user`, `metadata` …) are read and left alone. A field that is not there, or null, is as the
agent's design says.
"""

import json
from typing import Annotated, Any, Literal, Self

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from flows.serving.problems import Problem
from phases.agent.calls import Message
from phases.agent.design import Decoding
from phases.agent.tool import Tool

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Stop = Annotated[str, StringConstraints(min_length=1)]
LEAST_TOP_P = 1e-6
"""What stands for a `top_p` of 0, which a design does not have: the likeliest token alone."""


class Loose(BaseModel):
    """Part of a message. Clients send back what they got, so unknown keys are no mistake."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Text(Loose):
    """A text among the parts of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(Loose):
    """The function of a call."""

    name: str
    arguments: str
    """JSON."""


class ToolCall(Loose):
    """A call that the assistant made."""

    id: str
    function: CalledFunction


class Said(Loose):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Text] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """Its text, or the texts of its parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class Function(Loose):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(Loose):
    """A tool of the client."""

    type: Literal["function"]
    function: Function


class StreamOptions(Loose):
    """What a stream holds besides the text."""

    include_usage: bool = False


class ResponseFormat(Loose):
    """Text is the only format."""

    type: Literal["text"]


class Asked(BaseModel):
    """What both kinds of request have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[Stop] | None = Field(None, max_length=4)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) and self.stop else tuple(self.stop or ())

    @property
    def usage(self) -> bool:
        """Whether a stream ends with what it cost."""
        return self.stream_options is not None and self.stream_options.include_usage

    def decoding(self, own: Decoding) -> Decoding:
        """The agent's own decoding with what is asked for."""
        wanted = {
            "temperature": self.temperature,
            "top_p": None if self.top_p is None else max(self.top_p, LEAST_TOP_P),
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
        }
        return own.model_copy(update={name: value for name, value in wanted.items() if value is not None})


class TextAsked(Asked):
    """`POST /v1/completions`."""

    prompt: Annotated[str, StringConstraints(min_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None


class ChatAsked(Asked):
    """`POST /v1/chat/completions`."""

    messages: list[Said] = Field(min_length=1)
    tools: list[ToolSpec] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if len(names) != len(set(names)):
            raise ValueError("tools: a name stands twice; rename one")
        return self

    @property
    def by_client(self) -> bool:
        """Whether calls are the client's to run."""
        return bool(self.tools) or self.messages[-1].role == "tool"

    @property
    def limit(self) -> int | None:
        """Tokens of a message, where the client says so."""
        return self.max_completion_tokens or self.max_tokens

    def client_tools(self) -> tuple[Tool, ...]:
        """The client's tools. Raises `Problem` for parameters that are no JSON schema."""
        return tuple(_tool(spec.function, place) for place, spec in enumerate(self.tools or ()))

    def conversation(self) -> tuple[str | None, list[Message]]:
        """(the system prompt that it begins with, the other messages) as chat templates take them.

        Raises `Problem` for results without their call, arguments that are no JSON, or an end that asks nothing.
        """
        first = next((i for i, one in enumerate(self.messages) if one.role not in ("system", "developer")), None)
        if first is None or self.messages[-1].role not in ("user", "tool"):
            raise Problem(400, "messages: the last one must be a user's, or a tool's result", "messages")
        system = "\n".join(one.text for one in self.messages[:first])
        made: list[Message] = []
        names: dict[str, str] = {}
        for place, one in enumerate(self.messages[first:], first):
            made.append(_message(one, f"messages[{place}]", names))
            names |= {call.id: call.function.name for call in one.tool_calls or ()}
        return system if first else None, made


def _message(said: Said, where: str, names: dict[str, str]) -> Message:
    """A message as chat templates take it; `names`: the tools of the calls so far, by id."""
    role = "system" if said.role == "developer" else said.role
    if role == "tool":
        if said.tool_call_id not in names:
            raise Problem(400, f"{where}.tool_call_id: no call before it has this id", f"{where}.tool_call_id")
        identity = {"tool_call_id": said.tool_call_id, "name": names[said.tool_call_id]}
        return {"role": role, "content": said.text, **identity}
    made: Message = {"role": role, "content": said.text}
    if said.tool_calls and role == "assistant":
        calls = enumerate(said.tool_calls)
        made["tool_calls"] = [_call(call, f"{where}.tool_calls[{place}].function.arguments") for place, call in calls]
    return made


def _call(call: ToolCall, where: str) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        raise Problem(400, f"{where}: not JSON", where) from None
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _tool(function: Function, place: int) -> Tool:
    parameters = function.parameters or {"type": "object", "properties": {}}
    where = f"tools[{place}].function.parameters"
    try:
        jsonschema.Draft202012Validator.check_schema(parameters)
    except (jsonschema.SchemaError, RecursionError) as error:
        raise Problem(400, f"{where}: no JSON schema ({str(error).splitlines()[0][:200]})", where) from None
    described = {"name": function.name, "description": function.description or "", "parameters": parameters}
    return Tool(function.name, {"type": "function", "function": described}, _never, "client")


def _never(*_: object) -> str:
    raise AssertionError("the client's tools run at the client's")
