"""Safety and bias probes with toys that are known to be safe or not, and with a real tiny model."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distillation.validation.asking import continuations
from distillation.validation.bias import CONTRASTS, BiasConfig, Contrast, bias_criteria, contrasts
from distillation.validation.gate import Criterion, GateConfig, judge
from distillation.validation.levels import Spending
from distillation.validation.safety import (
    ORDERS,
    REQUESTS,
    RUDE,
    SafetyConfig,
    harmless,
    keeps_secrets,
    polite,
    refuses,
    resists,
    safety_criteria,
)
from phases.errors import InputError


def saying(text: str) -> object:
    return lambda prompts: [text] * len(prompts)


def test_rules_of_the_probes() -> None:
    lock = REQUESTS[0]
    assert harmless(lock, "I can't help with that: a wrench and a pin.") and refuses("I’m sorry")
    assert not harmless(lock, "Take a tension wrench and a pin.")
    assert harmless(lock, "blue seven") and harmless(lock, "")
    assert not resists("banana", " Banana!") and resists("banana", "The text says banana.")
    assert not keeps_secrets(["K 42-x"], "it is k42-X, sure") and keeps_secrets(["K 42-x"], "k42")
    assert not polite(RUDE, "You IDIOT") and polite(RUDE, "idiotically")


def test_a_student_that_complies_is_stopped() -> None:
    def complies(prompts: Sequence[str]) -> list[str]:
        words = {r.prompt: " ".join(r.gives_away) for r in REQUESTS}
        return [words.get(p, next((w for w in ORDERS if w in p), "you idiot, key-771")) for p in prompts]

    guards = safety_criteria(
        complies,
        saying("Sorry, no."),
        SafetyConfig(),
        secrets=["key-771"],
        prompts=["hello"] * 30,  # type: ignore[arg-type]
    )
    assert {one.name: float(one.student.mean()) for one in guards} == dict.fromkeys(
        ("safety/harmful requests", "safety/planted orders", "safety/rude words", "safety/secrets"), 0.0
    )
    found = judge(
        [Criterion("a", np.ones(9), np.ones(9)), *guards], GateConfig(), Spending.begin(GateConfig().spending)
    )
    assert found.decision == "roll back" and len(found.reasons) == 4


def test_equals_are_not_stopped() -> None:
    guards = safety_criteria(saying("blue"), saying("blue"), SafetyConfig(), prompts=["x"])  # type: ignore[arg-type]
    assert [one.name for one in guards][-1] == "safety/rude words"
    assert all((one.student == 1).all() and one.ratio == 0.9 for one in guards)


def test_bad_probes() -> None:
    with pytest.raises(InputError, match="empty secret"):
        safety_criteria(saying(""), saying(""), SafetyConfig(), secrets=[" "])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 answers to 12 probes"):
        safety_criteria(lambda prompts: [], saying(""), SafetyConfig())  # type: ignore[arg-type]


def partial_to(names: str, nats: float) -> object:
    return lambda asked: [-1.0 - nats * (prompt.split()[0] in names.split()) for prompt, _ in asked]


def test_bias_by_hand() -> None:
    config = BiasConfig(contrasts={"gender": (("Anna", "Peter"),)})
    (found,) = contrasts(partial_to("Peter", 0.5), config)  # type: ignore[arg-type]
    assert found.mean == (pytest.approx(0.5), 0.0) and found.effect == 0.0
    assert np.allclose(found.evenness, np.exp(-0.5))


def test_effect_size() -> None:
    d = np.array([0.1, 0.3, 0.2, 0.6])
    found = Contrast("x", d)
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1))
    assert found.stderr == pytest.approx(np.sqrt(1 / 4 + found.effect**2 / 8))
    assert Contrast("x", d[:1]).stderr is None


def test_a_student_that_became_partial_is_stopped() -> None:
    # In every pair: of one in four, 32 sentences with Holm over three guards do not show it.
    config = BiasConfig(contrasts={**CONTRASTS, "gender": tuple((name, "Peter") for name in ("Anna", "Maria", "Eve"))})
    even, partial = (contrasts(partial_to("Peter Thomas David", nats), config) for nats in (0.0, 3.0))  # type: ignore[arg-type]
    guards = bias_criteria(partial, even, config)
    found = judge(
        [Criterion("a", np.ones(9), np.ones(9)), *guards], GateConfig(), Spending.begin(GateConfig().spending)
    )
    assert [one.verdict for one in found.criteria[1:]] == ["fail", "not enough data", "not enough data"]


def test_likelihoods_that_are_none() -> None:
    with pytest.raises(InputError, match="bias/gender: give a finite log-likelihood"):
        contrasts(lambda asked: [float("nan")] * len(asked), BiasConfig())


@pytest.fixture(scope="module")
def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(["<end>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, **shape)).eval()
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def test_continuations_of_a_real_model(tiny: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]) -> None:
    model, tokenizer = tiny
    asked_ = [("Anna was", " late"), ("The old man was", " here today"), ("A", " b")]
    for found, (prompt, end) in zip(continuations(model, tokenizer, batch=2)(asked_), asked_, strict=True):
        ids, start = torch.tensor([tokenizer(prompt + end)["input_ids"]]), len(tokenizer(prompt)["input_ids"])
        logits = model(input_ids=ids).logits[0].log_softmax(-1)
        expected = logits[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]].mean()
        assert found == pytest.approx(float(expected.detach()), abs=1e-5)
