"""Questions put differently: a share of them, whole, seeded, with their answers."""

import pytest

from distillation.record import asked
from distillation.training.variants import WAYS, with_variants

RECORDS = [asked(f"what is the sum of {i} and {i + 1}", completion=str(2 * i + 1), group="sum") for i in range(50)]


@pytest.mark.parametrize(("share", "more"), [(0.0, 0), (0.2, 10), (1.0, 50)])
def test_a_share_is_learnt_once_more(share: float, more: int) -> None:
    found = with_variants(RECORDS, share, 0)
    assert found[:50] == RECORDS and len(found) == 50 + more
    for new in found[50:]:
        (old,) = [one for one in RECORDS if one.completion == new.completion]
        assert new.prompt != old.prompt and " ".join(old.prompt.split()) in " ".join(new.prompt.split())
        assert (new.group, new.reference) == (old.group, old.reference)


def test_the_ways_come_in_turn_and_by_the_seed() -> None:
    found = with_variants(RECORDS, 0.4, 3)[50:]
    blank = [one.prompt.startswith("\n\n") for one in found]
    assert sum(blank) == len(found) / len(WAYS)
    assert found == with_variants(RECORDS, 0.4, 3)[50:] != with_variants(RECORDS, 0.4, 4)[50:]


def test_what_cannot_be_changed_comes_once() -> None:
    assert with_variants([], 0.5, 0) == []
