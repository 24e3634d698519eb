"""The offers that are shipped, what may be asked of them, and how old they are."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.hardware import Offer
from deployment.market.accelerators import accelerator
from deployment.market.freshness import ages_days, newest, stale
from deployment.market.offers import SHIPPED, all_offers, offers
from deployment.market.store import COLUMNS, identity, merge, read_offers, sources, write_offers
from phases.errors import DataError, InputError

ROW = "aws,g6.xlarge,us-east-1,0,l4,1,0.8048,USD,4,16,2026-07-20,aws-price-list"


def test_enough_is_shipped_to_be_useful_offline() -> None:
    rented = [o for o in all_offers() if o.accelerator != "cpu"]
    assert len(rented) >= 1000
    assert len({o.cloud for o in rented if not o.spot}) >= 4 and len({o.cloud for o in rented if o.spot}) >= 4
    assert len({o.accelerator for o in rented}) >= 25
    assert len([o for o in all_offers() if o.accelerator == "cpu"]) >= 100
    assert SHIPPED.stat().st_size < 1_000_000


def test_every_offer_is_whole() -> None:
    for o in all_offers():
        assert (o.accelerator == "cpu" and o.count == 0) or accelerator(o.accelerator).name == o.accelerator
        assert 0.001 < o.price < 400 and len(o.currency) == 3 and "2026-01-01" < o.date < "2026-12-31"
        assert o.source in sources().values()
    assert max(Counter(identity(o) for o in all_offers()).values()) == 1


def test_the_file_is_sorted_and_survives_a_rewrite(tmp_path: Path) -> None:
    write_offers(tmp_path / "again.csv", reversed(all_offers()))
    assert (tmp_path / "again.csv").read_bytes() == SHIPPED.read_bytes()
    assert [identity(o) for o in all_offers()] == sorted(identity(o) for o in all_offers())


def test_interruptible_costs_less_in_each_place() -> None:
    """Azure's and Google's spot price against the same instance on demand; the days differ, so not line by line."""
    on_demand = {(o.cloud, o.instance, o.region): o.price for o in all_offers() if not o.spot}
    ratios = [o.price / on_demand[key] for o in all_offers() if o.spot and (key := identity(o)[:3]) in on_demand]
    assert len(ratios) > 400 and sorted(ratios)[len(ratios) // 2] < 0.7 and max(ratios) < 1.05


@given(
    clouds=st.none() | st.sets(st.sampled_from(["aws", "azure", "gcp", "lambda"]), min_size=1),
    wanted=st.none() | st.sets(st.sampled_from(["l4", "h100_sxm", "cpu", "mi300x"]), min_size=1),
    spot=st.none() | st.booleans(),
    max_price=st.none() | st.floats(0.1, 100),
    day=st.none() | st.dates(date(2026, 1, 1), date(2026, 12, 1)).map(str),
)
def test_a_query_gives_exactly_what_meets_it(
    clouds: set[str] | None, wanted: set[str] | None, spot: bool | None, max_price: float | None, day: str | None
) -> None:
    found = offers(clouds=clouds, accelerators=wanted, spot=spot, max_price=max_price, date=day)
    names = None if wanted is None else {w.replace("_", "-") for w in wanted}
    brute = [
        o for o in all_offers()
        if (not clouds or o.cloud in clouds) and (not names or o.accelerator in names)
        and (spot is None or o.spot is spot) and (not max_price or o.price <= max_price) and (not day or o.date >= day)
    ]  # fmt: skip
    assert sorted(found, key=identity) == sorted(brute, key=identity)
    assert [o.price_per_accelerator for o in found] == sorted(o.price_per_accelerator for o in found)


def test_a_known_price() -> None:
    (offer,) = [o for o in offers(clouds=["aws"], regions=["us-east-1"], accelerators=["l4"]) if "xl" in o.instance[:5]]
    assert (offer.instance, offer.price, offer.count, offer.vcpus) == ("g6.xlarge", 0.8048, 1, 4)
    assert offer.memory_bytes == 16 * 2**30 and "Karpenter" in offer.source


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"clouds": ["awz"]}, "no offers of cloud 'awz': did you mean aws"),
        ({"regions": ["us-central"]}, "no offers of region 'us-central': did you mean us-central1"),
        ({"accelerators": ["h10"]}, "unknown accelerator 'h10': did you mean h100"),
        ({"clouds": "aws"}, "give a list of names"),
        ({"max_price": -1}, "above 0"),
        ({"max_price": float("nan")}, "above 0"),
        ({"date": "yesterday"}, "not an ISO day"),
    ],
)
def test_a_wrong_question_is_one_clear_line(asked: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        offers(**asked)  # type: ignore[arg-type]


def test_a_team_names_its_own_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.csv"
    own.write_text(",".join(COLUMNS) + "\nours,rack-7,here,0,H100_SXM,8,9.5,EUR,0,0,2026-11-01,invoice\n")
    monkeypatch.setenv("FORGE_OFFERS", str(own))
    (offer,) = offers(currency="EUR")
    assert (offer.accelerator, offer.source, offers()) == ("h100-sxm", "invoice", [])
    monkeypatch.setenv("FORGE_OFFERS", str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="none.csv: no such file of offers"):
        offers()
    monkeypatch.setenv("FORGE_OFFERS", str(own / "x"))
    with pytest.raises(InputError, match="x: cannot be read"):
        offers()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("0.8048", "-1"), "line 2: a price of -1.0 per hour"),
        (ROW.replace("0.8048", "nan"), "a price of nan"),
        (ROW.replace("0.8048", "cheap"), "line 2: could not convert string to float: 'cheap'"),
        (ROW.replace(",l4,", ",l5,"), "unknown accelerator 'l5'"),
        (ROW.replace(",l4,1,", ",l4,0,"), "0 accelerators of 'l4'"),
        (ROW.replace("2026-07-20", "20260720"), "write it as YYYY-MM-DD"),
        (ROW.replace("2026-07-20", "July"), "line 2: Invalid isoformat"),
        (ROW.replace("us-east-1,0", "us-east-1,maybe"), "line 2: spot is 'maybe'; it has to be 0 or 1"),
        (ROW.replace("USD", "$"), "a currency of three letters"),
        (ROW + ",more", "line 2: 13 values for 12 columns"),
        ("aws,g6.xlarge", "line 2: 2 values for 12 columns"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(",".join(COLUMNS) + "\n" + row + "\n")
    with pytest.raises(DataError, match=said):
        read_offers(tmp_path / "bad.csv")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="the first line has to be cloud,instance"):
        read_offers(tmp_path / "other.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a CSV file"):
        read_offers(tmp_path / "binary.csv")
    with pytest.raises(DataError, match="cannot be written"):
        write_offers(tmp_path / "no" / "folder.csv", [])


def _offer(price: float, day: str, cloud: str = "aws") -> Offer:
    return Offer(cloud, "g6.xlarge", "us-east-1", "l4", 1, price, "USD", False, 4, 0, day, "test")


def test_merging_keeps_the_newer_price() -> None:
    old, new, later = _offer(1.0, "2026-01-01"), _offer(2.0, "2026-02-01"), _offer(3.0, "2026-02-01")
    assert merge([new], [old]) == [new] and merge([old], [new]) == [new] and merge([new], [later]) == [later]
    assert merge([old], [_offer(1.0, "2025-01-01", "gcp")]) == [old, _offer(1.0, "2025-01-01", "gcp")]


def test_freshness_counts_from_the_newest_price_of_a_cloud() -> None:
    seen = [_offer(1, "2026-01-01"), _offer(1, "2026-03-01"), _offer(1, "2026-08-01", "gcp")]
    assert newest(seen) == {"aws": "2026-03-01", "gcp": "2026-08-01"}
    assert ages_days("2026-08-28", seen) == {"aws": 180, "gcp": 27}
    assert stale("2026-08-28", seen) == []
    (line,) = stale("2026-08-29", seen)
    assert "aws are 181 days old" in line and "deployment.market.importing" in line


def test_what_is_shipped_goes_stale_by_itself() -> None:
    day = date.fromisoformat(max(newest().values()))
    assert stale((day + timedelta(days=1000)).isoformat()) and len(newest()) >= 4
