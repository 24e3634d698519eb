"""Bytes per sequence against goldens derived by hand, the published figure of DeepSeek-V4, and their invariants."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.atlas import catalogue
from deployment.atlas.reading import read_file
from deployment.model import LayerGroup, Model
from deployment.physics.keys_values import as_in_the_prd, bytes_per_sequence, bytes_per_token, state_bytes
from phases.errors import InputError
from tests.deployment.goldens_keys_values import GOLDENS

LONG = 131072


@cache
def shipped(name: str) -> Model:
    return next(model for model in catalogue.shipped() if model.name == name)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_catalogue_keeps_what_was_derived_by_hand(name: str) -> None:
    model, golden = shipped(name), GOLDENS[name]
    assert bytes_per_token(model) == golden.growth
    assert state_bytes(model) == golden.states
    assert bytes_per_sequence(model, LONG) == golden.growth * LONG + golden.windows + golden.states


def test_every_real_config_has_a_golden_and_reads_as_shipped(shared: Path) -> None:
    files = sorted((shared / "model-configs").glob("*_config.json"))
    names = {path.name.removesuffix("_config.json").replace("--", "/", 1): path for path in files}
    assert set(names) == set(GOLDENS)
    for name, path in names.items():
        read = read_file(path, name)
        assert read.layers == shipped(name).layers, name
        assert bytes_per_token(read) == GOLDENS[name].growth, name


def test_a_million_tokens_of_deepseek_v4_are_what_its_engine_published() -> None:
    """vLLM's announcement of 2026-04-24: 9.62 GiB per sequence of V4-Pro with every entry, the index's too, in bf16."""
    model = shipped("deepseek-ai/DeepSeek-V4-Pro")
    in_bf16 = replace(model, layers=tuple(replace(group, index_bits=16.0) for group in model.layers))
    assert bytes_per_token(in_bf16) * 2**20 / 2**30 == pytest.approx(9.62, abs=0.005)


def test_short_sequences_fill_windows_token_by_token() -> None:
    model = shipped("openai/gpt-oss-120b")
    assert bytes_per_sequence(model, 0) == 0
    assert bytes_per_sequence(model, 100) == 100 * 36 * 2 * 8 * 64 * 2
    assert bytes_per_sequence(model, 129) - bytes_per_sequence(model, 128) == 18 * 2 * 8 * 64 * 2


def test_compressed_entries_come_when_their_tokens_are_complete() -> None:
    model = shipped("deepseek-ai/DeepSeek-V4-Flash")
    at = [bytes_per_sequence(model, context) for context in (1000, 1001, 1003, 1004)]
    assert at[0] == at[1] == at[2]
    assert at[3] - at[2] == 21 * (512 * 2 + 132)


@pytest.mark.parametrize(
    ("tp", "per_layer"), [(1, 2 * 4 * 128 * 2), (2, 2 * 2 * 128 * 2), (4, 2 * 128 * 2), (16, 2 * 128 * 2)]
)
def test_kv_heads_are_divided_as_long_as_there_are_some(tp: int, per_layer: int) -> None:
    assert bytes_per_token(shipped("Qwen/Qwen3-235B-A22B"), tp=tp) == 94 * per_layer


def test_latents_are_the_same_on_every_accelerator_and_states_are_divided() -> None:
    assert bytes_per_token(shipped("deepseek-ai/DeepSeek-V3"), tp=8) == 61 * 576 * 2
    hybrid = shipped("Qwen/Qwen3.5-27B")
    assert state_bytes(hybrid, tp=4) == GOLDENS[hybrid.name].states / 4


def test_eight_bits_halve_what_is_not_laid_out_otherwise() -> None:
    assert bytes_per_token(shipped("Qwen/Qwen3-32B"), kv_bits=8) == QWEN3_32B_BYTES / 2
    assert bytes_per_token(shipped("deepseek-ai/DeepSeek-V3"), kv_bits=8) == 61 * 576
    # vLLM's fp8_ds_mla: 512 fp8, 4 float32 scales, 64 in bf16; and the indexer's 132 bytes as ever
    assert bytes_per_token(shipped("deepseek-ai/DeepSeek-V3.2"), kv_bits=8) == 61 * (656 + 132)
    assert bytes_per_token(shipped("deepseek-ai/DeepSeek-V4-Pro"), kv_bits=8) == 30 * (584 + 132) / 4 + 31 * 584 / 128


QWEN3_32B_BYTES = 64 * 2 * 8 * 128 * 2


def test_states_keep_their_precision_when_keys_do_not() -> None:
    hybrid = shipped("Qwen/Qwen3.5-27B")
    assert state_bytes(hybrid, kv_bits=8) == state_bytes(hybrid, kv_bits=16)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", 0.0),
        ("Qwen/Qwen3-32B", -37.5),
        ("Qwen/Qwen3-30B-A3B", -50.0),
        ("openai/gpt-oss-120b", -29.7),
        ("mistralai/Mistral-Small-24B-Instruct-2501", 25.0),
        ("deepseek-ai/DeepSeek-V3", 2388.9),  # 24.9 times too much
    ],
)
def test_the_prds_formula_is_wrong_by_so_many_per_cent(name: str, error: float) -> None:
    model = shipped(name)
    assert 100 * (as_in_the_prd(model) / bytes_per_sequence(model, 1) - 1) == pytest.approx(error, abs=0.05)


def test_the_prds_formula_needs_attention() -> None:
    group = LayerGroup(count=2, mixer="state", mixer_parameters=10, state_elements=4)
    model = Model("x", "mamba2", (group,), hidden=8, vocabulary=10, context=100, embedding_parameters=80)
    with pytest.raises(InputError, match="no attention"):
        as_in_the_prd(model)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"context": -1}, "context = -1"),
        ({"context": 1, "kv_bits": 12}, "kv_bits = 12"),
        ({"context": 1, "tp": 0}, "tp = 0"),
    ],
)
def test_nonsense_is_named(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bytes_per_sequence(shipped("Qwen/Qwen3-8B"), **arguments)


@settings(max_examples=200)
@given(
    index=st.integers(0, 10**6),
    context=st.integers(0, 200_000),
    more=st.integers(0, 10_000),
    kv_bits=st.sampled_from((4, 8, 16)),
    tp=st.sampled_from((1, 2, 4, 8)),
)
def test_more_tokens_never_keep_less_and_more_accelerators_never_more(
    index: int, context: int, more: int, kv_bits: int, tp: int
) -> None:
    model = catalogue.shipped()[index % len(catalogue.shipped())]
    kept = bytes_per_sequence(model, context, kv_bits, tp)
    assert 0 <= kept <= bytes_per_sequence(model, context + more, kv_bits, tp)
    assert bytes_per_sequence(model, context, kv_bits, 2 * tp) <= kept
    assert kept <= bytes_per_sequence(model, context, 16, tp)
