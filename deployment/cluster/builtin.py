"""Kubernetes' own kinds against the official client's models: unknown fields, wrong types and missing ones.

    unknown_fields(manifest)    # [] or lines such as "spec.template.spec.containers.0: unknown field 'gpu'"

The models are generated from the API server's OpenAPI document, so they are its fields. A cluster checks the same and
more; this needs none.
"""

import re
from typing import Any

KINDS = {
    ("v1", "Service"): "V1Service",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
}
_SCALARS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


def is_builtin(manifest: dict[str, Any]) -> bool:
    """Whether `problems` knows the kind."""
    return (manifest.get("apiVersion"), manifest.get("kind")) in KINDS


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest of a kind in `KINDS`, each with its place."""
    return _model(manifest, KINDS[(manifest["apiVersion"], manifest["kind"])], "")


def _model(value: Any, name: str, at: str) -> list[str]:
    from kubernetes.client import models

    model = getattr(models, name)
    if not isinstance(value, dict):
        return [f"{at or '(top level)'}: an object is wanted, not {type(value).__name__}"]
    fields = {written: key for key, written in model.attribute_map.items()}
    found = [f"{at or '(top level)'}: unknown field '{key}'" for key in value if key not in fields]
    found += _missing(model, value, fields, at)
    for key, one in value.items():
        if key in fields:
            found += _value(one, model.openapi_types[fields[key]], f"{at}.{key}".lstrip("."))
    return found


def _missing(model: Any, value: dict[str, Any], fields: dict[str, str], at: str) -> list[str]:
    """Fields without which the client's own constructor refuses."""
    try:
        model(**{fields[key]: one for key, one in value.items() if key in fields})
    except (TypeError, ValueError) as error:
        return [f"{at or '(top level)'}: {error}"]
    return []


def _value(value: Any, kind: str, at: str) -> list[str]:
    """Of one field: a list, a map, a model, or a scalar; `object` is anything (a quantity, a port's name or number)."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{at}: a list is wanted, not {type(value).__name__}"]
        return [line for i, one in enumerate(value) for line in _value(one, match[1], f"{at}.{i}")]
    if match := re.fullmatch(r"dict\[str, (.+)\]", kind):
        if not isinstance(value, dict):
            return [f"{at}: an object is wanted, not {type(value).__name__}"]
        return [line for key, one in value.items() for line in _value(one, match[1], f"{at}.{key}")]
    if kind in _SCALARS:
        right = isinstance(value, _SCALARS[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if right else [f"{at}: {kind} is wanted, not {value!r}"]
    return [] if kind in ("object", "datetime") else _model(value, kind, at)
