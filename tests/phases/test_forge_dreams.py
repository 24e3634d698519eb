"""Dreams of models that are certain to be right or wrong, and what the filters make of them."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phases.dataset import SPLITS, Dataset
from phases.decoding import encode
from phases.errors import ConfigError
from phases.forge.config import Dreams
from phases.forge.dream_filter import distinct_share, diversity, refusal, sift
from phases.forge.dreams import Dream, Prompt, dream, mean_nats, store_prompts
from phases.tasks.item import Item, render_prompt

SUMS, TEXT, ALL = {"reasoning": 1.0}, {"text": 1.0}, {"text": 0.6, "reasoning": 0.3, "memory": 0.1}
CONFIG = Dreams(prompts=40, prompt_tokens=9, new_tokens=6)
ITEM = Item(task="sum", speciality="reasoning", prompt="3+4", answer="7")


def markov(logits_VV: torch.Tensor) -> Any:
    """A Llama whose next token has these logits, given the last one, and depends on nothing else."""
    width = 260
    sizes = {"hidden_size": width, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=257, rms_norm_eps=1e-12, bos_token_id=0, eos_token_id=0, **sizes)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(257, width))
        model.lm_head.weight[:, :257] = logits_VV.T / width**0.5  # the norm makes width ** .5 of the one
    return model


def certain(tokenizer: Any, text: str, stops: bool = True) -> Any:
    """Writes `text` after a colon, then end-of-text, or its last letter for ever."""
    logits_VV = torch.zeros(257, 257)
    path = [*encode(tokenizer, ":" + text), 0]
    for before, after in pairwise(path):
        logits_VV[before, after] = 100.0
    if not stops:
        logits_VV[path[-2]] = 100.0 * torch.eye(257)[path[-2]]
    return markov(logits_VV)


def text_dream(*written: int, truth: tuple[int, ...] = (1, 2, 3, 4, 5, 6), nats: float = 1.0, label: int = 0) -> Dream:
    return Dream(Prompt((9, 9), None, truth), written, label, nats, False, None)


def task_dream(right: bool) -> Dream:
    return Dream(Prompt((1,), ITEM, (2, 0)), (2, 0), 0, 1.0, True, right)


def test_prompts_are_in_proportion_to_the_mix_and_of_the_training_split(tiny_data: Dataset) -> None:
    prompts = store_prompts(tiny_data, CONFIG, ALL, 0, 0)
    kinds = ["text" if prompt.item is None else prompt.item.speciality for prompt in prompts]
    assert [kinds.count(name) for name in ("text", "reasoning", "memory")] == [24, 12, 4]
    blocks = {tuple(block.tolist()) for block in tiny_data.blocks("train", "text")[:, :15]}
    for prompt in prompts:
        if prompt.item is None:
            assert prompt.tokens + prompt.truth in blocks and len(prompt.tokens) == 9
        else:
            assert prompt.item in tiny_data.items("train")
            text = render_prompt(tiny_data.tokenizer, prompt.item.prompt) + " " + prompt.item.answer
            assert prompt.tokens + prompt.truth == (*encode(tiny_data.tokenizer, text), 0)


def test_another_split_has_prompts_of_its_own(tiny_data: Dataset) -> None:
    prompts = store_prompts(tiny_data, CONFIG, ALL, 0, 0, "validation")
    blocks = {split: {tuple(b.tolist()) for b in tiny_data.blocks(split, "text")[:, :15]} for split in SPLITS}
    texts = {prompt.tokens + prompt.truth for prompt in prompts if prompt.item is None}
    assert len(texts) == 24 and texts <= blocks["validation"] - blocks["train"] - blocks["test"]
    asked = [prompt.item for prompt in prompts if prompt.item]
    assert len(asked) == 16 and all(item in tiny_data.items("validation") for item in asked)
    assert not any(item in tiny_data.items("train") for item in asked)


def test_the_largest_remainder_is_rounded_up(tiny_data: Dataset) -> None:
    prompts = store_prompts(tiny_data, Dreams(prompts=8, prompt_tokens=9), {"text": 1, "reasoning": 2}, 0, 0)
    assert [prompt.item is None for prompt in prompts] == [True] * 3 + [False] * 5


def test_cycles_go_through_everything_before_they_repeat(tiny_data: Dataset) -> None:
    config = Dreams(prompts=15)
    first, second, third = ([p.item for p in store_prompts(tiny_data, config, SUMS, 0, c)] for c in range(3))
    assert len({item.key for item in first + second if item}) == 30  # all there are
    assert len({item.key for item in third if item}) == 15 and third != first
    assert first == [p.item for p in store_prompts(tiny_data, config, SUMS, 0, 0)]
    assert first != [p.item for p in store_prompts(tiny_data, config, SUMS, 1, 0)]


def test_blocks_too_short_and_streams_not_there_are_refused(tiny_data: Dataset, monkeypatch: Any) -> None:
    with pytest.raises(ConfigError, match="prompt_tokens=33"):
        store_prompts(tiny_data, Dreams(prompt_tokens=33), TEXT, 0, 0)
    monkeypatch.setattr(Dataset, "items", lambda *_: [])
    with pytest.raises(ConfigError, match=r"no reasoning.*mix\.reasoning=0"):
        store_prompts(tiny_data, CONFIG, SUMS, 0, 0)


@pytest.mark.parametrize("answer", ["7", "10"])
def test_an_answer_is_right_exactly_where_it_is_the_items(tiny_data: Dataset, answer: str) -> None:
    tokenizer, prompts = tiny_data.tokenizer, store_prompts(tiny_data, Dreams(prompts=30), SUMS, 0, 0)
    model = certain(tokenizer, f" {answer}")
    for each in dream(model, tokenizer, prompts, CONFIG, 0, 0):
        assert each.prompt.item
        assert each.written == (*encode(tokenizer, f" {answer}"), 0) and each.finished
        assert each.right == (each.prompt.item.answer == answer)
        assert refusal(each, CONFIG) == (None if each.right else "wrong_answer")
        assert each.nats == pytest.approx(0, abs=1e-4)


def test_an_answer_that_never_ends_is_unfinished(tiny_data: Dataset) -> None:
    prompts = store_prompts(tiny_data, Dreams(prompts=30), SUMS, 0, 0)
    dreams = dream(certain(tiny_data.tokenizer, " 7", stops=False), tiny_data.tokenizer, prompts, CONFIG, 0, 0)
    longest = max(len(prompt.truth) for prompt in prompts)
    assert {len(each.written) for each in dreams} == {longest + 8}
    assert {refusal(each, CONFIG) for each in dreams} == {"unfinished"}


def test_nats_are_those_of_the_chain_at_temperature_one(tiny_data: Dataset) -> None:
    logits_VV = 2 * torch.randn(257, 257)
    model, prompts = markov(logits_VV), store_prompts(tiny_data, CONFIG, ALL, 0, 0)
    dreams = dream(model, tiny_data.tokenizer, prompts, CONFIG.model_copy(update={"temperatures": (2.0,)}), 0, 0)
    nll_VV = -logits_VV.double().log_softmax(-1)
    for each in dreams:
        chain = [each.prompt.tokens[-1], *each.written]
        wanted = sum(float(nll_VV[a, b]) for a, b in pairwise(chain)) / len(each.written)
        assert each.nats == pytest.approx(wanted, rel=1e-4)
    small = mean_nats(model, [d.prompt.tokens for d in dreams], [d.written for d in dreams], batch=3)
    assert small == pytest.approx([d.nats for d in dreams], rel=1e-5)


def test_temperatures_have_equal_shares_and_each_cycle_begins_one_further(tiny_data: Dataset, tiny_model: Any) -> None:
    config = CONFIG.model_copy(update={"temperatures": (0.001, 1.0, 3.0), "prompts": 9})
    prompts = store_prompts(tiny_data, config, TEXT, 0, 0)
    for cycle, first in enumerate(((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 1, 2))):
        dreams = dream(tiny_model, tiny_data.tokenizer, prompts, config, 0, cycle)
        assert [each.label for each in dreams] == [*first] * 3
    cold, *_, hot = (sum(d.nats for d in dreams if d.label == label) for label in range(3))
    assert cold < hot
    again = dream(tiny_model, tiny_data.tokenizer, prompts, config, 0, 3)
    assert again == dreams != dream(tiny_model, tiny_data.tokenizer, prompts, config, 1, 3)


def test_text_is_refused_by_likelihood_and_by_repetition() -> None:
    fine = text_dream(1, 2, 3, 4)
    assert refusal(fine, CONFIG) is None
    assert refusal(replace(fine, nats=5.01), CONFIG) == "improbable"
    assert refusal(replace(fine, nats=0.04), CONFIG) == "too_probable"
    assert refusal(replace(fine, nats=5.0), CONFIG) is refusal(replace(fine, nats=0.05), CONFIG) is None
    assert refusal(text_dream(1, 1, 1, 1, 1), CONFIG) == "repetitive"  # 1 of 3 distinct
    assert refusal(text_dream(1, 1, 1, 2, 1, 2, 2, 2, 1, 1), CONFIG) is None  # 8 of 8, though only 4 of 9 pairs
    assert distinct_share((1, 2, 1, 2, 1, 2), 3) == 2 / 4 and distinct_share((1, 2), 3) == 1


def test_text_that_breaks_off_is_short_and_an_answer_is_not() -> None:
    config = CONFIG.model_copy(update={"new_tokens": 19})
    assert refusal(text_dream(1, 2, 3), config) == "short"  # a quarter of 19, rounded down, is 4
    assert refusal(text_dream(1, 2, 3, nats=9.0), config) == "short"  # whatever its likelihood
    assert refusal(text_dream(1, 2, 3, 4), config) is None
    assert refusal(text_dream(1, 2, 3), CONFIG) is None
    assert refusal(task_dream(right=True), config) is None
    assert sift([text_dream(1, 2, 3), text_dream(1, 2, 3, 4)], config)[1].refused == {"short": 1}


def test_an_unfinished_answer_is_not_valid_even_if_right() -> None:
    right = replace(task_dream(right=True), nats=9.0)
    assert refusal(right, CONFIG) is None  # whatever its likelihood
    assert refusal(replace(right, finished=False), CONFIG) == "unfinished"


def test_a_cycle_is_counted() -> None:
    dreams = [text_dream(1, 2, 3, 4, 5, 6), text_dream(*(1,) * 6, label=1), text_dream(6, 5, 4, 3, 2, 1, label=1)]
    kept, cycle = sift(dreams, CONFIG)
    assert kept == [dreams[0], dreams[2]]
    assert (cycle.written, cycle.valid, cycle.kept, cycle.refused) == (3, 2, 2, {"repetitive": 1})
    assert cycle.by_temperature == ((1, 1), (2, 1)) and cycle.floor is None
    assert cycle.validity == 2 / 3 and cycle.diversity == 2.0


@pytest.mark.parametrize(("valid", "floor"), [(2, None), (1, "validity_floor"), (0, "validity_floor")])
def test_below_the_validity_floor_nothing_is_kept(valid: int, floor: str | None) -> None:
    dreams = [text_dream(1, 2, 3, 4, nats=1.0 if i < valid else 9.0) for i in range(10)]
    kept, cycle = sift(dreams, CONFIG)
    assert cycle.floor == floor and cycle.valid == valid and cycle.kept == len(kept) == (0 if floor else valid)


@pytest.mark.parametrize(
    ("texts", "answers", "validity"),
    [
        ((9, 10), (1, 10), 0.1),  # 10 of 20 are valid, but hardly any answer is right
        ((0, 2), (7, 8), 0.0),
        ((4, 10), (3, 4), 0.4),
        ((0, 0), (3, 4), 0.75),
        ((2, 8), (0, 0), 0.25),
        ((0, 0), (0, 0), 0.0),
    ],
)
def test_validity_is_that_of_texts_or_of_tasks_whichever_is_less(
    texts: tuple[int, int], answers: tuple[int, int], validity: float
) -> None:
    dreams = [text_dream(1, 2, 3, 4, 5, 6, nats=1.0 if i < texts[0] else 9.0) for i in range(texts[1])]
    dreams += [task_dream(right=i < answers[0]) for i in range(answers[1])]
    for least, floor in ((validity, None), (validity + 0.01, "validity_floor")):
        kept, cycle = sift(dreams, CONFIG.model_copy(update={"validity": least, "diversity": 0.0}))
        assert (cycle.floor, cycle.validity, cycle.valid) == (floor, validity, texts[0] + answers[0])
        assert len(kept) == cycle.kept == (0 if floor else cycle.valid)


def test_below_the_diversity_floor_nothing_is_kept() -> None:
    truths = [tuple(range(start, start + 5)) for start in range(0, 60, 10)]
    same = [text_dream(1, 2, 3, 4, 5, truth=truth) for truth in truths]
    kept, cycle = sift(same, CONFIG)
    assert cycle.diversity == 4 / 24 and cycle.floor == "diversity_floor" and kept == [] and cycle.kept == 0
    assert sift(same, CONFIG.model_copy(update={"diversity": 4 / 24}))[0] == same


def test_diversity_compares_equally_many_tokens() -> None:
    assert diversity([text_dream(1, 2, 3, 4, 5, 6, truth=(7, 7, 7))]) == 2 / 1
    assert diversity([text_dream(1, 1, 1, truth=(4, 5, 6, 7, 8))]) == 1 / 2
    assert diversity([]) == 0 and diversity([text_dream(1, 2, truth=(3,))]) == 1


def test_a_model_that_learned_nothing_is_refused_whole(tiny_data: Dataset, tiny_model: Any) -> None:
    dreams = dream(tiny_model, tiny_data.tokenizer, store_prompts(tiny_data, CONFIG, ALL, 0, 0), CONFIG, 0, 0)
    kept, cycle = sift(dreams, CONFIG)
    assert kept == [] and cycle.floor == "validity_floor" and cycle.refused["improbable"] >= 20


def test_a_model_in_training_does_not_dream(tiny_data: Dataset, tiny_model: Any) -> None:
    with pytest.raises(AssertionError):
        dream(tiny_model.train(), tiny_data.tokenizer, [], CONFIG, 0, 0)
