"""Early exits, layers left out and contrasts of layers, against the same computed without cache, batch and hooks."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from phases.agent.depth import Reader, contrast, divergence, early_exits, kept_layers, with_layers
from phases.agent.design import Decoding
from phases.decoding import Rows, decode, likeliest
from phases.exits import exit_hidden_states
from phases.quiet_star.decoder import Thinking, thinking_model
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.thinker import Thinker

SLIDING = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}
FAMILIES = [("llama", {}), ("mistral", {"sliding_window": 6}), ("qwen2", SLIDING), ("qwen3", SLIDING)]


def prompts(count: int = 5) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(1, 257) for _ in range(rng.randrange(1, 20))] for _ in range(count)]


def greedy(predict: Callable[[torch.Tensor], torch.Tensor], prompt: Sequence[int], tokens: int) -> list[int]:
    """What is written when `predict` gives the logits after (1, T) tokens."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(predict(torch.tensor([ids])).argmax()))
    return ids[len(prompt) :]


def removed(model: Any, kept: Sequence[int]) -> Any:
    """A copy of the model whose other layers were cut out."""
    cut = copy.deepcopy(model)
    cut.model.layers = torch.nn.ModuleList(cut.model.layers[layer] for layer in kept)
    cut.config.num_hidden_layers = len(kept)
    if getattr(cut.config, "layer_types", None):
        cut.config.layer_types = [cut.config.layer_types[layer] for layer in kept]
    return cut


@pytest.mark.parametrize(("family", "options"), FAMILIES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_early_exit_writes_what_the_exit_predicts(
    family: str, options: dict[str, Any], depth: int, make_model: Callable[..., Any]
) -> None:
    model = make_model(family, num_hidden_layers=4, **options)
    reader = Reader(model, Decoding(depth=depth / 4))
    written = decode(reader.model, prompts(), [8] * 5, set(), likeliest, batch=3)
    for prompt, tokens in zip(prompts(), written, strict=True):
        exit_logits = lambda ids: model.lm_head(exit_hidden_states(model, ids, (depth,))[0][0, -1])  # noqa: E731
        assert tokens == greedy(exit_logits, prompt, 8)


@pytest.mark.parametrize(("family", "options"), FAMILIES)
@pytest.mark.parametrize(("skip", "kept"), [(0.0, [1, 2, 3]), (0.34, [0, 2, 3]), (0.67, [0, 1, 3]), (1.0, [0, 1, 2])])
def test_a_layer_is_left_out_as_if_it_were_not_there(
    family: str, options: dict[str, Any], skip: float, kept: list[int], make_model: Callable[..., Any]
) -> None:
    model = make_model(family, num_hidden_layers=4, **options)
    cut = removed(model, kept)
    written = decode(Reader(model, Decoding(skip=skip)).model, prompts(), [8] * 5, set(), likeliest, batch=3)
    for prompt, tokens in zip(prompts(), written, strict=True):
        assert tokens == greedy(lambda ids: cut(ids, use_cache=False).logits[0, -1], prompt, 8)


def test_layers_that_are_left_out_do_not_run_and_are_not_remembered(make_model: Callable[..., Any]) -> None:
    model, runs = make_model("llama", num_hidden_layers=4), Counter[int]()
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: runs.update([number]))
    reader = Reader(model, Decoding(depth=0.75, skip=0.34))
    rows = Rows(reader.model, prompts())
    rows.logits()
    assert runs == {0: 1, 2: 1}
    assert [layer.get_seq_length() for layer in rows.cache.layers] == [max(map(len, prompts()))] * 2


def test_the_model_itself_stays_as_it_was_whatever_happens(make_model: Callable[..., Any]) -> None:
    model = make_model("qwen3", num_hidden_layers=4, **SLIDING)
    before = decode(model, prompts(), [6] * 5, set(), likeliest), model.config.to_dict(), list(model.model.layers)
    reader = Reader(model, Decoding(skip=0.0, layer_contrast="low"))
    with pytest.raises(IndexError):
        decode(reader.model, [[1], [999]], [3, 3], set(), likeliest)
    assert before == (
        decode(model, prompts(), [6] * 5, set(), likeliest),
        model.config.to_dict(),
        [*model.model.layers],
    )
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]
    assert not any(layer._forward_hooks for layer in model.model.layers)
    assert {id(p) for p in reader.model.parameters()} < {id(p) for p in model.parameters()}  # no weight is copied


