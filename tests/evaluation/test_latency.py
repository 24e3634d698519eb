"""Cost of a checkpoint: measured in another process, sizes from the files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evaluation.expert_size import expert_bytes
from evaluation.latency import count_parameters, describe_agent, measure_latency, peak_rss_bytes
from evaluation.machine import describe_machine
from phases.agent.design import Design, Mixture
from phases.agent.settings import AgentSettings
from phases.checkpoint import Checkpoint, open_checkpoint
from phases.errors import InputError
from phases.quiet_star.storage import HEAD


@pytest.mark.slow
def test_a_fresh_process_measures(family: Checkpoint) -> None:
    """About 8 s: torch and transformers are imported once more."""
    latency = measure_latency(family.path, tokens=8, repeats=5)
    assert 0 < latency.ms_per_token_p50 < 1000
    assert 50e6 < latency.peak_rss_bytes < 8e9
    agent = describe_agent(family, latency)
    assert agent.latency_ms_per_token_p50 == latency.ms_per_token_p50


@pytest.mark.slow
def test_a_broken_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="latency could not be measured") as caught:
        measure_latency(tmp_path)
    assert "\n" not in str(caught.value)


def test_parameters_are_counted_from_the_file(family: Checkpoint) -> None:
    count, size = count_parameters(family.path)
    assert count == sum(p.numel() for p in family.model().parameters())
    assert size == (family.path / "model.safetensors").stat().st_size


def test_float32_weights_have_a_ratio_just_below_one(family: Checkpoint) -> None:
    agent = describe_agent(family, None)
    assert 0.9 < agent.ratio_vs_fp32 < 1 and agent.retention is None
    assert agent.peak_rss_bytes is None and agent.bytes_on_disk == family.bytes_on_disk


def test_experts_count_as_weights(family: Checkpoint, tmp_path: Path) -> None:
    """Those of its kind and the latent weights; nothing for a design that has its mixture in the weights."""
    sizes = {"experts.safetensors": 100, "task_vectors.safetensors": 7000, "latent.safetensors": 900}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert expert_bytes(tmp_path) == 0  # no agent
    (tmp_path / "agent.json").write_text(AgentSettings().model_dump_json())
    assert expert_bytes(tmp_path) == 0
    chosen = Design(mixture=Mixture(kind="task", dispatch="classifier"))
    (tmp_path / "agent.json").write_text(AgentSettings(design=chosen).model_dump_json())
    assert expert_bytes(tmp_path) == 7900
    without, with_experts = describe_agent(family, None), describe_agent(family, None, experts=7900)
    weights = (family.path / "model.safetensors").stat().st_size
    assert with_experts.ratio_vs_fp32 == pytest.approx(without.ratio_vs_fp32 * weights / (weights + 7900))


def test_a_mixing_head_counts_as_weights_on_both_sides(family: Checkpoint, tmp_path: Path) -> None:
    path = shutil.copytree(family.path, tmp_path / "thinks")
    save_file({"mlp.0.weight": torch.zeros(50, 1000, dtype=torch.float16)}, path / HEAD)
    plain, thinking = describe_agent(family, None), describe_agent(open_checkpoint(path), None)
    assert thinking.parameters == plain.parameters + 50_000
    size = (path / "model.safetensors").stat().st_size + (path / HEAD).stat().st_size
    assert thinking.ratio_vs_fp32 == pytest.approx(4 * thinking.parameters / size)


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        count_parameters(tmp_path)


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cpu"] and int(machine["cores"] or 0) >= 1 and float(machine["memory_gib"] or 0) > 0
    assert 0.1 < float(machine["matmul_gflop_s"] or 0) < 1e5


def test_peak_memory_is_the_processes_own_and_not_that_of_the_one_that_started_it() -> None:
    large = bytearray(600_000_000)
    program = "from evaluation.latency import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 10e6 < int(done.stdout) < 500e6 < len(large)
    assert peak_rss_bytes() > 600e6
