"""Command lines and names: what the plan says is in them, flags exist, and nothing breaks out of its place."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.atlas import catalogue
from deployment.manifests.commands import arguments, load_test, multi_node_flags, shell
from deployment.manifests.kubernetes import serving_objects
from deployment.manifests.plan import VLLM_VERSION, label, make_plan
from deployment.physics.engines import facts
from deployment.serving import Load
from phases.errors import InputError


def value(line: list[str], flag: str) -> str | None:
    return line[line.index(flag) + 1] if flag in line else None


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("tensor", {"--tensor-parallel-size": "2", "--quantization": "fp8", "--kv-cache-dtype": "fp8"}),
        ("tensor", {"--max-model-len": "8192", "--dtype": None}),
        ("pipeline", {"--tensor-parallel-size": "4", "--pipeline-parallel-size": "2"}),
        ("pipeline", {"--gpu-memory-utilization": "0.9", "--quantization": None}),
        ("data", {"--data-parallel-size": "4", "--tensor-parallel-size": "2"}),
        ("speculative", {"--dtype": "bfloat16"}),
        ("tgi", {"--num-shard": "2", "--quantize": "fp8", "--kv-cache-dtype": "fp8_e4m3fn"}),
        ("tgi", {"--max-input-tokens": "8191", "--max-total-tokens": "8192", "--max-batch-prefill-tokens": None}),
    ],
)
def test_what_the_plan_says_is_set(make: Any, shape: str, wanted: dict[str, str | None]) -> None:
    line = arguments(make_plan(make(shape)))
    assert {flag: value(line, flag) for flag in wanted} == wanted


@pytest.mark.parametrize(("vendor", "drafts"), [("AMD", 0), ("NVIDIA", 4)])
def test_tgi_admits_what_it_reads_in_one_piece(make: Any, vendor: str, drafts: int) -> None:
    """Where its prompts are not read in pieces it refuses to start with less room for them than it admits."""
    candidate = make("tgi", accelerator=replace(make().accelerator, vendor=vendor))
    serving = replace(candidate.serving, draft_tokens=drafts)
    line = arguments(make_plan(replace(candidate, serving=serving)))
    assert int(value(line, "--max-batch-prefill-tokens") or 0) >= int(value(line, "--max-input-tokens") or 0) > 4096


def test_speculation_names_its_method(make: Any) -> None:
    line = arguments(make_plan(make("speculative")))
    settings = json.loads(value(line, "--speculative-config") or "")
    assert settings == {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}


def test_ranks_of_a_replica_over_instances(make: Any) -> None:
    plan = make_plan(make("two nodes"))
    stateful = [one for one in serving_objects(plan) if one["kind"] == "StatefulSet"]
    assert [one["spec"]["replicas"] for one in stateful] == [2, 2]
    container = stateful[0]["spec"]["template"]["spec"]["containers"][0]
    assert value(container["args"], "--nnodes") == "2"
    assert value(container["args"], "--master-addr") == "qwen-qwen3-32b-0-0.qwen-qwen3-32b-0-peers"
    assert 'node-rank "$NODE_RANK" --headless' in container["command"][2]
    data = multi_node_flags(make_plan(make("two nodes of data")), "head")
    assert value(data, "--data-parallel-size-local") == "8"


@pytest.mark.parametrize("bits", [16.0, 8.06, 4.25])
def test_published_bits_decide_what_is_quantised(make: Any, bits: float) -> None:
    candidate = make("tensor")
    plan = make_plan(replace(candidate, model=replace(candidate.model, stored_bits=bits)))
    assert plan.quantise == (bits == 16.0)  # fp8 while loading, from 16 bits
    assert plan.mounted == (bits == 4.25)  # fp8 of a 4-bit checkpoint has to be written first
    assert ("--quantization" in arguments(plan)) == (bits == 16.0)


def test_a_precision_of_its_own_needs_a_checkpoint_first(make: Any) -> None:
    plan = make_plan(make("int4"))
    assert plan.checkpoint == "/models/qwen-qwen3-32b-int4"
    assert "as int4 to /models/qwen-qwen3-32b-int4" in plan.steps[0]
    given = make_plan(make("int4"), checkpoint="Qwen/Qwen3-32B-AWQ")
    assert (given.checkpoint, given.steps) == ("Qwen/Qwen3-32B-AWQ", ())


@pytest.mark.parametrize("name", ["runs/student", "mymodel", "Qwen/Qwen3-8B"])
def test_own_models_are_never_downloaded(make: Any, name: str) -> None:
    """A name that the hub could have too is a stranger's repository there."""
    plan = make_plan(make(model=replace(make().model, name=name, source="its config.json")))
    assert plan.mounted and plan.checkpoint == f"/models/{label(name.rsplit('/', 1)[-1])}"
    assert f"put the checkpoint {name} at {plan.checkpoint}" in plan.steps[0]


