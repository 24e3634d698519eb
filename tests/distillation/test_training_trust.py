"""Where a completion is known to be right it is trusted more than the teacher: by as much as the config says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.cache.config import CacheConfig
from distillation.record import Record, asked
from distillation.training.cached_rows import CachedRows, Part, read_marks
from distillation.training.objective import DistilObjective
from distillation.training.row_file import tokenizer_digest
from distillation.training.rows import TextRows
from distillation.training.strategies import Lesson, Tutor, prepare
from distillation.training.strategy_config import Incremental, Logits, MultiTeacher, Strategy
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError

BLOCK = 48
WORDS = ["cat", "hat", "and", "the", "that", "hand"]


def model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=260, **sizes, **heads, bos_token_id=0, eos_token_id=0)).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["the cat and the hat"] * 9, 260)


@pytest.fixture(scope="module")
def tutors(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> list[Tutor]:
    folder = tmp_path_factory.mktemp("tutors")
    return [Tutor(n, save_checkpoint(folder / n, model(i), tokenizer, Manifest("cognate"))) for i, n in enumerate("ab")]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Right; wrong; and one that nobody can check, in turn."""
    kinds: list[dict[str, str]] = [{"reference": "{}"}, {"reference": "no {}"}, {}]
    made = []
    for i, word in enumerate(WORDS * 2):
        known = {name: text.format(word) for name, text in kinds[i % 3].items()}
        made.append(asked(f"say {word} {i}", completion=word, teacher="ab"[i % 2], **known))
    return made


def lesson(strategy: Strategy, tutors: list[Tutor], records: list[Record], work: Path, tokenizer: Any) -> Lesson:
    weight = np.ones((2, BLOCK), dtype=np.float32)
    tokens = np.random.default_rng(0).integers(260, size=(2, BLOCK + 1)).astype(np.uint16)
    return prepare(
        strategy, records, tutors, tokenizer, BLOCK, work, text=TextRows(tokens, weight, tokenizer_digest(tokenizer))
    )


@pytest.mark.parametrize("trust", [0.0, 0.3])
def test_only_what_is_known_to_be_right_is_trusted_more(
    trust: float, tutors: list[Tutor], records: list[Record], tmp_path: Path, tokenizer: Any
) -> None:
    made = [lesson(Logits(trust=t), tutors[:1], records, tmp_path, tokenizer) for t in (trust, 1.0)]
    trusted, plain = (one.parts[0] for one in made)
    assert trusted.trust_E is not None and plain.trust_E is None and made[0].digest != made[1].digest
    assert trusted.trust_E.tolist() == [np.float32(trust) if i % 3 == 0 else 1.0 for i in range(len(records))]
    batches = [CachedRows(one.parts, 0).rows(0, len(trusted.rows)) for one in made]
    shares = [_dense(batch) for batch in batches]
    examples = _examples(trusted, batches[0])
    right = (examples >= 0) & (examples % 3 == 0)
    assert right.any() and (examples == -1).any()  # text has no example, and is the teacher's
    torch.testing.assert_close(shares[0][~right], shares[1][~right])
    torch.testing.assert_close(shares[0][right], trust * shares[1][right])


def _dense(batch: Any) -> torch.Tensor:
    """(P, V) what is said of each weighted position."""
    ids, share = read_marks(batch.marks_BTC[batch.weight_BT > 0])
    return torch.zeros(len(ids), 260).scatter_add_(1, ids, share)


def _examples(part: Part, batch: Any) -> torch.Tensor:
    """(P,) the example of each weighted position of a batch."""
    at = {tuple(tokens.tolist()): row for row, tokens in enumerate(part.rows.tokens_NT)}
    order = [at[tuple(tokens.tolist())] for tokens in batch.tokens_BT]
    return torch.from_numpy(part.rows.example_NT[order].astype(np.int64))[batch.weight_BT > 0]


@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("trust", [0.0, 0.3])
def test_what_is_not_trusted_is_plain_cross_entropy(
    trust: float, tau: float, tutors: list[Tutor], records: list[Record], tmp_path: Path, tokenizer: Any
) -> None:
    """Loss and gradient of the whole are (1 - trust) times the text's and trust times the plain mixture's."""
    right = [record for record in records if record.completion == record.reference]
    cache, student = CacheConfig(tau=tau), model(7)
    trusted, plain = (
        prepare(Logits(trust=t, cache=cache), right, tutors[:1], tokenizer, BLOCK, tmp_path).parts for t in (trust, 1.0)
    )
    seen = []
    for parts, alpha in ((trusted, 0.7), (plain, 0.7), ([Part(plain[0].rows)], 0.0)):
        rows = CachedRows(parts, 0).rows(0, 2)
        student.zero_grad()
        loss = DistilObjective(student, alpha, tau)(rows.tokens_BT, rows.weight_BT, 0.0, rows.marks_BTC)
        loss.backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in student.parameters() if p.grad is not None])
        seen.append(torch.cat([loss.detach()[None], gradient]))
    torch.testing.assert_close(seen[0], trust * seen[1] + (1 - trust) * seen[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combine", ["route", "pool"])
def test_several_teachers(
    combine: Any, tutors: list[Tutor], records: list[Record], tmp_path: Path, tokenizer: Any
) -> None:
    made = lesson(MultiTeacher(combine=combine, trust=0.5), tutors, records, tmp_path, tokenizer)
    for part in made.parts:
        batch = CachedRows([part], 0).rows(0, len(part.rows))
        said, examples = _dense(batch).sum(1), _examples(part, batch)
        own = (
            torch.from_numpy(np.where(examples >= 0, part.trust_E[examples], 1.0)) if part.trust_E is not None else None
        )
        torch.testing.assert_close(said, own, check_dtype=False)
        assert part.trust_E is not None and set(part.trust_E.tolist()) == {0.5, 1.0}


@pytest.mark.parametrize("strategy", [Logits, MultiTeacher, Incremental])
def test_a_ghost_says_what_to_do(strategy: Any) -> None:
    ghost = {"cache": {"method": "ghost"}}
    with pytest.raises(ConfigError, match="set trust: 1, or cache.method: sampled"):
        strategy.parse(ghost, "strategy")
    assert strategy.parse(ghost | {"trust": 1}, "strategy").trust == 1


def test_rows_of_a_ghost_cannot_be_trusted_in_part(tutors: list[Tutor], tmp_path: Path, tokenizer: Any) -> None:
    text = [asked(f"say {word}", completion=word) for word in WORDS]
    ghost = Logits(trust=1, cache=CacheConfig(method="ghost"))
    (part,) = prepare(ghost, text, tutors[:1], tokenizer, BLOCK, tmp_path).parts
    with pytest.raises(ConfigError, match="set trust=1, or cache.method=sampled"):
        CachedRows([replace(part, trust_E=np.ones(len(text), dtype=np.float32))], 0)
