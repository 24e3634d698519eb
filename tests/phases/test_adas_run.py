"""The phase as a whole, on a model that can do next to nothing: what it writes, and that a kill changes no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from phases.adas import exploring, scoring
from phases.adas.archive import Record
from phases.adas.bundle import write_agent
from phases.adas.config import AdasConfig
from phases.adas.genome import PARENT, Genome
from phases.adas.report import ARCHIVE, CONTROL, read_report
from phases.adas.run import PHASE, run
from phases.agent.design import Design
from phases.agent.library import read_library
from phases.agent.minds import Minds
from phases.agent.settings import SETTINGS, AgentSettings, read_settings
from phases.baking.bundle import add_files
from phases.baking.config import CONVERSATIONS, BakingConfig
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.storage import read_lattices
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError
from phases.json_lines import read_lines

BAKED = BakingConfig.parse(
    {
        "scenarios": {"train": {"python": 4, "memory": 4, "persona": 4}, "held_out": 2, "distractors": [0]},
        "tools": {"names": ["python", "remember", "recall"], "limits": {"new_tokens": 6}},
    },
    "test",
)
SMALL = {
    "lessons": 3,
    "library": 2,
    "experts": {"training": {"steps": 2, "batch_rows": 2, "precision": "fp32"}, "row_tokens": 640},
    "composition": {"iterations": 1, "population": 2, "trials": 1},
    "search": {"iterations": 3, "population": 2, "singles": 2, "rungs": [1, 2], "max_techniques": 2},
    "finalists": 1,
    "final_units": 2,
}


@pytest.fixture(scope="module")
def parent(
    make_model: Callable[..., Any], write_ternary: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """An agent as baking writes one, which was taught nothing."""
    folder = tmp_path_factory.mktemp("parent")
    quantised = Quantised(make_model("llama", max_position_embeddings=1024), Quantisation(group=16))
    plain = write_ternary(quantised, folder / "plain")
    settings = AgentSettings(tools=BAKED.tools.names, limits=BAKED.tools.limits, context_tokens=256)
    texts = {SETTINGS: settings.model_dump_json(), CONVERSATIONS: BAKED.model_dump_json()}
    return add_files(plain, folder / "agent", "baking", texts, {})


@pytest.fixture(scope="module")
def whole(parent: Checkpoint, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The result of a run that nothing happens to."""
    torch.set_num_threads(1)
    return run([parent], AdasConfig.parse(SMALL, "test"), tmp_path_factory.mktemp("whole") / "adas", data=tiny_data)


def test_the_agent_is_whole(whole: Checkpoint, parent: Checkpoint) -> None:
    assert whole.manifest["phase"] == "adas" and set(whole.siblings) == {"packed"}
    read_lattices(whole.path)
    AutoModelForCausalLM.from_pretrained(whole.path)
    found, settings = read_report(whole.path), read_settings(whole.path)
    assert settings.tools == ("python", "remember", "recall")
    assert settings.model_copy(update={"design": Design()}) == read_settings(parent.path)
    assert {example.domain for example in read_library(whole.path).examples} == set(found.experts)
    assert set(found.experts) == {"reasoning", "recall", "python", "facts", "persona"}
    assert (whole.path / "experts.safetensors").is_file() and (whole.path / "task_vectors.safetensors").is_file()
    assert not (whole.path.parent / "adas.work").exists()


def test_every_design_is_in_the_archive(whole: Checkpoint) -> None:
    found = read_report(whole.path)
    for name, searched in ((ARCHIVE, found.evolution), (CONTROL, found.control)):
        records = read_lines(whole.path / name, Record.model_validate)
        assert records[0].genome == PARENT and records[0].scores.work == 1
        assert len({record.id for record in records}) == searched.candidates
    assert found.control.units >= found.evolution.units
    assert {record.iteration for record in read_lines(whole.path / ARCHIVE, Record.model_validate)} >= {0, 1, 2}
    assert found.winner.fitness >= found.parent.fitness and found.winner.work <= AdasConfig().search.budget
    assert any(name.startswith("thoughts of") for name in found.left_out)  # this model has none


