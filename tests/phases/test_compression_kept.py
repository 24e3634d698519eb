"""What is kept of the parent: shares that are 1 at most, and a standard error that knows it."""

import numpy as np
import pytest

from phases.compression.kept import Kept, Pair


def answers(right: int, parents: int, both: int, n: int = 400) -> Pair:
    """So many right answers of ours, of the parent, and of both."""
    place = np.arange(n)
    return (place < right).astype(float), ((place >= right - both) & (place < right - both + parents)).astype(float)


EVEN = (np.full(50, 2.0), np.full(50, 2.0))


def test_every_share_is_capped_before_the_mean() -> None:
    kept = Kept({"a": answers(300, 200, 200), "b": answers(100, 200, 100)}, {"c": answers(40, 10, 10)}, EVEN)
    assert {name: share for name, (share, _) in kept.groups.items()} == {"tasks": 0.75, "domains": 1.0, "text": 1.0}
    assert kept.mean == pytest.approx((0.75 + 1 + 1) / 3)


def test_text_is_the_parents_loss_over_ours_and_what_nobody_could_do_is_left_out() -> None:
    kept = Kept({"a": answers(5, 0, 0)}, {}, (np.array([1.0, 2.0]), np.array([2.0, 2.0])))
    assert kept.groups.keys() == {"text"} and kept.mean == 0.75


def test_far_below_the_cap_the_error_is_the_ratio_estimators() -> None:
    ours, theirs = answers(200, 280, 180)
    kept = Kept({"a": (ours, theirs)}, {}, EVEN)
    residual = ours - ours.sum() / theirs.sum() * theirs
    wanted = np.sqrt(len(ours) / (len(ours) - 1) * (residual**2).sum()) / theirs.sum()
    assert kept.groups["tasks"][1] == pytest.approx(wanted, rel=0.06)
    assert kept.stderr == pytest.approx(wanted / 2, rel=0.06)


def test_what_is_far_above_the_parent_is_certainly_one() -> None:
    kept = Kept({"a": answers(300, 100, 100)}, {}, EVEN)
    assert kept.mean == 1 and kept.stderr == 0


def test_errors_are_of_pairs_and_the_same_each_time() -> None:
    """Both answered the same questions: where ours loses a few of the parent's, the share is known well."""
    close, far = (Kept({"a": answers(190, 200, both)}, {}, EVEN) for both in (190, 100))
    assert close.stderr < far.stderr / 3
    assert close.stderr == Kept({"a": answers(190, 200, 190)}, {}, EVEN).stderr


def test_questions_that_are_a_task_and_a_domain_vary_together() -> None:
    both, twin = answers(200, 280, 180), answers(200, 280, 180)
    together, apart = Kept({"a": both}, {"a": both}, EVEN), Kept({"a": both}, {"a": twin}, EVEN)
    assert together.mean == apart.mean
    assert together.stderr == pytest.approx(together.groups["tasks"][1] * 2 / 3)
    assert together.stderr > 1.3 * apart.stderr


def test_what_is_not_a_number_is_nothing_kept() -> None:
    ones, broken = np.ones(4), np.full(4, np.nan)
    kept = Kept({"a": (ones, ones)}, {}, (ones, broken))
    assert kept.mean == 0.5 and kept.groups["text"] == (0.0, 0.0)
