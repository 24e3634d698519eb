"""Manifests against the real schemas, with unknown fields refused: a CRD's own, or a chart's values schema.

    from deployment.manifests.structural import read_crds, violations
    crds = read_crds(Path("crds"))
    violations(manifest, crds)      # [] or lines such as "spec.template: unknown field 'gpu'"

An API server drops what a CRD does not know and a chart ignores it, so that a misspelt field is accepted and does
nothing. Here it is a violation, as the structural schemas of Kubernetes have it (apiextensions v1): a field is known
when it stands in `properties`, or where `additionalProperties` or `x-kubernetes-preserve-unknown-fields` allow any.
What schemas say in CEL (`x-kubernetes-validations`) is the server's to check: `forge deploy` asks it by a dry run.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from phases.errors import InputError

Schema = dict[str, Any]
_OPEN = "x-kubernetes-preserve-unknown-fields"
_RANGES = {"int32": 2**31, "int64": 2**63}


def read_crds(folder: Path) -> dict[tuple[str, str], Schema]:
    """The closed schemas of all `CustomResourceDefinition`s in a folder's YAML files, by (apiVersion, kind)."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with the CRDs' YAML files")
    found: dict[tuple[str, str], Schema] = {}
    for path in sorted(folder.glob("*.y*ml")):
        found |= _read(path)
    return found


@lru_cache(maxsize=16)
def _read(path: Path) -> dict[tuple[str, str], Schema]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a CRD has megabytes
    found: dict[tuple[str, str], Schema] = {}
    for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader):
        if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
            continue
        spec = document["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = closed(_with_metadata(version["schema"]["openAPIV3Schema"]))
    return found


def _with_metadata(schema: Schema) -> Schema:
    """CRDs leave `metadata` to the server, which knows its fields; the ones that people write are few."""
    text = {"type": "object", "additionalProperties": {"type": "string"}}
    known = {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": text, "annotations": text}
    return {**schema, "properties": {**schema["properties"], "metadata": {"type": "object", "properties": known}}}


def closed(schema: Schema, free: bool = False) -> Schema:
    """`schema` as JSON Schema that refuses unknown fields.

    `free`: an object without `properties` may hold anything, as in JSON Schema (a chart's); in a structural schema it
    is empty.
    """
    made = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "description"}
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: closed(one, free) for name, one in made[key].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(made.get(key), dict):
            made[key] = closed(made[key], free)
    for key in ("anyOf", "oneOf", "allOf"):  # these restrict; their parent says what is known
        if key in made:
            made[key] = [{k: v for k, v in one.items() if not k.startswith("x-")} for one in made[key]]
    limit = _RANGES.get(str(made.get("format")))
    if limit and made.get("type") == "integer":
        made = {"minimum": -limit, "maximum": limit - 1, **made}
    return _closed_object(made, schema, free)


def _closed_object(made: Schema, schema: Schema, free: bool) -> Schema:
    is_object = made.get("type") == "object" or "properties" in made
    if not is_object or schema.get(_OPEN) or "additionalProperties" in made:
        return made
    if free and "properties" not in made:
        return made
    return {**made, "additionalProperties": False}


def violations(manifest: Mapping[str, Any], crds: Mapping[tuple[str, str], Schema]) -> list[str]:
    """What is wrong with a custom resource, each with its place; empty: nothing. Raises `InputError`: no CRD of it."""
    key = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    if key not in crds:
        known = ", ".join(sorted(f"{kind} ({version})" for version, kind in crds)) or "none"
        raise InputError(f"{key[1]} ({key[0]}): no CRD of it here; there are: {known}")
    return against(manifest, crds[key])


def against(content: Mapping[str, Any], schema: Schema) -> list[str]:
    """What is wrong with `content` under a closed schema."""
    import jsonschema

    found = jsonschema.Draft202012Validator(schema).iter_errors(content)
    return sorted(
        f"{'.'.join(str(part) for part in one.absolute_path) or '(top level)'}: {_said(one)}" for one in found
    )


def _said(error: Any) -> str:
    """jsonschema's words, and shorter ones for the commonest mistake."""
    if error.validator == "additionalProperties":
        unknown = sorted(set(error.instance) - set(error.schema.get("properties", {})), key=str)
        return "unknown field " + ", ".join(f"'{name}'" for name in unknown)
    return str(error.message)[:300]