def test_nothing_set_is_the_model_itself(tiny_model: Any) -> None:
    reader, logits_BV = Reader(tiny_model, Decoding()), torch.zeros(1, 2)
    assert reader.model is tiny_model and reader.score(logits_BV, [[]]) is logits_BV


def test_a_model_without_some_layers_is_one_for_transformers_too(make_model: Callable[..., Any]) -> None:
    model = make_model("llama", num_hidden_layers=4)
    ids = torch.tensor([prompts()[0]])
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    settings["attention_mask"] = torch.ones_like(ids)
    ours = with_layers(model, [0, 3]).generate(ids, **settings)
    assert torch.equal(ours, removed(model, [0, 3]).generate(ids, use_cache=False, **settings))


def test_which_layers_run() -> None:
    assert kept_layers(6, 0.5, None) == [0, 1, 2]
    assert kept_layers(6, 0.01, 0.0) == [0]  # one is left, whatever is asked for
    assert kept_layers(6, 0.67, 1.0) == [0, 1, 2, 3]  # the last is beyond the exit
    assert kept_layers(3, 1.0, 0.5) == [0, 2]


def test_which_exits_are_compared() -> None:
    assert [early_exits(layers, "low") for layers in (1, 2, 3, 6)] == [[], [1], [1], [1, 2, 3]]
    assert [early_exits(layers, "high") for layers in (1, 2, 3, 6)] == [[], [1], [2], [4, 5]]
    assert early_exits(6, "none") == []


def test_the_divergence_is_that_of_scipy() -> None:
    p, q = torch.randn(2, 7, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert np.allclose(divergence(p, q).numpy(), jensenshannon(p.numpy(), q.numpy(), axis=-1) ** 2)


def log_softmax(row: Any) -> Any:
    return row - np.log(np.exp(row - row.max()).sum()) - row.max()


@pytest.mark.parametrize("half", ["low", "high"])
@pytest.mark.parametrize("depth", [1.0, 0.84])
def test_a_contrast_is_that_with_the_exit_that_differs_most(
    half: Any, depth: float, make_model: Callable[..., Any]
) -> None:
    model = make_model("llama", num_hidden_layers=6)
    reader = Reader(model, Decoding(layer_contrast=half, depth=depth))
    rows = Rows(reader.model, prompts())
    rows.logits()
    rows.append(torch.tensor([9] * 5))
    with torch.no_grad():
        scores_BV = reader.score(rows.logits(), [[9]] * 5).numpy()
    last = 6 if depth == 1 else 5
    exits = {("low", 6): (1, 2, 3), ("high", 6): (4, 5), ("low", 5): (1, 2), ("high", 5): (3, 4)}[half, last]
    for prompt, found in zip(prompts(), scores_BV, strict=True):
        ids = torch.tensor([[*prompt, 9]])
        with torch.no_grad():
            states = exit_hidden_states(model, ids, (*exits, last))
            *early, final = (log_softmax(model.lm_head(state)[0, -1].double().numpy()) for state in states)
        chosen = max(early, key=lambda one: jensenshannon(np.exp(one), np.exp(final)))
        expected = np.where(np.exp(final) >= 0.1 * np.exp(final).max(), final - chosen, -np.inf)
        assert np.allclose(found, expected, atol=1e-4)


def test_a_token_without_a_chance_is_not_chosen_by_contrast() -> None:
    logits_BV = torch.tensor([[-torch.inf, 1.0, 0.5, -9.0]])
    scores = contrast(logits_BV, torch.tensor([[[5.0, 1.0, 0.0, -9.0]]]))
    assert scores.isfinite().tolist() == [[False, True, True, False]]


def test_a_thinking_model_is_read_as_it_is(tiny_model: Any) -> None:
    thinking = thinking_model(Thinker(tiny_model, MixingHead(32), 5, 6), Thinking(tokens=2))
    reader = Reader(thinking, Decoding(depth=0.5, skip=0.0, layer_contrast="low"))
    assert reader.model is thinking and reader.exits == []
