"""Outcomes are kept, survive concurrent writers, and drift is found when it is there and only then."""

import math
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployment.feedback.drift import BASELINE, NOISE, change_point, drift, drift_text
from deployment.feedback.outcome import Outcome
from deployment.feedback.recording import record
from deployment.feedback.store import OutcomeStore
from deployment.hardware import Accelerator
from deployment.model import LayerGroup, Model
from deployment.physics.calibration_store import Observation
from deployment.serving import Load, Serving
from phases.errors import ConfigError, InputError, MissingDependency, StorageError

START = datetime(2026, 1, 1, tzinfo=UTC)


def outcome(ratio: float = 1.0, hours: float = 0.0, model: str = "Qwen/Qwen3-8B", **change: Any) -> Outcome:
    return Outcome(
        model=model,
        accelerator="l4",
        engine="vllm",
        prompt_tokens=1000,
        output_tokens=200,
        concurrency=8,
        predicted_tpot=0.05,
        observed_tpot=0.05 * ratio,
        observed_at=START + timedelta(hours=hours),
        **change,
    )


def test_round_trip(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "deep/er/outcomes.sqlite")
    kept = [outcome(1.1, 2), outcome(0.9, 1), outcome(1.2, 3, model="other")]
    store.add(*kept)
    assert store.read() == [kept[1], kept[0], kept[2]]  # in the order in which they were observed
    assert store.read(system=kept[0].system) == [kept[1], kept[0]]
    assert store.read(since=START + timedelta(hours=2)) == [kept[0], kept[2]]
    assert store.systems() == ["Qwen/Qwen3-8B on l4 (vllm)", "other on l4 (vllm)"]
    store.close()
    again = OutcomeStore(f"sqlite:///{tmp_path / 'deep/er/outcomes.sqlite'}")
    assert len(again.read()) == 3
    again.close()


def test_reading_makes_no_file(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "typo" / "outcomes.sqlite")
    assert store.read() == store.read("some system") == [] and store.systems() == [] and not store.exists
    assert list(tmp_path.iterdir()) == []
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("create table runs (id integer)")
    connection.close()
    other = OutcomeStore(tmp_path / "other.sqlite")
    assert other.read() == [] and not other.exists, "another program's database gets no table of ours"
    store.close()
    other.close()


