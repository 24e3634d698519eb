"""Constraints and the order in which tokens are tried; that of calls is tested with the grammar."""

from collections.abc import Sequence
from typing import Any

import torch

from phases.agent.constraint import TRIED, AllOf, Begun, Kept, allowed
from phases.decoding import decode, likeliest


class Below:
    """Tokens below a number; counts how often it is asked."""

    def __init__(self, bound: int) -> None:
        self.bound, self.asked = bound, 0

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        self.asked += 1
        return token < self.bound


ORDER = torch.arange(100.0).flip(0)  # token 0 is the likeliest
REVERSE = ORDER.flip(0)


def test_the_likeliest_that_fit_are_found_in_their_order() -> None:
    assert allowed(Below(3), 0, [], 2, REVERSE) == [2, 1]
    assert allowed(Below(3), 0, [], 5, ORDER) == [0, 1, 2]
    assert allowed(None, 0, [], 80, ORDER) == list(range(80))


def test_nearly_always_one_token_is_tried() -> None:
    constraint = Below(100)
    assert allowed(constraint, 0, [], 1, ORDER) == [0] and constraint.asked == 1


def test_a_token_beyond_the_likeliest_is_found_where_none_of_them_fits() -> None:
    constraint = Below(100 - TRIED - 5)
    assert allowed(constraint, 0, [], 3, REVERSE) == [30, 29, 28]
    assert constraint.asked == TRIED + 8  # none is tried twice


def test_what_is_out_of_the_question_is_asked_of_the_next_order() -> None:
    banned = ORDER.clone()
    banned[:3] = -torch.inf
    assert allowed(Below(3), 0, [], 2, banned, REVERSE) == [2, 1]
    assert allowed(Below(4), 0, [], 2, banned, ORDER) == [3]
    assert allowed(Below(0), 0, [], 2, banned, REVERSE) == [99]  # none fits at all


def test_all_of_several_must_hold() -> None:
    both = AllOf([Below(5), Begun([[7, 3]])])
    assert [both.fits(0, [], 7), both.fits(0, [7], 3), both.fits(0, [7, 3], 4), both.fits(0, [7, 3], 5)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_text_begins_as_is_given_and_goes_on_as_after_a_prompt_that_ends_so(tiny_model: Any) -> None:
    prompts, starts = [[1, 2, 3], [4], [5, 6]], [[9, 8, 7], [], [200]]
    begun = decode(tiny_model, prompts, [9] * 3, set(), Kept(likeliest, Begun(starts), 3))
    longer = [[*prompt, *start] for prompt, start in zip(prompts, starts, strict=True)]
    rest = decode(tiny_model, longer, [9 - len(start) for start in starts], set(), likeliest)
    assert begun == [[*start, *tokens] for start, tokens in zip(starts, rest, strict=True)]
