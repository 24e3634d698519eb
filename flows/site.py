"""Where `forge up` listens, what its services are told, and that nobody else listens there."""

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil

from flows.runs_folder import local_uri
from flows.supervisor import Service
from phases.errors import InputError

POOL = "forge"
HOST = "127.0.0.1"
HEARTBEAT_SECONDS = 30


@dataclass(frozen=True)
class Site:
    """Where the servers listen and where their state is."""

    port: int
    mlflow_port: int
    out: Path = Path("checkpoints")
    """Folder of all runs: what the deployments' runs have as their default too."""

    @property
    def prefect_url(self) -> str:
        """Prefect's pages."""
        return f"http://{HOST}:{self.port}"

    @property
    def own_mlflow(self) -> bool:
        """Whether we run MLflow's server; no when the user has one."""
        return not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def mlflow_url(self) -> str:
        """MLflow's pages."""
        return f"http://{HOST}:{self.mlflow_port}" if self.own_mlflow else os.environ["MLFLOW_TRACKING_URI"]

    @property
    def home(self) -> Path:
        """Prefect's database and our logs."""
        return self.out.resolve() / ".prefect"

    @cached_property
    def worker_port(self) -> int:
        """Where the worker answers whether it is well; any free port."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])

    @property
    def environment(self) -> dict[str, str]:
        """What every service is told."""
        ours = {
            "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(self.home)),
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            # The page asks the browser to call this; its default is port 4200.
            "PREFECT_SERVER_UI_API_URL": f"{self.prefect_url}/api",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # A run must fail when the server is gone for good, not go on at a server of its own.
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            # Patience of 2 + 4 + … + 128 s: on a busy machine a server needs minutes to start again; the default is 62.
            "PREFECT_CLIENT_MAX_RETRIES": "7",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.worker_port),
            # Ten processes and 2.5 GB otherwise, for jobs that nobody here submits.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # Straight to the database: the server only shows it, and its being away costs nothing.
            "MLFLOW_TRACKING_URI": local_uri(self.out) if self.own_mlflow else self.mlflow_url,
            "FORGE_MLFLOW_URL": self.mlflow_url,
            "PYTHONUNBUFFERED": "1",
        }
        return {**os.environ, **ours}

    def services(self) -> list[Service]:
        """In the order in which they start."""

        def service(name: str, module: str, arguments: str, health: str) -> Service:
            log = self.home / "logs" / f"{name.split()[0].lower()}.log"
            return Service(name, [sys.executable, "-m", module, *arguments.split()], self.environment, log, health)

        prefect = f"server start --host {HOST} --port {self.port}"
        mlflow = f"server --host {HOST} --port {self.mlflow_port} --workers 1 --backend-store-uri"
        worker = f"worker start --pool {POOL} --name local --with-healthcheck"
        tracking = service("MLflow server", "mlflow", mlflow, f"{self.mlflow_url}/health")
        tracking.command = [*tracking.command, local_uri(self.out)]  # a path may hold spaces
        return [
            service("Prefect server", "prefect", prefect, f"{self.prefect_url}/api/health"),
            *([tracking] if self.own_mlflow else []),
            service("worker", "prefect", worker, f"http://{HOST}:{self.worker_port}/health"),
        ]


def check_ports(site: Site) -> None:
    """Raise `InputError` that names the taken port, who has it and what to do."""
    wanted = {"--port": site.port} | ({"--mlflow-port": site.mlflow_port} if site.own_mlflow else {})
    for option, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise InputError(f"port {port} is in use{_holder(port)}; stop that, or choose {option} N") from None


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and getattr(connection.laddr, "port", None) == port
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
