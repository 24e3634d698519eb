"""A compressed agent in use: `forge serve` as OpenAI's own client reads it, `forge chat` and `forge generate`.

The agent that knows four conversations by heart is written as the compression phase writes one, under all four codecs.
Serving and chatting are processes of their own, which have to know the format by themselves.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from flows.cli import main
from phases.agent.persona import Persona
from phases.agent.settings import SETTINGS, AgentSettings, read_settings
from phases.checkpoint import open_checkpoint
from phases.compression.artefact import float_model, read_stored, write_artefact
from phases.compression.hyper import Hyper
from phases.compression.seedlm import SeedLM
from phases.compression.stored import Coding, Stored
from phases.compression.ternary import Ternary
from phases.compression.vptq import VPTQ

PROMPT = "<|user|>hello<|assistant|>"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PAIRS = VPTQ(vector=2, codebook_size=256)
CODECS: dict[str, Coding] = {
    "": Hyper(bits=6, group=64),
    "embed_tokens.weight": PAIRS,
    "layers.0.self_attn.k_proj.weight": SeedLM(block=4, latent=3),
    "layers.1.self_attn.q_proj.weight": Ternary(group=16),
}
"""Of matrices whose names end so, the last that fits; so fine that little of what was learnt is lost."""
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
DOUBLE: Any = {"type": "function", "function": {"name": "double", "description": "", "parameters": NUMBER}}


@pytest.fixture(scope="module")
def path(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's artefact, of the same name."""
    folder, source = tmp_path_factory.mktemp("compressed"), open_checkpoint(path)
    weights = source.tensors()
    codecs = {
        name: next(codec for end, codec in reversed(CODECS.items()) if name.endswith(end))
        for name, weight in weights.items()
        if weight.ndim == 2
    }
    shared = PAIRS.encode_together({name: weights[name] for name in codecs if codecs[name] is PAIRS})
    encoded = {name: codec.encode(weights[name]) for name, codec in codecs.items() if not isinstance(codec, VPTQ)}
    plain = {name: weight.half() for name, weight in weights.items() if name not in codecs}
    stored = Stored(codecs, encoded | dict(shared.matrices), {PAIRS: shared.codebook_RKV}, plain)
    settings = read_settings(path).model_copy(update={"persona": Persona(name="Zumi")})
    texts = {SETTINGS: settings.model_dump_json()}
    return write_artefact(source, stored, folder / "tiny", activations=False, texts=texts).path


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[openai.OpenAI]:
    """A client of `forge serve`, which ends with 0."""
    command = [sys.executable, "-m", "flows.cli", "serve", str(path), "--port", "0", "--json"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as made:
                yield made
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def greedy(path: Path) -> str:
    """What the model that the file stands for writes after `PROMPT`, in memory and by plain transformers."""
    tokenizer = open_checkpoint(path).tokenizer()
    model = float_model(path, read_stored(path)[0].weights())
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
    return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def test_it_is_healthy_and_has_its_name_and_persona(client: openai.OpenAI, path: Path) -> None:
    health = httpx.get(str(client.base_url).replace("/v1/", "/health")).json()
    assert health.items() >= {"status": "ok", "model": "tiny", "digest": open_checkpoint(path).digest}.items()
    assert [model.id for model in client.models.list()] == ["tiny"]
    settings: AgentSettings = read_settings(path)
    assert settings.persona.name == "Zumi" and settings.tools == ("python", "remember")


def test_a_completion_is_what_the_model_in_memory_writes(client: openai.OpenAI, greedy: str) -> None:
    done = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=40)
    assert done.choices[0].text == greedy == "Good day, sir.\nAnd bye." and done.choices[0].finish_reason == "stop"
    stream = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=40, stream=True)
    pieces = [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == greedy and len(pieces) > 18


def test_its_own_tool_runs_here_and_the_clients_makes_a_round_trip(client: openai.OpenAI) -> None:
    def ask(*messages: Any, **more: Any) -> Any:
        return client.chat.completions.create(model="tiny", messages=list(messages), **more).choices[0]

    assert ask({"role": "user", "content": "sum"}).message.content == "So it is."
    asked = {"role": "user", "content": "twice 4"}
    first = ask(asked, tools=[DOUBLE])
    (call,) = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert (call.function.name, call.function.arguments) == ("double", '{"n": 4}')
    result = {"role": "tool", "tool_call_id": call.id, "content": "8"}
    assert ask(asked, first.message, result, tools=[DOUBLE]).message.content == "So it is."


def test_chat_opens_it_and_runs_its_tool(path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "chat", str(path), "--json", "--no-memory"]
    pipes: Any = {"stdout": subprocess.PIPE, "text": True, "check": True}
    answer = json.loads(subprocess.run(command, input="sum\n", env=ENVIRONMENT, **pipes).stdout)
    assert answer["text"] == "So it is." and answer["ended"] == "said"
    assert answer["calls"] == [{"name": "python", "arguments": {"code": "3*4"}, "verdict": "done", "result": "12"}]


def test_generate_opens_it(path: Path, greedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(path), "--prompt", PROMPT, "--max-new-tokens", "40"]) == 0
    assert capsys.readouterr().out == greedy + "\n"


def test_a_damaged_one_is_not_served(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shutil.copytree(path, tmp_path / "tiny") / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["serve", str(file.parent), "--port", "0"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and str(file) in shown.err
