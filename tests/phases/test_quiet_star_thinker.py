"""Thoughts follow the model's own distribution and are read as they were sampled; delimiters join any model."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.quiet_star import thinker as thinking
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.delimiters import END, START, add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.thinker import Sampled, Thinker, read_thoughts, sample_thoughts
from phases.quiet_star.threads import Text, read_text

FEW, FIRST, LAST = 12, 3, 11
"""Vocabulary of a model whose distributions can be counted, and its delimiters: one amid, one at its end."""
ANCHOR_BR = torch.tensor([[0, 3, 4], [2, 2, 5]])
TOKENS_BT = torch.tensor([[1, 5, 2, 9, 4, 7], [8, 8, 0, 6, 10, 2]])


def llama(vocabulary: int, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, initializer_range=0.4, **shape, **ids)
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def thinker() -> Thinker:
    return Thinker(llama(FEW, tied=False), MixingHead(16), FIRST, LAST)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(thinker: Thinker, tokens_BT: torch.Tensor = TOKENS_BT) -> Text:
    place_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT)
    return read_text(thinker.model.model, place_BT, input_ids=tokens_BT, use_cache=False)[1]


@torch.no_grad()
def next_log_chance(thinker: Thinker, prefix: list[int], temperature: float = 1.0) -> torch.Tensor:
    """(V,) log-probabilities of a thought's next token by a plain pass; −∞ for the delimiters."""
    logits = thinker.model(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1] / temperature
    logits[[FIRST, LAST]] = float("-inf")
    return logits.log_softmax(0)


def thoughts(sampled: Sampled) -> Iterator[tuple[tuple[int, int], list[int], list[int]]]:
    """(row, thread), what stood before its thought, and the thought."""
    for b, row in enumerate(sampled.tokens_BRN.tolist()):
        for r, thought in enumerate(row):
            yield (b, r), [*TOKENS_BT[b, : ANCHOR_BR[b, r] + 1].tolist(), FIRST], thought


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_thoughts_follow_the_models_distribution(thinker: Thinker, temperature: float) -> None:
    draws, anchor_BR = 20_000, torch.full((1, 20_000), 2)
    sampled, _ = sample_thoughts(thinker, read(thinker, TOKENS_BT[:1]), anchor_BR, 2, temperature, seeded())
    seen = (sampled.tokens_BRN[0] @ torch.tensor([FEW, 1])).bincount(minlength=FEW**2).view(FEW, FEW)
    prefix = [*TOKENS_BT[0, :3].tolist(), FIRST]
    first = next_log_chance(thinker, prefix, temperature)
    joint = torch.stack([first[t] + next_log_chance(thinker, [*prefix, t], temperature) for t in range(FEW)]).exp()
    assert (seen[joint == 0] == 0).all()
    expected = draws * joint[joint > 0]
    # χ² of 100 cells has mean 99 and standard deviation 14; cells of small expectation widen it.
    assert ((seen[joint > 0] - expected).square() / (expected + 1)).sum() < 160


def test_delimiters_are_never_drawn_however_likely(thinker: Thinker) -> None:
    with torch.no_grad():
        thinker.model.lm_head.weight[[FIRST, LAST]] *= 100
    sampled, _ = sample_thoughts(thinker, read(thinker), torch.arange(6).expand(2, 6).repeat(1, 50), 8, 5.0, seeded())
    assert set(sampled.tokens_BRN.unique().tolist()) == set(range(FEW)) - {FIRST, LAST}


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (1 - 2**-24, LAST - 1)])
def test_the_ends_of_the_distribution_have_chances(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch, uniform: float, expected: int
) -> None:
    """The least and the greatest draw, where the first and the last token of the vocabulary are delimiters."""
    thinker.start = 0
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), uniform))
    sampled, _ = sample_thoughts(thinker, read(thinker), ANCHOR_BR, 1, 5.0)
    assert (sampled.tokens_BRN == expected).all()


