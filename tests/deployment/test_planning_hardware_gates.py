"""What an engine and a format of weights need of an accelerator."""

from dataclasses import replace

import pytest

from deployment.atlas import catalogue
from deployment.hardware import Accelerator
from deployment.market.accelerators import accelerator, accelerators
from deployment.physics.precision import weight_format
from deployment.planning.fleet import Subject
from deployment.planning.hardware_gates import ENGINES, NAMES, engine_gate
from deployment.planning.recommend import recommend
from deployment.planning.request import Request
from deployment.serving import Serving

QWEN = catalogue.model("Qwen/Qwen3-8B")
CARD = Accelerator("card", "NVIDIA", 10**9, 1e9, {"bf16": 1e12, "fp8": 2e12}, 1e9, 1e9, 8, 100.0, "test")


def gate(card, model=QWEN, **serving):
    served = Serving(**serving)
    failed = engine_gate(Subject(model.name, card.name, served), model, weight_format(model, served), card)
    return failed.constraint if failed else None


def test_engine_and_precision_need_the_hardware():
    old, amd = replace(CARD, flops={"bf16": 1e12}), replace(CARD, vendor="AMD")
    assert gate(CARD, precision="fp8") is None
    assert gate(old, precision="fp8") == "precision"
    assert gate(old, precision="int4") is None, "weights alone are int4"
    assert gate(amd, engine="trtllm") == "engine"
    assert gate(CARD, engine="forge") == "engine"


def test_vendors_are_written_as_they_write_themselves():
    served = Serving(precision="bf16")
    failed = engine_gate(Subject(QWEN.name, "trainium", served), QWEN, "bf16", replace(CARD, vendor="AWS"))
    assert failed is not None and (failed.value, failed.limit) == ("AWS", "AMD or NVIDIA")
    assert set(ENGINES["llama.cpp"]) <= set(NAMES)


def test_the_images_are_built_for_turing_and_newer():
    for name in ("v100-16gb-pcie", "v100-16gb-sxm", "v100-32gb-sxm"):
        assert gate(accelerator(name)) == "engine"
        assert gate(accelerator(name), engine="llama.cpp") is None
    assert gate(accelerator("t4")) is None
    assert gate(accelerator("t4"), engine="trtllm") == "engine"


def test_what_engines_run_on_says_its_capability():
    vendors = {vendor for engine in ("vllm", "trtllm") for vendor in ENGINES[engine]}
    for one in accelerators():
        assert (one.compute_capability is not None) == (one.vendor.lower() in vendors), one.name
        assert ("fp8" in one.flops) == ((one.compute_capability or 0) >= (9.4 if one.vendor == "AMD" else 8.9)) or (
            one.compute_capability is None
        ), one.name


@pytest.mark.parametrize(
    ("model", "runs", "does_not"),
    [
        ("nvidia/DeepSeek-V3.1-NVFP4", ("b200-sxm", "h100-sxm", "a100-80gb-sxm"), ("mi300x", "mi355x", "t4")),
        ("openai/gpt-oss-120b", ("mi300x", "h100-sxm", "a100-80gb-sxm"), ("mi250x", "t4")),
        ("Qwen/Qwen3-32B-FP8", ("mi300x", "a100-80gb-sxm", "t4"), ("mi250x",)),
    ],
)
def test_formats_of_checkpoints_need_kernels(model, runs, does_not):
    found = catalogue.model(model)
    assert {name: gate(accelerator(name), found) for name in runs} == dict.fromkeys(runs)
    assert {name: gate(accelerator(name), found) for name in does_not} == dict.fromkeys(does_not, "precision")


def test_int8_ends_with_hopper():
    assert gate(accelerator("h100-sxm"), precision="int8") is None
    assert gate(accelerator("b200-sxm"), precision="int8") == "precision"


def test_a_card_without_bf16_serves_in_fp16_and_says_so():
    t4, small = accelerator("t4"), catalogue.model("Qwen/Qwen3-4B")
    assert gate(t4, small, precision="bf16") == "precision"
    assert gate(t4, catalogue.model("google/gemma-3-4b-it")) == "precision", "unstable in fp16"
    asked = {"use_case": "extraction", "models": ["Qwen/Qwen3-4B"], "accelerators": ["t4"], "precisions": ["stored"]}
    chosen = recommend(Request.parse(asked, "request")).chosen
    assert chosen is not None
    assert any(note.startswith("in fp16: the t4 has no bf16") for note in chosen.notes)
