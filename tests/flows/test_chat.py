"""`forge chat` in a real terminal, with a model that has learnt a few conversations by heart; and `forge memory`."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flows.chat import in_words
from flows.cli import main
from phases.agent.calls import Call
from phases.agent.conversation import TurnLimits, run_call
from phases.agent.design import Design
from phases.agent.memory import Memory
from phases.agent.sandbox.sandbox import Sandbox
from phases.agent.settings import SETTINGS, AgentSettings, read_settings
from phases.agent.template import encode_chat, with_tools
from phases.agent.tool import ToolContext, built_in
from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint

END = "<|endoftext|>"
Calls = list[tuple[str, dict[str, str]]]
LEARNT: list[list[tuple[str, Calls, str]]] = [
    [
        ("compute 3*4", [("python", {"code": "3*4"})], "12"),
        ("my boat is called Zumi", [("remember", {"fact": "my boat is called Zumi"})], "I will remember that."),
    ],
    [("what is my boat called?", [("recall", {"query": "my boat"})], "Your boat is called Zumi.")],
    [
        ("divide", [("python", {"code": "1/0"})], "No."),
        ("loop", [("python", {"code": "while 1: 1"})], "Never."),
        ("flood", [("python", {"code": "'y'*300"})], "Much."),
    ],
]


def byte_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={END: 0, **{symbol: i + 1 for i, symbol in enumerate(alphabet)}}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return with_tools(PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, bos_token=END, pad_token=END))


def conversation(turns: list[tuple[str, Calls, str]], context: ToolContext) -> list[dict[str, Any]]:
    """What is said, with the results that the real tools give."""
    tools = [built_in(name) for name in ("python", "remember", "recall")]
    messages: list[dict[str, Any]] = []
    for user, calls, reply in turns:
        messages.append({"role": "user", "content": user})
        for name, arguments in calls:
            result = run_call(Call(name, arguments), tools, context, (), TurnLimits()).result
            call = {"type": "function", "function": {"name": name, "arguments": arguments}}
            messages += [
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": result},
            ]
        messages.append({"role": "assistant", "content": reply})
    return messages


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Taught by heart: what is tested is the terminal, the tools and the memory, which are real."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = byte_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": 2048}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, num_key_value_heads=4, **sizes, **ends))
    with Sandbox() as sandbox, Memory(None) as memory:
        context = ToolContext(sandbox=sandbox, memory=memory)
        learnt = [encode_chat(tokenizer, conversation(turns, context)) for turns in LEARNT]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(400):
        total, right = torch.zeros(()), True
        for ids, ours in learnt:
            tokens, counts = torch.tensor([ids]), torch.tensor(ours)[1:]
            logits = model(tokens[:, :-1]).logits[0][counts]
            wanted = tokens[0, 1:][counts]
            total = total + torch.nn.functional.cross_entropy(logits, wanted)
            right = right and bool((logits.argmax(-1) == wanted).all())
        if right:
            break
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 500)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert right
    settings = AgentSettings(tools=("python", "remember", "recall"), context_tokens=1500)
    path = tmp_path_factory.mktemp("agent") / "agent"
    texts = {SETTINGS: settings.model_dump_json()}
    save_checkpoint(path, model.eval(), tokenizer, Manifest("baking"), texts=texts)
    return path


class Terminal:
    """A terminal with `forge chat` in it."""

    def __init__(self, agent: Path, *options: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "flows.cli", "chat", str(agent), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.read()

    def read(self, mark: str = "you> ", seconds: float = 120) -> str:
        """What comes up to the next prompt."""
        text, until = b"", time.monotonic() + seconds
        while not text.endswith(mark.encode()):
            assert time.monotonic() < until, text.decode()
            if select.select([self.master], [], [], 0.2)[0]:
                text += os.read(self.master, 65_536)
        return text.decode().replace("\r\n", "\n")

    def say(self, line: str) -> str:
        os.write(self.master, line.encode() + b"\n")
        return self.read()

    def end(self, line: bytes = b"\x04") -> int:
        os.write(self.master, line)
        return self.process.wait(30)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # of a test that failed half-way, lest it fails the next one as well
        self.process.wait()
        os.close(self.master)


def test_a_tool_is_called_and_a_fact_outlives_the_session(agent: Path) -> None:
    with Terminal(agent) as first:
        assert '[python {"code": "3*4"} → 12]' in (said := first.say("compute 3*4")) and "Forge> 12\n" in said
        said = first.say("my boat is called Zumi")
        assert '[remember {"fact": "my boat is called Zumi"} → kept]' in said and "I will remember that." in said
        assert "my boat is called Zumi" in first.say("/memory") and "python(code)" in first.say("/tools")
        assert first.end() == 0
    with Terminal(agent) as second:
        said = second.say("what is my boat called?")
        assert '[recall {"query": "my boat"} → my boat is called Zumi]' in said
        assert "Forge> Your boat is called Zumi." in said
        assert "forgotten: " in second.say("/forget boat")
        assert "→ nothing]" in second.say("/reset") + second.say("what is my boat called?")
        assert second.end(b"/quit\n") == 0


CASES = (("divide", "ZeroDivisionError", "No."), ("loop", "timed out", "Never."), ("flood", "more)", "Much."))


def test_whatever_a_tool_does_the_conversation_goes_on(agent: Path) -> None:
    with Terminal(agent, "--no-memory") as terminal:
        for line, result, reply in CASES:
            said = terminal.say(line)
            assert result in said and f"Forge> {reply}" in said
        assert "no command /dance" in terminal.say("/dance") and terminal.end() == 0


def test_piped_it_answers_in_json(agent: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "chat", str(agent), "--json", "--memory", str(tmp_path / "m.sqlite")]
    done = subprocess.run(
        command, input="compute 3*4\n\n/quit\nnever read\n", capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert answer["text"] == "12" and answer["ended"] == "said"
    assert answer["calls"] == [{"name": "python", "arguments": {"code": "3*4"}, "verdict": "done", "result": "12"}]
    with Memory(tmp_path / "m.sqlite") as memory:
        assert [(one.role, one.text) for one in memory.episodes()] == [("user", "compute 3*4"), ("assistant", "12")]


def test_it_works_by_its_design_and_says_which(agent: Path, tmp_path: Path) -> None:
    design = Design.model_validate({"calling": {"reply": "result", "calls": 3}, "voting": {"samples": 3}})
    settings, plain = read_settings(agent).model_copy(update={"design": design}), open_checkpoint(agent)
    texts = {SETTINGS: settings.model_dump_json()}
    save_checkpoint(tmp_path / "agent", plain.model(), byte_tokenizer(), Manifest("adas"), texts=texts)
    command = [sys.executable, "-m", "flows.cli", "chat", str(tmp_path / "agent"), "--json", "--no-memory"]
    done = subprocess.run(command, input="what is my boat called?\n", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["text"] == "nothing"  # the result of recall
    assert "by a design of its own: " in done.stderr and "result as reply" in done.stderr
    assert "vote of 3" in done.stderr and "calling.calls=3" in done.stderr


def test_a_design_in_words() -> None:
    branches = Design.model_validate({"voting": {"samples": 3, "branch": True}, "decoding": {"top_k": 7}})
    assert in_words(Design()) == "" and in_words(branches) == "branches 3, decoding.top_k=7"


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_bad_input_is_one_line(agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = ["chat", str(agent)]
    assert "not a checkpoint" in fails(["chat", str(tmp_path)], capsys)
    assert "do not go together" in fails([*chat, "--no-memory", "--memory", "x"], capsys)
    assert "--temperature -1.0: give 0" in fails([*chat, "--temperature", "-1"], capsys)
    assert "cannot be read" in fails([*chat, "--tool", str(tmp_path / "none.py")], capsys)
    (tmp_path / "text.sqlite").write_text("no database")
    assert "text.sqlite" in fails([*chat, "--memory", str(tmp_path / "text.sqlite")], capsys)
    model = tmp_path / "plain"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert "no agent (no agent.json)" in fails(["chat", str(model)], capsys)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "memory.sqlite"
    with Memory(path) as memory:
        memory.log("s", "user", "my boat is called Zumi")
        memory.remember("my boat is called Zumi", "s")
        memory.remember("my dog is called Rex", "s")
    return path


def test_a_memory_is_listed_searched_forgotten_and_brought_back(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def memory(*options: str) -> Any:
        assert main(["memory", str(kept), "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    assert {fact["text"] for fact in memory()["facts"]} == {"my boat is called Zumi", "my dog is called Rex"}
    assert memory("--search", "the boat")["found"][0]["text"] == "my boat is called Zumi"
    exported = memory("--export", str(tmp_path / "all.jsonl"))["exported"]
    assert exported == 3 and memory("--forget", "boat")["forgotten"] >= 1
    assert [fact["text"] for fact in memory()["facts"]] == ["my dog is called Rex"]
    memory("--delete")
    assert b"Rex" not in (kept.read_bytes() if kept.exists() else b"")
    assert main(["memory", str(kept), "--restore", str(tmp_path / "all.jsonl")]) == 0
    assert re.search(r"facts: 2|restored: 3", capsys.readouterr().out)


def test_memory_that_is_not_there(tmp_path: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in fails(["memory", str(tmp_path / "none.sqlite")], capsys)
    assert "do not go together" in fails(["memory", str(kept), "--delete", "--forget", "x"], capsys)
