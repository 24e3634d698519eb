"""Beam search against that of transformers, and against all texts that there are."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from phases.agent.beams import BeamSearch
from phases.agent.constraint import Begun, Constraint
from phases.agent.depth import Reader
from phases.agent.design import Decoding
from phases.decoding import Text
from phases.quiet_star.decoder import Thinking, thinking_model
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.thinker import Thinker

STOP = set(range(0, 257, 16))
"""So many that beams end at all lengths."""
LIMITS = [1, 2, 5, 9, 12, 12, 12]


def prompts(count: int = 7) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(1, 257) for _ in range(rng.randrange(1, 20))] for _ in range(count)]


def search(model: Any, constraint: Constraint | None = None, stop: set[int] = STOP, **settings: Any) -> BeamSearch:
    decoding = Decoding(**settings)
    return BeamSearch(Reader(model, decoding), stop, decoding, constraint, decoding.temperature, [5])


def theirs(model: Any, prompt: Sequence[int], limit: int, **settings: Any) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": sorted(STOP), "pad_token_id": 0} | settings
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(tokens) if token in STOP]
    return tokens[: ends[0] + 1] if ends else tokens


def plain(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """(T, V) log-probabilities at the places of the tokens, by one pass."""
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)


def likelihood(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    return float(plain(model, prompt, tokens)[range(len(tokens)), list(tokens)].sum())


@pytest.fixture
def sharp(make_model: Callable[..., Any]) -> Any:
    """A model that is surer of some tokens than random ones are."""
    model = make_model("llama", num_hidden_layers=2, tie_word_embeddings=False)
    model.lm_head.weight.data *= 8
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_are_those_of_transformers(
    family: str, beams: int, penalty: float, make_model: Callable[..., Any]
) -> None:
    model = make_model(family, tie_word_embeddings=False, **({"sliding_window": 6} if family == "mistral" else {}))
    model.lm_head.weight.data *= 8
    texts = search(model, beams=beams, length_penalty=penalty)(prompts(), LIMITS, batch=3 * beams)
    for prompt, limit, text in zip(prompts(), LIMITS, texts, strict=True):
        assert text.tokens == theirs(model, prompt, limit, num_beams=beams, length_penalty=penalty)
    assert len({len(text.tokens) for text in texts}) > 1


class Steps:
    """Every token is at least `most` below or above the one before, and of its prompt's parity."""

    def __init__(self, most: int) -> None:
        self.most = most

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        return token % 2 == prompt % 2 and (not written or abs(token - written[-1]) <= self.most)


@pytest.mark.parametrize("most", [250, 40, 3])
def test_beams_with_a_constraint_are_those_of_transformers_with_one(most: int, sharp: Any) -> None:
    texts = search(sharp, Steps(most), beams=3)(prompts(), LIMITS)
    for i, (prompt, limit, text) in enumerate(zip(prompts(), LIMITS, texts, strict=True)):

        def fitting(_: int, ids: torch.Tensor, i: int = i, start: int = len(prompt)) -> list[int]:
            written = ids[start:].tolist()
            return [token for token in range(257) if Steps(most).fits(i, written, token)]

        assert text.tokens == theirs(sharp, prompt, limit, num_beams=3, prefix_allowed_tokens_fn=fitting)


def test_penalties_are_taken_off_log_probabilities_as_in_transformers(sharp: Any) -> None:
    texts = search(sharp, beams=3, repetition_penalty=1.5)(prompts(), LIMITS)
    for prompt, limit, text in zip(prompts(), LIMITS, texts, strict=True):
        processor = RepetitionPenaltyLogitsProcessor(1.5, prompt_ignore_length=len(prompt))
        expected = theirs(sharp, prompt, limit, num_beams=3, logits_processor=LogitsProcessorList([processor]))
        assert text.tokens == expected


def test_enough_beams_find_the_likeliest_of_all_texts(make_model: Callable[..., Any]) -> None:
    model = make_model("llama", vocab_size=6)
    (found,) = search(model, stop={0}, beams=216, length_penalty=0.0)([[1, 2]], [3])
    texts = [list(t) for n in (1, 2, 3) for t in itertools.product(range(6), repeat=n)]
    whole = [t for t in texts if 0 not in t[:-1] and (t[-1] == 0 or len(t) == 3)]
    assert found.tokens == max(whole, key=lambda tokens: likelihood(model, [1, 2], tokens))


