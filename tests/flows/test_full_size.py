"""The document of full sizes is what its program writes of the kept figures, and says at which batches they are."""

import json
from pathlib import Path

import yaml

from tests.benchmarks.full_size import STEPS, written

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "full-size.json"


def test_the_document_is_of_the_kept_figures() -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == written(kept["phases"], kept["note"])
    assert yaml.safe_load(yaml.safe_dump(STEPS)) == kept["cut"]


def test_it_says_at_which_batches_memory_was_measured() -> None:
    text = " ".join(written([], "").split())
    assert "memory at these cut batches: 2 rows a step instead of up to 128, " in text
    assert "thoughts at 4 instead of 256 positions" in text and "prove shapes and memory" not in text
