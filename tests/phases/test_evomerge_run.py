"""The phase end to end on a tiny family: what it writes, that it resumes, what bad input gets."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from phases.checkpoint import Manifest, open_checkpoint, save_checkpoint
from phases.errors import CheckpointError, MergeError
from phases.evomerge.build import build_model
from phases.evomerge.config import EvomergeConfig
from phases.evomerge.fitness import Job, Setting, probe_of, score_job
from phases.evomerge.genome import Genome, baselines, single_parent
from phases.evomerge.parents import load_parents
from phases.evomerge.report import read_report
from phases.evomerge.run import PHASE, choose_parents, run
from phases.probe import build_probe, mean_score

SMALL = EvomergeConfig(
    population=6,
    generations=3,
    searches=2,
    validation_items=10,
    validation_blocks=4,
    finalists=2,
    final_items=20,
    final_blocks=6,
)


@pytest.fixture
def folders(tiny_model, tiny_data, tmp_path):
    """A trunk and three models near it, as checkpoints."""
    checkpoints = []
    for seed, name in enumerate(["trunk", "one", "two", "three"]):
        torch.manual_seed(seed)
        model = copy.deepcopy(tiny_model)
        for parameter in model.parameters():
            parameter.data += (0.1 if seed else 0) * torch.randn_like(parameter)
        path = tmp_path / "parents" / name
        checkpoints.append(save_checkpoint(path, model, tiny_data.tokenizer, Manifest("test")))
    return checkpoints


def test_the_winner_is_written_with_its_search(folders, tiny_data, tmp_path):
    curves = []
    made = run(folders, SMALL, tmp_path / "out", data=tiny_data, metrics=lambda step, v: curves.append((step, v)))
    found = read_report(made.path)
    assert list(found.controls) == [*found.names, "uniform soup"]
    assert found.winner.fitness >= max(control.fitness for control in found.controls.values())
    assert found.winner.fitness == max(seed.evolution.fitness for seed in found.seeds)
    assert made.manifest["parents"] == [c.digest for c in folders]
    lines = (made.path / "lineage.jsonl").read_text().splitlines()
    finals = len(found.controls) + 2 * 2 * SMALL.finalists
    assert len(lines) == sum(2 * seed.evaluations for seed in found.seeds) + finals
    assert {json.loads(line)["search"] for line in lines} == {"evolution", "random", "finals"}
    assert curves[0][0] == 0
    assert set(curves[0][1]) >= {"evolution/seed0/best", "evolution/seed0/mean", "evolution/seed0/best_adaptive"}


def test_the_written_model_is_the_genome_s_and_scores_what_the_report_says(folders, tiny_data, tmp_path):
    made = run(folders, SMALL, tmp_path / "out", data=tiny_data)
    winner = read_report(made.path).winner
    parents = load_parents([c.path for c in folders], ["trunk", "one", "two", "three"])
    rebuilt = dict(build_model(winner.genome, parents).named_parameters())
    assert all(torch.equal(p, rebuilt[name]) for name, p in made.model().named_parameters())
    probe = build_probe(tiny_data, "validation", SMALL.final_items, SMALL.final_blocks)
    assert mean_score(probe.score(made.model())) == pytest.approx(winner.fitness, abs=1e-12)


def test_equal_seeds_give_equal_digests_and_a_crash_changes_nothing(folders, tiny_data, tmp_path):
    calls = iter(range(4))

    def dying(function, jobs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return [function(job) for job in jobs]

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(folders, SMALL, out, data=tiny_data, pool=dying)
    assert not out.exists()
    [torn, *_] = sorted((tmp_path / "out.work").glob("*.jsonl"))
    torn.write_bytes(torn.read_bytes()[:-7])
    resumed = run(folders, SMALL, out, data=tiny_data)
    shutil.rmtree(tmp_path / "out.work")
    shutil.move(out, tmp_path / "first")
    again = run(folders, SMALL, out, data=tiny_data)
    assert again.digest == resumed.digest


def test_the_recipe_points_at_the_parents(folders, tiny_data, tmp_path):
    config = SMALL.model_copy(update={"methods": ("linear",)})
    made = run(folders, config, tmp_path / "out", data=tiny_data)
    text = (made.path / "mergekit.yaml").read_text()
    assert text.startswith("# Run in this folder: mergekit-yaml mergekit.yaml OUT\n# ../parents/trunk: ")
    for model in yaml.safe_load(text)["models"]:
        open_checkpoint(made.path / model["model"])


@pytest.mark.slow
def test_mergekit_yaml_reruns_the_written_recipe(folders, tiny_data, tmp_path):
    made = run(folders, SMALL.model_copy(update={"methods": ("linear",)}), tmp_path / "out", data=tiny_data)
    program = shutil.which("mergekit-yaml", path=str(sys.executable).rpartition("/")[0])
    command = [program, "mergekit.yaml", str(tmp_path / "again"), "--quiet"]
    subprocess.run(command, cwd=made.path, check=True, capture_output=True)
    theirs, ours = (load_file(path / "model.safetensors") for path in (tmp_path / "again", made.path))
    assert theirs.keys() == ours.keys()
    assert all((theirs[n] - ours[n]).abs().max() <= 1e-6 * ours[n].abs().max() for n in ours)


def test_a_job_travels_as_plain_text_and_scores_in_order(folders, tiny_data):
    setting = Setting(
        paths=tuple(str(c.path) for c in folders),
        names=("trunk", "one", "two", "three"),
        digests=tuple(c.digest for c in folders),
        data=str(tiny_data.path),
        data_digest=tiny_data.digest,
        split="validation",
        items=10,
        blocks=4,
    )
    scores = score_job(Job(setting, single_parent(2, 3).key))
    direct = probe_of(setting).score(folders[2].model())
    assert scores == {name: float(values.mean()) for name, values in direct.items()}


def test_one_checkpoint_brings_its_siblings_but_not_its_control(folders, tmp_path):
    root = folders[0].path
    for name, source in zip(["reasoning", "memory", "adaptive"], folders[1:], strict=True):
        shutil.copytree(source.path, root / "siblings" / name)
    shutil.copytree(folders[1].path, root / "siblings" / "control")
    chosen = choose_parents([folders[0]])
    assert list(chosen) == ["trunk", "reasoning", "memory", "adaptive"]
    assert [c.path.name for c in chosen.values()] == ["trunk", "reasoning", "memory", "adaptive"]


def test_too_few_parents_and_missing_reports_are_explained(folders, tmp_path):
    for parents in ([], folders[:1], folders[:2]):
        with pytest.raises(MergeError, match="a trunk and at least two models"):
            choose_parents(parents)
    with pytest.raises(CheckpointError, match="search.json: missing"):
        read_report(folders[0].path)


def test_the_key_changes_with_the_config(folders, tiny_data):
    key = PHASE.key(folders, SMALL, tiny_data)
    assert key != PHASE.key(folders, SMALL.model_copy(update={"sigma": 0.2}), tiny_data)
    assert key == PHASE.key(folders, SMALL.model_copy(update={"on_fail": "retry"}), tiny_data)


def test_controls_can_be_built_again_from_the_report(folders, tiny_data, tmp_path):
    found = read_report(run(folders, SMALL, tmp_path / "out", data=tiny_data).path)
    assert [c.genome for c in found.controls.values()] == list(baselines(found.names).values())
    assert all(isinstance(s.random.genome, Genome) for s in found.seeds)
