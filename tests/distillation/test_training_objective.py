"""A step of distillation: its gradient, that micro-batches change nothing, what it holds in memory and survives."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.cache.config import CacheConfig
from distillation.cache.read import Cache
from distillation.cache.write import write_cache
from distillation.losses.divergences import forward_kl, generalised_jsd, reverse_kl
from distillation.record import Record, asked
from distillation.training.cached_rows import CachedRows, Part, read_marks
from distillation.training.cross_rows import CrossObjective, CrossRows
from distillation.training.live_objective import LiveObjective
from distillation.training.objective import DistilObjective
from distillation.training.on_policy import OnPolicyObjective, OwnTexts
from distillation.training.row_file import RowFile
from distillation.training.rows import pack_records
from distillation.training.strategy_config import OnPolicy
from phases.bitnet.config import Quantisation
from phases.bitnet.estimator import Quantised
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError, DataError
from phases.training.batches import Rows
from phases.training.config import TrainingConfig
from phases.training.loop import train
from phases.training.objective import LanguageModelling, Objective

RECORDS: list[Record] = [asked(f"say {i}", completion=f"abab{i}abab") for i in range(50)]


def make_model(layers: int = 1, hidden: int = 32, vocabulary: int = 260, seed: int = 1) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": hidden, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 64, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, initializer_range=0.1, **sizes, **ends)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a"], 260)


@pytest.fixture(scope="module")
def rows(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    return pack_records(RECORDS, tokenizer, 48, tmp_path_factory.mktemp("rows") / "rows")


@pytest.fixture(scope="module")
def store(rows: RowFile, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def make(**config: Any) -> Cache:
        folder = tmp_path_factory.mktemp("cache")
        settings = CacheConfig(**config)
        return write_cache(
            make_model(2), rows, folder / "cache", settings, folder / "work", teacher="T", tokenizer=tokenizer
        )

    return make


@pytest.fixture(scope="module")
def source(rows: RowFile, store: Any) -> CachedRows:
    return CachedRows([Part(rows, [(store(), 1.0)])], 0)


def gradient(objective: Objective, source: Any, micro: int, count: int = 8) -> torch.Tensor:
    """Of the mean over a batch that is cut into micro-batches, as the loop does it."""
    rows, model = source.rows(0, count), objective.model
    model.zero_grad()
    for start in range(micro):
        part = slice(start, None, micro)
        marks = () if rows.marks_BTC is None else (rows.marks_BTC[part],)
        (objective(rows.tokens_BT[part], rows.weight_BT[part], 0.5, *marks) / rows.weight_BT.sum()).backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def plain(model: Any, rows: Any, alpha: float, tau: float) -> torch.Tensor:
    """The sampled loss over whole (B, T, V) logits, by autograd."""
    logits = model(rows.tokens_BT[:, :-1]).logits
    nll = -logits.log_softmax(-1).gather(-1, rows.tokens_BT[:, 1:, None])[..., 0]
    ids, share = read_marks(rows.marks_BTC)
    apart = -(share * (logits / tau).log_softmax(-1).gather(-1, ids)).sum(-1)
    return (rows.weight_BT * ((1 - alpha) * nll + alpha * tau**2 * apart)).sum()


@pytest.mark.parametrize(("alpha", "tau"), [(0.5, 1.0), (1.0, 1.0), (0.3, 2.0)])
def test_the_step_is_that_of_whole_logits(alpha: float, tau: float, rows: RowFile, store: Any) -> None:
    source, model = CachedRows([Part(rows, [(store(tau=tau), 1.0)])], 0), make_model()
    found = gradient(DistilObjective(model, alpha, tau), source, 1)
    batch = source.rows(0, 8)
    model.zero_grad()
    (plain(model, batch, alpha, tau) / batch.weight_BT.sum()).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["cached", "ghost", "live", "jsd"])
def test_8_times_1_row_is_1_times_8(kind: str, source: CachedRows, rows: RowFile, store: Any) -> None:
    if kind == "ghost":
        source = CachedRows([Part(rows, [(store(method="ghost"), 1.0)])], 0)
    model = make_model()
    makers = {
        "cached": lambda: DistilObjective(model, 0.5),
        "ghost": lambda: DistilObjective(model, 0.5, 1.0, source.ghost),
        "live": lambda: LiveObjective(model, make_model(2), forward_kl, 0.5),
        "jsd": lambda: LiveObjective(model, make_model(2), partial(generalised_jsd, beta=0.5), 0.5, hidden=0.1),
    }
    objective = makers[kind]()
    whole, cut = (gradient(objective, source, micro) for micro in (1, 8))
    assert abs(cut.norm() / whole.norm() - 1) < 1e-5
    torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-6)


class Fixed:
    """The same rows at every step."""

    def __init__(self, rows: Rows) -> None:
        self.fixed = rows

    def rows(self, step: int, count: int) -> Rows:
        return self.fixed


def test_8_times_1_row_is_1_times_8_of_own_texts_and_across_tokenizers(
    source: CachedRows, tokenizer: Any, crossed: tuple[CrossRows, Cache, RowFile]
) -> None:
    model, strategy = make_model(), OnPolicy(max_tokens=8, start=0.0)
    own = Fixed(OwnTexts(source, RECORDS, model, tokenizer, strategy, 4, 0).rows(0, 8))
    for objective, given in (
        (OnPolicyObjective(model, make_model(2), strategy), own),
        (CrossObjective(model), crossed[0]),
    ):
        whole, cut = (gradient(objective, given, micro) for micro in (1, 8))
        assert abs(cut.norm() / whole.norm() - 1) < 1e-5
        torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-6)


def test_a_cached_gradient_points_where_the_full_divergence_does(rows: RowFile, store: Any) -> None:
    source, model = CachedRows([Part(rows, [(store(draws=255), 1.0)])], 0), make_model()
    sampled = gradient(DistilObjective(model, 1.0), source, 1)
    full = gradient(LiveObjective(model, make_model(2), forward_kl, 1.0), source, 1)
    assert torch.nn.functional.cosine_similarity(sampled, full, dim=0) > 0.95


def test_a_ternary_student_learns_through_its_lattice(source: CachedRows, tmp_path: Path) -> None:
    quantised = Quantised(make_model(), Quantisation(group=32, embedding_bits=8))
    seen: list[dict[str, float]] = []
    config = TrainingConfig(steps=12, batch_rows=8)
    objective = DistilObjective(quantised.model, 0.5)
    before = quantised.latent()
    train(objective, source, config, tmp_path, name="t", seed=0, metrics=lambda _, values: seen.append(dict(values)))
    assert any(not torch.equal(before[name], now) for name, now in quantised.latent().items())
    assert seen[-1]["t/loss"] < seen[0]["t/loss"] and seen[-1]["t/text_nll"] < seen[0]["t/text_nll"]


def test_rows_without_a_cache_are_plain_text(rows: RowFile, store: Any) -> None:
    model = make_model()
    text = CachedRows([Part(rows)], 0)
    expected = gradient(LanguageModelling(model), text, 1)
    torch.testing.assert_close(gradient(DistilObjective(model, 0.7), text, 1), expected, rtol=0, atol=0)
    nothing = text.rows(0, 8)
    blank = torch.zeros((*nothing.weight_BT.shape, 3), dtype=torch.int64)
    model.zero_grad()
    (DistilObjective(model, 0.7)(nothing.tokens_BT, nothing.weight_BT, 0.0, blank) / nothing.weight_BT.sum()).backward()
    found = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor has that an operation gives."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("live", [False, True])
def test_there_are_never_logits_of_all_positions(
    live: bool, source: CachedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phases.training.from_hidden.CHUNK", 16)
    batch = source.rows(0, 16)
    batch.weight_BT.fill_(1.0)  # all positions are learnt
    model = make_model()
    objective = LiveObjective(model, make_model(2)) if live else DistilObjective(model, 0.5, 2.0)
    with Largest() as seen:
        objective(batch.tokens_BT, batch.weight_BT, 0.0, batch.marks_BTC).backward()
    positions, vocabulary = batch.weight_BT.numel(), 260
    assert positions * 64 <= seen.numel < positions * vocabulary / 2  # 64: the widest layer


@pytest.mark.parametrize(("alpha", "tau"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (float("nan"), 1.0)])
def test_settings_that_mean_nothing_are_refused(alpha: float, tau: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        DistilObjective(make_model(), alpha, tau)


def test_a_live_teacher_equals_whole_logits_and_does_not_train(source: CachedRows) -> None:
    model, teacher, batch = make_model(), make_model(2, seed=4), source.rows(0, 8)
    objective = LiveObjective(model, teacher, partial(reverse_kl, tau=2.0), 0.4)
    found = gradient(objective, source, 1)
    model.zero_grad()
    ours, theirs = (m(batch.tokens_BT[:, :-1]).logits for m in (model, teacher))
    nll = -ours.log_softmax(-1).gather(-1, batch.tokens_BT[:, 1:, None])[..., 0]
    loss = (batch.weight_BT * (0.6 * nll + 0.4 * reverse_kl(ours, theirs.detach(), 2.0))).sum()
    (loss / batch.weight_BT.sum()).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert len(list(objective.parameters())) == len(list(model.parameters()))


def test_hidden_states_are_learnt_through_a_projection(source: CachedRows, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    objective = LiveObjective(make_model(hidden=16), make_model(2), alpha=0.0, hidden=1.0, depth=0.5)
    config = TrainingConfig(steps=30, batch_rows=8)
    before = objective.model.projection.weight.clone()
    train(objective, source, config, tmp_path, name="t", seed=0, metrics=lambda _, values: seen.append(dict(values)))
    assert seen[-1]["t/hidden_error"] < 0.85 * seen[0]["t/hidden_error"]
    assert not torch.equal(before, objective.model.projection.weight)


def test_vocabularies_have_to_be_one_for_a_live_teacher() -> None:
    with pytest.raises(ConfigError, match="260 outputs and its teacher 300"):
        LiveObjective(make_model(), make_model(vocabulary=300))


@pytest.fixture
def crossed(rows: RowFile, tmp_path: Path) -> tuple[CrossRows, Cache, RowFile]:
    """A teacher whose tokens are pairs of letters, over the same records, of which some do not fit its rows."""
    theirs = train_tokenizer(["abab abab say say"] * 9, 266)
    long = [asked("x" * 30, completion="abab"), *RECORDS[1:]]
    wide = pack_records(long, theirs, 26, tmp_path / "theirs")
    assert wide.card["left_out"] == 1
    teacher, config = make_model(2, vocabulary=266), CacheConfig(method="ghost", likeliest=5)
    cache = write_cache(teacher, wide, tmp_path / "cache", config, tmp_path / "work", teacher="T", tokenizer=theirs)
    return CrossRows(rows, wide, cache, 0), cache, wide


def test_another_tokenizers_distributions_lie_beside_the_same_answer(
    crossed: tuple[CrossRows, Cache, RowFile], rows: RowFile
) -> None:
    source, cache, wide = crossed
    batch = source.rows(0, len(source))
    assert batch.marks_BTC is not None
    share = read_marks(batch.marks_BTC)[1].numpy()
    tokens = [row.tolist() for row in rows.tokens_NT.astype(np.int64)]
    at = [tokens.index(row) for row in batch.tokens_BT.tolist()]
    for example in range(50):
        ours = np.concatenate([s[rows.example_NT[i] == example] for s, i in zip(share, at, strict=True)])
        expected = []
        for row in range(len(wide)):
            stored = cache.row(row)[1]
            expected.append(stored[wide.example_NT[row][wide.weight_NT[row] > 0] == example])
        theirs = np.concatenate(expected)[: len(ours)]
        np.testing.assert_array_equal(ours[: len(theirs)], theirs)
        assert not ours[len(theirs) :].any() and len(theirs) == (0 if example == 0 else min(len(ours), len(theirs)))


def test_learning_from_another_tokenizer_lowers_the_distance(
    crossed: tuple[CrossRows, Cache, RowFile], tmp_path: Path
) -> None:
    seen: list[dict[str, float]] = []
    objective, config = CrossObjective(make_model(), 20.0), TrainingConfig(steps=30, batch_rows=8)
    (tmp_path / "state").mkdir()
    train(
        objective, crossed[0], config, tmp_path / "state", name="t", seed=0, metrics=lambda _, v: seen.append(dict(v))
    )
    assert seen[-1]["t/from_teacher"] < seen[0]["t/from_teacher"] and seen[-1]["t/text_nll"] < seen[0]["t/text_nll"]


def test_only_fitting_caches_are_laid_beside(rows: RowFile, store: Any) -> None:
    with pytest.raises(ConfigError, match="set cache.method=ghost"):
        CrossRows(rows, rows, store(), 0)
    with pytest.raises(DataError, match="made of other rows"):
        CrossRows(rows, RowFile(rows.path, "other", rows.card), store(method="ghost"), 0)
    with pytest.raises(ConfigError, match="has to be 0 or more"):
        CrossObjective(make_model(), -1.0)


def killed(folder: Path, kills: int) -> Any:
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "1", str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().split("\n")[-1])


def test_killed_runs_end_in_the_same_bits(tmp_path: Path) -> None:
    verdict = killed(tmp_path, 2)
    assert verdict["same"] and verdict["kills"] == 2


@pytest.mark.slow
def test_twenty_kills_end_in_the_same_bits(tmp_path: Path) -> None:
    verdict = killed(tmp_path, 20)
    assert verdict["same"] and verdict["kills"] == 20
    assert len({tuple(where) for where in verdict["where"]}) >= 3  # at different stages
