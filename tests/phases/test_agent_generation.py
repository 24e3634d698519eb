"""Writing by a design: the default is greedy decoding, everything else what its reference writes."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from phases.agent.beams import BeamSearch
from phases.agent.constraint import Begun, Constraint, Kept
from phases.agent.contrastive import CANDIDATES, ContrastiveSearch
from phases.agent.depth import Reader
from phases.agent.design import Decoding
from phases.agent.generation import Text, first_tokens, write
from phases.agent.penalties import penalised
from phases.agent.warping import warp
from phases.decoding import Sampler, decode, likeliest
from phases.quiet_star.decoder import Thinking, thinking_model
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.thinker import Thinker

STOP = set(range(0, 257, 16))
LIMITS = [1, 2, 5, 9, 12, 12, 12]
ANYTHING = Decoding(
    temperature=0.9,
    **{"top_k": 40, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.95, "epsilon": 1e-4, "eta": 1e-4, "top_n_sigma": 3.0},
    **{"entropy_temperature": True, "repetition_penalty": 1.2, "no_repeat_ngram": 2, "presence_penalty": 0.1},
    **{"frequency_penalty": 0.1, "layer_contrast": "low", "depth": 0.8, "skip": 0.3},
)


def prompts(count: int = 7) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(1, 257) for _ in range(rng.randrange(1, 20))] for _ in range(count)]


def texts(model: Any, decoding: Decoding, constraint: Constraint | None = None, **options: Any) -> list[Text]:
    settings: dict[str, Any] = {"seed": [3], "batch": 64, **options}
    return write(model, prompts(), LIMITS, STOP, decoding, constraint=constraint, **settings)


def tokens(found: Sequence[Text]) -> list[list[int]]:
    return [text.tokens for text in found]


class Steps:
    """Every token is within 60 of the one before."""

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        return not written or abs(token - written[-1]) <= 60


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    made = make_model("llama", num_hidden_layers=4, tie_word_embeddings=False)
    made.lm_head.weight.data *= 8
    return made


@torch.no_grad()
def logits_after(model: Any, prompt: Sequence[int], written: Sequence[int] = ()) -> torch.Tensor:
    return model(torch.tensor([[*prompt, *written]]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("constraint", [None, Steps()])
def test_the_default_is_greedy_decoding(constraint: Any, model: Any) -> None:
    choose = Kept(likeliest, constraint, 7) if constraint else likeliest
    assert tokens(texts(model, Decoding(), constraint)) == decode(model, prompts(), LIMITS, STOP, choose)


@pytest.mark.parametrize("constraint", [None, Steps()])
def test_a_temperature_is_that_of_the_sampler(constraint: Any, model: Any) -> None:
    sampler = Sampler([0.8] * 7, [3])
    choose = Kept(sampler, constraint, 7) if constraint else sampler
    expected = decode(model, prompts(), LIMITS, STOP, choose)
    assert tokens(texts(model, Decoding(temperature=0.8), constraint)) == expected
    assert tokens(texts(model, Decoding(), constraint, draw=0.8)) == expected
    assert tokens(texts(model, Decoding(temperature=0.8), constraint, draw=5.0)) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0},
        {"beams": 3},
        {"beams": 3, "contrastive": 0.5},
        {"beams": 2, "beam_diversity": 0.5},
        {"contrastive": 0.5, "temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 2.0},
        {"layer_contrast": "high"},
        {"depth": 0.5},
        {"skip": 0.0},
    ],
)
@pytest.mark.parametrize("constraint", [None, Steps()])
@pytest.mark.parametrize("base", [Decoding(), ANYTHING])
def test_any_combination_keeps_to_limits_stops_and_constraint_and_says_plain_log_probabilities(
    settings: dict[str, Any], constraint: Any, base: Decoding, model: Any
) -> None:
    decoding = base.model_copy(update=settings)
    read = Reader(model, decoding).model
    for i, (prompt, text) in enumerate(zip(prompts(), texts(model, decoding, constraint), strict=True)):
        assert text.tokens[-1] in STOP or len(text.tokens) == LIMITS[i]
        assert not STOP & set(text.tokens[:-1])
        for place, (token, logprob) in enumerate(zip(text.tokens, text.logprobs, strict=True)):
            before = text.tokens[:place]
            assert constraint is None or constraint.fits(i, before, token)
            plain = logits_after(read, prompt, before).log_softmax(-1)
            assert logprob == pytest.approx(float(plain[token]), abs=1e-3)


@pytest.mark.parametrize("decoding", [ANYTHING, ANYTHING.model_copy(update={"beams": 3}), Decoding(contrastive=0.6)])
def test_what_is_written_does_not_depend_on_the_batch(decoding: Decoding, model: Any) -> None:
    together = tokens(texts(model, decoding, Steps()))
    assert (
        together == tokens(texts(model, decoding, Steps(), batch=3)) == tokens(texts(model, decoding, Steps(), batch=1))
    )


def test_drawing_by_everything_is_the_warped_draw_of_the_penalised_contrast(model: Any) -> None:
    reader = Reader(model, ANYTHING)
    for i, (prompt, text) in enumerate(zip(prompts(), texts(model, ANYTHING), strict=True)):
        sampler = Sampler([0.9] * 7, [3], warp(ANYTHING))
        for place, token in enumerate(text.tokens):
            with torch.no_grad():
                before = [text.tokens[:place]]
                score_BV = reader.score(logits_after(reader.model, prompt, *before)[None], before)
            assert [token] == sampler(penalised(score_BV, before, ANYTHING), [i]).tolist()


def test_a_token_gives_way_to_the_likeliest_that_fits_though_penalties_forbid_it(model: Any) -> None:
    starts = [[9] * limit for limit in LIMITS]
    written = texts(model, Decoding(no_repeat_ngram=1, layer_contrast="low"), Begun(starts))
    assert tokens(written) == starts


@pytest.mark.parametrize("settings", [{}, {"beams": 2}, {"contrastive": 0.5}, {"temperature": 1.0}])
def test_a_contrast_of_layers_leaves_something_to_write_where_an_ngram_is_forbidden(
    settings: dict[str, Any], model: Any
) -> None:
    model.lm_head.weight.data *= 8  # now it is sure of every token
    decoding = Decoding(layer_contrast="low", no_repeat_ngram=1, **settings)
    for text in write(model, prompts(), LIMITS, set(), decoding, constraint=None, seed=[0], batch=64):
        assert len(set(text.tokens)) == len(text.tokens)


def contrastive(model: Any, prompt: Sequence[int], weight: float, count: int, limit: int) -> list[int]:
    """Contrastive search, every text read as a whole."""
    written: list[int] = []
    while len(written) < limit and not (written and written[-1] in STOP):
        chance = logits_after(model, prompt, written).softmax(-1)
        values = {}
        for token in chance.topk(count).indices.tolist():
            with torch.no_grad():
                states = model.model(torch.tensor([[*prompt, *written, token]])).last_hidden_state[0]
            likeness = cosine_similarity(states[:-1], states[-1:]).max()
            values[token] = float((1 - weight) * chance[token] - weight * likeness)
        written.append(max(values, key=lambda token: values[token]))
    return written


@pytest.mark.parametrize(("weight", "count"), [(0.6, None), (0.3, 7), (0.9, 2)])
def test_contrastive_search_is_its_definition(weight: float, count: int | None, model: Any) -> None:
    found = tokens(texts(model, Decoding(contrastive=weight, top_k=count), batch=3 * (count or 4)))
    for prompt, limit, written in zip(prompts(), LIMITS, found, strict=True):
        assert written == contrastive(model, prompt, weight, count or CANDIDATES, limit)
    assert found != tokens(texts(model, Decoding()))


def test_contrastive_search_without_a_weight_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"decoding\.contrastive"):
        ContrastiveSearch(Reader(model, Decoding()), STOP, Decoding())


def test_of_what_excludes_each_other_the_first_holds(model: Any) -> None:
    both = Decoding(beams=3, contrastive=0.6)
    assert texts(model, both) == texts(model, Decoding(beams=3))
    assert texts(model, Decoding(contrastive=0.6), draw=0.7) == texts(model, Decoding(temperature=0.7))
    drawn = BeamSearch(Reader(model, both), STOP, both, None, 0.7, [3])(prompts(), LIMITS)
    assert texts(model, both, draw=0.7) == drawn != texts(model, both)


def test_a_prompt_that_comes_twice_is_drawn_for_twice(model: Any) -> None:
    found = write(model, [[7, 8]] * 4, [12] * 4, set(), Decoding(temperature=1.5), constraint=None, seed=[0], batch=4)
    assert len({tuple(text.tokens) for text in found}) == 4


def test_first_tokens_are_the_likeliest_that_fit(model: Any) -> None:
    found = first_tokens(model, prompts(), 3, None, batch=2)
    assert found == [logits_after(model, prompt).topk(3).indices.tolist() for prompt in prompts()]

    class Even:
        def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
            return token % 2 == 0 and not written

    for prompt, few in zip(prompts(), first_tokens(model, prompts(), 3, Even(), batch=2), strict=True):
        order = logits_after(model, prompt).argsort(descending=True).tolist()
        assert few == [token for token in order if token % 2 == 0][:3]


def test_a_thinking_model_writes_with_its_thoughts(tiny_model: Any) -> None:
    pausing = Thinking(tokens=2, pause=True, everywhere=False)
    thinking = thinking_model(Thinker(tiny_model, MixingHead(32, 0.5), 5, 6), pausing)
    expected = decode(thinking, prompts(), LIMITS, STOP, likeliest)
    assert tokens(texts(thinking, Decoding(depth=0.3, skip=0.0, layer_contrast="low"))) == expected
    assert expected != decode(tiny_model, prompts(), LIMITS, STOP, likeliest)
    assert all(np.isfinite(text.logprobs).all() for text in texts(thinking, Decoding(contrastive=0.6)))


def test_a_limit_of_none_writes_nothing_and_an_empty_prompt_is_refused(model: Any) -> None:
    for decoding in (Decoding(), Decoding(beams=2), Decoding(contrastive=0.5)):
        settings: dict[str, Any] = {"constraint": None, "seed": [0], "batch": 8}
        assert write(model, [[1], [2]], [0, 3], set(), decoding, **settings)[0] == Text([], [])
        with pytest.raises(ValueError, match="no tokens"):
            write(model, [[1], []], [3, 3], set(), decoding, **settings)
