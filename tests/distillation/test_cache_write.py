"""A teacher's cache on the disk: what it covers, what it costs, what survives, and what is refused."""

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.cache import write
from distillation.cache.config import CacheConfig
from distillation.cache.read import Cache, read_cache
from distillation.cache.write import cache_teacher, write_cache
from distillation.record import asked
from distillation.training.cached_rows import CachedRows, Part, read_marks
from distillation.training.row_file import RowFile
from distillation.training.rows import pack_records
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.errors import ConfigError, DataError

VOCABULARY = 260


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a"], VOCABULARY)


def make_teacher(sharp: float = 20.0) -> LlamaForCausalLM:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 64, "tie_word_embeddings": False}
    # A head of more rows than the tokenizer has ids, as many a published model has.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY + 4, **sizes, **ends)).eval()
    model.lm_head.weight.data *= sharp
    return model


@pytest.fixture(scope="module")
def teacher() -> LlamaForCausalLM:
    return make_teacher()


@pytest.fixture
def rows(tokenizer: Any, tmp_path: Path) -> RowFile:
    records = [asked(f"{i}?", completion=str(i * i)) for i in range(60)]
    return pack_records(records, tokenizer, 32, tmp_path / "rows")


@pytest.fixture
def store(teacher: Any, rows: RowFile, tokenizer: Any, tmp_path: Path) -> Any:
    def make(name: str = "cache", model: Any = None, **config: Any) -> Cache:
        settings, work = CacheConfig(part_rows=5, **config), tmp_path / f"{name}.work"
        return write_cache(model or teacher, rows, tmp_path / name, settings, work, teacher="T", tokenizer=tokenizer)

    return make


def probabilities(model: Any, rows: RowFile, row: int, tau: float) -> torch.Tensor:
    """(P, V) at the weighted positions of a row, read by itself."""
    tokens = torch.from_numpy(rows.tokens_NT[row : row + 1].astype(np.int64))
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits[0, :, :VOCABULARY]
    return torch.softmax(logits[torch.from_numpy(rows.weight_NT[row] > 0)] / tau, 1)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_draws_cover_exactly_the_predicted_positions_and_follow_the_teacher(
    tau: float, store: Any, rows: RowFile, teacher: Any
) -> None:
    cache = store(tau=tau, draws=255)
    drawn, expected = np.zeros(VOCABULARY), np.zeros(VOCABULARY)
    for row in range(len(rows)):
        ids_PK, share_PK = cache.row(row)
        assert len(ids_PK) == (rows.weight_NT[row] > 0).sum() and (ids_PK < VOCABULARY).all()
        np.testing.assert_allclose(share_PK.sum(1), 1, rtol=1e-6)
        own = np.zeros((len(ids_PK), VOCABULARY))
        np.add.at(own, (np.arange(len(ids_PK))[:, None], ids_PK), share_PK)
        p_PV = probabilities(teacher, rows, row, tau).numpy()
        assert np.abs(own - p_PV).max() < 2 / cache.codec.size + 1e-6
        drawn, expected = drawn + own.sum(0), expected + p_PV.sum(0)
    assert cache.tau == tau and np.abs(drawn - expected).sum() < 0.2 * expected.sum()


def test_the_card_tells_what_was_measured(store: Any, rows: RowFile, teacher: Any, tmp_path: Path) -> None:
    cache = store()
    card = cache.card
    p = torch.cat([probabilities(teacher, rows, row, 1.0) for row in range(len(rows))])
    assert card["tokens"] == len(p) == rows.card["predicted_tokens"] and card["teacher"] == "T"
    assert card["entropy_nats"] == pytest.approx(-torch.xlogy(p, p).sum(1).mean().item(), rel=1e-4)
    assert card["mass"]["8"] == pytest.approx(p.topk(8, 1).values.sum(1).mean().item(), rel=1e-4)
    size = sum((tmp_path / "cache" / f"{n}.npy").stat().st_size for n in ("bits", "begin", "positions"))
    assert cache.bytes_per_token == size / len(p) < 40 and cache.codec.size == 56


