"""The chat template that knows tools: the data's own form, with signatures, calls and results added.

    <|system|>You are Forge. Tools: python(code); retrieve(query); …
    <|user|>compute 3*4<|assistant|><tool_call>{"name": "python", "arguments": {"code": "3*4"}}</tool_call><|endoftext|>
    <|user|><tool_response>12</tool_response><|assistant|>12<|endoftext|>

Messages without tools render exactly as the data's template does, so nothing that was learnt before changes its form.
Calls are in the form of Hermes and Qwen, which servers parse (vLLM: `--tool-call-parser hermes`). Tools are shown by
signature: the full JSON schemas of five tools would fill the context of a small model; calls are checked against them.
"""

from collections.abc import Sequence
from typing import Any

from phases.agent.calls import CallFormat, Message
from phases.agent.tool import Tool
from phases.decoding import encode
from phases.errors import CheckpointError

CHAT_TEMPLATE = (
    "{% set first = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' %}"
    "{% if tools %}"
    "{{ '<|system|>' + first + (' ' if first else '') + 'Tools:' }}"
    "{% for tool in tools %}"
    "{{ ' ' + tool['function']['name'] + '(' }}"
    "{{ (tool['function']['parameters']['properties'] if tool['function']['parameters'] else {}) | join(', ') }}"
    "{{ ')' + ('.' if loop.last else ';') }}"
    "{% endfor %}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first and tools %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{% if call['function']['arguments'] is string %}{{ call['function']['arguments'] }}"
    "{% else %}{{ call['function']['arguments'] | tojson }}{% endif %}"
    "{{ '}</tool_call>' }}"
    "{% endfor %}"
    "{{ eos_token }}"
    "{% elif message['role'] == 'tool' %}"
    "{{ '<|user|><tool_response>' + message['content'] + '</tool_response>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def with_tools(tokenizer: Any) -> Any:
    """The tokenizer with a template that renders tools: its own where it does, else ours."""
    try:
        CallFormat.of(tokenizer)
    except CheckpointError:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool] = (), system: str = "", reply: bool = True
) -> str:
    """The conversation as text; `tools` and `system` are the prompt, `reply` opens the assistant's turn."""
    head = [{"role": "system", "content": system}] if system else []
    schemas = [dict(tool.schema) for tool in tools] or None
    return str(
        tokenizer.apply_chat_template([*head, *messages], tools=schemas, tokenize=False, add_generation_prompt=reply)
    )


def encode_chat(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool] = (), system: str = ""
) -> tuple[list[int], list[bool]]:
    """(token ids, which of them the assistant writes) of a whole conversation, ends of its turns included.

    Raises `ValueError` for a template that rewrites what it has rendered before, as some do with earlier thoughts.
    """
    ids: list[int] = []
    ours: list[bool] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], tools, system)
        after = render(tokenizer, messages[: index + 1], tools, system, reply=False)
        if not before.startswith(done) or not after.startswith(before):
            raise ValueError("the chat template renders earlier turns anew; it cannot be trained on turn by turn")
        for text, mine in ((before[len(done) :], False), (after[len(before) :], True)):
            tokens = encode(tokenizer, text)
            ids += tokens
            ours += [mine] * len(tokens)
        done = after
    return ids, ours
