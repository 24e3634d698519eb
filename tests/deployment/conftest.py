"""Where the measured serving points, configs and schemas lie; tests that need them skip clearly without."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; it is not part of the repository."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("FORGE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"{folder}: no real data here; FORGE_SHARED_DATA names its folder")
    return folder
