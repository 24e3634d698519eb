"""The API server's stand-in, running, with a kubeconfig for it."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.manifests.structural import read_crds
from tests.deployment.cluster.api_server import TOKEN, Cluster, Handler


@pytest.fixture
def api_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running stand-in, and a kubeconfig for it. With the marker value `crds` it checks KServe's kinds too."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    cluster.kubeconfig = tmp_path / "kubeconfig"
    named = {
        "clusters": [{"name": "here", "cluster": {"server": cluster.url}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "models"}}],
    }
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "current-context": "here", **named}
    cluster.kubeconfig.write_text(yaml.safe_dump(kubeconfig))
    yield cluster
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture
def kserve_crds(shared: Path) -> dict[Any, Any]:
    """KServe's CRDs as closed schemas."""
    return read_crds(shared / "kserve")
