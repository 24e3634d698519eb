"""Experts from learning to the model that is chatted with, on tiny models that learn next to nothing."""

import json
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phases.adas.composition import CompositionConfig, Tried, compose
from phases.adas.learning import ExpertsConfig, domain_losses, learn_experts
from phases.adas.vectors import read_index, record_found
from phases.agent.design import Mixture
from phases.agent.experts import EXPERTS, EXPERTS_INDEX, KEPT, TASK_VECTORS, Experts, has_experts
from phases.baking.rows import Encoded
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.bitnet.lattice import nearest_ternary, ternary
from phases.bitnet.storage import open_latent
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint, Manifest, open_checkpoint, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError, ConfigError
from phases.evomerge.ties import ties
from phases.json_lines import read_lines

GROUP = 16
NAMES = ("python", "facts", "small_talk")
STEP = {"steps": 3, "batch_rows": 2, "precision": "fp32", "optimizer": "adamw", "learning_rate": 0.003}
CONFIG = ExpertsConfig.model_validate({"training": STEP, "singular_learning_rate": 0.05})
KINDS = ("singular", "task")


def talk(name: str, count: int = 12) -> list[Encoded]:
    """Every domain repeats bytes of its own."""
    rng = np.random.default_rng(NAMES.index(name))
    found = []
    for _ in range(count):
        tokens = [int(t) for t in rng.integers(1 + 60 * NAMES.index(name), 8 + 60 * NAMES.index(name), 14)]
        found.append(Encoded(tokens, [False] * 4 + [True] * 10, [-1] * 14))
    return found


LESSONS = {name: talk(name) for name in NAMES}


