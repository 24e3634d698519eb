"""The smallest number of replicas, and what has to be rented for it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.hardware import Offer
from deployment.planning.capacity import least
from deployment.planning.fleet import Subject, instances_for, no_room, rented
from deployment.planning.renting import by_accelerator, contenders
from deployment.serving import Serving

OFFER = Offer("c", "i", "r", "h100-sxm", 8, 10.0, "USD", False, 96, 2**40, "2026-07-20", "test")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(-5, 500))
def test_least_is_what_trying_every_number_finds(answer, most, guess):
    calls = []

    def meets(n):
        calls.append(n)
        return n >= answer

    assert least(meets, most, guess) == next((n for n in range(1, most + 1) if n >= answer), None)
    assert all(1 <= n <= most for n in calls)
    assert len(calls) == len(set(calls))


def test_a_good_guess_takes_two_looks():
    calls = []
    assert least(lambda n: calls.append(n) or n >= 57, 1000, 57) == 57
    assert calls == [57, 56]


@pytest.mark.parametrize(
    ("tp", "pp", "replicas", "count", "instances"),
    [
        (1, 1, 1, 1, 1),
        (1, 1, 9, 8, 2),  # eight fit in one
        (2, 1, 4, 8, 1),
        (4, 1, 3, 8, 2),
        (3, 1, 3, 8, 2),  # two of three accelerators in each, two stay idle
        (8, 1, 2, 4, None),  # tensor parallelism does not leave the instance
        (8, 2, 3, 8, 6),  # a stage in each
        (4, 2, 3, 8, 3),
        (2, 4, 1, 4, 2),
        (2, 3, 1, 4, None),  # the last instance would be half filled
    ],
)
def test_instances(tp, pp, replicas, count, instances):
    assert instances_for(Serving(tp=tp, pp=pp), replicas, replace(OFFER, count=count)) == instances


offers = st.lists(
    st.builds(
        lambda name, count, price: replace(OFFER, instance=name, count=count, price=price),
        st.sampled_from(["a", "b", "1x a (median offer)", "2x b (cheapest verified offer)"]),
        st.sampled_from([1, 2, 4, 8]),
        st.floats(0.1, 100),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(offers, st.sampled_from([1, 2, 4, 8]), st.integers(1, 30))
def test_cheapest_of_the_contenders_is_the_cheapest_of_all(offers, tp, replicas):
    serving = Serving(tp=tp)
    costs = [
        number * offer.price for offer in offers if (number := instances_for(serving, replicas, offer)) is not None
    ]
    few = contenders(by_accelerator(offers))["h100-sxm"]
    found = rented(serving, replicas, few)
    assert (found[2] if found else None) == (min(costs) if costs else None)


def test_a_marketplaces_machine_is_let_once():
    one = replace(OFFER, instance="1x h100-sxm (cheapest verified offer)", count=1, price=1.0)
    assert rented(Serving(), 1, [one, OFFER]) == (one, 1, 1.0)
    assert rented(Serving(), 2, [one, OFFER]) == (OFFER, 1, 10.0)
    assert rented(Serving(), 2, [one]) is None
    refused = no_room(Subject("m", "h100-sxm", Serving()), 2, [one])
    assert (refused.constraint, refused.value, refused.limit) == ("instance", 2.0, 1.0)
    assert "let once" in refused.explanation
