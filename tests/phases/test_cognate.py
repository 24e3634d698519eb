"""Cognate creation: shapes, early exits, adapters, and the phase end to end."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.cognate.base import merge_adapters, with_adapters
from phases.cognate.config import CognateConfig, Mix
from phases.cognate.layerskip import EarlyExit, dropout_rate, exit_weight, layer_dropout
from phases.cognate.run import MODELS, PHASE, run
from phases.cognate.shape import PRESETS, Shape, llama_config
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError, MissingDependency
from phases.exits import exit_hidden_states
from phases.training import processes
from phases.training.config import TrainingConfig

SHORT = TrainingConfig(steps=3, batch_rows=4)
TINY = CognateConfig(
    shape=Shape(hidden=32, layers=3, heads=4, kv_heads=2, intermediate=64, context=64), trunk=SHORT, branch=SHORT
)


def build(preset: str, vocabulary: int) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(llama_config(PRESETS[preset], vocabulary, 0))  # type: ignore[index]


def test_exact_preset_has_exactly_25083528_parameters() -> None:
    assert build("25m-exact", 32_000).num_parameters() == 25_083_528


def test_25m_preset_is_friendly_to_hardware() -> None:
    shape = PRESETS["25m"]
    assert all(d % 128 == 0 for d in (shape.hidden, shape.intermediate, 32_000))
    assert 23e6 < build("25m", 32_000).num_parameters() < 27e6


def test_embedded_preset_is_small() -> None:
    assert 0.9e6 < build("embedded", 2048).num_parameters() < 3e6


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="must divide"):
        llama_config(Shape(hidden=100, heads=3), 10, 0)


def test_dropout_rises_from_zero_to_p_max() -> None:
    rates = [dropout_rate(i, 5, 0.2) for i in range(5)]
    assert rates[0] == 0 and rates[4] == pytest.approx(0.2) and rates == sorted(rates)
    assert rates[2] == pytest.approx(0.2 * (math.sqrt(2) - 1))
    assert exit_weight(1, 5) == 0.25 and exit_weight(4, 5) == 1


def test_dropped_layers_pass_their_input_through(tiny_model: LlamaForCausalLM) -> None:
    tokens = torch.randint(1, 257, (64, 8))
    with layer_dropout(tiny_model, 0.999):
        mixed = exit_hidden_states(tiny_model, tokens, (3,))[0]
    shorter, full = exit_hidden_states(tiny_model, tokens, (2, 3))
    again = exit_hidden_states(tiny_model, tokens, (3,))[0]
    assert torch.equal(full, again)  # nothing is left behind
    dropped = [i for i in range(64) if torch.allclose(mixed[i], shorter[i], atol=1e-6)]
    assert dropped and not torch.allclose(mixed, full)


def test_rows_skip_the_same_layers_in_whichever_process_they_are(
    tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.randint(1, 257, (16, 8))

    def hidden(rows: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)
        with layer_dropout(tiny_model, 0.7), torch.no_grad():
            return exit_hidden_states(tiny_model, rows, (3,))[0]

    whole = hidden(tokens)
    for index in range(2):
        monkeypatch.setattr(
            processes, "group", lambda index=index: SimpleNamespace(num_processes=2, process_index=index)
        )
        torch.testing.assert_close(hidden(tokens[index::2]), whole[index::2])


def test_exit_equals_the_shorter_model(tiny_model: LlamaForCausalLM) -> None:
    tokens = torch.randint(1, 257, (2, 9))
    early = exit_hidden_states(tiny_model, tokens, (1,))[0]
    tiny_model.model.layers = tiny_model.model.layers[:1]
    tiny_model.config.num_hidden_layers = 1
    torch.testing.assert_close(early, tiny_model.model(tokens).last_hidden_state)


def test_exit_outside_the_model_is_refused(tiny_model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="between 1 and 3"):
        exit_hidden_states(tiny_model, torch.ones(1, 2, dtype=torch.long), (4,))
    assert tiny_model.config.num_hidden_layers == 3


def test_early_exit_loss_without_exits_is_the_plain_loss(tiny_model: LlamaForCausalLM) -> None:
    tokens, weight = torch.randint(1, 257, (2, 9)), torch.ones(2, 8)
    loss = EarlyExit(tiny_model, p_max=0.0, exit_scale=0.0)(tokens, weight, 0.0)
    logits = tiny_model(tokens[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 257), tokens[:, 1:].reshape(-1), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def made(tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([], TINY, tmp_path_factory.mktemp("run") / "cognate", data=tiny_data)


def test_the_family_is_complete_and_loads_plainly(made: Checkpoint) -> None:
    assert sorted(made.siblings) == ["adaptive", "control", "memory", "reasoning"]
    for path in (made.path, *(c.path for c in made.siblings.values())):
        assert AutoModelForCausalLM.from_pretrained(path).num_parameters() > 0
    assert not made.path.with_name("cognate.work").exists()


def test_branches_start_from_the_trunk_and_differ(made: Checkpoint) -> None:
    assert all(c.manifest["parents"] == [made.digest] for c in made.siblings.values())
    assert len({c.digest for c in made.siblings.values()}) == 4


def test_same_seed_same_digests_other_seed_others(made: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    assert run([], TINY, tmp_path / "a", data=tiny_data).family_digest == made.family_digest
    other = TINY.model_copy(update={"seed": 1})
    assert run([], other, tmp_path / "b", data=tiny_data).family_digest != made.family_digest


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_broke_in_any_model_ends_in_the_same_bits(
    model: str, made: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(step: int, values: Any) -> None:
        if f"{model}/loss" in values:
            raise Killed

    with pytest.raises(Killed):
        run([], TINY, tmp_path / "c", data=tiny_data, metrics=kill)
    seen: set[str] = set()
    again = run([], TINY, tmp_path / "c", data=tiny_data, metrics=lambda s, v: seen.update(v))
    assert again.family_digest == made.family_digest
    assert {key.split("/")[0] for key in seen} == set(MODELS[MODELS.index(model) :])


def foreign(kind: str) -> Any:
    sizes = {
        "vocab_size": 257,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if kind == "qwen":
        return Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8))
    return MistralForCausalLM(MistralConfig(**sizes, sliding_window=16))


@pytest.mark.parametrize(("kind", "tuning"), [("qwen", "full"), ("mistral", "lora")])
def test_own_base_model_is_the_trunk(kind: str, tuning: str, tiny_data: Dataset, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", foreign(kind), tiny_data.tokenizer, Manifest("base"))
    config = TINY.model_copy(update={"base": str(base.path), "tuning": tuning})
    made = run([], config, tmp_path / "c", data=tiny_data)
    before, after = base.tensors(), made.siblings["reasoning"].tensors()
    assert all(torch.equal(made.tensors()[n], before[n]) for n in before)
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed and (tuning == "full" or all("_proj" in n for n in changed))


def test_a_broken_run_with_adapters_ends_in_the_same_bits(tiny_data: Dataset, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(step: int, values: Any) -> None:
        if "memory/loss" in values:
            raise Killed

    base = save_checkpoint(tmp_path / "base", foreign("qwen"), tiny_data.tokenizer, Manifest("base"))
    config = TINY.model_copy(update={"base": str(base.path), "tuning": "lora"})
    whole = run([], config, tmp_path / "whole", data=tiny_data)
    with pytest.raises(Killed):
        run([], config, tmp_path / "broken", data=tiny_data, metrics=kill)
    torch.manual_seed(1)  # as good as another process
    assert run([], config, tmp_path / "broken", data=tiny_data).family_digest == whole.family_digest


def test_merged_adapters_compute_what_the_adapted_model_computes(tiny_data: Dataset, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", foreign("qwen"), tiny_data.tokenizer, Manifest("base"))
    adapted = with_adapters(str(base.path), TINY.model_copy(update={"tuning": "lora"})).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    merged = merge_adapters(adapted, str(base.path))
    tokens = torch.randint(1, 257, (1, 6))
    torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, rtol=1e-4, atol=1e-4)


def test_a_base_of_another_architecture_is_refused(tiny_data: Dataset, tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_embd=32, n_layer=1, n_head=2))
    base = save_checkpoint(tmp_path / "base", model, tiny_data.tokenizer, Manifest("base"))
    with pytest.raises(CheckpointError, match="GPT2LMHeadModel is not a Llama-, Qwen- or Mistral-style decoder"):
        run([], TINY.model_copy(update={"base": str(base.path)}), tmp_path / "c", data=tiny_data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_qlora_without_a_gpu_says_what_to_use(tiny_data: Dataset, tmp_path: Path) -> None:
    config = TINY.model_copy(update={"base": "x", "tuning": "qlora"})
    with pytest.raises(MissingDependency, match="needs a CUDA GPU and none is here; use lora or full"):
        run([], config, tmp_path / "c", data=tiny_data)


def test_an_empty_mix_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one of text, reasoning, memory"):
        Mix.parse({}, "mix")


def test_cache_key_changes_with_what_matters(made: Checkpoint, tiny_data: Dataset) -> None:
    key = PHASE.key([], TINY, tiny_data)
    assert key == PHASE.key([], TINY.model_copy(update={"on_fail": "rollback"}), tiny_data)
    assert key != PHASE.key([], TINY.model_copy(update={"seed": 1}), tiny_data)
    assert key != PHASE.key([open_checkpoint(made.path)], TINY, tiny_data)
