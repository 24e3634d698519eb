"""The ledger keeps every expense, once, through crashes and beside other writers; what has no price is not 0."""

import multiprocessing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from distillation.money.ledger import Ledger
from phases.errors import ConfigError, InputError, StorageError


def moment() -> datetime:
    return datetime(2026, 7, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "project" / "ledger.jsonl"


def test_sums_by_kind_are_exact(path: Path) -> None:
    ledger = Ledger(path, night=1, now=moment)
    for _ in range(3):
        ledger.add("labelling", 1, "call", usd=0.1)
    ledger.add("training", 1_800, "second", unit_usd=Decimal(4) / 3600)
    ledger.add("people", 1.5, "hour", unit_usd=80)
    invested = ledger.invested()
    assert invested["labelling"].value == Decimal("0.3")
    assert str(invested["training"].cents) == "2.00" and str(invested["people"].cents) == "120.00"
    assert invested["judging"].value == 0


def test_one_line_without_a_price_makes_its_kind_unknown_and_no_other(path: Path) -> None:
    ledger = Ledger(path)
    ledger.add("training", 60, "second")
    ledger.add("training", 60, "second", usd=1)
    ledger.add("judging", 1, "call", usd=0.0)
    assert ledger.invested()["training"].missing == ("price of training (second)",)
    assert ledger.invested()["judging"].value == 0


def test_the_same_expense_is_booked_once_even_by_another_process(path: Path) -> None:
    first, second = Ledger(path), Ledger(path)
    assert first.add("labelling", 1, "call", usd=1, key="ask-1")
    assert not first.add("labelling", 1, "call", usd=1, key="ask-1")
    assert not second.add("labelling", 1, "call", usd=1, key="ask-1")
    assert second.add("labelling", 1, "call", usd=1) and second.add("labelling", 1, "call", usd=1)
    assert len(first.entries()) == 3


def test_a_line_that_was_cut_off_is_passed_over_and_written_over(path: Path) -> None:
    Ledger(path, now=moment).add("labelling", 1, "call", usd=1, key="a")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:25])
    ledger = Ledger(path, now=moment)
    assert len(ledger.entries()) == 1
    ledger.add("labelling", 1, "call", usd=1, key="b")
    assert path.read_bytes() == whole + whole.replace(b'"a"', b'"b"')


def test_an_altered_line_is_named(path: Path) -> None:
    ledger = Ledger(path)
    ledger.add("labelling", 1, "call", usd=1)
    path.write_bytes(path.read_bytes() + b'{"kind": "labelling"}\n')
    with pytest.raises(InputError, match=r"ledger.jsonl, line 2: no line of a ledger; mend it"):
        Ledger(path).entries()


def test_what_a_night_had_spent(path: Path) -> None:
    Ledger(path, night=1).add("labelling", 1, "call", usd=5)
    ledger = Ledger(path, night=2)
    ledger.add("labelling", 1, "call", usd=0.25)
    ledger.add("judging", 2, "call")
    ledger.add("training", 60, "second", usd=7)
    spent = ledger.spent(2)
    assert (spent.usd, spent.calls, spent.unpriced) == (Decimal("0.25"), 3, 1)


def _write(path: Path, name: str) -> None:
    ledger = Ledger(path)
    for i in range(20):
        ledger.add("labelling", 1, "call", usd=0.01, key=f"{name}-{i}")
        ledger.add("labelling", 1, "call", usd=0.01, key=f"both-{i}")


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Ledger(path).entries()) == 80
    assert Ledger(path).invested()["labelling"].value == Decimal("0.80")


def test_bad_input_is_one_line(path: Path) -> None:
    with pytest.raises(ConfigError, match="ledger: 'quantity'"):
        Ledger(path).add("labelling", -1, "call")
    with pytest.raises(InputError, match="amount of money is nan"):
        Ledger(path).add("labelling", 1, "call", usd=float("nan"))
    path.parent.parent.joinpath("file").write_text("")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        Ledger(path.parent.parent / "file" / "ledger.jsonl").add("people", 1, "hour", usd=1)
