"""Every phase, and every strategy of distillation, on a stand-in for a GPU: nothing meets across devices."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.compression import press
from phases.compression.config import CompressionConfig
from phases.dataset import Dataset
from phases.evomerge import fitness
from phases.evomerge.genome import single_parent
from phases.training import processes
from tests.stand_in import Accelerator, stand_in

ROOT = Path(__file__).parents[2]
TRAINED = (
    "phases/test_cognate.py::test_the_family_is_complete_and_loads_plainly",
    "phases/test_evomerge_run.py::test_the_winner_is_written_with_its_search",
    "phases/test_quiet_star_run.py::test_what_is_written",
    "phases/test_bitnet_run.py::test_what_is_written",
    "phases/test_forge_run.py::test_everything_fires_and_is_written",
    "phases/test_baking_run.py::test_the_agent_is_plain_ternary_and_whole",
    "phases/test_adas_run.py::test_the_agent_is_whole",
    "phases/test_compression_run.py::test_each_codec_alone",
    "distillation/test_cache_write.py",
    "distillation/test_teachers_local.py",
    "distillation/test_training_strategies.py",
    "distillation/test_training_distil.py",
)
MIXED: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "sum": lambda there, here: there + here,
    "product": lambda there, here: there @ here,
    "cat": lambda there, here: torch.cat([there, here]),
    "index there": lambda there, here: here[torch.zeros(2, dtype=torch.int64, device="cuda")],
    "number there": lambda there, here: here * there.sum(),
    "stacked numbers": lambda there, here: torch.stack([there.sum(), here.sum()]),
    "values": lambda there, here: there.index_put((torch.zeros(4, dtype=torch.int64),), here),
    "added to a number here": lambda there, here: torch.zeros(()).add_(there.sum()),
    "two numbers here": lambda there, here: torch.addcmul(there, torch.tensor(1.0), torch.tensor(2.0)),
    "noise": lambda there, here: there.normal_(generator=torch.Generator()),
    "draws": lambda there, here: torch.multinomial(there, 1, generator=torch.Generator()),
    "numpy": lambda there, here: there.numpy(),
    "generator": lambda there, here: torch.rand(2, device=there.device, generator=torch.Generator()),
}
FINE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "moved": lambda there, here: there + here.to("cuda"),
    "like": lambda there, here: torch.arange(4, device=there.device) + there,
    "number here": lambda there, here: there * torch.tensor(2.0),
    "index here": lambda there, here: there[torch.zeros(2, dtype=torch.int64)],
    "filled": lambda there, here: there.masked_fill(there > 0, torch.tensor(1.0)),
    "copied": lambda there, here: there.copy_(here),
    "taken over": lambda there, here: torch.as_tensor(here, device="cuda") + there,
    "a number put": lambda there, here: there.index_put((torch.zeros(4, dtype=torch.int64),), torch.tensor(1.0)),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(processes, "group", Accelerator)
    with stand_in():
        yield


@pytest.fixture
def checkpoint(tiny_model: LlamaForCausalLM, tiny_data: Dataset, tmp_path: Path) -> Checkpoint:
    return save_checkpoint(tmp_path / "model", tiny_model, tiny_data.tokenizer, Manifest("test"))


@pytest.mark.parametrize("name", MIXED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    with stand_in(), pytest.raises((RuntimeError, TypeError), match="two devices|numpy|generator"):
        MIXED[name](torch.ones(4, 4, device="cuda"), torch.ones(4, 4))


@pytest.mark.parametrize("name", FINE)
def test_what_a_gpu_does_is_done(name: str) -> None:
    with stand_in():
        found = FINE[name](torch.ones(4, 4).cuda(), torch.ones(4, 4))
        assert found.is_cuda and found.device.type == "cuda" and found.cpu().device.type == "cpu"


def test_a_model_trains_there_as_here() -> None:
    def step(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        model, x = nn.Linear(3, 2).to(device), torch.randn(5, 3)
        model(x.to(device)).square().sum().backward()
        assert model.weight.grad is not None and model.weight.grad.device.type == device
        return model.weight.grad.cpu()

    here = step("cpu")
    with stand_in():
        assert torch.equal(step("cuda"), here)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("threads", "there"), [(0, 1.0), (1, 0.0)], ids=["in this process", "in one of several"])
def test_candidates_are_scored_there(
    threads: int, there: float, tiny_model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "parents_of", lambda *_: None)
    monkeypatch.setattr(fitness, "build_model", lambda *_: tiny_model)
    probe = SimpleNamespace(score=lambda model: {"there": [float(model.lm_head.weight.is_cuda)]})
    monkeypatch.setattr(fitness, "probe_of", lambda _: probe)
    setting = fitness.Setting((), (), (), "", "", "validation", 1, 1, threads)
    assert fitness.score_job(fitness.Job(setting, single_parent(0, 1).key)) == {"there": there}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("device", "there"), [("auto", "cuda"), ("cpu", "cpu")])
def test_a_local_teacher_answers_there(device: Any, there: str, checkpoint: Checkpoint) -> None:
    teacher = LocalTeacher(LocalTeacherConfig(checkpoint=checkpoint.path, licence="own", device=device))
    assert teacher.model.device.type == there


@pytest.mark.usefixtures("gpu")
def test_options_of_compression_are_measured_there(
    checkpoint: Checkpoint, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class MeasuredError(Exception):
        """Enough has been seen."""

    def measure(model: Any, *_: Any) -> None:
        seen.append(model.device.type)
        raise MeasuredError

    monkeypatch.setattr(press, "measure_options", measure)
    with pytest.raises(MeasuredError):
        press.Press(checkpoint, tiny_data, CompressionConfig(), tmp_path, lambda *_: None).staging()
    assert seen == ["cuda"]


@pytest.mark.slow
@pytest.mark.parametrize("test", TRAINED)
def test_it_trains_on_one_device(test: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.stand_in", "--no-header", "--tb=short", f"tests/{test}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
