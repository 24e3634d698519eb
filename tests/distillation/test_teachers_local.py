"""A teacher in memory, against transformers' own generation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import Message
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.teacher import Answer, Ask, Failure
from distillation.training.rows import render_messages
from phases.agent.template import CHAT_TEMPLATE
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.errors import CheckpointError

CONTEXT = 48


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(["a"], 260)  # bytes, and four special tokens
    tokenizer.chat_template = CHAT_TEMPLATE
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": CONTEXT}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **ends, intermediate_size=64, tie_word_embeddings=True))
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)  # so that what is likely is far from what is not
    path = tmp_path_factory.mktemp("teacher") / "tiny"
    save_checkpoint(path, model, tokenizer, Manifest("cognate"))
    return path


@pytest.fixture(scope="session")
def teacher(checkpoint: Path) -> LocalTeacher:
    return LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint, licence="own", batch=4))


def ask(text: str, **options: Any) -> Ask:
    return Ask((Message("user", text),), **{"max_tokens": 12, **options})


def outcomes(teacher: LocalTeacher, asks: list[Ask]) -> list[Any]:
    return [outcome for _, outcome in sorted(teacher.answer(iter(asks)), key=lambda one: one[0])]


def alone(teacher: LocalTeacher, one: Ask) -> str:
    text = render_messages(teacher.tokenizer, one.messages)
    read = teacher.tokenizer(text, add_special_tokens=False, return_tensors="pt")
    whole = teacher.model.generate(**read, max_new_tokens=one.max_tokens, do_sample=False, pad_token_id=0)
    return str(teacher.tokenizer.decode(whole[0, read["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def test_answers_are_those_of_generate(teacher: LocalTeacher) -> None:
    asks = [ask("hello " * (i % 4) + str(i), max_tokens=3 + i) for i in range(9)]
    asks.append(Ask((Message("system", "be"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))))
    got = outcomes(teacher, asks)
    assert [answer.text for answer in got] == [alone(teacher, one) for one in asks]
    assert {answer.finish for answer in got[:9]} <= {"stop", "length"}
    assert all(a.completion_tokens <= one.max_tokens for a, one in zip(got, asks, strict=True))


def test_draws_depend_on_their_own_ask(teacher: LocalTeacher) -> None:
    wanted = ask("hello", temperature=1.0, seed=3)
    others = [ask(f"q{i}" * (i % 5 + 1), temperature=i % 2, seed=i) for i in range(10)]
    (by_itself,) = outcomes(teacher, [wanted])
    among = outcomes(teacher, [*others[:6], wanted, *others[6:]])[6]
    assert by_itself.text == among.text
    texts = {answer.text for answer in outcomes(teacher, [ask("hello", temperature=1.0, seed=s) for s in range(8)])}
    assert len(texts) > 4 and by_itself.text in texts


def test_draws_follow_the_models_distribution(teacher: LocalTeacher) -> None:
    asks = [ask("x", temperature=2.0, seed=seed, max_tokens=1) for seed in range(400)]
    text = render_messages(teacher.tokenizer, asks[0].messages)
    with torch.inference_mode():
        read = teacher.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(teacher.model.device)
        logits_V = teacher.model(**read).logits[0, -1]
    chance_V = (logits_V / 2.0).softmax(-1)
    token = int(chance_V.argmax())
    drawn = sum(a.text == teacher.tokenizer.decode([token], skip_special_tokens=True).strip() for a in
                outcomes(teacher, asks))  # fmt: skip
    chance = float(chance_V[token])
    assert abs(drawn / 400 - chance) < 4 * (chance * (1 - chance) / 400) ** 0.5 + 0.01


def test_a_prompt_that_fills_the_context_is_a_lasting_failure(teacher: LocalTeacher) -> None:
    long, short = outcomes(teacher, [ask("x" * 100), ask("x")])
    assert isinstance(long, Failure) and long.lasting and f"the model reads 1 to {CONTEXT - 1}" in long.reason
    assert isinstance(short, Answer)


def test_an_answer_ends_with_the_context(teacher: LocalTeacher) -> None:
    (answer,) = outcomes(teacher, [ask("y" * 30, max_tokens=1000)])
    assert answer.prompt_tokens + answer.completion_tokens <= CONTEXT


def test_a_conversation_that_the_template_refuses_is_a_lasting_failure(teacher: LocalTeacher) -> None:
    plain = teacher.tokenizer.chat_template
    try:
        teacher.tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
        (failure,) = outcomes(teacher, [ask("x")])
    finally:
        teacher.tokenizer.chat_template = plain
    assert failure.lasting and "no system turns" in failure.reason


def test_time_is_money_only_at_a_price(checkpoint: Path, teacher: LocalTeacher) -> None:
    one = ask("hello")
    assert outcomes(teacher, [one])[0].usd is None and teacher.most_usd(one) is None
    priced = LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint, licence="own", usd_per_hour=3600.0))
    (answer,) = outcomes(priced, [one])
    most = priced.most_usd(one)
    assert answer.usd == pytest.approx(answer.seconds) and most is not None and most > answer.usd


def test_a_folder_of_anybodys_will_do(checkpoint: Path, tmp_path: Path, teacher: LocalTeacher) -> None:
    teacher.model.save_pretrained(tmp_path / "plain")
    teacher.tokenizer.save_pretrained(tmp_path / "plain")
    plain = LocalTeacher(LocalTeacherConfig(checkpoint=tmp_path / "plain", licence="MIT"))
    assert plain.name == "plain" and plain.identity.startswith("local ") and plain.identity != teacher.identity
    assert outcomes(plain, [ask("hello")])[0].text == outcomes(teacher, [ask("hello")])[0].text


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        LocalTeacher(LocalTeacherConfig(checkpoint=tmp_path / "none", licence="own"))


def test_the_model_is_in_memory_from_the_first_question_until_it_is_forgotten(checkpoint: Path) -> None:
    teacher = LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint, licence="own"))
    assert "model" not in vars(teacher)
    first = dict(teacher.answer([ask("2 + 2?")]))
    assert "model" in vars(teacher)
    teacher.forget()
    assert "model" not in vars(teacher)
    again = dict(teacher.answer([ask("2 + 2?")]))
    assert isinstance(first[0], Answer) and isinstance(again[0], Answer) and again[0].text == first[0].text
