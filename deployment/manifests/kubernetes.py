"""A plan as plain Kubernetes objects: a Deployment, or StatefulSets where a replica spans instances, and a Service.

    from deployment.manifests.kubernetes import serving_objects
    yaml.safe_dump_all(serving_objects(plan))

A pod asks for as many accelerators as its engine is told to use. A replica over several instances is a StatefulSet of
as many pods as instances, all started at once; the ordinal is the rank, and only rank 0 answers requests (vLLM's
multi-node serving without Ray). The Service sends requests to pods that are ready alone.
"""

from math import ceil
from typing import Any

from deployment.manifests.commands import MASTER_PORT, arguments, multi_node_flags, ranked
from deployment.manifests.plan import MODELS, PORT, Plan

Manifest = dict[str, Any]
SHARED_MEMORY = "16Gi"
"""Limit, not a reservation: engines' processes pass tensors through /dev/shm, and the default of 64 MiB stops NCCL."""
LOAD_SECONDS = 3600
"""A checkpoint may take so long to download and load before the pod counts as failed."""
HEADROOM = 0.8
"""Share of an instance's CPUs and memory that its pods ask for: the node's own services need the rest."""
STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
"""Of a changed Deployment: no surge, it would need accelerators that nobody pays for."""
_GIB = 2**30
_SPOT = {
    "gcp": ("cloud.google.com/gke-spot", "true"),
    "azure": ("kubernetes.azure.com/scalesetpriority", "spot"),
    "aws": ("eks.amazonaws.com/capacityType", "SPOT"),
}
"""What the clouds' own node pools of spot instances are labelled with; GKE and AKS taint them with the same."""
_SERVER = {"agent-forge/role": "server"}
"""Of pods that each answer requests: those that only compute, of a plan of the other shape, carry the same names."""
_RANK = "NODE_RANK"


def serving_objects(plan: Plan) -> list[Manifest]:
    """Everything that serves requests, in the order in which it is applied."""
    if plan.nodes == 1:
        return [deployment(plan), service(plan)]
    names = [f"{plan.name}-{i}" for i in range(plan.candidate.replicas)]
    pieces = [piece for name in names for piece in (_peers(plan, name), stateful_set(plan, name))]
    return [*pieces, service(plan)]


def metadata(plan: Plan, name: str | None = None) -> Manifest:
    """Name and labels."""
    return {"name": name or plan.name, "labels": plan.labels}


def deployment(plan: Plan) -> Manifest:
    """All replicas, each one pod."""
    spec = {
        "replicas": plan.candidate.replicas,
        "progressDeadlineSeconds": LOAD_SECONDS,
        "strategy": STRATEGY,
        "selector": {"matchLabels": plan.labels},
        "template": {"metadata": {"labels": {**plan.labels, **_SERVER}}, "spec": pod(plan, container(plan))},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(plan), "spec": spec}


def stateful_set(plan: Plan, name: str) -> Manifest:
    """One replica over `plan.nodes` pods."""
    labels = {**plan.labels, "agent-forge/replica": name}
    spec = {
        "replicas": plan.nodes,
        "serviceName": f"{name}-peers",
        "podManagementPolicy": "Parallel",  # each waits for the others
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod(plan, _ranked(plan, name))},
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata(plan, name), "spec": spec}


def service(plan: Plan) -> Manifest:
    """The address of all replicas; of those over several instances the first pods."""
    first = {"apps.kubernetes.io/pod-index": "0"}
    selector = {**plan.labels, **(_SERVER if plan.nodes == 1 else first)}
    ports = [{"name": "http", "port": PORT, "targetPort": "http"}]
    spec = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(plan), "spec": spec}


def _peers(plan: Plan, name: str) -> Manifest:
    """Names for the pods of one replica, before they are ready: they have to meet to become so."""
    ports = [{"name": "master", "port": MASTER_PORT}]
    selector = {**plan.labels, "agent-forge/replica": name}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(plan, f"{name}-peers"), "spec": spec}


def pod(plan: Plan, one: Manifest) -> Manifest:
    """A pod's spec: where it may run, and its volumes."""
    made: Manifest = {"automountServiceAccountToken": False, "containers": [one], "volumes": volumes(plan)}
    return {**made, **placement(plan)}


