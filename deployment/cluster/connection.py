"""A Kubernetes cluster as what a rollout needs: read, apply on the server's side, put back, delete, watch.

    with connect(context="staging") as cluster:
        cluster.apply(manifest, dry_run=True)

The official client does the talking (kubernetes.dynamic; server-side apply, kubernetes.io/docs/reference/using-api).
Every failure becomes an `InputError` of one line (`answers.py`).
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deployment.cluster.answers import one_line, said
from phases.errors import InputError, MissingDependency

Manifest = dict[str, Any]
MANAGER = "agent-forge"
"""Owner of the fields that are applied."""
REQUEST_SECONDS = 30
_GONE = 410
_TRIES = 5
"""To replace an object that its controller changes meanwhile."""


def place(manifest: Manifest) -> str:
    """`Deployment/qwen` for messages."""
    about = manifest.get("metadata")
    return f"{manifest.get('kind')}/{about.get('name') if isinstance(about, dict) else None}"


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def get(self, manifest: Manifest) -> Manifest | None:
        """The object as it is in the cluster; None: there is none."""
        resource = self._resource(manifest)
        where = self._where(manifest)

        def read() -> Manifest | None:
            from kubernetes.dynamic.exceptions import NotFoundError

            try:
                found: Manifest = resource.get(**where, _request_timeout=REQUEST_SECONDS).to_dict()
            except NotFoundError:
                return None
            return found

        return said(f"read {place(manifest)}", read)

    def apply(self, manifest: Manifest, *, dry_run: bool = False, force: bool = False) -> Manifest:
        """Server-side apply; what the object is then. `dry_run`: the server checks and admits, and stores nothing."""
        resource = self._resource(manifest)
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        # Strict: an unknown field is an error, and not dropped.
        options |= {"query_params": [("fieldValidation", "Strict")], "field_manager": MANAGER}

        def act() -> Manifest:
            made = resource.server_side_apply(
                body=manifest,
                **self._where(manifest),
                force_conflicts="true" if force else None,
                _request_timeout=REQUEST_SECONDS,
                **options,
            )
            done: Manifest = made.to_dict()
            return done

        return said(f"{'check' if dry_run else 'apply'} {place(manifest)}", act)

    def listed(self, version: str, kind: str, labels: Mapping[str, str] | None = None) -> list[Manifest]:
        """All objects of a kind in the namespace, or those with `labels`."""
        resource = self._resource({"apiVersion": version, "kind": kind})
        selector = {"label_selector": ",".join(f"{k}={v}" for k, v in labels.items())} if labels else {}

        def read() -> list[Manifest]:
            found = resource.get(namespace=self.namespace, _request_timeout=REQUEST_SECONDS, **selector).to_dict()
            # A list says the kind once; what is done to an object needs it in each.
            return [{**one, "apiVersion": version, "kind": kind} for one in found.get("items") or ()]

        return said(f"list {kind}", read)

    def put_back(self, before: Manifest) -> None:
        """Make an object what it was, with the owners that its fields had.

        A replaced field is its replacer's, and the next apply would be refused as another tool's conflict.
        """
        resource, where = self._resource(before), self._where(before)
        body = {key: value for key, value in before.items() if key != "status"}
        about = {k: v for k, v in before["metadata"].items() if k not in ("managedFields", "resourceVersion", "uid")}

        def act() -> None:
            from kubernetes.dynamic.exceptions import ConflictError

            for tries_left in reversed(range(_TRIES)):
                now = self.get(before)
                if now is None:
                    made = {**body, "metadata": about}
                    resource.create(body=made, namespace=where["namespace"], _request_timeout=REQUEST_SECONDS)
                    return
                # Custom resources want the version that is being replaced.
                made = {**body, "metadata": {**about, "resourceVersion": now["metadata"]["resourceVersion"]}}
                try:
                    resource.replace(body=made, **where, _request_timeout=REQUEST_SECONDS)
                    return
                except ConflictError:
                    if not tries_left:
                        raise

        said(f"put back {place(before)}", act)
        if owners := before["metadata"].get("managedFields"):
            patch, kind = {"metadata": {"managedFields": owners}}, "application/merge-patch+json"
            options = {"content_type": kind, "_request_timeout": REQUEST_SECONDS}
            said(f"give {place(before)} back", lambda: resource.patch(body=patch, **where, **options))

    def delete(self, manifest: Manifest) -> None:
        """Delete an object with all that it owns; one that is gone already is fine."""
        resource = self._resource(manifest)

        def act() -> None:
            from kubernetes.dynamic.exceptions import NotFoundError

            options = {"propagation_policy": "Background", "_request_timeout": REQUEST_SECONDS}
            with suppress(NotFoundError):
                resource.delete(**self._where(manifest), **options)

        said(f"delete {place(manifest)}", act)

    def changes(self, manifest: Manifest, version: str, seconds: int) -> Iterator[Manifest]:
        """The object after each change, for at most so long; the server may end it earlier."""
        from kubernetes.watch import Watch

        resource, where = self._resource(manifest), self._where(manifest)
        events = Watch().stream(
            resource.get,
            namespace=where["namespace"],
            field_selector=f"metadata.name={where['name']}",
            resource_version=version,
            serialize=False,
            timeout_seconds=seconds,
            _request_timeout=(REQUEST_SECONDS, seconds + REQUEST_SECONDS),  # a server that fell silent ends it too
        )

        def following() -> Any:
            from kubernetes.client.exceptions import ApiException

            try:
                return next(events, None)
            except ApiException as error:
                if error.status == _GONE:  # the version is too old to watch from: it is to be read again
                    return None
                raise

        while True:
            event = said(f"watch {place(manifest)}", following)
            if event is None or event["type"] == "DELETED":
                return
            yield event["raw_object"]

    def _where(self, manifest: Manifest) -> dict[str, str]:
        about = manifest["metadata"]
        return {"name": about["name"], "namespace": about.get("namespace", self.namespace)}

    def _resource(self, manifest: Manifest) -> Any:
        """The API that serves a kind."""
        version, kind = manifest["apiVersion"], manifest["kind"]

        def find() -> Any:
            from kubernetes.dynamic.exceptions import ResourceNotFoundError

            try:
                return self._client.resources.get(api_version=version, kind=kind)
            except ResourceNotFoundError:
                raise InputError(
                    f"the cluster does not know {kind} ({version}); install its operator, or apply other manifests"
                ) from None

        return said(f"look for {kind}", find)


@contextmanager
def connect(kubeconfig: Path | None = None, context: str | None = None, namespace: str = "") -> Iterator[Cluster]:
    """The cluster of a kubeconfig (default: `$KUBECONFIG` or ~/.kube/config), or the one that this process runs in.

    Raises `InputError`: no configuration, an unknown context, or nobody answers.
    """
    try:
        from kubernetes import client as api
        from kubernetes.config import ConfigException
        from kubernetes.dynamic import DynamicClient
    except ImportError:
        raise MissingDependency("forge deploy needs the Kubernetes client: pip install kubernetes") from None
    logging.getLogger("kubernetes").setLevel(logging.CRITICAL)  # at debug it logs requests, with their tokens
    try:
        configuration, own = _configuration(kubeconfig, context)
    except Exception as error:  # the clients of clouds, which find the credentials, have errors of their own
        if kubeconfig is not None and not kubeconfig.is_file():
            raise InputError(f"no cluster: {kubeconfig}: no such file; give another --kubeconfig") from None
        why = one_line(str(error)) or type(error).__name__
        if isinstance(error, ConfigException):
            why = why.split(" in ")[0]  # what follows is the entry itself, and may hold a token
        raise InputError(f"no cluster: {why.rstrip('. ')}; give --kubeconfig and --context") from None
    if not str(configuration.host).startswith(("http://", "https://")):
        raise InputError("no cluster: its address is neither http:// nor https://; mend `server` in the kubeconfig")
    configuration.retries = False  # a refused connection is said once, at once
    with tempfile.TemporaryDirectory() as cache, api.ApiClient(configuration) as client:
        # The client keeps what a cluster serves in a shared file for ever: a new CRD would not be seen.
        dynamic = said("reach the cluster", lambda: DynamicClient(client, cache_file=str(Path(cache, "apis.json"))))
        yield Cluster(dynamic, namespace or own)


def _configuration(kubeconfig: Path | None, context: str | None) -> tuple[Any, str]:
    """Address and credentials, and the context's namespace."""
    from kubernetes import client as api
    from kubernetes import config

    configuration = api.Configuration()
    inside = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ
    if inside and not os.environ.get("KUBECONFIG"):
        config.load_incluster_config(client_configuration=configuration)
        return configuration, "default"
    path = str(kubeconfig) if kubeconfig else None
    config.load_kube_config(path, context, configuration, persist_config=False)
    contexts, active = config.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), active)
    return configuration, chosen["context"].get("namespace") or "default"
