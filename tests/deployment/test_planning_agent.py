"""A forge's agent as the model: what its report says, on CPUs by its measurement, on accelerators by the physics."""

import json

import pytest

from deployment.planning.catalogue import catalogue
from deployment.planning.own_agent import own_agent
from deployment.planning.recommend import recommend
from deployment.planning.request import Request
from phases.errors import InputError

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 352,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 2048,
    "max_position_embeddings": 1024, "tie_word_embeddings": True, "dtype": "float32",
}  # fmt: skip
AGENT = {
    "path": "checkpoints/tiny/adas", "bytes_on_disk": 800_000, "parameters": 1_000_576, "ratio_vs_fp32": 5.0,
    "retention": 0.97, "latency_ms_per_token_p50": 5.0, "prompt_ms_per_token_p50": 2.0, "peak_rss_bytes": 900 * 2**20,
}  # fmt: skip
SHORT = {
    "use_case": "extraction", "traffic": {"rate": 2.0}, "prompt": {"mean": 80, "p95": 100},
    "output": {"mean": 20, "p95": 40}, "context": 512, "slo": {"ttft_p95_ms": 2000},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run's folder with a report, as `evaluation/report.py` writes it."""
    (tmp_path / "adas").mkdir()
    (tmp_path / "adas" / "config.json").write_text(json.dumps(CONFIG))
    write(tmp_path, AGENT)
    return tmp_path


def write(folder, agent, machine=None):
    machine = machine or {"cpu": "AMD EPYC", "cores": 2, "gpu": "none"}
    (folder / "report.json").write_text(json.dumps({"run": "tiny", "machine": machine, "agent": agent}))


def test_what_the_report_says(run):
    agent = own_agent(run)
    assert agent.model.parameters == pytest.approx(1_000_576, rel=0.01)
    assert [(q.benchmark, q.score) for q in agent.model.quality] == [("retention", pytest.approx(97.0))]
    assert (agent.measured.seconds_per_token, agent.measured.seconds_per_prompt_token) == (0.005, 0.002)
    assert agent.measured.machine == "AMD EPYC, 2 cores"
    assert own_agent(run / "report.json").model == agent.model


def test_on_cpus_by_the_measurement(run):
    """4 requests a second of 80 tokens read at 2 ms and 20 written at 5 ms are 1.04 s of work a second."""
    request = Request.parse({**SHORT, "traffic": {"rate": 4.0}, "accelerators": ["cpu"], "rank": "cost"}, "request")
    agent = own_agent(run)
    answer = recommend(request, catalogue(request, agent))
    chosen = answer.chosen
    assert chosen.accelerator is None and chosen.serving.engine == "forge"
    assert chosen.replicas >= 2
    assert chosen.tpot_p95 == 0.005
    assert chosen.estimate.tpot.provenance == "measured"
    assert any("measured on AMD EPYC" in note for note in chosen.notes)
    room = min(chosen.offer.vcpus // 2, chosen.offer.memory_bytes // AGENT["peak_rss_bytes"])
    assert chosen.instances == -(-chosen.replicas // room)
    assert answer.benchmark == "retention"
    assert chosen.cost_per_hour == min(c.cost_per_hour for c in (chosen, *answer.alternatives))


def test_on_accelerators_by_the_physics(run):
    request = Request.parse({**SHORT, "accelerators": ["l4", "cpu"]}, "request")
    answer = recommend(request, catalogue(request, own_agent(run)))
    assert {c.accelerator.name if c.accelerator else "cpu" for c in answer.candidates} == {"l4", "cpu"}


def test_cpus_too_slow_for_the_objective_say_by_how_much(run):
    request = Request.parse({**SHORT, "accelerators": ["cpu"], "slo": {"tpot_p95_ms": 2}}, "request")
    answer = recommend(request, catalogue(request, own_agent(run)))
    (failed,) = answer.rejections
    assert (failed.constraint, failed.value, failed.limit) == ("tpot", 0.005, 0.002)


def test_a_context_beyond_the_agents_is_refused_everywhere(run):
    request = Request.parse({**SHORT, "context": 2048}, "request")
    answer = recommend(request, catalogue(request, own_agent(run)))
    assert [r.constraint for r in answer.rejections] == ["context"]


def test_without_a_latency_there_is_no_guess(run):
    write(run, AGENT | {"latency_ms_per_token_p50": None})
    request = Request.parse({**SHORT, "accelerators": ["cpu"]}, "request")
    answer = recommend(request, catalogue(request, own_agent(run)))
    assert answer.chosen is None
    assert [(r.constraint, r.value) for r in answer.rejections] == [("physics", "not measured")]


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (None, "no agent"),
        (AGENT | {"bytes_on_disk": -1}, "bytes_on_disk"),
        (AGENT | {"retention": "high"}, "retention"),
    ],
)
def test_a_broken_report_is_named(run, agent, said):
    write(run, agent)
    with pytest.raises(InputError, match=said):
        own_agent(run)


def test_no_report_no_config_no_json(run, tmp_path):
    with pytest.raises(InputError, match=r"report\.json: no such file"):
        own_agent(tmp_path / "adas")
    (run / "report.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        own_agent(run)
    write(run, AGENT)
    (run / "adas" / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        own_agent(run)
