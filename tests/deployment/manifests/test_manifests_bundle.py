"""A plan in a folder: complete, the same twice, swapped in whole, and readable as what it says it is."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.manifests import bundle
from deployment.manifests.autoscaling import adapter_rule, horizontal_autoscaler, query, scaled_object
from deployment.manifests.compose import compose
from deployment.manifests.grafana import dashboard
from deployment.manifests.plan import FORGE_IMAGE, Plan, make_plan
from deployment.planning.candidate import Recommendation
from deployment.serving import Load
from deployment.simulator.running import Fleet
from deployment.simulator.timing import Timing
from phases.errors import InputError, StorageError

FILES = {
    "compose.yaml", "grafana/dashboard.json", "helm/values.yaml", "kserve/inference-service.yaml",
    "kserve/llm-inference-service.yaml", "kubernetes/adapter-values.yaml", "kubernetes/hpa.yaml",
    "kubernetes/keda.yaml", "kubernetes/service-monitor.yaml", "kubernetes/serving.yaml", "load-test.sh", "plan.json",
    "recommendation.md", "tgi.sh", "vllm.sh",
}  # fmt: skip
TIMING = Timing(((1.0, 0.01),), ((100.0, 0.01),), ((1.0, 0.0),), 8, 50_000, 2048)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_files_and_the_same_twice(make: Any, tmp_path: Path) -> None:
    written = bundle.write(make("tensor"), tmp_path / "plan")
    first = files(tmp_path / "plan")
    assert set(first) == FILES and len(written) == len(FILES)
    bundle.write(make("tensor"), tmp_path / "plan")
    assert files(tmp_path / "plan") == first
    assert os.listdir(tmp_path) == ["plan"], "nothing is left beside it"


def test_only_what_an_earlier_plan_wrote_is_replaced(make: Any, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    bundle.write(make("two nodes"), folder)
    assert "helm/values.yaml" not in files(folder)
    bundle.write(make("tensor"), folder)
    (folder / "models/student").mkdir(parents=True)
    mine = {"models/student/model.safetensors": b"weights", "measured.json": b"{}", "helm/mine.yaml": b"a: 1"}
    for name, content in mine.items():
        (folder / name).write_bytes(content)
    bundle.write(make("two nodes"), folder)
    after = files(folder)
    assert {name: after.get(name) for name in mine} == mine
    assert "helm/values.yaml" not in after and set(after) == set(bundle.texts(make("two nodes"))) | set(mine)
    (folder / "compose.yaml").write_text("services: {}")  # the user's: this plan wrote none
    with pytest.raises(StorageError, match=r"compose\.yaml: no plan wrote it.*move it away"):
        bundle.write(make("tensor"), folder)
    assert files(folder) == after | {"compose.yaml": b"services: {}"}


def test_a_plan_names_no_file_outside_of_its_folder(make: Any, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/plan.json").write_text(
        json.dumps({"files": ["../outside", "plan.json", str(tmp_path / "outside")]})
    )
    bundle.write(make(), tmp_path / "plan")
    assert (tmp_path / "outside").read_text() == "mine"


def test_scripts_run_and_are_shell(make: Any, tmp_path: Path) -> None:
    bundle.write(make("tensor"), tmp_path / "plan")
    for name in ("vllm.sh", "tgi.sh", "load-test.sh"):
        path = tmp_path / "plan" / name
        assert os.access(path, os.X_OK)
        subprocess.run(["sh", "-n", str(path)], check=True)


def test_a_folder_with_something_else_stays(make: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="holds something else"):
        bundle.write(make(), tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        bundle.write(make(), tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "mine"]


def test_a_failure_half_way_leaves_the_old_plan(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write(make(), tmp_path / "plan")
    before, real = files(tmp_path / "plan"), os.replace

    def failing(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "plan/recommendation.md" and "old" not in Path(source).parts:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StorageError, match="No space left"):
        bundle.write(make("tensor"), tmp_path / "plan")
    assert files(tmp_path / "plan") == before and os.listdir(tmp_path) == ["plan"]


def test_what_is_left_out_is_said(make: Any) -> None:
    texts = bundle.texts(make("two nodes"))
    missing = FILES - set(texts)
    assert missing == {
        "compose.yaml", "helm/values.yaml", "kserve/llm-inference-service.yaml", "kubernetes/adapter-values.yaml",
        "kubernetes/hpa.yaml", "kubernetes/keda.yaml", "tgi.sh",
    }  # fmt: skip
    assert all(f"- `{name}`: " in texts["recommendation.md"] for name in missing)


def test_an_agent_on_cpus(agent: Any) -> None:
    texts = bundle.texts(agent)
    deployment = next(yaml.safe_load_all(texts["kubernetes/serving.yaml"]))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] + container["args"][:2] == ["forge", "serve", "/models/adas"]
    assert container["resources"] == {"requests": {"cpu": "3", "memory": "6Gi"}}
    assert (container["image"], container["imagePullPolicy"]) == (FORGE_IMAGE, "IfNotPresent")
    assert f"`docker build --tag {FORGE_IMAGE} .`" in texts["recommendation.md"]
    dockerfile = Path(__file__).parents[3] / "Dockerfile"
    assert f"docker build --tag {FORGE_IMAGE} ." in dockerfile.read_text()
    assert "put the checkpoint checkpoints/laptop/adas at /models/adas" in texts["recommendation.md"].lower()


def test_json_is_json_and_yaml_is_the_objects(make: Any) -> None:
    texts = bundle.texts(make("tensor"))
    plan = json.loads(texts["plan.json"])
    assert plan["candidate"]["serving"]["tp"] == 2 and plan["timing"]["slots"] > 0
    assert "&id" not in "".join(texts.values())
    for name, text in texts.items():
        if name.endswith(".yaml"):
            assert all(isinstance(one, dict) for one in yaml.safe_load_all(text))


def test_words_have_the_plans_figures(make: Any) -> None:
    words = bundle.texts(make("tensor"))["recommendation.md"]
    for part in ("2 replicas of 2 × h100-sxm", "55.04 USD an hour", "| TTFT, mean | 110 ms | 88 – 138 ms | fitted |"):
        assert part in words
    assert "With those of the 95th percentile, TTFT p95 is 200 ms, which an objective is compared with" in words
    assert "No step can be quicker than 11 ms" in words and "- a note" in words


def test_every_file_is_told_with_what_it_is_for(make: Any) -> None:
    texts = bundle.texts(make("tensor"))
    files = texts["recommendation.md"].partition("## Files")[2]
    assert all(f"- `{name}`: " in files for name in FILES - {"recommendation.md"})
    assert "instead of `keda.yaml`, never with it" in files and "at most 4 replicas, 2 times the plan's" in files
    for one, other in (("hpa", "keda"), ("keda", "hpa")):
        assert texts[f"kubernetes/{one}.yaml"].startswith(f"# Apply this file or {other}.yaml, not both")
    assert texts["kubernetes/adapter-values.yaml"].startswith("# Helm values, not a manifest")
    short = bundle.texts(make("two nodes"))["recommendation.md"].partition("## Files")[2]
    assert "hpa.yaml" not in short and "autoscaler:" not in short


def test_small_things_are_not_said_to_be_nothing(make: Any) -> None:
    estimate = make().estimate
    memory = replace(estimate.memory, weights=2 * 2**20, activation=0.0)
    words = bundle.texts(make(estimate=replace(estimate, memory=memory)))["recommendation.md"]
    assert "| weights | 2 MiB |" in words and "| activation |" not in words


def test_large_figures_have_no_exponents(make: Any) -> None:
    words = bundle.texts(make(load=Load(512, 64, rate=2000.0), ttft_p95=711.375))["recommendation.md"]
    assert "under 2,000 requests/s" in words and "TTFT p95 is 711 s" in words


def test_nothing_chosen(make: Any) -> None:
    with pytest.raises(InputError, match="nothing to deploy"):
        bundle.texts(Recommendation(None, None, None, (), (), ()))  # type: ignore[arg-type]


def test_autoscalers_follow_the_planned_requests_in_flight(make: Any) -> None:
    plan = make_plan(make("tensor"))
    hpa, keda = horizontal_autoscaler(plan)["spec"], scaled_object(plan)["spec"]
    pods = hpa["metrics"][0]["pods"]
    rule = adapter_rule(plan)["rules"]["custom"][0]
    assert pods["metric"]["name"] == rule["name"]["as"]
    assert pods["target"]["averageValue"] == keda["triggers"][0]["metadata"]["threshold"] == "16"
    assert hpa["scaleTargetRef"] == keda["scaleTargetRef"]
    # KEDA's cooldownPeriod is for the way to zero alone: both wait as long by the HPA's own setting.
    behavior = keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == hpa["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 600}}
    assert "cooldownPeriod" not in keda
    open_loop = make_plan(make(load=Load(512, 64, rate=1.5)))
    assert horizontal_autoscaler(open_loop)["spec"]["metrics"][0]["pods"]["target"]["averageValue"] == "15"
    assert query(plan) == (
        'sum(vllm:num_requests_running{service="qwen-qwen3-32b",model_name="Qwen/Qwen3-32B"})'
        ' + sum(vllm:num_requests_waiting{service="qwen-qwen3-32b",model_name="Qwen/Qwen3-32B"})'
    )
    of_tgi = query(make_plan(make("tgi")))  # whose figures have no model's name
    assert of_tgi == (
        'sum(tgi_batch_current_size{service="qwen-qwen3-32b"}) + sum(tgi_queue_size{service="qwen-qwen3-32b"})'
    )


METRICS = {
    "vllm": """vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc
        vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total vllm:prompt_tokens_total
        vllm:generation_tokens_total vllm:time_to_first_token_seconds_bucket
        vllm:request_time_per_output_token_seconds_bucket vllm:e2e_request_latency_seconds_bucket
        vllm:request_queue_time_seconds_bucket""",
    "tgi": """tgi_batch_current_size tgi_queue_size tgi_request_generated_tokens_sum tgi_request_duration_bucket
        tgi_request_queue_duration_bucket tgi_request_mean_time_per_token_duration_bucket""",
}
"""As vLLM's V1 engine (vllm/v1/metrics/loggers.py) and TGI's docs/source/reference/metrics.md have them."""


def test_dashboard_queries_the_engines_metrics(plan: Plan) -> None:
    made = dashboard(plan)
    ids = [panel["id"] for panel in made["panels"]]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in made["panels"]]
    assert len(set(ids)) == len(ids) and len(set(places)) == len(places)
    queries = [target["expr"] for panel in made["panels"] for target in panel["targets"]]
    chosen = 'namespace=~"$namespace",service=~"$service"'
    model = f',model_name="{plan.served_name}"' if plan.runtime == "vllm" else ""
    asked = [match for text in queries for match in re.findall(r"([a-z_:0-9]+)(\{.*?\})", text)]
    assert {name for name, _ in asked} == set(METRICS[plan.runtime].split())
    assert {selector for _, selector in asked} == {f"{{{chosen}{model}}}"}
    assert all(text.count("(") == text.count(")") and "@" not in text for text in queries)
    variables = {one["name"]: one["current"]["value"] for one in made["templating"]["list"][1:]}
    assert variables == {"namespace": "$__all", "service": plan.name}


@pytest.mark.parametrize("cached", [0.0, 0.5])
def test_what_was_not_planned_is_no_red_line(make: Any, cached: float) -> None:
    candidate = make()
    plan = make_plan(replace(candidate, serving=replace(candidate.serving, prefix_cached=cached)))
    panel = next(one for one in dashboard(plan)["panels"] if "prefix cache" in one["title"])
    defaults = panel["fieldConfig"]["defaults"]
    assert [one["value"] for one in defaults["thresholds"]["steps"]] == ([None, cached] if cached else [None])
    assert defaults["custom"]["thresholdsStyle"]["mode"] == ("line" if cached else "off")
    assert panel["description"].startswith("Red: planned" if cached else "The plan counts on none")


def test_the_simulators_page_has_what_the_dashboard_asks_for() -> None:
    page = Fleet(TIMING, "m", 20).page()
    served = set(re.findall(r"^(vllm:\w+)\{", page, re.MULTILINE))
    missing = set(METRICS["vllm"].split()) - served
    assert missing == {"vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"}


def test_compose_gives_each_replica_its_own_accelerators(make: Any) -> None:
    made = compose(make_plan(replace(make("tensor"), replicas=3)))["services"]
    devices = [one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for one in made.values()]
    assert devices == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert [one["ports"] for one in made.values()] == [["8000:8000"], ["8001:8000"], ["8002:8000"]]