@pytest.mark.parametrize("settings", [{}, {"beam_diversity": 1.0}, {"temperature": 1.5}, {"no_repeat_ngram": 1}])
def test_log_probabilities_are_plain_ones_of_what_was_written(settings: dict[str, Any], sharp: Any) -> None:
    for prompt, text in zip(prompts(), search(sharp, beams=3, **settings)(prompts(), LIMITS), strict=True):
        expected = plain(sharp, prompt, text.tokens)[range(len(text.tokens)), text.tokens]
        assert np.allclose(text.logprobs, expected.numpy(), atol=1e-4)


def test_one_beam_without_a_choice_writes_what_is_given(sharp: Any) -> None:
    starts = [[3, 5, 7, 11, 13, 2, 1, 9, 4, 10, 12, 14][:limit] for limit in LIMITS]
    assert [text.tokens for text in search(sharp, Begun(starts), beams=4)(prompts(), LIMITS)] == starts


class Nothing:
    """No token fits."""

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        return False


def test_where_nothing_fits_the_likeliest_is_written(sharp: Any) -> None:
    text = search(sharp, Nothing(), beams=4)(prompts()[:1], [9])[0]
    assert text.tokens == theirs(sharp, prompts()[0], 9)


def diverse(model: Any, prompt: Sequence[int], beams: int, price: float, limit: int) -> list[int]:
    """Diverse beam search of groups of one, by a pass over the whole text for each beam and token."""
    running: list[Any] = [([], 0.0)] * beams
    finished: list[Any] = [None] * beams
    for length in range(1, limit + 1):
        used: Counter[int] = Counter()
        for g in [g for g in range(beams) if running[g] is not None]:
            tokens, score = running[g]
            logs = plain(model, prompt, [*tokens, 0])[-1]
            order = sorted(range(257), key=lambda t: price * used[t] - float(logs[t]))
            ends = length == limit or order[0] in STOP
            going = next(t for t in order if t not in STOP)
            if ends:
                whole = ((score + float(logs[order[0]])) / length, [*tokens, order[0]])
                finished[g] = whole if finished[g] is None else max(whole, finished[g])
                used[order[0]] += 1
            running[g] = None if length == limit else ([*tokens, going], score + float(logs[going]))
            used.update([] if length == limit else [going])
            if running[g] and finished[g] and running[g][1] / length <= finished[g][0]:
                running[g] = None
    return max(finished)[1]


def test_diverse_beams_are_their_definition(sharp: Any) -> None:
    texts = search(sharp, beams=3, beam_diversity=2.0)(prompts(), LIMITS)
    assert [text.tokens for text in texts] == [
        diverse(sharp, prompt, 3, 2.0, limit) for prompt, limit in zip(prompts(), LIMITS, strict=True)
    ]


def written(texts: Sequence[Text]) -> list[list[int]]:
    return [text.tokens for text in texts]


def test_drawn_beams_do_not_depend_on_the_batch(sharp: Any) -> None:
    drawn = search(sharp, beams=3, temperature=1.0, top_p=0.95)
    together = written(drawn(prompts(), LIMITS))
    assert together == written(drawn(prompts(), LIMITS, batch=1))
    assert together != written(search(sharp, beams=3)(prompts(), LIMITS))


def test_drawn_continuations_are_the_ones_with_the_most_noise(sharp: Any) -> None:
    texts = search(sharp, beams=3, temperature=2.0, top_k=50)(prompts(), [1] * 7)
    for i, (prompt, text) in enumerate(zip(prompts(), texts, strict=True)):
        logs = (plain(sharp, prompt, [0])[0] / 2).numpy()
        kept = np.argsort(-logs)[:50]
        noise = np.random.default_rng([5, i]).gumbel(size=257)
        drawn = kept[np.argsort(-(logs + noise)[kept])[:3]]
        assert text.tokens == [max(drawn, key=lambda token: logs[token])]


def test_a_thinking_model_has_beams_too(tiny_model: Any) -> None:
    pausing = Thinking(tokens=2, pause=True, everywhere=False)  # nothing is drawn, so it can be said what is written
    model = thinking_model(Thinker(tiny_model, MixingHead(32, 0.5), 5, 6), pausing)
    for prompt, text in zip(prompts(), search(model, beams=3)(prompts(), [6] * 7), strict=True):
        assert text.tokens == theirs(model, prompt, 6, num_beams=3)


def test_a_limit_of_none_writes_nothing_and_an_empty_prompt_is_refused(sharp: Any) -> None:
    assert search(sharp, beams=2)([[1], [2]], [0, 3])[0] == Text([], [])
    with pytest.raises(ValueError, match="no tokens"):
        search(sharp, beams=2)([[1], []], [3, 3])