def test_a_generator_alone_decides(thinker: Thinker) -> None:
    before, text = torch.get_rng_state(), read(thinker)
    one, again, other = (sample_thoughts(thinker, text, ANCHOR_BR, 9, 1.0, seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(one.tokens_BRN, again.tokens_BRN) and one.entropy == again.entropy
    assert not torch.equal(one.tokens_BRN, other.tokens_BRN)
    assert torch.equal(before, torch.get_rng_state())


def test_a_low_temperature_takes_the_likeliest(thinker: Thinker) -> None:
    sampled, _ = sample_thoughts(thinker, read(thinker), ANCHOR_BR, 4, 1e-4, seeded())
    for _, prefix, thought in thoughts(sampled):
        for i, token in enumerate(thought):
            assert token == int(next_log_chance(thinker, prefix + thought[:i]).argmax())
    assert sampled.entropy < 1e-3


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_entropy_is_that_of_the_distributions_drawn_from(thinker: Thinker, temperature: float) -> None:
    sampled, _ = sample_thoughts(thinker, read(thinker), ANCHOR_BR, 4, temperature, seeded())
    entropies = []
    for _, prefix, thought in thoughts(sampled):
        for i in range(len(thought)):
            chance = next_log_chance(thinker, prefix + thought[:i], temperature).exp()
            entropies.append(-sum(p * p.log() for p in chance if p > 0))
    assert sampled.entropy == pytest.approx(float(torch.tensor(entropies).mean()), abs=1e-5)


def test_logits_in_pieces_give_the_same_thoughts(thinker: Thinker, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sample_thoughts(thinker, read(thinker), ANCHOR_BR, 6, 1.0, seeded())
    monkeypatch.setattr(thinking, "LOGITS_BYTES", 2 * 4 * FEW)
    pieces, _ = sample_thoughts(thinker, read(thinker), ANCHOR_BR, 6, 1.0, seeded())
    assert torch.equal(whole.tokens_BRN, pieces.tokens_BRN)
    assert whole.entropy == pytest.approx(pieces.entropy, abs=1e-6)


def test_no_tokens_are_a_thought_too(thinker: Thinker) -> None:
    text = read(thinker)
    sampled, threads = sample_thoughts(thinker, text, ANCHOR_BR, 0)
    assert sampled.tokens_BRN.shape == (2, 3, 0) and sampled.entropy == 0.0 and threads.said == 0
    said, after = read_thoughts(thinker, text, ANCHOR_BR, sampled.tokens_BRN, sampled.tokens_BRN)
    assert said.shape == (2, 3, 0, 16) and after.shape == (2, 3, 1, 16)


def test_a_thought_is_read_as_it_was_sampled(thinker: Thinker, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[torch.Tensor] = []
    draw = thinking._draw
    monkeypatch.setattr(thinking, "_draw", lambda t, hidden, *more: met.append(hidden) or draw(t, hidden, *more))
    text = read(thinker)
    sampled, threads = sample_thoughts(thinker, text, ANCHOR_BR, 4, 1.0, seeded())
    said_BRND, _ = read_thoughts(thinker, text, ANCHOR_BR, sampled.tokens_BRN, sampled.tokens_BRN[..., :0])
    torch.testing.assert_close(said_BRND, torch.stack(met, 2), rtol=1e-5, atol=1e-5)
    assert said_BRND.requires_grad and not met[0].requires_grad and threads.said == 4


def test_what_is_read_has_the_naive_log_probabilities(thinker: Thinker) -> None:
    """Of the thought's tokens, and of the true tokens after the end delimiter."""
    text, next_BRK = read(thinker), torch.randint(FEW, (2, 3, 2), generator=seeded())
    sampled, _ = sample_thoughts(thinker, text, ANCHOR_BR, 4, 1.0, seeded())
    hidden = read_thoughts(thinker, text, ANCHOR_BR, sampled.tokens_BRN, next_BRK)
    said, after = (thinker.model.lm_head(h).detach() for h in hidden)
    said[..., [FIRST, LAST]] = float("-inf")
    for (b, r), prefix, thought in thoughts(sampled):
        for i, token in enumerate(thought):
            expected = next_log_chance(thinker, prefix + thought[:i])[token]
            torch.testing.assert_close(said[b, r, i].log_softmax(0)[token], expected, rtol=1e-5, atol=1e-5)
        whole = torch.tensor([[*prefix, *thought, LAST, *next_BRK[b, r].tolist()]])
        expected = thinker.model(input_ids=whole, use_cache=False).logits[0, -3:]
        torch.testing.assert_close(after[b, r], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def tokenizer(tiny_data: Dataset) -> Any:
    return copy.deepcopy(tiny_data.tokenizer)


@pytest.mark.parametrize("tied", [True, False])
def test_delimiters_start_from_the_mean_of_known_text(tokenizer: Any, tied: bool) -> None:
    model = llama(257, tied)
    pieces = tokenizer("thus", add_special_tokens=False)["input_ids"]
    expected = [m.weight[pieces].mean(0) for m in (model.get_input_embeddings(), model.get_output_embeddings())]
    known = model.get_input_embeddings().weight.detach().clone()
    assert add_delimiters(model, tokenizer, "thus") == (257, 258) and len(set(pieces)) == 4
    inner, outer = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (inner is outer) == tied and inner.shape == outer.shape == (259, 16) and model.config.vocab_size == 259
    torch.testing.assert_close(torch.stack([inner[257], inner[258]]), expected[0].expand(2, 16))
    torch.testing.assert_close(torch.stack([outer[257], outer[258]]), expected[1].expand(2, 16))
    assert torch.equal(inner[:257], known)


def test_delimiters_are_added_once(tokenizer: Any, tmp_path: Path) -> None:
    model = llama(257)
    ids = add_delimiters(model, tokenizer, "---")
    with torch.no_grad():
        model.get_input_embeddings().weight[list(ids)] = 7.0
    tokenizer.save_pretrained(tmp_path)
    tokenizer = type(tokenizer).from_pretrained(tmp_path)
    assert add_delimiters(model, tokenizer, "thus") == ids and len(tokenizer) == 259
    assert (model.get_input_embeddings().weight[list(ids)] == 7.0).all()
    assert tokenizer(START + END, add_special_tokens=False)["input_ids"] == list(ids)
    assert tokenizer.decode([*ids, 5], skip_special_tokens=True) == tokenizer.decode([5])


def test_spare_rows_of_a_padded_matrix_are_used(tokenizer: Any) -> None:
    model = llama(272)
    matrix, others = model.get_input_embeddings().weight, model.get_input_embeddings().weight.detach().clone()
    assert add_delimiters(model, tokenizer, "---") == (257, 258)
    assert model.get_input_embeddings().weight is matrix and model.config.vocab_size == 272
    pieces = tokenizer("---", add_special_tokens=False)["input_ids"]
    others[257:259] = others[pieces].mean(0)
    torch.testing.assert_close(matrix.detach(), others)


def test_other_special_and_suppressed_tokens_stay(tokenizer: Any) -> None:
    model = llama(258)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mine|>"]})
    model.generation_config.suppress_tokens = [5, 9]
    assert add_delimiters(model, tokenizer, "---") == (258, 259)
    assert model.generation_config.suppress_tokens == [5, 9, 258, 259]
    assert {"<|mine|>", START, END} <= set(tokenizer.all_special_tokens)


def test_delimiters_move_farther_in_a_step_and_the_head_less_far(thinker: Thinker) -> None:
    config = QuietStarConfig.parse({"thoughts": {"embedding_step": 10.0}, "mixing_step": 0.2}, "quiet_star")
    before = {name: p.detach().clone() for name, p in thinker.named_parameters()}
    with QuietStar(thinker, config).stepping(), torch.no_grad():
        for parameter in thinker.parameters():
            parameter += 0.5
    for name, parameter in thinker.named_parameters():
        step = torch.full_like(parameter, 0.1 if name.startswith("head.") else 0.5)
        if "embed" in name:
            step[[FIRST, LAST]] = 5.0
        torch.testing.assert_close(parameter.detach(), before[name] + step)


@pytest.mark.parametrize("sample", [True, False])
def test_plain_generation_never_writes_delimiters(tokenizer: Any, sample: bool, tmp_path: Path) -> None:
    model = llama(257, tied=False)
    ids = add_delimiters(model, tokenizer, "---")
    with torch.no_grad():
        model.lm_head.weight[list(ids)] = 50 * torch.randn(2, 16)
    model.save_pretrained(tmp_path)
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    asked = {"input_ids": torch.arange(1, 41)[:, None], "max_new_tokens": 6, "do_sample": sample}
    asked["attention_mask"] = torch.ones_like(asked["input_ids"])
    assert not torch.isin(model.generate(**asked), torch.tensor(ids)).any()
    model.generation_config.suppress_tokens = None
    assert torch.isin(model.generate(**asked), torch.tensor(ids)).any()


def test_an_initial_text_without_tokens_is_one_line(tokenizer: Any) -> None:
    with pytest.raises(CheckpointError, match=r"thoughts\.initial='': has no tokens in this tokenizer; give a text"):
        add_delimiters(llama(257), tokenizer, "")
