"""The quiet_star phase end to end: what it writes, what it resumes, what it refuses."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError, TrainingError
from phases.quiet_star.config import QuietStarConfig
from phases.quiet_star.delimiters import END, START
from phases.quiet_star.objective import QuietStar
from phases.quiet_star.run import run
from phases.quiet_star.storage import HEAD, SETTINGS, load_thinker
from phases.training.config import TrainingConfig

TINY = QuietStarConfig.parse(
    {
        "thoughts": {"tokens": 2, "positions": 4, "ahead": 2},
        "training": TrainingConfig(steps=4, batch_rows=4, save_seconds=0.0).model_dump(),
    },
    "test",
)
SHAPE = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "intermediate_size": 48}


def saved(model: PreTrainedModel, data: Dataset, path: Path) -> Checkpoint:
    return save_checkpoint(path, model, data.tokenizer, Manifest("cognate"))


@pytest.fixture
def parent(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    return saved(tiny_model, tiny_data, tmp_path / "parent")


def test_what_is_written(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    curves: dict[str, float] = {}
    made = run([parent], TINY, tmp_path / "out", data=tiny_data, metrics=lambda step, values: curves.update(values))
    assert set(made.siblings) == {"pause", "plain"} and made.manifest["parents"] == [parent.digest]
    assert {HEAD, SETTINGS, "model.safetensors"} <= set(made.manifest["files"])
    thinker, settings = load_thinker(made.path)
    assert made.tokenizer().convert_tokens_to_ids([START, END]) == [thinker.start, thinker.end] == [257, 258]
    assert settings.tokens == 2 and not settings.pause and load_thinker(made.siblings["pause"].path)[1].pause
    assert {"thoughts/reward", "thoughts/mixing_weight", "thoughts/thought_entropy", "plain/loss"} <= set(curves)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".work")]


def test_plain_transformers_opens_it_without_thoughts(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    plain = AutoModelForCausalLM.from_pretrained(made.path)
    tokens = torch.randint(1, 257, (2, 9))
    with torch.no_grad():
        ours = load_thinker(made.path)[0].model(tokens).logits
        torch.testing.assert_close(plain(tokens).logits, ours, rtol=0, atol=1e-6)
    assert {257, 258} <= set(plain.generation_config.suppress_tokens)


def test_same_seed_same_digest_and_another_seed_another(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    first, again = (run([parent], TINY, tmp_path / name, data=tiny_data).family_digest for name in ("a", "b"))
    other = run([parent], TINY.model_copy(update={"seed": 1}), tmp_path / "c", data=tiny_data).family_digest
    assert first == again != other


@pytest.mark.parametrize("killed_at", [0, 3, 5, 10])
def test_killed_at_any_model_it_ends_in_the_same_bits(
    killed_at: int, parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run([parent], TINY, tmp_path / "whole", data=tiny_data).family_digest
    steps = iter(range(100))

    @contextlib.contextmanager
    def dying(self: object) -> Iterator[None]:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        with stepping(self) if isinstance(self, QuietStar) else contextlib.nullcontext():
            yield

    stepping = QuietStar.stepping
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("phases.training.objective.Objective.stepping", dying)
        patch.setattr(QuietStar, "stepping", dying)
        run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert (tmp_path / "out.work").is_dir()
    assert run([parent], TINY, tmp_path / "out", data=tiny_data).family_digest == whole


@pytest.mark.parametrize("kind", ["qwen", "mistral", "untied"])
def test_any_decoder_of_the_family_can_be_the_parent(kind: str, tiny_data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = {
        "qwen": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=12)),
        "untied": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=False)),
    }[kind]()
    parent = saved(made, tiny_data, tmp_path / "parent")
    out = run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert load_thinker(out.path)[0].config.vocab_size == 259
    assert open_checkpoint(out.path).model().config.model_type == made.config.model_type


def test_checkpointing_changes_nothing_but_memory(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    short = TINY.model_copy(update={"training": TINY.training.model_copy(update={"steps": 1, "optimizer": "adamw"})})
    again = short.model_copy(update={"checkpointing": True})
    weights = [
        run([parent], config, tmp_path / name, data=tiny_data).tensors()
        for name, config in (("kept", short), ("again", again))
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_broken_weights_are_named(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny_model.model.norm.weight[0] = float("nan")
    parent = saved(tiny_model, tiny_data, tmp_path / "parent")
    with pytest.raises(TrainingError, match=r"thoughts: the gradient is not finite \(NaN\) at step 0; lower"):
        run([parent], TINY, tmp_path / "out", data=tiny_data)
    assert not (tmp_path / "out").exists()


def test_wrong_parents_are_refused(tiny_data: Dataset, parent: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 inputs given"):
        run([parent, parent], TINY, tmp_path / "out", data=tiny_data)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(CheckpointError, match="is not a Llama-, Qwen- or Mistral-style decoder"):
        run([saved(gpt, tiny_data, tmp_path / "gpt")], TINY, tmp_path / "out", data=tiny_data)


def test_more_tokens_ahead_than_a_row_has_are_refused(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    far = TINY.model_copy(update={"thoughts": TINY.thoughts.model_copy(update={"ahead": 33})})
    with pytest.raises(ConfigError, match=r"ahead=33: rows of .* have 32 tokens; lower it"):
        run([parent], far, tmp_path / "out", data=tiny_data)


def test_an_only_thought_has_nothing_to_be_better_than() -> None:
    one = {"thoughts": {"samples": 1}}
    with pytest.raises(ConfigError, match=r"samples must be 2 or more to reinforce"):
        QuietStarConfig.parse(one, "quiet_star")
    assert QuietStarConfig.parse({**one, "reinforce": {"weight": 0.0}}, "quiet_star").thoughts.samples == 1


def test_head_that_does_not_fit_is_refused(parent: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    made = run([parent], TINY, tmp_path / "out", data=tiny_data)
    copy = shutil.copytree(made.path, tmp_path / "copy")
    (copy / HEAD).write_bytes((copy / HEAD).read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=f"{HEAD}: missing, truncated or of another shape"):
        load_thinker(copy)
    (copy / SETTINGS).write_text("{}")
    with pytest.raises(CheckpointError, match=f"{SETTINGS}: truncated or altered"):
        load_thinker(copy)
    with pytest.raises(CheckpointError, match="does not think"):
        load_thinker(parent.path)
