"""Cases worked by hand, to the cent: the arithmetic stands beside each."""

from decimal import Decimal

import pytest

from distillation.money.amount import NOTHING, Amount, known, unknown
from distillation.money.month import (
    NEVER,
    Month,
    break_even_months,
    cost_with,
    cost_without,
    discounted,
    net_present_value,
    return_on_investment,
    saving,
    total_cost,
)
from distillation.money.pricing import TokenPrice, always_on_usd, hosted_price, hosted_token_usd, request_cost


def cents(amount: Amount) -> str:
    return str(amount.cents)


def million(read: str, cached: str, written: str) -> TokenPrice:
    return TokenPrice(*(known(Decimal(usd)) / known(1_000_000) for usd in (read, cached, written)))


def month(**values: str) -> Month[Amount]:
    usual = {"requests": "100000", "teacher_usd": "0.0025", "student_usd": "0.0004", "escalation": "0.05"}
    usual |= {"extra_errors": "0.01", "error_usd": "0.05", "fixed_usd": "10"}
    return Month(**{name: known(Decimal(value)) for name, value in (usual | values).items()})


def test_1_a_request_at_a_provider() -> None:
    # 1,000 read at $2.50 a million, 200 written at $10 a million:
    # 1,000 · 0.0000025 + 200 · 0.00001 = 0.0025 + 0.0020 = 0.0045; 10,000 of them: $45.00
    cost = request_cost(known(1_000), known(200), NOTHING, million("2.5", "1.25", "10"))
    assert cost.value == Decimal("0.0045")
    assert cents(cost * known(10_000)) == "45.00"


def test_2_a_request_with_sixty_percent_of_the_prompt_cached() -> None:
    # 1,000 · (0.4 · 0.0000025 + 0.6 · 0.00000125) = 1,000 · 0.00000175 = 0.00175; + 0.0020 = 0.00375
    cost = request_cost(known(1_000), known(200), known(0.6), million("2.5", "1.25", "10"))
    assert cost.value == Decimal("0.00375")
    assert cents(cost * known(10_000)) == "37.50"


def test_3_a_token_on_ones_own_machine() -> None:
    # $0.72 an hour, 500 tokens a second, busy 40 % of the time: 0.72 / (3600 · 500 · 0.4) = 0.72 / 720,000 = 0.000001
    token = hosted_token_usd(known(0.72), known(500), known(0.4))
    assert token.value == Decimal("0.000001")
    # read at 5,000 a second: a tenth. 1,000 read and 200 written: 0.0001 + 0.0002 = 0.0003; a million requests: $300
    price = hosted_price(known(0.72), known(500), known(5_000), known(0.4))
    assert cents(request_cost(known(1_000), known(200), known(0.3), price) * known(1_000_000)) == "300.00"


def test_4_a_months_saving_and_when_it_has_paid() -> None:
    # without: 100,000 · 0.0025 = 250.00
    # with: 100,000 · (0.0004 + 0.05 · 0.0025 + 0.01 · 0.05) + 10 = 100,000 · (0.0004 + 0.000125 + 0.0005) + 10 = 112.50
    # saving 137.50; 1,100 invested: 1,100 / 137.50 = 8 months = 8 · 730 / 24 = 243.33 days
    usual = month()
    assert (cents(cost_without(usual)), cents(cost_with(usual)), cents(saving(usual))) == ("250.00", "112.50", "137.50")
    assert break_even_months(known(1_100), saving(usual)).value == 8


def test_5_errors_eat_the_saving() -> None:
    # an error costs $0.26: 0.01 · 0.26 = 0.0026 a request, more than the teacher's price:
    # 100,000 · (0.0025 − 0.0004 − 0.000125 − 0.0026) − 10 = 100,000 · (−0.000625) − 10 = −72.50, and never pays
    dear = month(error_usd="0.26")
    assert cents(saving(dear)) == "-72.50"
    assert break_even_months(known(1_100), saving(dear)) == NEVER
    assert break_even_months(unknown("price"), saving(dear)) == NEVER


def test_6_total_cost_and_present_value() -> None:
    # at 21 % a year, half a year is √1.21 = 1.1; payments at months 6 and 12 alone would be worth 1/1.1 + 1/1.21.
    # Over two months at d = (1.21)^(1/12) − 1 = 0.01601187 a month, of $100 each:
    # 100 / 1.01601187 + 100 / 1.03228012 = 98.42404660 + 96.87292942 = 195.29697602 → $195.30
    assert cents(discounted(known(100), 2, 0.21)) == "195.30"
    # an investment of 150: NPV 195.30 − 150 = 45.30; as a cost: 345.30
    assert cents(net_present_value(known(150), known(100), 2, 0.21)) == "45.30"
    assert cents(total_cost(known(150), known(100), 2, 0.21)) == "345.30"


def test_7_return_on_investment() -> None:
    # 12 · 137.50 = 1,650.00 for 1,100: (1,650 − 1,100) / 1,100 = 0.5
    assert return_on_investment(known(1_100), saving(month()), known(12)).value == Decimal("0.5")
    assert return_on_investment(NOTHING, saving(month()), known(12)).missing == (
        "a return on nothing: the investment is 0",
    )


def test_8_whole_machines_day_and_night() -> None:
    # by use $0.0003 a request; 3,000,000 requests: $900. A machine at $0.72: 0.72 · 730 = 525.60 a month.
    # 900 / 525.60 = 1.71: two machines, 2 · 525.60 = 1,051.20. A hundred requests still need one: 525.60.
    assert cents(always_on_usd(known(0.72), known(3_000_000), known(0.0003))) == "1051.20"
    assert cents(always_on_usd(known(0.72), known(100), known(0.0003))) == "525.60"


@pytest.mark.parametrize("months", [1, 12, 36])
def test_the_present_value_is_what_the_two_total_costs_differ_by(months: int) -> None:
    usual, spent = month(), known(1_100)
    without = discounted(cost_without(usual), months, 0.08)
    with_student = total_cost(spent, cost_with(usual), months, 0.08)
    value = net_present_value(spent, saving(usual), months, 0.08)
    assert cents(without - with_student) == cents(value)


def test_without_interest_a_month_is_a_month() -> None:
    assert discounted(known(100), 7, 0.0).value == 700


def test_what_is_missing_is_named_once_and_never_counted_as_nothing() -> None:
    lacking = unknown("a") + known(1) - unknown("b") * unknown("a")
    assert lacking.value is None and lacking.missing == ("a", "b") and lacking.cents is None
    assert (NOTHING * unknown("a")).value == 0  # none of it costs nothing, whatever one costs
    assert (NOTHING / unknown("speed")).value == 0
    assert (known(1) / unknown("speed")).missing == ("speed",)
