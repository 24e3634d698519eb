"""Configs become models with the published numbers of parameters, or an error that names the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployment.atlas.catalogue import model
from deployment.atlas.reading import READERS, read_config, read_file
from deployment.physics.weights import checkpoint_bytes
from phases.errors import InputError

# Name, billions in all and of one token as published, where. Active counts differ in what they call active: with
# both tables ("all"), without the input embeddings ("head"), or without either ("body").
OFFICIAL = [
    ("meta-llama/Meta-Llama-3.1-8B", 8.03, None, "all", "huggingface.co/meta-llama/Llama-3.1-8B: safetensors 8.03B"),
    ("meta-llama/Meta-Llama-3.1-70B", 70.6, None, "all", "huggingface.co/meta-llama/Llama-3.1-70B: 70.6B"),
    ("meta-llama/Meta-Llama-3.1-405B", 405.9, None, "all", "huggingface.co/meta-llama/Llama-3.1-405B: 406B"),
    ("Qwen/Qwen3-8B", 8.2, None, "all", "model card: 8.2B"),
    ("Qwen/Qwen3-32B", 32.8, None, "all", "model card: 32.8B"),
    ("Qwen/Qwen3-30B-A3B", 30.5, 3.3, "all", "model card: 30.5B in total and 3.3B activated"),
    ("Qwen/Qwen3-235B-A22B", 235.0, 22.0, "all", "model card: 235B in total and 22B activated"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.0, 35.0, "all", "model card: 480B in total and 35B activated"),
    ("mistralai/Mixtral-8x7B-v0.1", 46.7, 12.9, "all", "mistral.ai/news/mixtral-of-experts: 46.7B, 12.9B per token"),
    ("mistralai/Mixtral-8x22B-v0.1", 141.0, 39.0, "all", "mistral.ai/news/mixtral-8x22b: 141B, 39B active"),
    ("deepseek-ai/DeepSeek-V3", 671.0, 37.0, "all", "arXiv 2412.19437: 671B, 37B activated (without MTP)"),
    ("deepseek-ai/DeepSeek-V4-Flash", 284.0, 13.0, "head", "model card: 284B, 13B activated"),
    ("deepseek-ai/DeepSeek-V4-Pro", 1573.0, 49.0, "head", "model card: 1.6T, 49B activated"),
    ("moonshotai/Kimi-K2-Instruct", 1026.0, 32.0, "head", "arXiv 2507.20534: 1.04T with roundings, 32B activated"),
    ("moonshotai/Kimi-K3", 2780.0, 104.0, "head", "model card: 2.8T, about 104B activated"),
    ("zai-org/GLM-5", 744.0, 40.0, "body", "model card: 744B, 40B active"),
    ("openai/gpt-oss-120b", 116.83, 5.13, "head", "arXiv 2508.10925, table 1: 116.83B, 5.13B active"),
    ("openai/gpt-oss-20b", 20.91, 3.61, "head", "arXiv 2508.10925, table 1: 20.91B, 3.61B active"),
    ("XiaomiMiMo/MiMo-V2-Flash", 309.0, 15.0, "head", "model card: 309B, 15B active"),
    ("stepfun-ai/Step-3.7-Flash", 196.0, 11.0, "all", "vLLM's recipe: 196B language backbone, 11B active"),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6, None, "head", "arXiv 2512.20848: 31.6B"),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 120.6, 12.7, "all", "technical report: 120.6B, 12.7B active"),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550.0, 55.0, "head", "model card: 550B, 55B active"),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 49.9, None, "all", "huggingface.co: safetensors 49.9B"),
    ("google/gemma-4-31B-it", 31.3, None, "all", "huggingface.co: safetensors 31.3B with the tower"),
    ("google/gemma-4-26B-A4B-it", 25.8, 3.8, "all", "model card: 25.2B without the tower, 3.8B active"),
    ("MiniMaxAI/MiniMax-M2.5", 228.7, None, "all", "huggingface.co: safetensors 229B, 228.7B"),
    ("nvidia/MiniMax-M3-NVFP4", 427.0, 23.5, "body", "MiniMax-M3's model card: about 428B, about 23B activated"),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7, None, "all", "model card: 80B in total"),
    ("zai-org/GLM-4.5-Air", 106.0, 12.0, "body", "arXiv 2508.06471: 106B, 12B active"),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.0, 17.0, "all", "Meta's model card: 400B, 17B activated"),
    ("ByteDance-Seed/Seed-OSS-36B-Instruct", 36.15, None, "all", "huggingface.co: safetensors 36.2B"),
    ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 49.1, None, "all", "huggingface.co: safetensors 49.1B"),
]


@pytest.mark.parametrize(("name", "total", "active", "counted", "source"), OFFICIAL)
def test_parameters_are_those_published(
    name: str, total: float, active: float | None, counted: str, source: str
) -> None:
    known = model(name)
    assert known.parameters == pytest.approx(total * 1e9, rel=0.01), source
    if active is not None:
        tables = {"all": 0, "head": 1, "body": 2}[counted] * known.vocabulary * known.hidden
        # published to two digits: within their rounding or 2 %
        assert known.active_parameters - tables == pytest.approx(active * 1e9, rel=0.02, abs=0.7e9), source


# What the published checkpoints weigh: attention in bf16 where only experts are quantised, heads that are not.
@pytest.mark.parametrize(
    ("name", "gigabytes", "source"),
    [
        ("openai/gpt-oss-120b", 60.8 * 2**30 / 1e9, "arXiv 2508.10925, table 1: 60.8 GiB"),
        ("openai/gpt-oss-20b", 12.8 * 2**30 / 1e9, "arXiv 2508.10925, table 1: 12.8 GiB"),
        ("MiniMaxAI/MiniMax-M3", 854, "huggingface.co: 854 GB with tower, which its text config does not have"),
        ("moonshotai/Kimi-K2.5", 595, "huggingface.co: 595 GB"),
    ],
)
def test_checkpoints_weigh_what_was_published(name: str, gigabytes: float, source: str) -> None:
    assert checkpoint_bytes(model(name)) == pytest.approx(gigabytes * 1e9, rel=0.005), source


def llama(**changes: object) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 256,
    }  # fmt: skip
    return {key: value for key, value in {**config, **changes}.items() if value != "absent"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"num_hidden_layers": "four"}, "num_hidden_layers = 'four' is not a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0 has to be at least 1"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3 does not divide 4"),
        ({"hidden_size": 66}, "head_dim is missing, and hidden_size 66 does not divide"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes' is neither true nor false"),
        ({"model_type": "absent"}, "model_type is missing"),
        ({"model_type": "llamma"}, "model_type = 'llamma' is not known to the physics; near it: llama"),
        ({"kv_lora_rank": 16}, "kv_lora_rank = 16 is not known for model_type 'llama'"),
        ({"num_experts": 8}, "num_experts = 8 is not known"),
        ({"sliding_window": 4096}, "sliding_window = 4096 is not known"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types names 'linear_attention'"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 2 layers"),
        ({"quantization_config": {"quant_method": "magic"}}, "quant_method = 'magic' is not known"),
        ({"quantization_config": {"quant_method": "forge_compressed"}}, "add the folder, whose files say their size"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP3"}}, "quant_algo = 'FP3'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "whole numbers as bits and group_size"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "says no num_bits"),
        ({"quantization_config": 8}, "quantization_config is not an object"),
    ],
)
def test_what_is_not_understood_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        read_config(llama(**changes), "me/mine")


def test_unknown_patterns_are_named(shared: Path) -> None:
    def changed(file: str, **changes: object) -> dict[str, Any]:
        return {**json.loads((shared / "model-configs" / f"{file}_config.json").read_text()), **changes}

    wrong = [
        (changed("nvidia--Nemotron-H-56B-Base-8K", hybrid_override_pattern="M" * 117 + "X"), "hybrid_override_pattern"),
        (changed("nvidia--Nemotron-H-56B-Base-8K", hybrid_override_pattern="MM"), "hybrid_override_pattern has 2"),
        (changed("deepseek-ai--DeepSeek-V4-Flash", compress_ratios=[7] * 44), "compress_ratios names 7"),
        (changed("zai-org--GLM-5.2", indexer_types=None), "indexer_types is missing"),
        (changed("MiniMaxAI--MiniMax-M2.7", attn_type_list=[0] * 62), "attn_type_list names 0"),
        (changed("Qwen--Qwen3.5-27B", vision_config={"model_type": "retina"}), "'retina' is a vision tower"),
    ]
    for config, words in wrong:
        with pytest.raises(InputError, match=words):
            read_config(config, "org/name")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "broken JSON in line 1"), ("[1]", "holds list, not an object"), ("\xff", "cannot be read")],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=words):
        read_file(path, "me/mine")
    with pytest.raises(InputError, match="no such file"):
        read_file(tmp_path / "other.json", "me/mine")


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.15625),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 4.125),
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, 4.5),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, 8.25),
    ],
)
def test_stored_bits(settings: dict[str, object], bits: float) -> None:
    assert read_config(llama(quantization_config=settings), "me/mine").stored_bits == bits


def test_what_is_left_out_stays_in_bf16() -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["model.layers.0.self_attn*"]}
    group = read_config(llama(quantization_config=settings), "me/mine").layers[0]
    assert (group.mixer_bits, group.dense_bits) == (16.0, 4.5)


def test_modelopts_own_file_beside_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama()))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert read_file(tmp_path / "config.json", "me/mine").stored_bits == 8.0


def test_by_the_name_alone_attention_is_not_taken_for_quantised() -> None:
    group = read_config(llama(), "me/mine-NVFP4").layers[0]
    assert (group.mixer_bits, group.dense_bits) == (16.0, 4.5)
    assert read_config(llama(), "me/mine-FP8").stored_bits == 8.0


def test_layers_that_are_alike_are_one_group_and_mtp_entries_are_left_out(shared: Path) -> None:
    config = json.loads((shared / "model-configs/deepseek-ai--DeepSeek-V4-Flash_config.json").read_text())
    groups = read_config(config, "org/name").layers
    assert [(group.count, group.compression) for group in groups] == [(2, 1), (21, 4), (20, 128)]


def test_readers_are_said_by_name() -> None:
    assert len(READERS) > 40
    assert "llama" in READERS
