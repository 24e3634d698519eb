"""What the checks are asked with: a worst finding, a web server, a dead address."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.checkup.finding import Finding, Scope
from flows.doctor import Check, examine


@pytest.fixture
def expect() -> Callable[..., Finding]:
    """Asserts what a finding says, or the worst finding of a check."""

    def made(
        what: Check | Finding, level: str, found: str, mend: str | None, out: Path = Path("nowhere"), **far: bool
    ) -> Finding:
        findings = [what] if isinstance(what, Finding) else examine(Scope(out=out, **far), (what,))
        worst = max(findings, key=lambda finding: ("ok", "warning", "wrong").index(finding.level))
        assert worst.level == level and found in worst.found, str(worst)
        assert worst.mend is None if mend is None else mend in (worst.mend or ""), str(worst)
        return worst

    return made


@contextmanager
def serving(answers: dict[str, str]) -> Iterator[str]:
    """A web server on loopback that answers these paths and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answers.get(self.path)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Callable[[dict[str, str]], AbstractContextManager[str]]:
    """`serving` as a fixture: test modules cannot import from here."""
    return serving


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that whoever runs the tests has set."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))
