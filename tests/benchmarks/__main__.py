"""`make bench`: every benchmark as a table on the terminal and JSON in `checkpoints/bench.json`.

    python -m tests.benchmarks [--pairs 5] [--only training,muon,…]

Run it on a quiet machine: it takes about 50 minutes on two cores, and twenty more where `make forge` has made the
default run, as compression is then measured on that; its picture is in `checkpoints/bench/`.
`tests.benchmarks.distillation_cache` tells what students learn from a cache of random teachers too, and
`tests.benchmarks.noninferiority` all error rates of the gate.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from flows.quiet import settle_environment

OUT = Path("checkpoints/bench.json")
ALL = (
    "training,muon,merging,overhead,thoughts,ternary,compression,planning,distillation,near_duplicates,curation,gate,"
    "cache"
)


def main() -> None:
    """Run the chosen benchmarks and write their figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default=ALL, help=f"some of {ALL}")
    arguments = parser.parse_args()
    chosen = set(arguments.only.split(","))
    settle_environment()
    warnings.simplefilter("ignore")
    from tests.benchmarks import (
        compression,
        curation,
        distillation_cache,
        inputs,
        merging,
        muon,
        near_duplicates,
        noninferiority,
        overhead,
        planning,
        ternary_decode,
        ternary_matmul,
        thoughts,
        training,
    )
    from tests.benchmarks.pairs import Comparison, as_json, table

    rows: list[Comparison] = []
    extra: dict[str, Any] = {}
    if "training" in chosen:
        small, large = inputs.data(2048, 256), inputs.data(8192, 256)
        rows.append(training.run(small, "embedded", 20, 16, "fp32", arguments.pairs))
        rows.append(training.run(large, "25m", 3, 8, "bf16", arguments.pairs))
    if "muon" in chosen:
        rows += [muon.run("embedded", 10, arguments.pairs), muon.run("25m", 1, arguments.pairs)]
    if "merging" in chosen:
        rows.append(merging.run(inputs.family(), arguments.pairs))
    if "overhead" in chosen:
        row, start = overhead.run(arguments.pairs, [])
        rows.append(row)
        extra["first_flow_extra_seconds"] = round(start, 1)
    if "thoughts" in chosen:
        rows += thoughts.run(arguments.pairs)
        extra["quiet_star_options"] = thoughts.options(arguments.pairs)
    if "ternary" in chosen:
        rows += ternary_matmul.run(arguments.pairs) + ternary_decode.run(arguments.pairs)
    if "compression" in chosen:
        extra["compression"] = compression.run_default(arguments.pairs)
    if "planning" in chosen:
        extra["planning"] = planning.run(arguments.pairs)
    if "distillation" in chosen:
        rows += distillation_cache.speed(arguments.pairs)
    if "near_duplicates" in chosen:
        extra["near_duplicates"] = near_duplicates.run()
    if "curation" in chosen:
        extra["curation"] = curation.run()
    if "gate" in chosen:
        extra["gate"] = noninferiority.run()
    if "cache" in chosen:
        extra["cache"] = distillation_cache.quality_of_trained()
    print(table(rows))
    if "first_flow_extra_seconds" in extra:
        print(f"first flow of a process (ephemeral server start): {extra['first_flow_extra_seconds']} s more")
    for name, share in extra.get("quiet_star_options", {}).items():
        print(f"Quiet-STaR {name}: {share['time']} of the time and {share['memory']} of the memory of ours above, fp32")
    if "compression" in extra:
        print(f"compression: {extra['compression']['model']}; its table is above, its picture in {compression.OUT}/")
        for line in extra["compression"]["not_measured"]:
            print(line)
    for name, taken in extra.get("planning", {}).items():
        print(f"planning, {name}: {1000 * taken:,.1f} ms of processor time")
    for name, value in extra.get("near_duplicates", {}).items():
        print(f"near-duplicates, {name}: {value}")
    for name, value in extra.get("curation", {}).items():
        print(f"curation, {name}: {value}")
    for name, rate in extra.get("gate", {}).items():
        print(f"gate, {name}: {rate:.4f}")
    if "cache" in extra:
        distillation_cache.told("trained", extra["cache"])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"rows": json.loads(as_json(rows)), **extra}, indent=2) + "\n")
    print(f"written to {OUT}", file=sys.stderr)


main()
