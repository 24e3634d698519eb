"""The PRDs' formulas beside ours, with the errors that are known of them."""

import pytest

from deployment.atlas.catalogue import model
from deployment.physics.weights import touched_bytes
from deployment.planning.prd_formulas import compare, reason, table
from deployment.serving import Serving

ERRORS = {
    "meta-llama/Llama-3.1-8B-Instruct": 0.0,
    "Qwen/Qwen3-32B": -0.375,  # 64 heads of 128 in 5,120: d_model / heads is 80
    "Qwen/Qwen3-30B-A3B": -0.5,  # 32 heads of 128 in 2,048
    "openai/gpt-oss-120b": -0.297,  # 64 heads of 64 in 2,880
    "mistralai/Mistral-Small-24B-Instruct-2501": 0.25,  # 32 heads of 128 in 5,120
    "deepseek-ai/DeepSeek-V3": 23.889,  # 61 · 2 · 7,168 · 2 against 61 · 576 · 2
}
"""Of one token while all caches grow, by hand from the configs."""


@pytest.mark.parametrize(("name", "error"), ERRORS.items())
def test_error_of_the_cache(name, error):
    one = compare(model(name), 8192)
    assert one.first_error == pytest.approx(error, abs=0.001)
    assert bool(one.reason) == (error != 0)


def test_windows_add_to_the_error():
    one = compare(model("openai/gpt-oss-120b"), 131072)
    assert one.error == pytest.approx(0.406, abs=0.005)  # half of the layers stop at 128 tokens
    assert "window" in one.reason


def test_the_prds_example_is_below_the_floor():
    """Llama-3-8B on an L4 (300 GB/s): 16.06 GB take 53.5 ms, not 42."""
    eight = model("meta-llama/Llama-3.1-8B-Instruct")
    assert touched_bytes(eight, Serving(), 1) / 300e9 == pytest.approx(53.5e-3, rel=0.005)


def test_the_table_has_a_row_a_model():
    eight = model("meta-llama/Llama-3.1-8B-Instruct")
    (row,) = table([eight], 8192)
    assert row[0] == eight.name
    assert row[1:4] == ["131,072", "131,072", "+0.0%"]
    assert reason(eight) == ""
