"""An API server's stand-in on loopback: discovery, server-side apply with dry run, status, watch, delete, and faults.

It is strict where a real one is: unknown fields of built-in kinds (the official client's models) and of KServe's
(the CRDs, where they are here) are refused, a dry run stores nothing, a replaced custom resource needs its version, and
fields have owners (`ownership.py`).
"""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from deployment.cluster.builtin import is_builtin, problems
from deployment.manifests.structural import violations
from tests.deployment.cluster.ownership import applied, conflicts, written

SERVED = {
    "v1": {"services": "Service", "configmaps": "ConfigMap", "pods": "Pod"},
    "apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "serving.kserve.io/v1beta1": {"inferenceservices": "InferenceService"},
    "serving.kserve.io/v1alpha2": {"llminferenceservices": "LLMInferenceService"},
}
TOKEN = "token-that-nobody-may-see"


@dataclass
class Cluster:
    """What the stand-in holds, how it behaves, and what it was asked."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    faults: dict[tuple[str, str, bool], tuple[int, str]] = field(default_factory=dict)
    """(method, kind, dry run) → answer instead."""
    away: int = 0
    """So many further requests are answered by 503, once something is stored."""
    fate: str = "ready"
    """Of what is applied: `ready` after `delay`, `never`, or `failed`."""
    made: dict[str, Any] | None = None
    """What else the controller makes of what is applied, such as a pod in trouble: stored as it is."""
    delay: float = 0.1
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    crds: dict[Any, Any] = field(default_factory=dict)
    version: int = 0
    lock: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""
    kubeconfig: Path = Path()

    def store(self, kind: str, found: dict[str, Any]) -> dict[str, Any]:
        """Keep an object, count it, and let its controller act."""
        with self.lock:
            self.version += 1
            found["metadata"] |= {"resourceVersion": str(self.version)}
            self.objects[kind, found["metadata"]["name"]] = found
            self.lock.notify_all()
        return found

    def control(self, kind: str, name: str) -> None:
        """Write the status that the fate says, a while after an object was applied."""
        time.sleep(self.delay)
        if self.made is not None:
            self.store(self.made["kind"], json.loads(json.dumps(self.made)))
        found = self.objects.get((kind, name))
        if found is None or self.fate == "never":
            return
        found = json.loads(json.dumps(found))
        wanted = found["spec"].get("replicas", 1)
        status: dict[str, Any] = {"observedGeneration": found["metadata"]["generation"]}
        if self.fate == "failed":
            why = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "no image of that name"}
            status["conditions"] = [why]
        else:
            counts = ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
            status |= dict.fromkeys(counts, wanted) | {"conditions": [{"type": "Ready", "status": "True"}]}
        self.store(kind, {**found, "status": status})

    def wrong(self, manifest: dict[str, Any]) -> list[str]:
        if is_builtin(manifest):
            return problems(manifest)
        return violations(manifest, self.crds) if self.crds else []


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return new


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *parts: Any) -> None:
        """Quiet."""

    def answer(self, code: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, code: int, message: str) -> None:
        self.answer(code, {"kind": "Status", "status": "Failure", "message": message, "code": code})

    def discover(self, path: str) -> bool:
        groups = sorted({version for version in SERVED if "/" in version})
        if path == "/version":
            self.answer(200, {"gitVersion": "v1.34.0"})
        elif path == "/api":
            self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            named: dict[str, list[dict[str, str]]] = {}
            for one in groups:
                named.setdefault(one.split("/")[0], []).append({"groupVersion": one, "version": one.split("/")[1]})
            listed = [{"name": n, "versions": v, "preferredVersion": v[-1]} for n, v in named.items()]
            self.answer(200, {"kind": "APIGroupList", "groups": listed})
        elif (version := path.removeprefix("/apis/").removeprefix("/api/")) in SERVED:
            verbs = ["get", "list", "watch", "patch", "update", "create", "delete"]
            listed = [
                {"name": plural, "kind": kind, "namespaced": True, "verbs": verbs, "singularName": kind.lower()}
                for plural, kind in SERVED[version].items()
            ]
            self.answer(200, {"kind": "APIResourceList", "groupVersion": version, "resources": listed})
        else:
            return False
        return True

    def handle_one(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = yaml.safe_load(self.rfile.read(length)) if length else {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if self.command == "GET" and self.discover(url.path):
            return None
        before, _, rest = url.path.partition("/namespaces/")
        _, plural, *name = rest.split("/")
        kind = SERVED[before.removeprefix("/apis/").removeprefix("/api/")][plural]
        dry = query.get("dryRun") == "All"
        method = "WATCH" if query.get("watch") else self.command
        self.cluster.asked.append((method, kind, dry))
        if fault := self.cluster.faults.get((method, kind, dry)):
            return self.refuse(*fault)
        if self.cluster.away and self.cluster.objects:
            self.cluster.away -= 1
            return self.refuse(503, "the server is restarting")
        if method == "GET" and not name:
            return self.on_list(kind, query.get("labelSelector", ""))
        return getattr(self, f"on_{method.lower()}")(kind, name[0] if name else "", body, query)

    do_GET = do_PATCH = do_PUT = do_POST = do_DELETE = handle_one

    def on_get(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        found = self.cluster.objects.get((kind, name))
        return self.answer(200, found) if found else self.refuse(404, f"{kind} {name} not found")

    def on_list(self, kind: str, selector: str) -> None:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        found = [one for (named, _), one in sorted(self.cluster.objects.items()) if named == kind]
        found = [one for one in found if wanted.items() <= one["metadata"].get("labels", {}).items()]
        items = [{key: value for key, value in one.items() if key not in ("apiVersion", "kind")} for one in found]
        return self.answer(200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}, "items": items})

    def on_patch(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        if self.headers["Content-Type"] == "application/merge-patch+json":
            old = self.cluster.objects[kind, name]
            return self.answer(200, self.cluster.store(kind, _merged(json.loads(json.dumps(old)), body)))
        assert query["fieldManager"] == "agent-forge" and query["fieldValidation"] == "Strict"
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        if wrong := self.cluster.wrong(body):
            return self.refuse(400, "strict decoding error: " + "; ".join(wrong))
        old = self.cluster.objects.get((kind, name), {})
        if (against := conflicts(old, body)) and query.get("force") != "true":
            return self.refuse(409, "Apply failed: " + "; ".join(against))
        new = applied(old, _merged(json.loads(json.dumps(old)), body), body)
        changed = old.get("spec") != new.get("spec")
        new["metadata"]["generation"] = old.get("metadata", {}).get("generation", 0) + int(changed)
        if query.get("dryRun") != "All":
            self.keep(kind, name, new)
        return self.answer(200, new)

    def keep(self, kind: str, name: str, new: dict[str, Any]) -> dict[str, Any]:
        """Store it, and let its controller see it."""
        stored = self.cluster.store(kind, new)
        threading.Thread(target=self.cluster.control, args=(kind, name), daemon=True).start()
        return stored

    def on_post(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        body["metadata"] |= {"generation": 1}
        return self.answer(201, self.keep(kind, body["metadata"]["name"], written({}, body, "client")))

    def on_put(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        old = self.cluster.objects[kind, name]
        if body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return self.refuse(409, "the object has been modified")
        generation = old["metadata"]["generation"] + int(old.get("spec") != body.get("spec"))
        body["metadata"] |= {"generation": generation}
        return self.answer(200, self.keep(kind, name, written(old, body, "client")))

    def on_delete(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        with self.cluster.lock:
            gone = self.cluster.objects.pop((kind, name), None)
        return self.answer(200, {"kind": "Status", "status": "Success"}) if gone else self.refuse(404, "not found")

    def on_watch(self, kind: str, name: str, body: Any, query: dict[str, str]) -> None:
        """Events since the version that is given, as lines, for `timeoutSeconds`."""
        wanted = query["fieldSelector"].removeprefix("metadata.name=")
        seen, until = int(query["resourceVersion"]), time.monotonic() + int(query["timeoutSeconds"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while time.monotonic() < until:
            with self.cluster.lock:
                self.cluster.lock.wait(timeout=0.05)
                found = self.cluster.objects.get((kind, wanted))
            if found and int(found["metadata"]["resourceVersion"]) > seen:
                seen = int(found["metadata"]["resourceVersion"])
                line = json.dumps({"type": "MODIFIED", "object": found}).encode() + b"\n"
                with suppress(OSError):  # the client has seen enough
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        with suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")
