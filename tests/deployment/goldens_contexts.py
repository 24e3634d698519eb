"""Contexts of the shipped models whose config.json is not at hand, from their own cards and configs on the hub.

Written down apart from the catalogue, whose figures of these models come from other projects' tables: there the Qwen2.5
models stood with what they reach only with YaRN switched on, and gemma-3-1b with the context of its larger siblings.
What a server admits by itself is `max_position_embeddings` (Gemma 3: of the text model's class).
"""

CONTEXTS = {
    4096: "allenai/OLMo-2-1124-13B-Instruct allenai/OLMo-2-1124-7B-Instruct allenai/OLMoE-1B-7B-0924-Instruct",
    8192: "google/gemma-2-27b-it google/gemma-2-2b-it google/gemma-2-9b-it HuggingFaceTB/SmolLM2-1.7B-Instruct "
    "HuggingFaceTB/SmolLM2-135M-Instruct HuggingFaceTB/SmolLM2-360M-Instruct tiiuae/Falcon3-1B-Instruct",
    16384: "microsoft/phi-4",
    32768: "google/gemma-3-1b-it mistralai/Mistral-7B-Instruct-v0.3 mistralai/Mistral-Small-24B-Instruct-2501 "
    "Qwen/Qwen2.5-0.5B-Instruct Qwen/Qwen2.5-1.5B-Instruct Qwen/Qwen2.5-3B-Instruct Qwen/Qwen2.5-7B-Instruct "
    "Qwen/Qwen2.5-14B-Instruct Qwen/Qwen2.5-32B-Instruct Qwen/Qwen2.5-72B-Instruct Qwen/Qwen2.5-Coder-7B-Instruct "
    "Qwen/Qwen2.5-Coder-32B-Instruct tiiuae/Falcon3-3B-Instruct tiiuae/Falcon3-7B-Instruct "
    "tiiuae/Falcon3-10B-Instruct",
    40960: "Qwen/Qwen3-4B Qwen/Qwen3-14B Qwen/QwQ-32B",
    65536: "HuggingFaceTB/SmolLM3-3B",
    131072: "deepseek-ai/DeepSeek-R1-Distill-Llama-8B deepseek-ai/DeepSeek-R1-Distill-Llama-70B google/gemma-3-4b-it "
    "google/gemma-3-12b-it google/gemma-3-27b-it meta-llama/Llama-3.1-8B-Instruct meta-llama/Llama-3.1-70B-Instruct "
    "meta-llama/Llama-3.1-405B-Instruct meta-llama/Llama-3.2-1B-Instruct meta-llama/Llama-3.2-3B-Instruct "
    "meta-llama/Llama-3.3-70B-Instruct microsoft/Phi-3.5-mini-instruct microsoft/Phi-4-mini-instruct "
    "mistralai/Mistral-Large-Instruct-2411 mistralai/Mistral-Nemo-Instruct-2407 "
    "nvidia/Llama-3.1-Nemotron-70B-Instruct-HF zai-org/GLM-4.5-Air",
    163840: "deepseek-ai/DeepSeek-R1-0528 deepseek-ai/DeepSeek-V3.1",
    262144: "google/gemma-4-26B-A4B-it google/gemma-4-31B-it Qwen/Qwen3-235B-A22B-Instruct-2507 "
    "Qwen/Qwen3-30B-A3B-Instruct-2507 Qwen/Qwen3-Coder-30B-A3B-Instruct Qwen/Qwen3-Next-80B-A3B-Instruct "
    "Qwen/Qwen3.6-27B Qwen/Qwen3.6-35B-A3B",
    524288: "ByteDance-Seed/Seed-OSS-36B-Instruct",
    1048576: "moonshotai/Kimi-Linear-48B-A3B-Instruct",
}
"""Tokens → hub ids."""