def test_models_that_the_atlas_knows_from_the_hub_are_downloaded(make: Any) -> None:
    shipped = catalogue.shipped()[0]
    assert make_plan(make(model=shipped)).checkpoint == shipped.name
    added = replace(make().model, name="a/b", source="huggingface.co/a/b")
    assert make_plan(make(model=added)).checkpoint == "a/b"


def test_a_given_checkpoint_that_is_a_folder_here_is_mounted(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_plan(make(), checkpoint="runs/student").checkpoint == "runs/student"
    (tmp_path / "runs/student").mkdir(parents=True)
    assert make_plan(make(), checkpoint="runs/student").checkpoint == "/models/student"


def test_image_is_of_the_version_whose_memory_is_known(make: Any) -> None:
    assert VLLM_VERSION.startswith(facts("vllm").version)
    assert make_plan(make()).image == f"vllm/vllm-openai:v{VLLM_VERSION}"
    amd = replace(make().accelerator, vendor="AMD", name="mi300x")
    assert make_plan(make(accelerator=amd)).image == f"vllm/vllm-openai-rocm:v{VLLM_VERSION}"
    assert make_plan(make(accelerator=amd)).resource == "amd.com/gpu"


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ("one", {"engine": "sglang"}, "written for vllm and tgi"),
        ("pipeline", {"engine": "tgi"}, "TGI has no pipeline"),
        ("one", {"tp": 12}, "do not divide over instances of 8"),
        ("one", {"kv_bits": 4}, "keys and values of 4 bits"),
    ],
)
def test_what_no_manifest_can_carry_out(make: Any, shape: str, changes: dict[str, Any], message: str) -> None:
    candidate = make(shape)
    with pytest.raises(InputError, match=message):
        arguments(make_plan(replace(candidate, serving=replace(candidate.serving, **changes))))
    tpu = replace(candidate.accelerator, vendor="Google")
    with pytest.raises(InputError, match="NVIDIA and AMD"):
        make_plan(replace(candidate, accelerator=tpu))


def test_load_test_is_the_planned_load_over_all_replicas(make: Any) -> None:
    line = load_test(make_plan(make()))
    assert value(line, "--profile") == "kind=concurrent,streams=32"
    data = dict(part.split("=") for part in (value(line, "--data") or "").split(","))
    assert (data["kind"], data["prompt_tokens"], data["output_tokens"]) == ("synthetic_text", "1024", "256")
    assert (data["output_tokens_stdev"], data["output_tokens_min"], data["output_tokens_max"]) == ("51", "1", "512")
    open_loop = load_test(make_plan(make(load=Load(512, 64, rate=1.5))))
    assert value(open_loop, "--profile") == "kind=poisson,rate=3"


@given(st.text(max_size=80))
def test_labels_are_dns_1035(text: str) -> None:
    made = label(text)
    assert 1 <= len(made) <= 40 and made[0].isascii() and made[0].isalpha() and made[-1].isalnum()
    assert all(c.isascii() and (c.isalnum() or c == "-") and c == c.lower() for c in made)
    assert made == label(text)


NASTY = "../m; rm -rf $(x) '\"\n--trust-remote-code: {a: b}"


def read_by_sh(line: list[str]) -> list[str]:
    """What a POSIX shell makes of a line."""
    printed = subprocess.run(["sh", "-c", f"printf '%s\\0' {shell(line)}"], capture_output=True, check=True)
    return printed.stdout.decode().split("\0")[:-1]


def test_nothing_breaks_out_of_a_models_name(make: Any) -> None:
    plan = make_plan(make(model=replace(make().model, name=NASTY)))
    assert plan.checkpoint.startswith("/models/") and plan.mounted
    line = arguments(plan)
    assert read_by_sh(line) == line
    assert not any(part.startswith("--trust") for part in line)
    written = load_test(plan)
    assert read_by_sh(written) == written
    assert json.loads(value(written, "--tokenizer") or "")["model"] == NASTY
