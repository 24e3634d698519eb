"""A plan for one machine: a docker compose file with one engine a replica, each on its own accelerators.

    docker compose --file plan/compose.yaml up

Ports count up from 8000; what stands before several replicas (nginx, a load balancer) is the machine's owner's choice.
"""

from pathlib import PurePosixPath
from typing import Any

from deployment.manifests.commands import arguments
from deployment.manifests.kubernetes import LOAD_SECONDS
from deployment.manifests.plan import PORT, Plan
from phases.errors import InputError

Manifest = dict[str, Any]


def compose(plan: Plan) -> Manifest:
    """The file's content. Raises `InputError` where a replica spans machines."""
    if plan.nodes > 1:
        raise InputError(f"one replica spans {plan.nodes} instances; docker compose runs on one: use Kubernetes")
    per_machine = plan.candidate.replicas
    if plan.resource:
        per_machine = min(per_machine, max(1, plan.candidate.offer.count) // plan.accelerators_per_node)
    services = {f"engine-{i}" if i else "engine": _service(plan, i) for i in range(per_machine)}
    return {"name": plan.name, "services": services, "volumes": {"cache": {}}}


def _service(plan: Plan, number: int) -> Manifest:
    command, *rest = _literal(arguments(plan))
    made: Manifest = {
        "image": plan.image,
        # TGI's image has a start script of its own around the launcher.
        **({} if plan.runtime == "tgi" else {"entrypoint": [command]}),
        "command": rest,
        "ports": [f"{PORT + number}:{PORT}"],
        "environment": {"HF_HOME": "/cache", "HF_TOKEN": "${HF_TOKEN:-}"},
        "volumes": ["cache:/cache", *_checkpoint(plan)],
        "shm_size": "16gb",
        "restart": "unless-stopped",
        "healthcheck": _healthcheck(),
    }
    return {**made, **_devices(plan, number)}


def _literal(parts: list[str]) -> list[str]:
    """Compose replaces `$NAME` in strings; `$$` is a dollar."""
    return [part.replace("$", "$$") for part in parts]


def _checkpoint(plan: Plan) -> list[str]:
    """A folder beside the compose file, where the checkpoint is not on the hub."""
    return [f"./models/{PurePosixPath(plan.checkpoint).name}:{plan.checkpoint}:ro"] if plan.mounted else []


def _healthcheck() -> Manifest:
    script = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}/health')"
    test = ["CMD", "python3", "-c", script]
    return {"test": test, "interval": "10s", "timeout": "5s", "retries": 3, "start_period": f"{LOAD_SECONDS}s"}


def _devices(plan: Plan, number: int) -> Manifest:
    """The replica's own accelerators."""
    if not plan.resource:
        return {}
    first = number * plan.accelerators_per_node
    ids = [str(first + i) for i in range(plan.accelerators_per_node)]
    if plan.resource == "amd.com/gpu":
        # ROCm containers see all devices of the machine and are told which to use.
        return {
            "devices": ["/dev/kfd", "/dev/dri"],
            "group_add": ["video"],
            "environment": {"HF_HOME": "/cache", "HF_TOKEN": "${HF_TOKEN:-}", "HIP_VISIBLE_DEVICES": ",".join(ids)},
        }
    device = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}
