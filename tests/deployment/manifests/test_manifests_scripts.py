"""Everything that starts an engine: its flags exist, ranks are told, remote code is never trusted; and load tests."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.manifests import bundle
from deployment.manifests.plan import Plan

VLLM_FLAGS = """--host --port --headless --served-model-name --model --tokenizer --trust-remote-code --dtype --seed
    --max-model-len --quantization --enforce-eager --revision --hf-overrides --generation-config --load-format
    --reasoning-parser --speculative-config --distributed-executor-backend --pipeline-parallel-size --master-addr
    --master-port --nnodes --node-rank --distributed-timeout-seconds --tensor-parallel-size
    --decode-context-parallel-size --prefill-context-parallel-size --data-parallel-size --data-parallel-rank
    --data-parallel-start-rank --data-parallel-size-local --data-parallel-address --data-parallel-rpc-port
    --data-parallel-backend --data-parallel-hybrid-lb --data-parallel-external-lb --enable-expert-parallel
    --all2all-backend --enable-dbo --enable-eplb --disable-custom-all-reduce --worker-cls --block-size
    --gpu-memory-utilization --kv-cache-memory-bytes --kv-cache-dtype --enable-prefix-caching
    --prefix-caching-hash-algo --calculate-kv-scales --cpu-offload-gb --max-num-batched-tokens --max-num-seqs
    --scheduling-policy --enable-chunked-prefill"""
"""Of vLLM's `vllm/engine/arg_utils.py` and of the server's own arguments, as far as a plan could want them."""
TGI_FLAGS = """--api-key --cors-allow-origin --cuda-graphs --cuda-memory-fraction --disable-custom-kernels
    --disable-grammar-support --dtype --enable-prefill-logprobs --hostname --huggingface-hub-cache --json-output
    --kv-cache-dtype --lora-adapters --master-addr --master-port --max-batch-prefill-tokens --max-batch-size
    --max-batch-total-tokens --max-best-of --max-client-batch-size --max-concurrent-requests --max-input-length
    --max-input-tokens --max-stop-sequences --max-top-n-tokens --max-total-tokens --max-waiting-tokens --model-id
    --ngrok --ngrok-authtoken --ngrok-edge --num-shard --otlp-endpoint --otlp-service-name --payload-limit --port
    --prometheus-port --quantize --revision --rope-factor --rope-scaling --shard-uds-path --sharded --speculate
    --tokenizer-config-path --trust-remote-code --usage-stats --validation-workers --waiting-served-ratio
    --watermark-delta --watermark-gamma --weights-cache-override"""
"""All of TGI's docs/source/reference/launcher.md at commit db931fc."""


def test_flags_exist(plan: Plan) -> None:
    """In whatever file an engine's line stands."""
    texts = bundle.texts(plan.candidate)
    engines = {
        name: text for name, text in texts.items() if name not in ("load-test.sh", "recommendation.md", "plan.json")
    }
    for name, text in engines.items():
        known = TGI_FLAGS if name == "tgi.sh" or (plan.runtime == "tgi" and name != "vllm.sh") else VLLM_FLAGS
        flags = set(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9-]+", text))
        assert flags <= set(known.split()), name
    assert "--tensor-parallel-size" in texts["vllm.sh"] or plan.candidate.serving.tp == 1 or plan.runtime == "tgi"


def test_remote_code_is_never_trusted(plan: Plan) -> None:
    texts = bundle.texts(plan.candidate)
    assert {"compose.yaml", "helm/values.yaml", "vllm.sh", "tgi.sh"} & set(texts)
    trusting = [name for name, text in texts.items() if "trust-remote-code" in re.sub("[_ ]", "-", text.lower())]
    trusting += [name for name, text in texts.items() if "trustremotecode" in text.lower()]
    assert trusting == []