def test_marks_are_laid_at_their_positions(store: Any, rows: RowFile) -> None:
    cache = store()
    batch = CachedRows([Part(rows, [(cache, 1.0)])], 0).rows(0, len(rows))
    assert batch.marks_BTC is not None
    ids, share = read_marks(batch.marks_BTC)
    assert ((share.sum(2) > 0) == (batch.weight_BT > 0)).all()
    for tokens, own_ids, own_share, weight in zip(batch.tokens_BT, ids, share, batch.weight_BT, strict=True):
        row = next(i for i, known in enumerate(rows.tokens_NT) if known.astype(np.int64).tolist() == tokens.tolist())
        stored_ids, stored_share = cache.row(row)
        width = stored_ids.shape[1]
        assert own_ids[weight > 0][:, :width].tolist() == stored_ids.tolist()
        assert own_share[weight > 0][:, :width].tolist() == stored_share.tolist()


def test_pooled_teachers_share_each_position(store: Any, rows: RowFile) -> None:
    caches = [store("a"), store("b", make_teacher(5.0))]
    source = CachedRows([Part(rows, list(zip(caches, (0.25, 0.75), strict=True)))], 0)
    marks, weight = source.rows(0, 3).marks_BTC, source.rows(0, 3).weight_BT
    assert marks is not None
    share = read_marks(marks[weight > 0])[1].sum(1)
    torch.testing.assert_close(share, torch.ones_like(share))
    with pytest.raises(ConfigError, match="different temperatures"):
        CachedRows([Part(rows, [(caches[0], 0.5), (store("warm", tau=2.0), 0.5)])], 0)
    with pytest.raises(ConfigError, match="sum to 0.5"):
        CachedRows([Part(rows, [(caches[0], 0.5)])], 0)


