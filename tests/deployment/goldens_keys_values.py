"""What 86 published models keep, derived by hand from their config.json and their implementations, not by our code.

Each golden is three numbers of bytes at 16 bits on one accelerator: `growth` per token of a long sequence, `windows`
(all sliding windows full) and `states` (recurrences, compressors), so that a long sequence keeps
`growth × tokens + windows + states`. The arithmetic reads layers × what × size × 2 bytes. Facts besides the configs:

- latent attention (MLA) keeps kv_lora_rank 512 + qk_rope_head_dim 64 = 576 elements per token and layer;
- an indexer of DeepSeek sparse attention keeps 128 fp8 + one float32 = 132 bytes; MiniMax-M3's 128 × 2 bytes;
- DeepSeek-V4 keeps one vector of 512 as key and value: 128 in each layer's window, and one per 4 or 128 tokens;
  compressors keep two float32 tensors (values and scores) of [8, 1024], [8, 256] (indexer) or [128, 512];
- a gated delta net keeps value heads × 128 × 128 in float32 and 3 inputs of its convolution (2 · keys + values);
- Mamba-2 keeps heads × 64 × state and 3 inputs of its convolution (heads · 64 + 2 · groups · state).
"""

from typing import NamedTuple


class Golden(NamedTuple):
    """Bytes at 16 bits, one accelerator."""

    growth: float
    windows: int = 0
    states: int = 0


QWEN3_SMALL = Golden(28 * 2 * 8 * 128 * 2)
QWEN3_36_LAYERS = Golden(36 * 2 * 8 * 128 * 2)
QWEN3_32B = Golden(64 * 2 * 8 * 128 * 2)
QWEN3_30B_A3B = Golden(48 * 2 * 4 * 128 * 2)
QWEN3_235B = Golden(94 * 2 * 4 * 128 * 2)
QWEN35_27B = Golden(16 * 2 * 4 * 256 * 2, states=48 * (48 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 48 * 128) * 2))
QWEN35_35B = Golden(10 * 2 * 2 * 256 * 2, states=30 * (32 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 32 * 128) * 2))
QWEN35_122B = Golden(12 * 2 * 2 * 256 * 2, states=36 * (64 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 64 * 128) * 2))
QWEN35_397B = Golden(15 * 2 * 2 * 256 * 2, states=45 * (64 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 64 * 128) * 2))
MINIMAX_M2 = Golden(62 * 2 * 8 * 128 * 2)
MINIMAX_M3 = Golden(60 * 2 * 4 * 128 * 2 + 57 * 128 * 2)
MLA_61_LAYERS = Golden(61 * 576 * 2)
DEEPSEEK_V32 = Golden(61 * (576 * 2 + 132))
GLM_5 = Golden(78 * (576 * 2 + 132))
GLM_52 = Golden(78 * 576 * 2 + 21 * 132)  # an indexer in layers 0 to 2 and in every fourth from 6 on
# 2 layers with the window alone, 21 that compress by 4, 20 by 128
V4_FLASH = Golden(
    21 * (512 * 2 + 132) / 4 + 20 * 512 * 2 / 128,
    windows=43 * 128 * 512 * 2,
    states=21 * (2 * 8 * 1024 * 4 + 2 * 8 * 256 * 4) + 20 * 2 * 128 * 512 * 4,
)
# 30 layers compress by 4, 31 by 128
V4_PRO = Golden(
    30 * (512 * 2 + 132) / 4 + 31 * 512 * 2 / 128,
    windows=61 * 128 * 512 * 2,
    states=30 * (2 * 8 * 1024 * 4 + 2 * 8 * 256 * 4) + 31 * 2 * 128 * 512 * 4,
)
LLAMA_4 = Golden(12 * 2 * 8 * 128 * 2, windows=36 * 8192 * 2 * 8 * 128 * 2)  # every fourth of 48 layers sees all
GEMMA_4_26B = Golden(5 * 2 * 2 * 512 * 2, windows=25 * 1024 * 2 * 8 * 256 * 2)
GEMMA_4_31B = Golden(10 * 2 * 4 * 512 * 2, windows=50 * 1024 * 2 * 16 * 256 * 2)
STEP_37 = Golden(12 * 2 * 8 * 128 * 2, windows=33 * 512 * 2 * 8 * 128 * 2)
NEMOTRON_NANO = Golden(6 * 2 * 2 * 128 * 2, states=23 * (64 * 64 * 128 * 4 + 3 * (64 * 64 + 2 * 8 * 128) * 2))
NEMOTRON_SUPER = Golden(8 * 2 * 2 * 128 * 2, states=40 * (128 * 64 * 128 * 4 + 3 * (128 * 64 + 2 * 8 * 128) * 2))
NEMOTRON_ULTRA = Golden(12 * 2 * 2 * 128 * 2, states=48 * (256 * 64 * 128 * 4 + 3 * (256 * 64 + 2 * 8 * 128) * 2))

