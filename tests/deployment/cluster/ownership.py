"""Who owns which field, as server-side apply has it, on leaves of `spec` alone and with paths instead of trees.

An apply names fields and becomes their owner; one that another has with another value is a conflict; one that it named
before and no longer does is removed where nobody else has it. Any other write takes what it changes from all others.
"""

from typing import Any

APPLIER = ("agent-forge", "Apply")
Owners = dict[tuple[str, str], set[str]]
_GONE = object()


def leaves(value: Any, at: str = "spec") -> dict[str, Any]:
    """Values by their path; a list is one."""
    if isinstance(value, dict):
        return {path: one for key, inner in value.items() for path, one in leaves(inner, f"{at}/{key}").items()}
    return {at: value}


def owners(found: dict[str, Any]) -> Owners:
    listed = found.get("metadata", {}).get("managedFields") or ()
    return {(one["manager"], one["operation"]): set(one["fieldsV1"]) for one in listed}


def as_managed(known: Owners) -> list[dict[str, Any]]:
    return [
        {"manager": manager, "operation": how, "fieldsV1": {path: {} for path in sorted(paths)}}
        for (manager, how), paths in sorted(known.items())
        if paths
    ]


def conflicts(old: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """What an apply of `body` would take from others."""
    was, wanted = leaves(old.get("spec", {})), leaves(body.get("spec", {}))
    others = [(who[0], paths) for who, paths in owners(old).items() if who != APPLIER]
    return [
        f'conflict with "{who}": {path}'
        for who, paths in others
        for path, value in wanted.items()
        if path in paths and was.get(path, _GONE) != value
    ]


def applied(old: dict[str, Any], new: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """`new`, made of `old` and `body`, with its owners and without what the applier alone had and dropped."""
    known, wanted = owners(old), leaves(body.get("spec", {}))
    was = leaves(old.get("spec", {}))
    others = {
        who: {p for p in paths if wanted.get(p, _GONE) in (_GONE, was.get(p, _GONE))} for who, paths in known.items()
    }
    others.pop(APPLIER, None)
    for path in known.get(APPLIER, set()) - set(wanted) - set().union(*others.values()):
        *way, last = path.split("/")
        inside = new
        for part in way:
            inside = inside.get(part, {})
        inside.pop(last, None)
    new["metadata"]["managedFields"] = as_managed({**others, APPLIER: set(wanted)})
    return new


def written(old: dict[str, Any], new: dict[str, Any], who: str) -> dict[str, Any]:
    """`new` with the owners it names, or else those of `old`, less what `who` changed."""
    was, now = leaves(old.get("spec", {})), leaves(new.get("spec", {}))
    changed = {path for path in was.keys() | now.keys() if was.get(path, _GONE) != now.get(path, _GONE)}
    known = owners(new) or owners(old)
    kept = {one: paths - changed for one, paths in known.items()}
    mine = kept.get((who, "Update"), set()) | (changed & now.keys())
    new["metadata"]["managedFields"] = as_managed({**kept, (who, "Update"): mine})
    return new
