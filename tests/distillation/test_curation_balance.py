"""Shares of groups against their definition; who stays does not depend on order; figures against small sums."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.curation.balance import Balance, balance, rooms
from distillation.curation.measures import count, diversity
from distillation.record import Record, asked

COUNTS = st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(1, 200), max_size=6)


def group(name: str, n: int, **rest: Any) -> list[Record]:
    return [asked(f"{name} {i}", group=name, **rest) for i in range(n)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"shares": "as_is"}, {"a": 900, "b": 90, "c": 10}),
        ({"shares": "equal"}, {"a": 334, "b": 90, "c": 10}),
        ({"shares": "square_root"}, {"a": math.ceil(math.sqrt(900 * 1000 / 3)), "b": 90, "c": 10}),
        ({"shares": "as_is", "most_per_group": 50}, {"a": 50, "b": 50, "c": 10}),
        ({"shares": "equal", "most": 60}, {"a": 25, "b": 25, "c": 10}),
        ({"shares": "as_is", "most": 100}, {"a": 90, "b": 9, "c": 1}),
        ({"shares": "as_is", "most": 5000}, {"a": 900, "b": 90, "c": 10}),
    ],
)
def test_rooms_by_hand(config: dict[str, Any], expected: dict[str, int]) -> None:
    assert rooms({"a": 900, "b": 90, "c": 10}, Balance(**config)) == expected


@given(COUNTS, st.sampled_from(["as_is", "square_root", "equal"]), st.integers(1, 300))
def test_rooms_fill_the_whole_and_never_more_than_there_is(counts: dict[str, int], shares: Any, most: int) -> None:
    free = rooms(counts, Balance(shares=shares))
    room = rooms(counts, Balance(shares=shares, most=most))
    assert sum(room.values()) == min(most, sum(free.values()))
    assert all(0 <= room[name] <= free[name] <= counts[name] for name in counts)


def test_the_same_stay_whatever_the_order_and_others_with_another_seed() -> None:
    records = group("a", 60) + group("b", 6)
    config = Balance(shares="equal", most=20)
    kept = balance(records, config, 1)[0]
    assert {r.key for r in kept} == {r.key for r in balance(records[::-1], config, 1)[0]}
    assert {r.key for r in kept} != {r.key for r in balance(records, config, 2)[0]}
    assert Counter(r.group for r in kept) == {"a": 14, "b": 6}


def test_edge_cases_stay_first_and_the_step_says_what_went() -> None:
    records = group("a", 30) + [asked(f"edge {i}", group="a", edge=True) for i in range(3)]
    kept, step = balance(records, Balance(most_per_group=5), 0)
    assert sum(r.edge for r in kept) == 3
    assert step.removed == {"more of its group than its share": 28}
    assert step.findings == {"group a": 5}
    assert balance([], Balance(), 0)[0] == []


def test_diversity_by_hand() -> None:
    records = [
        asked("a b a b", group="x"),
        asked("a b c", group="y"),
        asked("d e f", group="y"),
        asked("d e f g", group="y"),
    ]
    found = diversity(records, 0)
    assert found.distinct["1-grams"] == 7 / 14
    assert found.distinct["2-grams"] == pytest.approx(6 / 10)
    assert found.group_entropy_bits == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))
    assert found.nearest == pytest.approx((2 / 3 + 2 / 3 + 3 / 4 + 3 / 4) / 4)
    assert (found.groups, found.sample) == (2, 4)


def test_diversity_of_little() -> None:
    assert diversity([], 0).nearest is None
    one = diversity([asked("a")], 0)
    assert (one.nearest, one.group_entropy_bits, one.distinct) == (
        None,
        0.0,
        {"1-grams": 1.0, "2-grams": 0.0, "3-grams": 0.0},
    )


def test_tokens_are_counted() -> None:
    records = [asked("a b", completion="c d e"), asked("a b c"), asked("d", completion="e")]
    tokens = count(records, lambda text: len(text.split()))
    assert (tokens.prompt, tokens.completion, tokens.records, tokens.answered) == (6, 4, 3, 2)
