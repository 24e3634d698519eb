"""Thoughts on, off and shuffled in every measure: against transformers, lm-eval, and the same without thoughts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from evaluation.choice import _row, log_likelihoods, multiple_choice
from evaluation.config import EvaluationConfig
from evaluation.generation import exact_match, greedy
from evaluation.harness import run_tasks
from evaluation.language import text_blocks
from evaluation.measured import evaluate_checkpoint, measure
from evaluation.specialities import held_out
from evaluation.thinking import at_last_position, newest_thought, open_model, thinking_losses, without_thoughts
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.decoding import encode
from phases.errors import CheckpointError
from phases.quiet_star.decoder import shuffle
from phases.quiet_star.delimiters import add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, thinking_files
from phases.quiet_star.thinker import Thinker
from phases.tasks.item import render_prompt

LM_EVAL = pytest.mark.filterwarnings("ignore::DeprecationWarning:lm_eval", "ignore::DeprecationWarning:datasets")
LIMIT = 8


def thinking_checkpoint(path: Path, plain: Checkpoint, tokens: int, weight: float, **changes: Any) -> Checkpoint:
    model, tokenizer = changes.pop("model", plain.model()), plain.tokenizer()
    start, end = add_delimiters(model, tokenizer, "---")
    thinker = Thinker(model, MixingHead(model.config.hidden_size, weight), start, end)
    tensors, texts = thinking_files(thinker, ThinkingFile(start=start, end=end, tokens=tokens, **changes))
    return save_checkpoint(path, model, tokenizer, Manifest("quiet_star"), tensors, texts)


@pytest.fixture(scope="module")
def plain(family: Checkpoint) -> Checkpoint:
    return family.siblings["memory"]


@pytest.fixture(scope="module")
def thinker(plain: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Three tokens a thought, which makes 60 % of the prediction; random weights, which write all kinds of tokens."""
    torch.manual_seed(0)
    config = plain.model().config
    config.initializer_range = 0.3
    path = tmp_path_factory.mktemp("thinker") / "c"
    return thinking_checkpoint(path, plain, tokens=3, weight=0.6, model=LlamaForCausalLM(config).eval())


