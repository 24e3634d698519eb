"""What a cluster may answer, and what a kubeconfig may hold: always one line, never a secret, never a traceback."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from deployment.cluster.answers import Unanswered
from deployment.cluster.connection import connect
from deployment.cluster.rollout import roll_out
from phases.errors import InputError

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "qwen"},
    "spec": {"selector": {"app": "qwen"}, "ports": [{"port": 8000}]},
}


def refusal(path: Path, context: str | None = None) -> InputError:
    """What is said where no cluster is reached."""
    with pytest.raises(InputError) as caught, connect(path, context) as cluster:
        roll_out(cluster, [SERVICE])
    assert "\n" not in str(caught.value)
    return caught.value


def test_nobody_answers(api_server: Any, tmp_path: Path) -> None:
    text = api_server.kubeconfig.read_text().replace(api_server.url, "http://127.0.0.1:9")
    (tmp_path / "other").write_text(text)
    with (
        pytest.raises(InputError, match="no answer from the cluster .NewConnectionError"),
        connect(tmp_path / "other") as cluster,
    ):
        roll_out(cluster, [SERVICE])


def test_wrong_token_and_wrong_context(api_server: Any, tmp_path: Path) -> None:
    text = api_server.kubeconfig.read_text().replace("token-that-nobody-may-see", "expired-secret")
    (tmp_path / "other").write_text(text)
    with (
        pytest.raises(InputError, match="401 Unauthorized; log in again") as caught,
        connect(tmp_path / "other") as one,
    ):
        roll_out(one, [SERVICE])
    assert "expired-secret" not in str(caught.value)
    with pytest.raises(InputError, match="no cluster: .*staging"), connect(api_server.kubeconfig, "staging"):
        pass
    with pytest.raises(InputError) as caught, connect(tmp_path / "absent"):
        pass
    assert str(caught.value) == f"no cluster: {tmp_path / 'absent'}: no such file; give another --kubeconfig"
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match=r"no cluster: .*[a-z]; give --kubeconfig"), connect(tmp_path / "empty"):
        pass


class Page(BaseHTTPRequestHandler):
    """A server of something else."""

    text = b""

    def log_message(self, *parts: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text)


@pytest.fixture
def page() -> Iterator[type[Page]]:
    """Serves `text`; its address is `url`."""
    kind = type("Bound", (Page,), {})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    kind.url = f"127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    yield kind
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.mark.parametrize("text", [b"<html>welcome</html>", b"[]", b"null", b"{}", b'{"kind": "APIVersions"}'])
def test_a_server_of_something_else(api_server: Any, page: Any, tmp_path: Path, text: bytes) -> None:
    page.text = text
    (tmp_path / "other").write_text(api_server.kubeconfig.read_text().replace(api_server.url, f"http://{page.url}"))
    assert "is no Kubernetes API server; check its address" in str(refusal(tmp_path / "other"))


def test_a_broken_tls_handshake(api_server: Any, page: Any, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(api_server.kubeconfig.read_text().replace(api_server.url, f"https://{page.url}"))
    error = refusal(tmp_path / "other")
    assert isinstance(error, Unanswered) and "no answer from the cluster (SSLError" in str(error)


@pytest.mark.parametrize("text", ["apiVersion: [", "", "5", "[]", "\x00", "clusters: 5\ncurrent-context: x"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    assert str(refusal(tmp_path / "config")).startswith("no cluster: ")


@pytest.mark.parametrize("address", ["5", "x://y", "''", "localhost"])
def test_an_address_that_is_none(api_server: Any, tmp_path: Path, address: str) -> None:
    (tmp_path / "config").write_text(api_server.kubeconfig.read_text().replace(api_server.url, address))
    assert str(refusal(tmp_path / "config")).startswith("no cluster: ")


def test_a_broken_entry_is_not_quoted(api_server: Any, tmp_path: Path) -> None:
    text = api_server.kubeconfig.read_text().replace(
        f"server: {api_server.url}", "server: null\n    secret: hidden-value"
    )
    (tmp_path / "config").write_text(text)
    assert str(refusal(tmp_path / "config")).startswith("no cluster: Invalid kube-config file. Expected key server;")


def test_credentials_that_a_clouds_client_does_not_find(api_server: Any, tmp_path: Path) -> None:
    text = api_server.kubeconfig.read_text().replace("token: ", "auth-provider: {name: gcp}\n    tokens: ")
    (tmp_path / "config").write_text(text)
    assert "no cluster: " in str(refusal(tmp_path / "config"))
