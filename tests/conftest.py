"""What every test shares: one thread, fixed seeds, no network."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)


MADE_ONCE = {"original", "short", "prefect_server"}
"""Session fixtures of tests/flows that take tens of seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Among several processes a file's tests stay together, as do all files that share a finished run."""
    fixtures: dict[Path, set[str]] = {}
    for item in items:
        fixtures.setdefault(item.path, set()).update(getattr(item, "fixturenames", ()))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("flows" if fixtures[item.path] & MADE_ONCE else str(item.path)))


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Every test starts from the same random state, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
