"""A tiny agent that has learnt four conversations by heart, and OpenAI's client of a server in this process."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import uvicorn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flows.serve import make_server
from flows.serving.agent import Answer, ServedAgent
from flows.serving.engine import Engine
from flows.serving.metering import Cancelled, Meter
from flows.serving.requests import TextAsked
from phases.agent.settings import SETTINGS, AgentSettings
from phases.agent.template import encode_chat, with_tools
from phases.agent.tool import Tool
from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint

END = "<|endoftext|>"
CONTEXT = 512
LONG = ['<tool_call>{"name": "', '", "arguments": {"', '"}}</tool_call>', "}}</tool_call>"]
"""Tokens of more than a byte."""
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
DOUBLE: Any = {"type": "function", "function": {"name": "double", "description": "", "parameters": NUMBER}}


def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def learnt(tokenizer: Any) -> list[tuple[list[int], list[bool]]]:
    double = Tool("double", DOUBLE, lambda *_: "", "client")
    own = [{"role": "user", "content": "sum"}, called("python", {"code": "3*4"}), {"role": "tool", "content": "12"}]
    theirs = [{"role": "user", "content": "twice 4"}, called("double", {"n": 4}), {"role": "tool", "content": "8"}]
    hello = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Good day, sir.\nAnd bye."}]
    keep = [{"role": "user", "content": "keep"}, called("remember", {"fact": "a"}), {"role": "tool", "content": "kept"}]
    said = {"role": "assistant", "content": "So it is."}
    return [
        encode_chat(tokenizer, [*own, said]),
        encode_chat(tokenizer, [*theirs, said], [double]),
        encode_chat(tokenizer, hello),
        encode_chat(tokenizer, [*keep, said]),
    ]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's folder, `tiny`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={END: 0, **{symbol: i + 1 for i, symbol in enumerate(alphabet)}}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens(LONG)
    tokenizer = with_tools(PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, bos_token=END, pad_token=END))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": CONTEXT}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257 + len(LONG), num_key_value_heads=4, **sizes, **ends))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    rows = learnt(tokenizer)
    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([torch.tensor(ids) for ids, _ in rows], batch_first=True)
    ours = pad([torch.tensor(mine) for _, mine in rows], batch_first=True)[:, 1:]
    for _ in range(400):
        logits, wanted = model(tokens[:, :-1]).logits[ours], tokens[:, 1:][ours]
        if right := bool((logits.argmax(-1) == wanted).all()):
            break
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, wanted).backward()
        optimizer.step()
    assert right
    made = tmp_path_factory.mktemp("agent") / "tiny"
    settings = AgentSettings(tools=("python", "remember"), context_tokens=400)
    save_checkpoint(made, model.eval(), tokenizer, Manifest("baking"), texts={SETTINGS: settings.model_dump_json()})
    return made


class Endless(ServedAgent):
    """Writes the same completion for ever when the client's name is `endless`: what only its going away ends."""

    ended = threading.Event()

    def complete(self, asked: TextAsked, meter: Meter) -> Answer:
        """Write, again and again; or fail, where that is the client's name."""
        if asked.user in ("broken", "broken later"):
            if asked.user == "broken later":
                meter.begin()
            raise RuntimeError(asked.prompt)
        try:
            while asked.user == "endless":
                super().complete(asked, meter)
        except Cancelled:
            self.ended.set()
            raise
        return super().complete(asked, meter)


@contextlib.contextmanager
def served(path: Path) -> Iterator[tuple[openai.OpenAI, uvicorn.Server]]:
    """A server in this process, at which one request may wait, and a client of it."""

    def opening(held: contextlib.ExitStack) -> ServedAgent:
        torch.set_num_threads(1)  # each thread has a number of its own
        return Endless.open(open_checkpoint(path), (), None, held)

    engine = Engine(waiting=1)
    agent = engine.open(opening)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = make_server(engine, agent)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        address = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        with openai.OpenAI(base_url=address, api_key="any", max_retries=0) as client:
            yield client, server
        server.should_exit = True
        thread.join()
    engine.close()


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[openai.OpenAI]:
    """A client of a server that all tests of a file ask."""
    with served(path) as (made, _):
        yield made


@pytest.fixture
def another(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[openai.OpenAI, uvicorn.Server]]:
    """A client and a server that is impatient when it stops."""
    monkeypatch.setattr("flows.serve.STOP_SECONDS", 1)
    with served(path) as made:
        yield made


@pytest.fixture
def ended() -> threading.Event:
    """Set when the endless completion has ended."""
    Endless.ended.clear()
    return Endless.ended


@pytest.fixture(scope="session")
def ask() -> Callable[..., Any]:
    """Asks a client one question."""

    def asked(client: openai.OpenAI, text: str, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="tiny", messages=messages, **more)

    return asked