def test_an_interrupted_cache_ends_in_the_same_bytes(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls, real = store("whole"), [], write._make_part
    for stop in (0, 1, 1):

        def dying(*args: Any, stop: int = stop) -> Any:
            calls.append(args[2])
            if len(calls) > stop:
                raise KeyboardInterrupt
            return real(*args)

        monkeypatch.setattr(write, "_make_part", dying)
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            store("broken")
    done = sorted((tmp_path / "broken.work").glob("*.safetensors"))
    assert len(done) == 2
    done[1].write_bytes(done[1].read_bytes()[:-3])  # a disk that lost its end
    (tmp_path / "broken.work" / ".part-00009.77.tmp").write_bytes(b"half")
    calls.clear()
    monkeypatch.setattr(write, "_make_part", lambda *args: calls.append(args[2]) or real(*args))
    again = store("broken")
    assert again.digest == whole.digest and range(5, 10) in calls and range(0, 5) not in calls
    assert not (tmp_path / "broken.work").exists()


def test_parts_of_something_else_are_not_taken(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = store("right", seed=2).digest
    monkeypatch.setattr(write, "write_arrays", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store("other", seed=1)
    monkeypatch.undo()
    (tmp_path / "other.work").rename(tmp_path / "again.work")
    assert store("again", seed=2).digest == expected != store("third", seed=1).digest


@pytest.mark.parametrize("name", ["bits.npy", "begin.npy", "positions.npy", "cache.json"])
def test_altered_caches_are_refused(name: str, store: Any, tokenizer: Any, tmp_path: Path) -> None:
    path = store().path / name
    raw = path.read_bytes()
    for broken in (raw[:-5], raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=name):
            read_cache(tmp_path / "cache", tokenizer)
    path.unlink()
    with pytest.raises(DataError, match=name):
        read_cache(tmp_path / "cache", tokenizer)


def test_another_tokenizer_is_named_with_its_own(store: Any, rows: RowFile, teacher: Any, tmp_path: Path) -> None:
    cache, other = store(), train_tokenizer(["abababab"], 261)
    with pytest.raises(ConfigError, match=f"{cache.card['tokenizer'][:12]}….*student's is "):
        read_cache(cache.path, other)
    with pytest.raises(ConfigError, match="teacher's tokenizer .* is not the rows'"):
        write_cache(teacher, rows, tmp_path / "x", CacheConfig(), tmp_path / "w", teacher="T", tokenizer=other)


def test_a_cache_of_other_rows_is_refused(store: Any, tokenizer: Any, tmp_path: Path) -> None:
    other = pack_records([asked("a", completion="b")], tokenizer, 32, tmp_path / "other")
    with pytest.raises(DataError, match="made of other rows"):
        CachedRows([Part(other, [(store(), 1.0)])], 0)


def test_renormalised_is_refused_below_its_mass(store: Any) -> None:
    with pytest.raises(ConfigError, match="hold 0\\..* of the teacher's mass.*use `sampled`"):
        store("flat", make_teacher(1.0), method="renormalised")
    cache = store("sharp", make_teacher(2000.0), method="renormalised")
    assert cache.card["mass"][str(cache.codec.size)] >= 0.95 and not cache.ghost
    np.testing.assert_allclose(cache.row(0)[1].sum(1), 1, rtol=1e-6)


def test_a_ghost_keeps_what_is_missing(store: Any, rows: RowFile, teacher: Any) -> None:
    cache = store(method="ghost", likeliest=6)
    ids, share = cache.row(2)
    p = probabilities(teacher, rows, 2, 1.0)
    assert cache.ghost and ids.shape[1] == 6
    np.testing.assert_allclose(share, p.gather(1, torch.from_numpy(ids)), rtol=0.009)
    with pytest.raises(ConfigError, match="cannot be pooled"):
        CachedRows([Part(rows, [(cache, 0.5), (cache, 0.5)])], 0)
    with pytest.raises(ConfigError, match="with and without a ghost"):
        CachedRows([Part(rows, [(cache, 1.0)]), Part(rows, [(store("sampled"), 1.0)])], 0)


def test_a_teacher_that_has_fewer_outputs_than_ids_is_refused(rows: RowFile, tokenizer: Any, tmp_path: Path) -> None:
    small = LlamaForCausalLM(LlamaConfig(vocab_size=100, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=1))  # fmt: skip
    with pytest.raises(ConfigError, match="100 outputs for a tokenizer of 260"):
        write_cache(small, rows, tmp_path / "x", CacheConfig(), tmp_path / "w", teacher="T", tokenizer=tokenizer)


def test_nothing_to_predict_is_said(teacher: Any, tokenizer: Any, tmp_path: Path) -> None:
    rows = pack_records([asked("a", completion="b", weight=0.0)], tokenizer, 32, tmp_path / "rows")
    with pytest.raises(DataError, match="nothing to store"):
        write_cache(teacher, rows, tmp_path / "x", CacheConfig(), tmp_path / "w", teacher="T", tokenizer=tokenizer)


def test_a_checkpoint_is_read_once_and_let_go(
    rows: RowFile, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_checkpoint(tmp_path / "teacher", make_teacher(), tokenizer, Manifest("test"))
    gc.collect()
    before = sum(type(o) is LlamaForCausalLM for o in gc.get_objects())
    config, work = CacheConfig(), tmp_path / "work"
    cache = cache_teacher(checkpoint, rows, tmp_path / "cache", config, work)
    gc.collect()
    assert sum(type(o) is LlamaForCausalLM for o in gc.get_objects()) == before
    assert cache.card["teacher"] == checkpoint.digest and json.loads((cache.path / "cache.json").read_text())
    opened: list[Path] = []
    real = Checkpoint.model
    monkeypatch.setattr(Checkpoint, "model", lambda self: opened.append(self.path) or real(self))
    assert cache_teacher(checkpoint, rows, tmp_path / "cache", config, work).digest == cache.digest and not opened
    changed = cache_teacher(checkpoint, rows, tmp_path / "cache", CacheConfig(seed=5), work)
    assert opened == [checkpoint.path] and changed.digest != cache.digest
