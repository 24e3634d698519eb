"""Searches: what is proposed, in what order, what an interruption changes (nothing), and what is chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import asked
from distillation.training.held_out import HeldOut
from distillation.training.search import Found, search
from distillation.training.search_space import SearchConfig, Space, apply
from distillation.training.strategies import Lesson, Tutor, prepare
from distillation.training.strategy_config import Logits, Response, Strategy
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.training.config import TrainingConfig

TRAINING = TrainingConfig(steps=50, batch_rows=2, save_seconds=0, learning_rate=0.004, warmup=0)
CONFIG = SearchConfig(trials=6, steps=3, tau=(1.0,))


def saved(path: Path, seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=260, num_key_value_heads=1, **sizes, **ends))
    return save_checkpoint(path, model.eval(), train_tokenizer(["a"], 260), Manifest("cognate"))


class Bench:
    """What a search needs, once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.start = folder, saved(folder / "start", 1)
        self.tutors = [Tutor("teacher", saved(folder / "teacher", 2))]
        self.records = [asked(f"say {c}", completion=c) for c in "abcdefgh"]
        self.exam = HeldOut(self.records[:3], self.start.tokenizer())
        self.prepared: list[Strategy] = []

    def lesson(self, strategy: Strategy) -> Lesson:
        self.prepared.append(strategy)
        work = self.folder / "lessons"
        return prepare(strategy, self.records[3:], self.tutors, self.start.tokenizer(), 32, work)

    def search(self, name: str, config: SearchConfig = CONFIG, **options: Any) -> Found:
        place = self.folder / name
        return search(self.start, Logits(), TRAINING, self.lesson, self.exam, config, place, seed=4, **options)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Found:
    return bench.search("whole")


def same(one: Found, other: Found) -> bool:
    looks = [[(t.parameters, t.looks, t.pruned) for t in found.trials] for found in (one, other)]
    return looks[0] == looks[1] and one.best == other.best


def test_the_first_trial_is_what_was_given_and_the_best_is_taken(whole: Found) -> None:
    assert len(whole.trials) == 6 and whole.trials[0].parameters == {
        "rate": 1,
        "alpha": 0.5,
        "tau": 1,
        "loss": "forward",
    }
    assert whole.trials[whole.best].loss == min(trial.loss for trial in whole.trials if not trial.pruned)
    chosen = whole.trials[whole.best].parameters
    assert whole.training.learning_rate == pytest.approx(0.004 * chosen["rate"]) and whole.training.steps == 50
    assert isinstance(whole.strategy, Logits) and whole.strategy.alpha == chosen["alpha"]
    assert len({str(trial.parameters) for trial in whole.trials}) == 6


def test_an_interrupted_search_ends_as_a_whole_one(bench: Bench, whole: Found) -> None:
    def killed(step: int, values: Mapping[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.search("cut", metrics=killed)
    real, calls = bench.exam.measure, 0

    def dies(model: Any) -> Any:  # in the middle of a trial
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(model)

    bench.exam.measure = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.search("cut")
    bench.exam.measure = real  # type: ignore[method-assign]
    assert same(bench.search("cut"), whole)


def test_a_finished_search_is_not_repeated_and_can_be_made_longer(bench: Bench, whole: Found) -> None:
    bench.search("longer", SearchConfig(trials=4, steps=3, tau=(1.0,)))
    assert same(bench.search("longer"), whole)


def test_no_trial_begins_when_time_is_up(bench: Bench) -> None:
    assert len(bench.search("late", SearchConfig(trials=6, steps=3, tau=(1.0,), seconds=1e-6)).trials) == 1


def test_a_strategy_without_a_teacher_has_only_rates() -> None:
    space = Space.of(Response(), SearchConfig())
    assert space.given == {"rate": 1.0} and not space.choices
    assert apply(Response(), TRAINING, {"rate": 2.0})[1].matrix_learning_rate == 2 * TRAINING.matrix_learning_rate


def test_what_is_given_lies_within_the_limits() -> None:
    space = Space.of(Logits(alpha=0.05, cache={"tau": 3.0}), SearchConfig())
    assert space.limits["alpha"] == (0.05, 1.0) and space.choices["tau"] == (3.0, 1.0, 2.0)
    changed = apply(Logits(), TRAINING, {"rate": 1.0, "alpha": 0.3, "tau": 2.0, "loss": "jsd"})[0]
    assert isinstance(changed, Logits) and (changed.alpha, changed.cache.tau, changed.live) == (0.3, 2.0, True)
