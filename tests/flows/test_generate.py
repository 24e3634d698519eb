"""`forge generate`: the text is transformers' own, thoughts are shown and repeatable, bad input is one line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flows.cli import main
from flows.generate import Writer
from flows.parameters import ForgeConfig
from phases.checkpoint import Manifest, load_model, load_tokenizer, save_checkpoint
from phases.quiet_star.delimiters import END, START, add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, thinking_files
from phases.quiet_star.thinker import Thinker
from phases.tasks.item import render_prompt

CONTEXT = 64


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(vocab={end: 0, **{s: i + 1 for i, s in enumerate(alphabet)}}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end)


def thinking(path: Path, model: Any, tokenizer: Any) -> Path:
    start, end = add_delimiters(model, tokenizer, "---")
    head = MixingHead(model.config.hidden_size, 0.6)
    settings = ThinkingFile(start=start, end=end, tokens=4)
    tensors, texts = thinking_files(Thinker(model, head, start, end), settings)
    return save_checkpoint(path, model, tokenizer, Manifest("quiet_star"), tensors, texts).path


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, thoughts of four tokens that make 60 % of the prediction."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=257,
        intermediate_size=48,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=True,
        **shape,
    )
    return thinking(tmp_path_factory.mktemp("thinker") / "c", LlamaForCausalLM(config).eval(), byte_tokenizer())


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Someone else's model, of a kind that cannot think."""
    path = tmp_path_factory.mktemp("foreign")
    config = GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def made(path: Path, capsys: pytest.CaptureFixture[str], *options: str, prompt: str = "abc") -> dict[str, Any]:
    command = ["generate", str(path), "--prompt", prompt, "--max-new-tokens", "12", "--json", *options]
    assert main(command) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def reference(path: Path, prompt: str) -> str:
    model, tokenizer = load_model(path), load_tokenizer(path)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=0, pad_token_id=0
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("which", ["thinker", "foreign"])
def test_without_thoughts_the_text_is_plain_generation(
    which: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(which)
    assert main(["generate", str(path), "--prompt", "abc", "--max-new-tokens", "12"]) == 0
    shown = capsys.readouterr()
    assert shown.out == reference(path, "abc") + "\n" and shown.err == ""
    assert made(path, capsys)["thoughts"] == []


def test_json_has_every_thought(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = made(thinker, capsys, "--think")
    assert set(found) == {"prompt", "text", "tokens", "seconds", "thoughts"} and found["prompt"] == "abc"
    assert len(found["thoughts"]) == found["tokens"] == 12 and found["seconds"] > 0
    assert {step["mixing_weight"] for step in found["thoughts"]} == {0.6}
    tokenizer = load_tokenizer(thinker)
    assert any(len(tokenizer(step["thought"])["input_ids"]) == 4 for step in found["thoughts"])


def test_thoughts_change_the_text_and_the_seed_repeats_it(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [[], ["--think"], ["--think"], ["--shuffled"], ["--think", "--seed", "1"], ["--think", "--tokens", "9"]]
    texts = [made(thinker, capsys, *option)["text"] for option in options]
    assert texts[1] == texts[2] and len(set(texts)) == 5


def test_temperature_draws_what_the_seed_says(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    texts = [made(thinker, capsys, "--temperature", "1", "--seed", seed)["text"] for seed in "001"]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_delimiters_are_never_written(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = made(thinker, capsys, "--think", "--temperature", "1000", "--max-new-tokens", "61")
    assert not {START, END} & {step["token"] for step in found["thoughts"]}


def test_shown_thoughts_leave_standard_output_to_the_text(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = made(thinker, capsys, "--think")["text"]
    command = ["generate", str(thinker), "--prompt", "abc", "--max-new-tokens", "12", "--think", "--show-thoughts"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == text + "\n" and len(shown.err.splitlines()) == 12
    assert all(line.startswith('0.600  "') and "  →  " in line for line in shown.err.splitlines())


def test_the_prompt_may_be_piped_in(
    thinker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("abc\n"))
    assert main(["generate", str(thinker), "--max-new-tokens", "12"]) == 0
    assert capsys.readouterr().out == made(thinker, capsys)["text"] + "\n"


def test_a_question_is_put_as_the_tasks_are(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rendered = render_prompt(load_tokenizer(thinker), "1+1")
    assert made(thinker, capsys, "--question", prompt="1+1")["text"] == made(thinker, capsys, prompt=rendered)["text"]


def test_a_character_is_shown_when_it_is_whole() -> None:
    pieces: list[str] = []
    writer, text = Writer(None, byte_tokenizer(), pieces.append), "aé→b"
    writer.put(torch.tensor([[1, 2, 3]]))  # the prompt
    ids = writer.tokenizer(text)["input_ids"]
    for token in ids:
        writer.put(torch.tensor([token]))
    writer.end()
    assert len(ids) == 7 and [piece for piece in pieces if piece] == ["a", "é", "→", "b"]


def test_writing_ends_where_the_context_does(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", str(thinker), "--prompt", "a" * (CONTEXT - 5), "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["tokens"] == 5
    assert shown.err == f"generate: the context of {CONTEXT} tokens leaves room for 5 more\n"


WRONG = [
    (["--prompt", ""], "the prompt is empty"),
    (["--prompt", "a" * CONTEXT], f"the prompt has {CONTEXT} tokens and the model's context {CONTEXT}"),
    (["--prompt", "a\udcff"], "the prompt is not UTF-8"),
    (["--prompt", "a", "--think"], "does not think"),
    (["--prompt", "a", "--shuffled"], "does not think"),
    (["--prompt", "a", "--show-thoughts"], "there are none; add --think"),
    (["--prompt", "a", "--tokens", "3"], "add --think"),
    (["--prompt", "a", "--think", "--tokens", "-1"], "--tokens -1: give 0 or more"),
    (["--prompt", "a", "--max-new-tokens", "0"], "give 1 or more"),
    (["--prompt", "a", "--temperature", "nan"], "--temperature nan"),
    (["--prompt", "a", "--seed", "-1"], "--seed -1"),
]


@pytest.mark.parametrize(("options", "wanted"), WRONG, ids=[wanted for _, wanted in WRONG])
def test_bad_input_is_one_line(
    options: list[str], wanted: str, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(foreign), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and wanted in shown.err


def test_no_such_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path / "none"), "--prompt", "a"]) == 2
    assert "none: not a checkpoint (no such folder)" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none"), "--thoughts", "on"]) == 2


def test_evaluate_with_thoughts(original: ForgeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(original.folder / "cognate"), "--thoughts", "on"]
    assert main(command) == 2
    assert "cognate: does not think" in capsys.readouterr().err
    path = original.folder / "cognate"
    thinker = thinking(tmp_path / "c", load_model(path), load_tokenizer(path))
    values = {}
    for mode in ("on", "shuffled", "off"):
        command = ["evaluate", str(thinker), "--data", str(original.folder / "data"), "--thoughts", mode, "--json"]
        assert main(command) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["thoughts"] == mode
        values[mode] = next(m["value"] for m in shown["metrics"] if m["name"] == "model/bits_per_byte")
    assert len(set(values.values())) == 3