GOLDENS = {
    "MiniMaxAI/MiniMax-M2.5": MINIMAX_M2,
    "MiniMaxAI/MiniMax-M2.7": MINIMAX_M2,
    "MiniMaxAI/MiniMax-M3": MINIMAX_M3,
    "Qwen/Qwen3-0.6B": QWEN3_SMALL,
    "Qwen/Qwen3-1.7B": QWEN3_SMALL,
    "Qwen/Qwen3-235B-A22B": QWEN3_235B,
    "Qwen/Qwen3-235B-A22B-FP8": QWEN3_235B,
    "Qwen/Qwen3-30B-A3B": QWEN3_30B_A3B,
    "Qwen/Qwen3-30B-A3B-FP8": QWEN3_30B_A3B,
    "Qwen/Qwen3-32B": QWEN3_32B,
    "Qwen/Qwen3-32B-FP8": QWEN3_32B,
    "Qwen/Qwen3-32B-FP8-Static-PerTensor": QWEN3_32B,
    "Qwen/Qwen3-8B": QWEN3_36_LAYERS,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": Golden(62 * 2 * 8 * 128 * 2),
    "Qwen/Qwen3-VL-235B-A22B-Instruct": QWEN3_235B,
    "Qwen/Qwen3-VL-2B-Instruct": QWEN3_SMALL,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": QWEN3_30B_A3B,
    "Qwen/Qwen3-VL-32B-Instruct": QWEN3_32B,
    "Qwen/Qwen3-VL-32B-Thinking": QWEN3_32B,
    "Qwen/Qwen3-VL-4B-Instruct": QWEN3_36_LAYERS,
    "Qwen/Qwen3-VL-8B-Instruct": QWEN3_36_LAYERS,
    "Qwen/Qwen3.5-122B-A10B": QWEN35_122B,
    "Qwen/Qwen3.5-27B": QWEN35_27B,
    "Qwen/Qwen3.5-35B-A3B": QWEN35_35B,
    "Qwen/Qwen3.5-397B-A17B": QWEN35_397B,
    "XiaomiMiMo/MiMo-7B-Base": Golden(36 * 2 * 8 * 128 * 2),
    "XiaomiMiMo/MiMo-V2-Flash": Golden(9 * 4 * (192 + 128) * 2, windows=39 * 128 * 8 * (192 + 128) * 2),
    "deepseek-ai/DeepSeek-R1": MLA_61_LAYERS,
    "deepseek-ai/DeepSeek-V3": MLA_61_LAYERS,
    "deepseek-ai/DeepSeek-V3.2": DEEPSEEK_V32,
    "deepseek-ai/DeepSeek-V4-Flash": V4_FLASH,
    "deepseek-ai/DeepSeek-V4-Pro": V4_PRO,
    "google/gemma-4-26B-A4B": GEMMA_4_26B,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": LLAMA_4,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": LLAMA_4,
    "meta-llama/Meta-Llama-3.1-405B": Golden(126 * 2 * 8 * 128 * 2),
    "meta-llama/Meta-Llama-3.1-70B": Golden(80 * 2 * 8 * 128 * 2),
    "meta-llama/Meta-Llama-3.1-8B": Golden(32 * 2 * 8 * 128 * 2),
    "mistralai/Mixtral-8x22B-v0.1": Golden(56 * 2 * 8 * 128 * 2),
    "mistralai/Mixtral-8x7B-v0.1": Golden(32 * 2 * 8 * 128 * 2),
    "moonshotai/Kimi-K2-Instruct": MLA_61_LAYERS,
    "moonshotai/Kimi-K2.5": MLA_61_LAYERS,
    "moonshotai/Kimi-K3": Golden(24 * 576 * 2, states=69 * (96 * 128 * 128 * 4 + 3 * 3 * 96 * 128 * 2)),
    "nvidia/DeepSeek-V3.1-NVFP4": MLA_61_LAYERS,
    "nvidia/DeepSeek-V3.2-NVFP4": DEEPSEEK_V32,
    "nvidia/DeepSeek-V4-Flash-NVFP4": V4_FLASH,
    "nvidia/DeepSeek-V4-Pro-NVFP4": V4_PRO,
    "nvidia/GLM-5-NVFP4": GLM_5,
    "nvidia/GLM-5.1-NVFP4": GLM_5,
    "nvidia/GLM-5.2-NVFP4": GLM_52,
    "nvidia/Gemma-4-26B-A4B-NVFP4": GEMMA_4_26B,
    "nvidia/Gemma-4-31B-IT-NVFP4": GEMMA_4_31B,
    "nvidia/Kimi-K2.5-NVFP4": MLA_61_LAYERS,
    "nvidia/Kimi-K2.6-NVFP4": MLA_61_LAYERS,
    "nvidia/Kimi-K2.7-Code-NVFP4": MLA_61_LAYERS,
    "nvidia/Llama-3.1-70B-Instruct-FP8": Golden(80 * 2 * 8 * 128 * 2),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": Golden(49 * 2 * 8 * 128 * 2),  # 31 of 80 layers have no attention
    "nvidia/MiniMax-M2.5-NVFP4": MINIMAX_M2,
    "nvidia/MiniMax-M2.7-NVFP4": MINIMAX_M2,
    "nvidia/MiniMax-M3-NVFP4": MINIMAX_M3,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": NEMOTRON_NANO,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": NEMOTRON_NANO,
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8": NEMOTRON_SUPER,
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4": NEMOTRON_SUPER,
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": NEMOTRON_ULTRA,
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": NEMOTRON_ULTRA,
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4": NEMOTRON_ULTRA,
    "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4": NEMOTRON_NANO,
    # states of 256, in float32 as the engine keeps them where the config says nothing
    "nvidia/Nemotron-H-56B-Base-8K": Golden(
        10 * 2 * 8 * 128 * 2, states=54 * (256 * 64 * 256 * 4 + 3 * (256 * 64 + 2 * 8 * 256) * 2)
    ),
    "nvidia/Qwen3-235B-A22B-NVFP4": QWEN3_235B,
    "nvidia/Qwen3.5-122B-A10B-NVFP4": QWEN35_122B,
    "nvidia/Qwen3.5-397B-A17B-NVFP4": QWEN35_397B,
    "nvidia/Qwen3.6-27B-NVFP4": QWEN35_27B,
    "nvidia/Qwen3.6-35B-A3B-NVFP4": QWEN35_35B,
    "openai/gpt-oss-120b": Golden(18 * 2 * 8 * 64 * 2, windows=18 * 128 * 2 * 8 * 64 * 2),
    "openai/gpt-oss-20b": Golden(12 * 2 * 8 * 64 * 2, windows=12 * 128 * 2 * 8 * 64 * 2),
    "sgl-project/DeepSeek-V4-Flash-FP8": V4_FLASH,
    "sgl-project/DeepSeek-V4-Pro-FP8": V4_PRO,
    "stepfun-ai/Step-3.7-Flash": STEP_37,
    "stepfun-ai/Step-3.7-Flash-FP8": STEP_37,
    "zai-org/GLM-5": GLM_5,
    "zai-org/GLM-5-FP8": GLM_5,
    "zai-org/GLM-5.1": GLM_5,
    "zai-org/GLM-5.1-FP8": GLM_5,
    "zai-org/GLM-5.2": GLM_52,
    "zai-org/GLM-5.2-FP8": GLM_52,
}
