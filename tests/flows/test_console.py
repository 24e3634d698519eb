"""What a run says."""

import io
import logging
import sys

import pytest

from flows.console import say


class Gone(io.StringIO):
    """A pipe whose reader was killed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def test_a_line_that_nobody_reads_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    with caplog.at_level(logging.INFO, "forge"):
        say("still here")
    assert caplog.messages == ["still here"]  # Prefect's page has it