@pytest.fixture(scope="module")
def ternary_parent(
    make_model: Callable[..., Any], write_ternary: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    quantised = Quantised(make_model("llama"), Quantisation(group=GROUP))
    return write_ternary(quantised, tmp_path_factory.mktemp("parent") / "ternary")


@pytest.fixture(scope="module")
def plain_parent(
    make_model: Callable[..., Any], tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    out = tmp_path_factory.mktemp("parent") / "plain"
    return save_checkpoint(out, make_model("qwen2"), tiny_data.tokenizer, Manifest("cognate"))


@pytest.fixture(scope="module")
def learnt(ternary_parent: Checkpoint, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn_experts(ternary_parent, tiny_data, LESSONS, CONFIG, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def plainly_learnt(plain_parent: Checkpoint, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn_experts(plain_parent, tiny_data, LESSONS, CONFIG, tmp_path_factory.mktemp("work"))


@pytest.fixture
def experts(ternary_parent: Checkpoint, learnt: Path) -> Experts:
    return Experts.open(ternary_parent, learnt)


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def added(latent: torch.Tensor, kind: str, vector: torch.Tensor, weight: float) -> torch.Tensor:
    """The latent weight with one expert, by numpy in float64."""
    if kind == "task":
        return (latent.double() + weight * vector.double()).float()
    u, sigma, vt = np.linalg.svd(latent.double().numpy(), full_matrices=False)
    offset = u @ np.diag(sigma * weight * (vector.double().numpy() - 1)) @ vt
    return (latent.double() + torch.from_numpy(offset)).float()


def test_the_files_hold_every_expert_of_every_kind(ternary_parent: Checkpoint, learnt: Path) -> None:
    index, names = read_index(learnt), ternary_names(ternary_parent.model())
    assert index.names == NAMES and index.kinds == KINDS and index.found == {} and has_experts(learnt)
    shapes = {name: p.shape for name, p in ternary_parent.model().named_parameters() if name in names}
    for file, dtype in ((EXPERTS, torch.float32), (TASK_VECTORS, torch.float16)):
        tensors = load_file(learnt / file)
        assert set(tensors) == {f"{expert}/{name}" for expert in NAMES for name in names}
        for key, tensor in tensors.items():
            shape = shapes[key.split("/")[1]]
            assert tensor.dtype == dtype and tensor.shape == (shape if file == TASK_VECTORS else (min(shape),))


def test_the_likeness_of_experts_is_numpys(learnt: Path) -> None:
    index, tensors = read_index(learnt), load_file(learnt / EXPERTS)
    matrices = sorted({key.split("/")[1] for key in tensors})
    flat = np.stack([np.concatenate([tensors[f"{n}/{m}"].double().numpy() - 1 for m in matrices]) for n in NAMES])
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(index.cosine["singular"]), unit @ unit.T, atol=2e-6)
    assert [index.cosine["task"][i][i] for i in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_without_effect_it_is_the_parent_bit_for_bit(experts: Experts, ternary_parent: Checkpoint, kind: Any) -> None:
    idle = (
        Mixture(kind=kind),
        Mixture(kind=kind, recipe="uniform", scale=0),
        Mixture(kind=kind, weights=dict.fromkeys(NAMES, 0.0)),
    )
    assert all(experts.model(mixture) is experts.base for mixture in idle)
    assert same(parameters(experts.base), parameters(ternary_parent.model()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_is_what_is_stored_rounded_to_the_lattice(
    experts: Experts, ternary_parent: Checkpoint, learnt: Path, kind: Any
) -> None:
    latent, stored = open_latent(ternary_parent).latent(), load_file(learnt / (EXPERTS, TASK_VECTORS)[kind == "task"])
    found = parameters(experts.model(Mixture(kind=kind, scale=0.7), "facts"))
    moved = 0
    for name, base in parameters(ternary_parent.model()).items():
        if name not in experts._matrices:
            assert torch.equal(found[name], base)
            continue
        expected = ternary(added(latent[name], kind, stored[f"facts/{name}"], 0.7), GROUP).dequantise()
        assert torch.equal(found[name], expected) and nearest_ternary(found[name], GROUP)[1] == 0
        moved += int((found[name] != base).sum())
    assert moved > 0


@pytest.mark.parametrize("kind", KINDS)
def test_opened_again_it_is_the_same_model(
    experts: Experts, ternary_parent: Checkpoint, learnt: Path, kind: Any
) -> None:
    mixture = Mixture(kind=kind, weights={"python": 0.5, "facts": -0.3})
    again = Experts.open(open_checkpoint(ternary_parent.path), learnt)
    assert same(parameters(experts.model(mixture)), parameters(again.model(mixture)))


@pytest.mark.parametrize("kind", KINDS)
def test_latent_weights_are_linear_in_the_weights(experts: Experts, kind: Any) -> None:
    def latent(**weights: float) -> dict[str, torch.Tensor]:
        found = experts.latent(Mixture(kind=kind, weights=weights))
        assert found is not None
        return {name: tensor.double() for name, tensor in found.latent().items()}

    base, one, other, both = latent(), latent(python=1), latent(facts=1), latent(python=0.5, facts=-2)
    for name in base:
        expected = base[name] + 0.5 * (one[name] - base[name]) - 2 * (other[name] - base[name])
        torch.testing.assert_close(both[name], expected, rtol=0, atol=2e-7)


def test_elected_signs_are_those_of_the_merging_phase(
    experts: Experts, ternary_parent: Checkpoint, learnt: Path
) -> None:
    latent, stored = open_latent(ternary_parent).latent(), load_file(learnt / TASK_VECTORS)
    found = parameters(experts.model(Mixture(kind="task", recipe="ties", scale=0.5)))
    for name in experts._matrices:
        deltas = [stored[f"{expert}/{name}"].float() for expert in NAMES]
        merged = ties(torch.zeros_like(deltas[0]), deltas, [1 / 3] * 3, [0.2] * 3, 0.5)
        expected = ternary((latent[name].double() + merged.double()).float(), GROUP).dequantise()
        assert torch.equal(found[name], expected)


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ({}, {}),
        ({"recipe": "uniform"}, dict.fromkeys(NAMES, 1 / 3)),
        ({"recipe": "ties", "scale": 3}, dict.fromkeys(NAMES, 1.0)),
        ({"recipe": "uniform", "weights": {"facts": -1, "python": 0}, "scale": 0.5}, {"facts": -0.5}),
    ],
)
def test_weights(experts: Experts, mixture: dict[str, Any], expected: dict[str, float]) -> None:
    assert experts.weights(Mixture.model_validate(mixture)) == pytest.approx(expected)


def test_found_weights_are_asked_for_only_once_there_are_some(
    ternary_parent: Checkpoint, learnt: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(learnt, tmp_path / "experts"))
    with pytest.raises(CheckpointError, match="no weights were found for task experts"):
        Experts.open(ternary_parent, folder).model(Mixture(kind="task", recipe="found"))
    record_found(folder, "task", {"python": 0.5, "facts": 0.0, "small_talk": -0.1})
    experts = Experts.open(ternary_parent, folder)
    assert experts.weights(Mixture(kind="task", recipe="found", scale=2)) == {"python": 1.0, "small_talk": -0.2}
    with pytest.raises(CheckpointError, match="no expert 'chess'; there are: python, facts, small_talk"):
        record_found(folder, "task", {"chess": 1.0})


def test_the_last_models_are_kept_and_share_the_embedding(experts: Experts) -> None:
    mixtures = [Mixture(kind="task", weights={"python": 0.1 * i}) for i in range(1, KEPT + 2)]
    models = [experts.model(mixture) for mixture in mixtures]
    assert all(experts.model(mixture) is model for mixture, model in zip(mixtures[1:], models[1:], strict=True))
    assert experts.model(mixtures[0]) is not models[0]
    assert all(a is not b for a, b in pairwise(models))
    embedding = experts.base.get_input_embeddings().weight
    assert all(model.get_input_embeddings().weight.data_ptr() == embedding.data_ptr() for model in models)
    assert all(model.lm_head.weight is model.get_input_embeddings().weight for model in models)
    assert not any(model.training or any(p.requires_grad for p in model.parameters()) for model in models)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_is_folded_into_a_checkpoint(
    experts: Experts, write_ternary: Callable[..., Checkpoint], kind: Any
) -> None:
    mixture = Mixture(kind=kind, recipe="uniform")
    quantised = experts.latent(mixture)
    assert quantised is not None
    written = write_ternary(quantised)
    open_latent(written)  # its latent weights round to its own
    assert same(parameters(written.model()), parameters(experts.model(mixture)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_lattice_gets_the_sum_itself(
    plain_parent: Checkpoint, plainly_learnt: Path, kind: Any
) -> None:
    experts, base = Experts.open(plain_parent, plainly_learnt), plain_parent.tensors()
    stored = load_file(plainly_learnt / (EXPERTS, TASK_VECTORS)[kind == "task"])
    mixture = Mixture(kind=kind, weights={"facts": 0.7})
    assert same(parameters(experts.base), base) and experts.latent(mixture) is None
    for name, weight in parameters(experts.model(mixture)).items():
        expected = added(base[name], kind, stored[f"facts/{name}"], 0.7) if name in experts._matrices else base[name]
        assert torch.equal(weight, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_learns_its_domain(plain_parent: Checkpoint, tiny_data: Dataset, tmp_path: Path, kind: Any) -> None:
    config = CONFIG.model_copy(
        update={"kinds": (kind,), "training": CONFIG.training.model_copy(update={"steps": 30, "learning_rate": 0.01})}
    )
    lessons = {name: LESSONS[name] for name in NAMES[:2]}
    experts = Experts.open(plain_parent, learn_experts(plain_parent, tiny_data, lessons, config, tmp_path))
    before = domain_losses(experts.base, lessons)
    for name in lessons:
        after = domain_losses(experts.model(Mixture(kind=kind), name), lessons)
        assert after[name] < before[name] - 0.1
    assert read_index(tmp_path / "experts").kinds == (kind,)
    assert not (tmp_path / "experts" / (TASK_VECTORS, EXPERTS)[kind == "task"]).exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [("experts/singular/facts", 1), ("experts/task/python", 0)])
def test_a_kill_changes_no_bit(
    ternary_parent: Checkpoint, tiny_data: Dataset, learnt: Path, tmp_path: Path, killed_at: tuple[str, int]
) -> None:
    label, steps = killed_at[0], []
    config = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"save_seconds": 0.0})})

    def watch(step: int, values: Mapping[str, float]) -> None:
        steps.append(next(iter(values)).removesuffix("/loss"))
        if steps[-1] == label and killed_at[1] <= step and steps.count("again") == 0:
            raise Killed

    with pytest.raises(Killed):
        learn_experts(ternary_parent, tiny_data, LESSONS, config, tmp_path, watch)
    done = set(steps) - {label}
    steps[:] = ["again"]
    out = learn_experts(ternary_parent, tiny_data, LESSONS, config, tmp_path, watch)
    assert not done & set(steps) and label in steps
    for file in (EXPERTS, TASK_VECTORS, EXPERTS_INDEX):
        assert (out / file).read_bytes() == (learnt / file).read_bytes()
    assert not list(tmp_path.glob("*.state")) and learn_experts(ternary_parent, tiny_data, {"x": []}, config, tmp_path)


def test_losses_are_those_of_transformers(ternary_parent: Checkpoint) -> None:
    model, lessons = ternary_parent.model(), {"python": talk("python", 5), "facts": talk("facts", 3)}
    lessons["facts"].append(Encoded(lessons["facts"][0].tokens[:7], lessons["facts"][0].ours[:7], [-1] * 7))
    for name, found in domain_losses(model, lessons).items():
        total = count = 0.0
        for one in lessons[name]:
            tokens, ours = torch.tensor([one.tokens]), torch.tensor([one.ours])
            labels = torch.where(ours, tokens, -100)
            with torch.no_grad():
                total += float(model(tokens, labels=labels).loss) * sum(one.ours)
            count += sum(one.ours)
        assert found == pytest.approx(total / count, rel=1e-5)


def test_silent_domains_and_none_at_all_are_refused(
    ternary_parent: Checkpoint, tiny_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no domain has training conversations"):
        learn_experts(ternary_parent, tiny_data, {}, CONFIG, tmp_path)
    long, short_rows = {"python": [Encoded([1] * 99, [True] * 99, [-1] * 99)]}, {"row_tokens": 32}
    with pytest.raises(ConfigError, match="adas.experts: python: no conversation fits a row of 32 tokens"):
        learn_experts(ternary_parent, tiny_data, long, CONFIG.model_copy(update=short_rows), tmp_path)
    with pytest.raises(ConfigError, match="adas.experts: facts: no conversation fits"):
        learn_experts(ternary_parent, tiny_data, {"facts": []}, CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="no conversation of 'facts'"):
        domain_losses(ternary_parent.model(), {"facts": [Encoded([1, 2], [True, False], [-1, -1])]})


def test_composing_finds_weights_writes_them_and_resumes(
    ternary_parent: Checkpoint, learnt: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(learnt, tmp_path / "experts"))
    config = CompositionConfig(iterations=2, population=4)
    held_out = {name: talk(name, 4) for name in NAMES}
    losses = compose(ternary_parent, folder, held_out, config, 0)
    index, experts = read_index(folder), Experts.open(ternary_parent, folder)
    assert set(losses) == set(index.found) == set(KINDS)
    assert losses["task"]["none"] == domain_losses(experts.base, held_out)
    assert losses["task"]["facts"] == domain_losses(experts.model(Mixture(kind="task"), "facts"), held_out)
    log = tmp_path / "composition.task.jsonl"
    whole, lines = (folder / EXPERTS_INDEX).read_bytes(), log.read_text().splitlines(keepends=True)
    tried = read_lines(log, Tried.model_validate)
    best = tried[-1] if tried[-1].value < tried[0].value else min(tried, key=lambda one: one.value)
    assert len(lines) == 10 and tried[0].value == 1 and best.weights == index.found["task"]
    log.write_text("".join(lines[:5]))
    compose(ternary_parent, folder, held_out, config, 0)
    assert (folder / EXPERTS_INDEX).read_bytes() == whole and log.read_text() == "".join(lines)


def shorten(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:-9])


def alter(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def reindex(folder: Path, **values: Any) -> None:
    (folder / EXPERTS_INDEX).write_text(json.dumps({**json.loads((folder / EXPERTS_INDEX).read_text()), **values}))


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (lambda f: (f / EXPERTS_INDEX).unlink(), "no experts .no experts.json.; give a checkpoint"),
    "half an index": (lambda f: shorten(f, EXPERTS_INDEX), "experts.json: truncated or altered"),
    "no names": (lambda f: reindex(f, names=[]), "experts.json: truncated or altered"),
    "more names": (lambda f: reindex(f, names=[*NAMES, "chess"]), "chess/model.layers.* is missing"),
    "other weights": (lambda f: reindex(f, base="0" * 64), "belong to other weights"),
    "no vectors": (lambda f: (f / EXPERTS).unlink(), "experts.safetensors: missing, truncated or altered"),
    "half the vectors": (lambda f: shorten(f, TASK_VECTORS), "task_vectors.safetensors: missing, truncated or altered"),
    "one vector less": (lambda f: alter(f, EXPERTS, lambda t: t.pop(first(t))), "is missing; restore it"),
    "one vector more": (lambda f: alter(f, EXPERTS, lambda t: t.update(x=torch.ones(2))), "x is too much"),
    "another shape": (lambda f: alter(f, EXPERTS, lambda t: t.update({first(t): torch.ones(2)})), "another shape"),
    "another type": (lambda f: alter(f, TASK_VECTORS, lambda t: t.update({first(t): t[first(t)].float()})), "float16"),
    "not a number": (lambda f: alter(f, EXPERTS, lambda t: t[first(t)].fill_(torch.nan)), "not finite"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_and_foreign_files_are_named_in_one_line(
    ternary_parent: Checkpoint, learnt: Path, tmp_path: Path, case: str
) -> None:
    folder = Path(shutil.copytree(learnt, tmp_path / "experts"))
    DAMAGE[case][0](folder)
    with pytest.raises(CheckpointError, match=DAMAGE[case][1]) as error:
        Experts.open(ternary_parent, folder)
    assert "\n" not in str(error.value)


def test_experts_of_another_model_are_refused(plain_parent: Checkpoint, learnt: Path, experts: Experts) -> None:
    with pytest.raises(CheckpointError, match="belong to other weights"):
        Experts.open(plain_parent, learnt)
    with pytest.raises(CheckpointError, match="mixture.weights: no expert 'chess'"):
        experts.model(Mixture(weights={"chess": 1.0}))
    with pytest.raises(CheckpointError, match="expert: no expert 'chess'"):
        experts.model(Mixture(), "chess")


def test_a_kind_that_was_not_learnt_is_named(ternary_parent: Checkpoint, learnt: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(learnt, tmp_path / "experts"))
    reindex(folder, kinds=["task"])
    with pytest.raises(CheckpointError, match="no singular experts; mixture.kind has to be task"):
        Experts.open(ternary_parent, folder).model(Mixture(recipe="uniform"))
