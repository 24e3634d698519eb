"""The KV pool against measured runs: vLLM 0.11.0 and 0.19.0, SGLang, and runs that failed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.engines import GIB
from deployment.physics.memory import memory_plan
from deployment.serving import Precision, Serving

H100 = Accelerator("h100-sxm", "nvidia", round(79.18 * GIB), 3.35e12, {"bf16": 989e12}, 450e9, 50e9, 8, 700, "")


def measured_pools(folder: Path) -> list[tuple[str, Serving, float]]:
    """The eight measured pools in GiB: config, how it was served, the pool.

    gpt-oss-120b stands with a share of 0.90, but its own parts add up to 75.22 GiB, which is 0.95 of 79.18.
    """
    lines = (folder / "serving/vllm_memory_measured.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    configs = {
        "gpt-oss-20b (MoE)": "openai--gpt-oss-20b",
        "gpt-oss-120b (MoE)": "openai--gpt-oss-120b",
        "Llama-3.3-70B-FP8": "meta-llama--Meta-Llama-3.1-70B",
        "Llama-3.1-8B": "meta-llama--Meta-Llama-3.1-8B",
        "Qwen3-0.6B": "Qwen--Qwen3-0.6B",
        "Qwen3-32B": "Qwen--Qwen3-32B",
        "Mistral-Small-3.2-24B": "",
    }
    rows = []
    for row in table:
        if row[0] not in configs or len(row) != 9:
            continue
        weights, activation, non_torch, pool = (float(row[i]) for i in (1, 2, 3, 5))
        share = round((weights + activation + non_torch + pool) / 79.18, 2)
        precision: Precision = "fp8" if "FP8" in row[0] else "stored"
        serving = Serving(
            version="0.11.0", precision=precision, tp=int(row[6]), utilisation=share, max_context=int(row[8])
        )
        rows.append((configs[row[0]], serving, pool))
    return rows


MISTRAL_SMALL: dict[str, object] = {
    "model_type": "mistral",
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 40,
    "vocab_size": 131072,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "sliding_window": None,
}
"""Its text model, from the measured run's own description; the vision encoder (0.44 billion) is added below."""


def read(folder: Path, config: str) -> Model:
    from deployment.atlas.reading import read_config

    if not config:
        return replace(read_config(MISTRAL_SMALL, "mistral-small"), other_parameters=440_000_000)
    return read_config(json.loads((folder / f"model-configs/{config}_config.json").read_text()), config)


def test_measured_pools_within_3_percent_on_average(shared: Path) -> None:
    rows = measured_pools(shared)
    assert len(rows) == 8
    errors = []
    for config, serving, pool in rows:
        plan = memory_plan(read(shared, config), H100, serving)
        errors.append(abs(plan.kv_pool / GIB / pool - 1))
        assert plan.fits
        if config:  # the rule does not explain the eighth, whose sampler took less than half: it is 10 % too careful
            assert errors[-1] < 0.035
    assert sum(errors) / len(errors) < 0.03
    assert sorted(errors)[4] < 0.003


POOLS_0_19: list[tuple[str, int, Precision, float]] = [
    # vLLM 0.19.0 on an H100 with a share of 0.95: config, TP, precision, measured pool in GiB (source: M19)
    ("meta-llama--Meta-Llama-3.1-8B", 1, "stored", 58.11),
    ("meta-llama--Meta-Llama-3.1-8B", 2, "stored", 63.76),
    ("meta-llama--Meta-Llama-3.1-8B", 4, "stored", 67.44),
    ("meta-llama--Meta-Llama-3.1-8B", 1, "fp8", 64.60),
    ("meta-llama--Meta-Llama-3.1-70B", 2, "fp8", 37.28),
    ("meta-llama--Meta-Llama-3.1-70B", 4, "fp8", 54.09),
    ("mistralai--Mixtral-8x7B-v0.1", 2, "stored", 28.44),
    ("Qwen--Qwen3-30B-A3B", 1, "stored", 15.41),
    ("Qwen--Qwen3-8B", 1, "stored", 57.50),
    ("openai--gpt-oss-20b", 1, "stored", 58.47),
]


def test_pools_of_0_19_within_half_a_percent(shared: Path) -> None:
    for config, tp, precision, pool in POOLS_0_19:
        serving = Serving(version="0.19.0", tp=tp, precision=precision, utilisation=0.95, max_context=8192)
        assert memory_plan(read(shared, config), H100, serving).kv_pool / GIB == pytest.approx(pool, rel=0.005)


def test_measured_pool_of_sglang(shared: Path) -> None:
    """Qwen3-235B-A22B-FP8 on 4 H100 with a static share of 0.93: 8.23 GiB each of keys and values (issue 21348)."""
    serving = Serving(engine="sglang", tp=4, utilisation=0.93, max_context=8192)
    plan = memory_plan(read(shared, "Qwen--Qwen3-235B-A22B-FP8"), H100, serving)
    assert plan.kv_pool / GIB == pytest.approx(2 * 8.23, rel=0.01)


@pytest.mark.parametrize(
    ("config", "serving"),
    [
        ("deepseek-ai--DeepSeek-R1", Serving(max_context=16000)),
        ("meta-llama--Meta-Llama-3.1-70B", Serving(precision="fp8", max_context=16000)),
        ("Qwen--Qwen3-32B", Serving(max_context=32000)),
    ],
)
def test_never_fits_where_the_measured_run_failed(shared: Path, config: str, serving: Serving) -> None:
    serving = replace(serving, version="0.11.0", utilisation=0.9)
    assert not memory_plan(read(shared, config), H100, serving).fits
