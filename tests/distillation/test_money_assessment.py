"""A student's money as a whole: what is missing is named, the rest still comes; prices, booking, tables, pictures."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deployment.market.offers import offers
from distillation.money.assessment import Assessment, assess
from distillation.money.booking import book_compute, book_people, invested
from distillation.money.hosting import Machine, hour_price
from distillation.money.inputs import Measured, Speed
from distillation.money.ledger import Ledger
from distillation.money.money_config import MoneyConfig
from distillation.money.plots import pictures
from distillation.money.showing import Measures, before_after, hints_table, money_table, sensitivity_table
from distillation.teachers.prices import Hint, OwnPrice
from phases.errors import ConfigError, InputError

KNOWN = {
    "requests_per_month": 100_000,
    "prompt_tokens": 600,
    "completion_tokens": 100,
    "teacher": {"kind": "per_token", "usd_per_million_in": 2.5, "usd_per_million_out": 10.0},
    "student": {"kind": "hosted", "machine": {"usd_per_hour": 0.72}, "tokens_per_s": 500, "utilisation": 0.4},
    "usd_per_error": 0.05,
    "fixed_usd_per_month": 10.0,
    "compute": {"usd_per_hour": 1.8},
    "uncertainty": {"draws": 2_000},
}
MEASURED = Measured(extra_errors=0.01, extra_errors_stderr=0.005)


def config(**values: Any) -> MoneyConfig:
    return MoneyConfig.parse(KNOWN | values, "money")


def spent(path: Path, config: MoneyConfig) -> Any:
    ledger = Ledger(path / "ledger.jsonl", night=1)
    ledger.add("labelling", 100, "call", usd=20, key="asks")
    book_compute(ledger, "training", 7_200, hour_price(config.compute, "money.compute"), key="student")
    return invested(ledger, config)


def assessed(path: Path, measured: Measured = MEASURED, **values: Any) -> Assessment:
    money = config(**values)
    return assess(money, measured, spent(path, money), seed=0)


def test_the_whole_by_hand(tmp_path: Path) -> None:
    # c_T = 600 · 0.0000025 + 100 · 0.00001 = 0.0025; c_S = 700 · 0.000001 = 0.0007
    # S = 100,000 · (0.0025 − 0.0007 − 0.01 · 0.05) − 10 = 130 − 10 = 120.00
    # I = 20 + 2 h · 1.80 = 23.60; break-even 23.60 / 120 · 730 / 24 = 5.98 days
    found = assessed(tmp_path)
    assert found.figures["saving_usd_per_month"].value == 120
    assert str(found.figures["invested_usd"].cents) == "23.60"
    assert str(found.figures["break_even_days"].cents) == "5.98"
    assert found.missing == () and found.odds is not None and found.odds.probability > 0.95


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"usd_per_error": None}, "money.usd_per_error"),
        ({"requests_per_month": None}, "money.requests_per_month"),
        ({"completion_tokens": None}, "money.completion_tokens"),
        ({"teacher": {"kind": "per_token", "usd_per_million_in": 1.0}}, "money.teacher.usd_per_million_out"),
        ({"student": {"kind": "hosted", "tokens_per_s": 500}}, "money.student.machine.usd_per_hour"),
        ({"student": {"kind": "hosted", "machine": {"usd_per_hour": 1}}}, "money.student.tokens_per_s"),
        ({"cached_share": 0.5}, "money.teacher.usd_per_million_cached"),
    ],
)
def test_a_missing_price_refuses_what_needs_it_and_nothing_else(
    tmp_path: Path, values: dict[str, Any], missing: str
) -> None:
    found = assessed(tmp_path, **values)
    assert found.figures["saving_usd_per_month"].missing == (missing,)
    assert found.odds is None and found.odds_missing == (missing,) and found.saved_usd_per_month is None
    assert found.figures["invested_usd"].value is not None
    assert sum(figure.value is not None for figure in found.figures.values()) >= 2


def test_an_unknown_investment_leaves_the_saving(tmp_path: Path) -> None:
    found = assessed(tmp_path, compute={})
    assert found.saved_usd_per_month == 120 and found.sensitivity
    assert found.figures["break_even_days"].missing == ("money.compute.usd_per_hour",) == found.odds_missing


def test_what_was_booked_without_a_price_is_taken_at_todays(tmp_path: Path) -> None:
    spent(tmp_path, config(compute={}))
    later = config(compute={"usd_per_hour": 3.6})
    assert invested(Ledger(tmp_path / "ledger.jsonl"), later)["training"].value == Decimal("7.2")


def test_a_student_that_is_better_is_not_counted_as_money(tmp_path: Path) -> None:
    better = assessed(tmp_path, Measured(extra_errors=-0.1, extra_errors_stderr=0.01))
    equal = assessed(tmp_path, Measured(extra_errors=0.0, extra_errors_stderr=0.01))
    assert better.figures == equal.figures
    assert assessed(tmp_path, Measured()).figures["saving_usd_per_month"].missing == ("extra errors: not measured",)


def test_measured_figures_and_the_teachers_price_fill_what_is_empty(tmp_path: Path) -> None:
    price = OwnPrice(usd_per_million_in=2.5, usd_per_million_out=10, date="2026-07-01").price("big")
    measured = Measured(600, 100, price, student_speed=Speed(500), extra_errors=0.01, extra_errors_stderr=0.005)
    student = {"kind": "hosted", "machine": {"usd_per_hour": 0.72}, "utilisation": 0.4}
    empty = {"prompt_tokens": None, "completion_tokens": None, "teacher": {"kind": "per_token"}, "student": student}
    found = assessed(tmp_path, measured, **empty)
    assert found.saved_usd_per_month == 120
    assert found.sources == {"teacher": "big config 2026-07-01", "student": "config"}


def test_machines_day_and_night_are_paid_whole(tmp_path: Path) -> None:
    found = assessed(tmp_path, student_billing="always_on")
    assert str(found.figures["fixed_usd_per_month"].cents) == "535.60"  # 0.72 · 730 + 10
    assert found.figures["student_usd_per_request"].value == 0
    # 100,000 · (0.0025 − 0.0005) − 535.60 = −335.60
    assert found.saved_usd_per_month == pytest.approx(-335.60)
    assert found.break_even_day is None and found.as_json()["figures"]["break_even_days"]["never"] is True


def test_a_machines_hour_is_the_cheapest_offer_with_its_source() -> None:
    price = hour_price(Machine(accelerator="l4", cloud="gcp"), "money.compute")
    cheapest = min(o.price for o in offers(accelerators=["l4"], clouds=["gcp"], spot=False))
    assert price.usd.as_float == cheapest and "gcp g2-standard-4" in price.source and "seen 20" in price.source
    assert hour_price(Machine(instance="c7g.large"), "money.compute").usd.as_float == 0.0725


def test_a_machine_that_nobody_offers_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"money.compute: nobody offers 'x9.large aws'; give money.compute.usd_per"):
        hour_price(Machine(instance="x9.large", cloud="aws"), "money.compute")
    with pytest.raises(InputError, match="unknown accelerator"):
        hour_price(Machine(accelerator="h1000"), "money.compute")


def test_peoples_hours_are_a_total_that_only_grows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for hours, rate in ((2.0, 80), (2.0, 80), (3.5, 100)):
        book_people(ledger, hours, rate)
    assert ledger.invested()["people"].value == 2 * 80 + Decimal("1.5") * 100
    with pytest.raises(ConfigError, match="people_hours is 1, but .* has 3.5 already"):
        book_people(ledger, 1, 80)


def test_tables_show_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    found = assessed(tmp_path, compute={})
    rows = {row[0]: row[1:] for row in money_table(found).rows}
    assert rows["saving_usd_per_month"] == ("120.00", "")
    assert rows["break_even_days"] == (None, "money.compute.usd_per_hour")
    assert len(sensitivity_table(found).rows) == 5
    compared = {row[0]: row[1:] for row in before_after(Measures(0.8, 0.01), Measures(0.78), found).rows}
    assert compared["USD a request"] == (0.0025, 0.0007, pytest.approx(0.28))
    assert compared["quality"] == (0.8, 0.78, pytest.approx(0.975))
    assert compared["bytes on disk"] == (None, None, None)


def test_the_report_is_plain_json_and_the_same_again(tmp_path: Path) -> None:
    first, again = (json.dumps(assessed(tmp_path / name).as_json(), allow_nan=False) for name in "ab")
    assert first == again


def test_only_what_is_known_is_drawn(tmp_path: Path) -> None:
    drawn = pictures(assessed(tmp_path))
    assert list(drawn) == ["cumulative-cost.png", "sensitivity.png"]
    labels = [text.get_text() for text in drawn["cumulative-cost.png"].axes[0].get_legend().get_texts()]
    assert labels == ["teacher alone", "with the student", "break-even, day 6"]
    for name, figure in drawn.items():
        figure.savefig(tmp_path / name)
    assert list(pictures(assessed(tmp_path / "unpriced", compute={}))) == ["sensitivity.png"]
    assert pictures(assessed(tmp_path, requests_per_month=None)) == {}


def test_cheaper_ways_to_the_same_tokens_are_shown(tmp_path: Path) -> None:
    hint = Hint("batch", "the batch API of somebody", 20.0, 10.0)
    money = config()
    found = assess(money, MEASURED, spent(tmp_path, money), seed=0, hints=(hint,))
    assert hints_table(found).rows == (("batch", "the batch API of somebody", 20.0, 10.0),)
