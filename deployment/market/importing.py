"""Bring the offers up to date from a price list that somebody publishes.

    python -m deployment.market.importing aws zz_generated.pricing_aws.go instance-types.md
    python -m deployment.market.importing azure zz_generated.pricing.go
    python -m deployment.market.importing gcp initial-prices.json --date 2026-08-03
    python -m deployment.market.importing skypilot vms.csv --cloud lambda --date 2026-10-10
    python -m deployment.market.importing gpu-price-index 2026-10-10.csv
    python -m deployment.market.importing plain offers.csv

Each format's file says where its list is found (`formats/`). Prices are merged into the file in force (`FORGE_OFFERS`,
else the shipped one; `--store` names another): of the same offer the newer one stays, and what a newer list of the same
source no longer has in a region is dropped (but for `plain`, which may be a part). What was left out is counted.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from deployment.hardware import Offer
from deployment.market.formats import gcp_prices, go_prices, gpu_price_index, instance_types, skypilot
from deployment.market.offers import file as offers_in_force
from deployment.market.store import identity, merge, read_offers, write_offers
from phases.errors import ForgeError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 with one line about what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        offers, left_out = read(options.format, options.files, options.cloud, options.date)
        store = options.store or offers_in_force()
        old = read_offers(store) if store.exists() else []
        merged = merge(old, offers, complete=options.format != "plain")
        write_offers(store, merged)
    except ForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    gone = len({identity(offer) for offer in old} - {identity(offer) for offer in merged})
    print(f"{len(offers)} offers read; {store} has {len(merged)}, {len(merged) - len(old) + gone} new, {gone} dropped")
    for reason, number in left_out.most_common():
        print(f"left out: {number} prices {reason}")
    return 0


def read(form: str, files: Sequence[Path], cloud: str | None, day: str | None) -> tuple[list[Offer], Counter[str]]:
    """The offers of the files, and how many prices were left out by reason. Raises InputError, DataError."""
    if len(files) != (2 if form == "aws" else 1):
        needed = "the price file and the page of instance types" if form == "aws" else "one file"
        raise InputError(f"{form} takes {needed}, not {len(files)} files")
    if form == "plain":
        return read_offers(files[0]), Counter()
    if form == "aws":
        imported = go_prices.read_aws(files[0], instance_types.read(files[1]))
    elif form == "azure":
        imported = go_prices.read_azure(files[0])
    elif form == "gpu-price-index":
        imported = gpu_price_index.read(files[0])
    elif form == "gcp":
        imported = gcp_prices.read(files[0], _seen_on(form, day))
    else:
        if not cloud:
            raise InputError("a skypilot catalogue does not name its cloud: add --cloud NAME")
        imported = skypilot.read(files[0], cloud, _seen_on(form, day))
    return imported.offers, imported.left_out


def _seen_on(form: str, day: str | None) -> str:
    try:
        return date.fromisoformat(day or "").isoformat()
    except ValueError:
        raise InputError(f"a {form} price list has no day: add --date YYYY-MM-DD, on which it was made") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployment.market.importing", description="Merge a published price list into the offers."
    )
    parser.add_argument("format", choices=("aws", "azure", "gcp", "skypilot", "gpu-price-index", "plain"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cloud", help="whose prices they are (skypilot)")
    parser.add_argument("--date", help="ISO day on which the prices were seen (gcp, skypilot)")
    parser.add_argument("--store", type=Path, help="the CSV file of offers to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