@pytest.fixture(scope="module")
def silent(plain: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Thoughts without tokens: delimiters alone, so that nothing is random."""
    return thinking_checkpoint(tmp_path_factory.mktemp("silent") / "c", plain, tokens=0, weight=0.6)


def asked(world: Dataset, count: int = 12) -> list[list[int]]:
    items = world.items("test", "memory")[:count]
    return [encode(world.tokenizer, render_prompt(world.tokenizer, item.prompt)) for item in items]


def generated(model: Any, prompt: list[int], stop: int = 0) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": LIMIT, "do_sample": False, "eos_token_id": stop, "pad_token_id": 0}
    return list(model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist())


@torch.inference_mode()
def logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0] for row in rows])


ROWS = [[40, 60, 41, 61, 42, 62], [50, 90, 51, 91, 52, 92]]


def test_off_is_plain_from_pretrained_to_the_bit(thinker: Checkpoint) -> None:
    plain = AutoModelForCausalLM.from_pretrained(thinker.path).eval()
    assert torch.equal(logits(open_model(thinker), ROWS), logits(plain, ROWS))
    assert without_thoughts(plain) is plain and newest_thought(plain) is None


def test_on_and_shuffled_and_off_differ(thinker: Checkpoint) -> None:
    on, shuffled, off = (logits(open_model(thinker, mode), ROWS) for mode in ("on", "shuffled", "off"))
    assert not torch.allclose(on, off) and not torch.allclose(shuffled, off) and not torch.allclose(on, shuffled)


def test_a_thought_without_weight_changes_nothing(plain: Checkpoint, tmp_path: Path) -> None:
    still = thinking_checkpoint(tmp_path / "c", plain, tokens=3, weight=1e-30)
    found = [logits(open_model(still, mode), ROWS) for mode in ("on", "shuffled", "off")]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[2])


def test_the_seed_is_all_there_is_to_chance(thinker: Checkpoint, world: Dataset) -> None:
    found = [greedy(open_model(thinker, "on", seed), asked(world), LIMIT, {0}) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("mode", ["on", "shuffled"])
def test_greedy_equals_generate_with_thoughts(thinker: Checkpoint, world: Dataset, mode: Any) -> None:
    for prompt in asked(world, 4):
        ours, theirs = open_model(thinker, mode), open_model(thinker, mode)
        with at_last_position(theirs):
            assert greedy(ours, [prompt], LIMIT, {0}) == [generated(theirs, prompt)]


def test_greedy_in_batches_equals_generate_where_nothing_is_random(thinker: Checkpoint, world: Dataset) -> None:
    model = open_model(thinker, "on", tokens=0)
    stop = greedy(model, asked(world), LIMIT, set())[0][3]
    ours = greedy(model, asked(world), LIMIT, {stop}, batch=5)
    assert ours == [generated(model, prompt, stop) for prompt in asked(world)]
    assert len({len(tokens) for tokens in ours}) > 1  # rows did leave the batch at different times


def test_suppressed_tokens_are_not_written(thinker: Checkpoint, world: Dataset) -> None:
    model, prompt = open_model(thinker), asked(world, 1)[0]
    start = model.generation_config.suppress_tokens[0]
    with torch.no_grad():  # every prediction would be the delimiter
        hidden_D = model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        model.lm_head.weight[start] = 100 * hidden_D
        assert model(torch.tensor([prompt])).logits[0, -1].argmax() == start
    assert start not in greedy(model, [prompt], LIMIT, set())[0]


def test_the_last_position_alone_thinks_where_that_is_asked(thinker: Checkpoint) -> None:
    model, tokens = open_model(thinker, "on"), torch.tensor(ROWS)
    off = without_thoughts(model).model(tokens).last_hidden_state
    with at_last_position(model):
        last = model.model(tokens).last_hidden_state
    assert torch.equal(last[:, :-1], off[:, :-1]) and not torch.allclose(last[:, -1], off[:, -1])
    everywhere = model.model(tokens).last_hidden_state
    assert all(not torch.allclose(everywhere[:, t], off[:, t]) for t in range(tokens.shape[1]))


def test_the_newest_thought_is_kept(thinker: Checkpoint, plain: Checkpoint, tmp_path: Path) -> None:
    pause = thinking_checkpoint(tmp_path / "c", plain, tokens=3, weight=0.6, pause=True)
    said = {}
    for name, checkpoint in {"thinker": thinker, "pause": pause}.items():
        model = open_model(checkpoint, "on")
        model.model(torch.tensor(ROWS))
        thought = newest_thought(model)
        assert thought is not None and thought.tokens_BSPN.shape == (2, 1, 6, 3)
        torch.testing.assert_close(thought.weight_BSP, torch.full((2, 1, 6), 0.6))
        said[name] = set(thought.tokens_BSPN.flatten().tolist())
    delimiters = set(open_model(thinker).generation_config.suppress_tokens)
    assert not said["thinker"] & delimiters and said["pause"] == {min(delimiters)}


def test_a_shuffled_thought_is_of_another_row_and_another_place() -> None:
    """Rows alone would leave choices of one item with thoughts about their common prompt."""
    thought_BRN = torch.arange(6).view(2, 3, 1)
    assert shuffle(thought_BRN).squeeze(-1).tolist() == [[5, 3, 4], [2, 0, 1]]


def test_text_losses_are_those_of_the_logits(silent: Checkpoint, world: Dataset) -> None:
    model, (text_NT, bytes_N) = open_model(silent, "on"), text_blocks(world, "test", 5)
    scores = logits(model, text_NT[:, :-1].tolist())
    nats = torch.nn.functional.cross_entropy(scores.transpose(1, 2), text_NT[:, 1:], reduction="none").sum(1)
    np.testing.assert_allclose(thinking_losses(model, text_NT, bytes_N, batch=2).nats_N, nats.numpy(), rtol=1e-5)


def test_measures_take_a_thinking_model(silent: Checkpoint, world: Dataset) -> None:
    config = EvaluationConfig(blocks=4)
    model, units = open_model(silent, "on"), held_out(world, config)
    ours, off = (measure(m, world.tokenizer, units, config) for m in (model, without_thoughts(model)))
    assert not np.allclose(ours.text.nats_N, off.text.nats_N)
    np.testing.assert_array_equal(ours.half.nats_N, off.half.nats_N)
    np.testing.assert_array_equal(ours.scores["adaptive"], off.scores["adaptive"])


def test_the_judgement_says_what_did_not_think(silent: Checkpoint, world: Dataset) -> None:
    on = evaluate_checkpoint(silent, world, EvaluationConfig(blocks=4), thoughts="on")
    names = {metric.name for metric in on.metrics if "half" in metric.name}
    assert names == {f"model/half_depth_{what} (no thoughts)" for what in ("accuracy", "bits_per_byte")}
    assert on.tables["matrix"].title.endswith("half depth, no thoughts")


def test_a_checkpoint_that_cannot_think_is_refused(plain: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not think"):
        evaluate_checkpoint(plain, world, EvaluationConfig(), thoughts="on")
    with pytest.raises(CheckpointError, match="does not think"):
        run_tasks(plain, ["forge_memory"], tmp_path / "tasks", world, limit=2, thoughts="shuffled")


@LM_EVAL
def test_lm_eval_thinks_as_our_own_measures_do(silent: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    metrics = run_tasks(silent, ["forge_memory", "forge_cloze"], tmp_path / "t", world, thoughts="on")
    found = {metric.name: metric.value for metric in metrics}
    model, tokenizer = open_model(silent, "on"), silent.tokenizer()
    right_N = exact_match(model, tokenizer, world.items("test", "memory")).right_N
    choices = multiple_choice(model, tokenizer, world.items("test", "choice"))
    assert found["lm-eval:forge_memory/exact_match"] == right_N.mean()
    assert found["lm-eval:forge_cloze/acc_bytes"] == pytest.approx(choices.right_N.mean())


@LM_EVAL
@pytest.mark.parametrize("mode", ["off", "on"])
def test_lm_eval_item_by_item(silent: Checkpoint, world: Dataset, mode: Any) -> None:
    """Off: the same floats as lm-eval's own class. On: those of our own measures."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from evaluation.harness_model import ThinkingLM

    model, tokenizer = open_model(silent, mode), silent.tokenizer()
    wrapped = ThinkingLM(model, tokenizer, batch=4)
    rows = [_row(tokenizer, i.prompt, c) for i in world.items("test", "choice")[:3] for c in i.choices]
    asking = [(None, row.tokens[: row.prompt], row.tokens[row.prompt :]) for row in rows]
    prompts = [render_prompt(tokenizer, item.prompt) for item in world.items("test", "memory")[:6]]
    settings = {"until": [tokenizer.eos_token], "do_sample": False, "max_gen_toks": LIMIT}
    requests = [Instance("generate_until", {}, (prompt, settings), i) for i, prompt in enumerate(prompts)]
    likelihoods = wrapped._loglikelihood_tokens(asking, disable_tqdm=True)
    written = wrapped.generate_until(requests, disable_tqdm=True)
    if mode == "off":
        theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
        assert likelihoods == theirs._loglikelihood_tokens(asking, disable_tqdm=True)
        assert written == theirs.generate_until(requests, disable_tqdm=True)
    np.testing.assert_allclose([nats for nats, _ in likelihoods], log_likelihoods(model, rows, 4), rtol=1e-4)
    ours = greedy(model, [encode(tokenizer, prompt) for prompt in prompts], LIMIT, {0})
    assert written == [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in ours]


@LM_EVAL
def test_lm_eval_generates_with_thoughts_at_the_last_position(thinker: Checkpoint) -> None:
    from evaluation.harness_model import ThinkingLM

    wrapped = ThinkingLM(open_model(thinker, "on"), thinker.tokenizer())
    wrapped._model_generate(torch.tensor(ROWS), max_length=7, stop=[], attention_mask=torch.ones(2, 6))
    generated_at = newest_thought(wrapped.model)
    wrapped._model_call(torch.tensor(ROWS))
    scored_at = newest_thought(wrapped.model)
    assert generated_at is not None and scored_at is not None
    assert (generated_at.weight_BSP.shape[-1], scored_at.weight_BSP.shape[-1]) == (1, 6)


def test_siblings_that_cannot_think_are_measured_without(
    silent: Checkpoint, family: Checkpoint, world: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    siblings = {"plain": family.siblings["memory"], "pause": silent}
    monkeypatch.setattr(Checkpoint, "siblings", siblings)
    config = EvaluationConfig(blocks=4, items=6, choices=4)
    found = evaluate_checkpoint(silent, world, config, ("plain", "pause"), "on")
    off = evaluate_checkpoint(siblings["plain"], world, config)
    value = {m.name: m.value for m in found.metrics}
    assert value["plain/bits_per_byte"] == off.metric("model/bits_per_byte").value
    assert value["pause/bits_per_byte"] == value["model/bits_per_byte"] != value["plain/bits_per_byte"]