def test_a_system_that_was_not_measured_is_not_an_empty_answer(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    store.add(outcome(), outcome(model="other"))
    with pytest.raises(InputError, match=r"no outcomes of 'qwen'; there are Qwen/Qwen3-8B on l4 \(vllm\)$"):
        store.read("qwen")
    with pytest.raises(InputError, match=r"there are Qwen/Qwen3-8B on l4 \(vllm\), other on l4 \(vllm\)$"):
        store.read("x")
    store.close()


def _write(path: Path, writer: int) -> None:
    store = OutcomeStore(path)
    for i in range(20):
        store.add(outcome(1 + i / 100, hours=writer * 100 + i, model=f"writer-{writer}"))
    store.close()


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    """Each has its own connection, and the first makes the table."""
    path = tmp_path / "outcomes.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_write, [path] * 4, range(4)))
    store = OutcomeStore(path)
    assert len(store.read()) == 80
    store.close()


def test_all_or_none(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    store.add()
    assert store.read() == [] and store.observed_at("nothing", "yet") is None
    trigger = "create trigger t before insert on outcomes when new.model = 'bad' begin select raise(abort, 'no'); end"
    with sqlite3.connect(tmp_path / "outcomes.sqlite") as connection:
        connection.execute(trigger)
    connection.close()
    with pytest.raises(StorageError):
        store.add(outcome(), outcome(model="bad"), outcome())
    assert store.read() == [], "neither the one before nor the one after"
    store.close()


def test_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match="damaged: restore it") as seen:
        OutcomeStore(path).read()
    assert "\n" not in str(seen.value) and str(path) in str(seen.value)


def test_database_of_another_version(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute("create table outcomes (id integer primary key, system text)")
    connection.close()
    with pytest.raises(StorageError, match="another version"):
        OutcomeStore(tmp_path / "old.sqlite").add(outcome())


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        OutcomeStore(tmp_path / "file/outcomes.sqlite").add(outcome())
    with pytest.raises(InputError, match="give a file, or a URL"):
        OutcomeStore("nonsense://").read()
    with pytest.raises(MissingDependency, match="pip install"):
        OutcomeStore("postgresql+pg8000://user:secret@localhost/db").read()


def test_password_is_not_shown() -> None:
    with pytest.raises(MissingDependency) as seen:
        OutcomeStore("postgresql+pg8000://user:secret@localhost/db").read()
    assert "secret" not in str(seen.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observed_tpot": None}, "both predicted and observed"),
        ({"observed_tpot": -1.0}, "observed_tpot"),
        ({"observed_tpot": math.inf}, "observed_tpot"),
        ({"rate": 2.0}, "either"),
        ({"latency": 1.0}, "unknown key"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_outcome(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Outcome.parse(outcome().model_dump() | change, "outcome")


def test_times_are_in_utc() -> None:
    naive = Outcome.parse(outcome().model_dump() | {"observed_at": "2026-03-01T12:00:00"}, "outcome")
    zoned = Outcome.parse(outcome().model_dump() | {"observed_at": "2026-03-01T14:00:00+02:00"}, "outcome")
    assert naive.observed_at == zoned.observed_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_constant_bias_is_found_and_measured() -> None:
    draw = random.Random(0)
    seen = drift([outcome(1.2 * math.exp(draw.gauss(0, 0.03)), i) for i in range(20)])
    assert len(seen) == 1 and seen[0].metric == "tpot"
    assert seen[0].biased and seen[0].changed_at is None
    assert seen[0].low < 1.2 < seen[0].high
    assert "calibrate" in drift_text(seen)


def test_change_is_found_and_dated() -> None:
    draw = random.Random(1)
    ratios = [math.exp(draw.gauss(0, 0.03)) * (1.0 if i < 20 else 1.15) for i in range(30)]
    seen = drift([outcome(ratio, i) for i, ratio in enumerate(ratios)])[0]
    assert seen.changed_at is not None
    assert START + timedelta(hours=20) <= seen.changed_at <= START + timedelta(hours=24)
    assert "has changed" in drift_text([seen])


def test_a_sweep_is_one_point_in_time() -> None:
    """Latency is ever further off the more requests are in flight: that is no change in time, however many loads."""
    loads = [1 + 0.05 * step for step in range(12)]
    sweeps = [outcome(ratio, hours, measurement=f"file {hours}") for hours in range(9) for ratio in loads]
    (seen,) = drift(sweeps)
    assert len(seen.points) == 9 and seen.changed_at is None
    assert seen.points[0].observed / seen.points[0].predicted == pytest.approx(math.prod(loads) ** (1 / 12))
    later = [outcome(1.5 * ratio, 9, measurement="file 9") for ratio in loads]
    assert drift([*sweeps, *later])[0].changed_at == START + timedelta(hours=9)


def test_bias_is_of_the_latest_correction() -> None:
    """What was off before it was calibrated is not held against the corrected predictions."""
    before = [outcome(1.3, hours, corrected_by=0) for hours in range(5)]
    known = [Observation("Qwen/Qwen3-8B", "l4", "vllm", 0.26, 0.26)] * 5
    (off,) = drift(before)
    assert off.biased and not off.calibrated_since and "calibrate with these" in drift_text([off])
    (taken_in,) = drift(before, known)
    assert taken_in.calibrated_since and "calibrate with these" not in drift_text([taken_in])
    (mended,) = drift([*before, outcome(1.01, 6, corrected_by=5)], known)
    assert not mended.biased and mended.ratio == pytest.approx(1.01)
    (again,) = drift([*before, outcome(0.8, 6, corrected_by=5)], known)
    assert again.biased and not again.calibrated_since


def test_false_alarms_are_rare() -> None:
    """Of unbiased, unchanged series 5 % are called biased, and 2 % of those of 30 outcomes alarm."""
    draw = random.Random(2)
    series = [[draw.gauss(0, NOISE["tpot"]) for _ in range(30)] for _ in range(400)]
    biased = sum(drift([outcome(math.exp(x), i) for i, x in enumerate(values)])[0].biased for values in series[:200])
    assert biased / 200 < 0.1
    assert sum(change_point(values, NOISE["tpot"]) is not None for values in series) / 400 < 0.04


def test_too_few_outcomes_say_nothing_of_change() -> None:
    assert change_point([0.0] * BASELINE, 0.03) is None
    assert change_point([0.0] * BASELINE + [5.0], 0.03) == BASELINE
    lucky = drift([outcome(1.01, 0), outcome(1.01, 1)])[0]
    assert not lucky.biased  # two alike runs, a hundredth off: within the noise


def test_worst_first() -> None:
    good = [outcome(1.0, i, model="good") for i in range(10)]
    off = [outcome(1.3, i, model="off") for i in range(10)]
    assert [d.system.split()[0] for d in drift([*good, *off])] == ["off", "good"]
    assert drift_text([]).startswith("No outcomes")


def test_outcomes_correct_the_next_prediction(tmp_path: Path) -> None:
    """A service that is 30 % slower than predicted: after some outcomes the prediction is close, and shrinks to it."""
    calibration, store = tmp_path / "calibration.json", OutcomeStore(tmp_path / "outcomes.sqlite")
    group = LayerGroup(32, "attention", 2 * 4096 * 5120, 3 * 4096 * 14336, heads=32, kv_heads=8, head_dim=128)
    model = Model("m", "llama", (group,), 4096, 128256, 8192, 2 * 128256 * 4096)
    h100 = Accelerator("h100-sxm", "nvidia", 85 * 10**9, 3.35e12, {"bf16": 989e12}, 450e9, 50e9, 8, 700, "")
    load = Load(1000, 200, concurrency=8)

    def go(ttft: float, tpot: float) -> Outcome:
        return record(
            store, model, h100, Serving(), load,
            ttft=ttft, tpot=tpot, cost=1.0, price_per_hour=2.5, calibration=calibration,
        )  # fmt: skip

    first = go(0.1, 0.01)
    assert first.predicted_ttft and first.predicted_tpot and first.predicted_cost and first.corrected_by == 0
    assert go(0.1, 0.01).corrected_by == 1
    calibration.unlink()
    truth = (1.3 * first.predicted_ttft, 1.3 * first.predicted_tpot)
    errors = [abs(go(*truth).log_ratio("tpot") or 0.0) for _ in range(8)]
    assert errors[0] == pytest.approx(math.log(1.3), rel=0.01)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.3 * errors[0]
    assert len(store.read()) == 10
    with pytest.raises(ConfigError, match="observed_tpot"):
        go(0.1, -1.0)
    with pytest.raises(InputError):
        record(store, model, h100, Serving(), Load(0, 200, concurrency=8), ttft=1, tpot=1, calibration=calibration)
    assert len(store.read()) == 10
    store.close()