def heard(folder: Path, script: str, command: str, **variables: str) -> list[str]:
    """The arguments that a script gives a command, which is a stand-in here."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / command).write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (programs / command).chmod(0o755)
    path = {"PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run([str(folder / script)], env=path | variables, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def value(line: list[str], flag: str) -> str | None:
    return line[line.index(flag) + 1] if flag in line else None


@pytest.mark.parametrize("shape", ["two nodes", "two nodes of data"])
def test_each_instance_of_a_replica_is_told_its_rank(make: Any, tmp_path: Path, shape: str) -> None:
    texts = bundle.texts(make(shape))
    bundle.write(make(shape), tmp_path)
    lines = [heard(tmp_path, "vllm.sh", "vllm", HEAD="10.0.0.7", NODE_RANK=str(i)) for i in range(2)]
    stateful = next(one for one in yaml.safe_load_all(texts["kubernetes/serving.yaml"]) if one["kind"] == "StatefulSet")
    arguments = stateful["spec"]["template"]["spec"]["containers"][0]["args"]
    head = arguments[arguments.index("--master-addr" if shape == "two nodes" else "--data-parallel-address") + 1]
    same = ["10.0.0.7" if part == head else part for part in arguments[1:]]
    added = (
        [["--node-rank", "0"], ["--node-rank", "1", "--headless"]]
        if shape == "two nodes"
        else [[], ["--headless", "--data-parallel-start-rank", "8"]]
    )
    assert lines == [[*same, *rest] for rest in added], "as the StatefulSet's pods"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        heard(tmp_path, "vllm.sh", "vllm", NODE_RANK="0")
    assert "the address of the first instance" in caught.value.stderr.decode()
    assert "HEAD=ADDRESS_OF_THE_FIRST NODE_RANK=NUMBER ./vllm.sh" in texts["recommendation.md"]


def test_the_load_of_all_replicas_goes_where_they_all_are(make: Any, tmp_path: Path) -> None:
    bundle.write(make("tensor"), tmp_path)
    here, there = (
        value(heard(tmp_path, "load-test.sh", "guidellm", **given), "--backend")
        for given in ({}, {"URL": "http://all.example:80/x y"})
    )
    assert here == "kind=openai_http,target=http://localhost:8000,model=Qwen/Qwen3-32B"
    assert there == "kind=openai_http,target=http://all.example:80/x y,model=Qwen/Qwen3-32B"
    text = (tmp_path / "load-test.sh").read_text()
    assert "all 2 replicas stand" in text and "http://qwen-qwen3-32b:8000; kubectl port-forward puts the load" in text


def test_the_tokenizer_of_ones_own_model_is_asked_for_and_not_fetched(make: Any, tmp_path: Path) -> None:
    """`me/mine` is a name in the atlas here, and may be a stranger's repository on the hub."""
    bundle.write(make(model=replace(make().model, name="me/mine", source="its config.json")), tmp_path)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        heard(tmp_path, "load-test.sh", "guidellm")
    assert "TOKENIZER: the folder of the checkpoint" in caught.value.stderr.decode()
    line = heard(tmp_path, "load-test.sh", "guidellm", TOKENIZER="/data/my model")
    assert json.loads(value(line, "--tokenizer") or "") == {"kind": "huggingface_auto", "model": "/data/my model"}
    words = (tmp_path / "recommendation.md").read_text()
    assert "`$TOKENIZER` is the folder of the checkpoint" in words and 'me/mine"}' not in words


def test_the_tokenizer_of_a_folder_here_is_the_folders_wherever_the_test_starts(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs/student").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    own = replace(make().model, name="runs/student", source="report.json")
    bundle.write(make(model=own), tmp_path / "plan")
    monkeypatch.chdir("/")
    line = heard(tmp_path / "plan", "load-test.sh", "guidellm")
    assert json.loads(value(line, "--tokenizer") or "")["model"] == str(tmp_path / "runs/student")


def test_both_engines_load_what_is_given(make: Any) -> None:
    texts = bundle.texts(make("tensor"), checkpoint="Qwen/Qwen3-32B-AWQ")
    assert "vllm serve Qwen/Qwen3-32B-AWQ " in texts["vllm.sh"] and "--model-id Qwen/Qwen3-32B-AWQ " in texts["tgi.sh"]
