"""Parameter counts are those of the reference implementations: small models of each family, counted on no device."""

from typing import Any

import pytest

from deployment.atlas.reading import read_config

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "num_key_value_heads": 4, "head_dim": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip
INDEXER: dict[str, Any] = {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 8}
DELTA: dict[str, Any] = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip
MOE: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL: dict[str, Any] = {"num_local_experts": 8, "num_experts_per_tok": 2}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_d_conv": 4,
    "mamba_expand": 2,
}  # fmt: skip
SLIDING = {"sliding_window": 32}
MIXED = ["sliding_attention", "full_attention"] * 2

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": SLIDING,
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "phi3": {"sliding_window": None, "pad_token_id": 0},
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {**SLIDING, "tie_word_embeddings": True},
    "gemma3_text": {**SLIDING, "tie_word_embeddings": True},
    "olmo2": {"head_dim": None},
    "olmo3": {**SLIDING, "head_dim": None},
    "granite": {"head_dim": None},
    "smollm3": {"head_dim": None, "pad_token_id": 0},
    "cohere": {"head_dim": None, "tie_word_embeddings": True},
    "cohere2": {**SLIDING, "head_dim": None, "tie_word_embeddings": True},
    "glm4": {"attention_bias": True, "pad_token_id": 0},
    "seed_oss": {"attention_bias": True, "attention_out_bias": False},
    "starcoder2": {"head_dim": None, "sliding_window": None, "tie_word_embeddings": True},
    "ministral3": SLIDING,
    "mixtral": {**LOCAL, "sliding_window": None},
    "qwen2_moe": {**MOE, "head_dim": None, "shared_expert_intermediate_size": 48, "decoder_sparse_step": 2},
    "qwen3_moe": {**MOE, "mlp_only_layers": [1]},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "head_dim": None},
    "gpt_oss": {**LOCAL, **SLIDING, "layer_types": MIXED},
    "llama4_text": {
        **LOCAL, "intermediate_size_mlp": 128, "interleave_moe_layer_step": 2, "attention_chunk_size": 64,
    },
    "minimax_m2": LOCAL,
    "mimo_v2_flash": {
        **SLIDING, "v_head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 32,
        "swa_v_head_dim": 16, "hybrid_layer_pattern": [0, 1, 1, 1], "moe_layer_freq": [0, 1, 1, 1],
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    },
    "glm4_moe": {
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "use_qk_norm": True, "attention_bias": True,
    },
    "deepseek_v3": LATENT,
    "deepseek_v32": {**LATENT, **INDEXER},
    "glm_moe_dsa": {**LATENT, **INDEXER, "indexer_types": ["full", "shared"] * 2},
    "deepseek_v4": {
        **INDEXER, "num_key_value_heads": 1, "q_lora_rank": 24, "o_lora_rank": 16, "o_groups": 2, "qk_rope_head_dim": 8,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "hc_mult": 4, "sliding_window": 32, "compress_ratios": [0, 4, 128, 4, 0], "num_hash_layers": 1,
        "intermediate_size": None,
    },
    "qwen3_next": {**DELTA, **MOE, "shared_expert_intermediate_size": 32},
    "qwen3_5_text": DELTA,
    "qwen3_5_moe_text": {**DELTA, **MOE, "shared_expert_intermediate_size": 32},
    "nemotron_h": {
        "layers_block_type": ["mamba", "moe", "attention", "mlp"], "mamba_num_heads": 8, "mamba_head_dim": 16,
        "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48, "moe_latent_size": 24,
    },
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 128, "mamba_rms_norm": True},
    "granitemoehybrid": {
        **MAMBA, **LOCAL, "head_dim": None, "shared_intermediate_size": 48,
        "layer_types": ["mamba", "attention", "mamba", "mamba"],
    },
    "gemma4_text": {
        **SLIDING, "layer_types": ["sliding_attention", "full_attention"] * 2, "global_head_dim": 64,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True, "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 128, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
        "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 32,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


def counted_by_transformers(config: dict[str, Any]) -> int:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    made = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(made).parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_counted(family: str) -> None:
    config = {**SIZES, **FAMILIES[family], "model_type": family}
    config = {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    assert read_config(config, f"tiny/{family}").parameters == counted_by_transformers(config)


def test_mamba2() -> None:
    config = {
        "model_type": "mamba2", "hidden_size": 64, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 16, "expand": 2,
        "n_groups": 2, "state_size": 16, "conv_kernel": 4, "vocab_size": 128, "tie_word_embeddings": False,
    }  # fmt: skip
    model = read_config({**config, "max_position_embeddings": 4096}, "tiny/mamba2")
    assert model.parameters == counted_by_transformers(config)


def test_kimi_linear_as_its_own_code_writes_it_and_as_transformers_does() -> None:
    """The hub's config numbers layers from 1 in `linear_attn_config`; transformers spells the same out."""
    same = {
        "model_type": "kimi_linear", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96,
        "moe_intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "kv_lora_rank": 16,
        "q_lora_rank": None, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "max_position_embeddings": 256, "tie_word_embeddings": False,
    }  # fmt: skip
    linear = {
        "full_attn_layers": [4], "kda_layers": [1, 2, 3], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4,
    }  # fmt: skip
    hub = {**same, "linear_attn_config": linear, "num_experts": 8, "num_experts_per_token": 2, "num_shared_experts": 1,
           "first_k_dense_replace": 1}  # fmt: skip
    theirs = {
        **same, "num_local_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "linear_num_heads": 4,
        "linear_head_dim": 16, "linear_conv_kernel_dim": 4, "mlp_layer_types": ["dense"] + ["sparse"] * 3,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"], "pad_token_id": 0,
    }  # fmt: skip
    assert read_config(hub, "tiny/kimi").parameters == counted_by_transformers(theirs)


@pytest.mark.parametrize("wrapper", ["qwen3_vl", "qwen2_5_vl", "mistral3", "gemma3"])
def test_towers_are_counted_with_their_projectors(wrapper: str) -> None:
    """Each wrapper with its own default tower and a small language model."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    made = CONFIG_MAPPING[wrapper]()
    for name, size in {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 512}.items():
        setattr(made.text_config, name, size)
    made.text_config.tie_word_embeddings = made.tie_word_embeddings
    config = made.to_dict()
    config["text_config"]["layer_types"] = ["full_attention"] * 2
    with torch.device("meta"):
        counted = sum(p.numel() for p in AutoModelForImageTextToText.from_config(made).parameters())
    assert read_config(config, f"tiny/{wrapper}").parameters == counted