def placement(plan: Plan) -> Manifest:
    """The nodes that a pod may run on: the planned instance, with its taints of accelerators and of spot."""
    offer = plan.candidate.offer
    tolerations, selector = [], {}
    if plan.resource:
        tolerations.append({"key": plan.resource, "operator": "Exists", "effect": "NoSchedule"})
    if offer.cloud in ("aws", "azure", "gcp"):
        # On another instance the figures of the plan would not hold; the clouds' own controllers set this label.
        selector["node.kubernetes.io/instance-type"] = offer.instance
    if offer.spot and offer.cloud in _SPOT:
        key, value = _SPOT[offer.cloud]
        selector[key] = value
        tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    made: Manifest = {"tolerations": tolerations} if tolerations else {}
    return {**made, "nodeSelector": selector} if selector else made


def volumes(plan: Plan) -> list[Manifest]:
    """Shared memory, a cache for what is downloaded, and the checkpoint where it is not on the hub."""
    made: list[Manifest] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
        {"name": "cache", "emptyDir": {}},
    ]
    if plan.mounted:
        made.append({"name": "models", "persistentVolumeClaim": {"claimName": plan.claim, "readOnly": True}})
    return made


def container(plan: Plan) -> Manifest:
    """The engine's container, of a replica on one instance."""
    command, *rest = arguments(plan)
    # TGI's image has a start script of its own around the launcher.
    start: Manifest = {"command": [command]} if plan.runtime != "tgi" else {}
    if plan.runtime == "forge":
        start["imagePullPolicy"] = "IfNotPresent"  # built by the user, perhaps in no registry at all
    return {
        "name": "engine",
        "image": plan.image,
        **start,
        "args": rest,
        "env": environment(),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": resources(plan),
        **probes(),
        "securityContext": {"allowPrivilegeEscalation": False, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumeMounts": mounts(plan),
    }


def environment() -> list[Manifest]:
    """Where downloads go, and the hub's token from a Secret that may be absent (open models need none)."""
    token = {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}}
    return [{"name": "HF_HOME", "value": "/cache"}, {"name": "HF_TOKEN", "valueFrom": token}]


def mounts(plan: Plan) -> list[Manifest]:
    """Of `volumes`."""
    made: list[Manifest] = [
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "cache", "mountPath": "/cache"},
    ]
    return [*made, {"name": "models", "mountPath": MODELS, "readOnly": True}] if plan.mounted else made


def resources(plan: Plan, downloads: bool = True) -> Manifest:
    """Accelerators as the engine is told, the pod's share of the instance's CPUs and memory, and room on its disk.

    A pod that `downloads` its checkpoint fills the node's disk, and one that asked for no room there is the first that
    a full node evicts. It is no limit: engines write caches of their own besides.
    """
    offer = plan.candidate.offer
    share = HEADROOM * (plan.accelerators_per_node / max(1, offer.count) if plan.resource else 1.0)
    requests: dict[str, str] = {}
    if cpus := int(offer.vcpus * share):
        requests["cpu"] = str(cpus)
    if gib := int(offer.memory_bytes * share / _GIB):
        requests["memory"] = f"{gib}Gi"
    if downloads and plan.download_bytes:
        requests["ephemeral-storage"] = f"{ceil(plan.download_bytes / _GIB)}Gi"
    if not plan.resource:
        return {"requests": requests}
    count = {plan.resource: str(plan.accelerators_per_node)}
    return {"requests": {**requests, **count}, "limits": count}


def probes() -> Manifest:
    """Slow to start, then restarted after half a minute without an answer, and out of the Service after ten seconds."""
    health = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": LOAD_SECONDS // 10, "timeoutSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 5},
        "readinessProbe": {**health, "periodSeconds": 5, "failureThreshold": 2, "timeoutSeconds": 5},
    }


def _ranked(plan: Plan, name: str) -> Manifest:
    """The engine's container of a replica over several instances."""
    made = container(plan)
    head = f"{name}-0.{name}-peers"
    index = {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}
    own = {"fieldRef": {"fieldPath": "status.podIP"}}
    identity = [{"name": _RANK, "valueFrom": index}, {"name": "VLLM_HOST_IP", "valueFrom": own}]
    made["command"] = ["sh", "-c", ranked(plan), "engine"]
    made["args"] = [*arguments(plan), *multi_node_flags(plan, head)]
    made["env"] = [*identity, *made["env"]]
    # Pods without an HTTP server live as long as their process does.
    check = (
        'test "$NODE_RANK" != 0 || python3 -c "import urllib.request as u; u.urlopen(\'http://127.0.0.1:{}/health\')"'
    )
    command = {"exec": {"command": ["sh", "-c", check.format(PORT)]}}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        kept = {key: value for key, value in made[probe].items() if key != "httpGet"}
        made[probe] = {**command, **kept}
    return made