@pytest.mark.parametrize("calls", [3, 9])
def test_killed_in_the_search_it_ends_in_the_same_bits(
    parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, whole: Checkpoint, monkeypatch: Any, calls: int
) -> None:
    class Killed(Exception):
        pass

    played: list[str] = []
    real = scoring.score_job

    def score(job: Any) -> Any:
        if len(played) == calls:
            raise Killed
        played.append(job.genome)
        return real(job)

    config = AdasConfig.parse(SMALL, "test")
    monkeypatch.setattr("phases.adas.finals.score_job", score)
    with pytest.raises(Killed):
        run([parent], config, tmp_path / "adas", data=tiny_data)
    before = (tmp_path / "adas.work" / ARCHIVE).read_bytes()
    monkeypatch.undo()
    again = run([parent], config, tmp_path / "adas", data=tiny_data)
    assert (again.path / ARCHIVE).read_bytes().startswith(before) and before
    assert again.family_digest == whole.family_digest


def test_a_mixture_is_folded_into_the_weights_and_dispatch_is_not(
    parent: Checkpoint, tiny_data: Dataset, whole: Checkpoint, tmp_path: Path, monkeypatch: Any
) -> None:
    config, found = AdasConfig.parse(SMALL, "test"), read_report(whole.path)
    made = {}
    for name in ("uniform experts", "expert by classifier"):
        work = tmp_path / name
        (work / "experts").mkdir(parents=True)
        for file in ("experts.safetensors", "experts.json", "task_vectors.safetensors"):
            (work / "experts" / file).write_bytes((whole.path / file).read_bytes())
        for file in (ARCHIVE, CONTROL, "adas.json", "library.json"):
            (work / file).write_bytes((whole.path / file).read_bytes())
        chosen = found.winner.model_copy(update={"genome": Genome(techniques=(name,))})
        winner = found.model_copy(update={"winner": chosen})
        made[name] = write_agent(parent, tiny_data, config, winner, work, work / "out")
    weights = {name: agent.tensors() for name, agent in made.items()}
    same = {name: all(torch.equal(w, own[k]) for k, w in parent.tensors().items()) for name, own in weights.items()}
    assert same == {"uniform experts": False, "expert by classifier": True}
    designs = {name: read_settings(agent.path).design.mixture for name, agent in made.items()}
    assert designs["uniform experts"] == Design().mixture and designs["expert by classifier"].dispatch == "classifier"
    for agent in made.values():
        read_lattices(agent.path)
        Minds(agent).model(read_settings(agent.path).design)  # vectors of the parent's weights do not stand in the way


def test_a_model_that_is_no_agent_has_questions_only(
    make_model: Callable[..., Any], tiny_data: Dataset, tmp_path: Path
) -> None:
    plain = save_checkpoint(tmp_path / "p", make_model("qwen3"), tiny_data.tokenizer, Manifest("own"))
    made = run([plain], AdasConfig.parse(SMALL, "test"), tmp_path / "adas", data=tiny_data)
    found = read_report(made.path)
    assert set(found.experts) == {"reasoning", "recall"} and not made.siblings
    assert "copied arguments" in found.left_out and read_settings(made.path).tools == ()


def test_bad_parents_are_refused(parent: Checkpoint, whole: Checkpoint, tiny_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 inputs given; give one"):
        run([parent, parent], AdasConfig(), tmp_path / "a", data=tiny_data)
    with pytest.raises(CheckpointError, match="packed, which adas cannot train"):
        run([whole.siblings["packed"]], AdasConfig(), tmp_path / "a", data=tiny_data)
    assert PHASE.name == "adas" and exploring.UNIFORM in {"uniform experts"}
