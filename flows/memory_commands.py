"""`forge memory`: what an agent's memory holds; take it out, bring it back, forget parts of it, or all.

forge memory checkpoints/laptop/baking.memory.sqlite
forge memory FILE --forget "boat"
forge memory FILE --export facts.jsonl
forge memory FILE --delete
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import InputError

if TYPE_CHECKING:
    from phases.agent.memory import Memory


def memory(arguments: argparse.Namespace) -> int:
    """List what is kept, or do what was asked for."""
    from phases.agent.memory import Memory

    chosen = [name for name in ("search", "forget", "export", "restore", "delete") if getattr(arguments, name)]
    if len(chosen) > 1:
        raise InputError(f"--{chosen[0]} and --{chosen[1]} do not go together; give one")
    path: Path = arguments.file
    if not path.is_file() and chosen != ["restore"]:
        raise InputError(f"{path}: no such file; give a memory that `forge chat` wrote (<agent>.memory.sqlite)")
    with Memory(path) as opened:
        result = _do(opened, chosen[0] if chosen else "list", arguments)
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False, default=str))
    else:
        _print(result)
    return 0


def _do(opened: "Memory", what: str, arguments: argparse.Namespace) -> Any:
    if what == "list":
        facts = [asdict(fact) for fact in opened.facts()]
        return {"facts": facts, "episodes": sum(1 for _ in opened.episodes())}
    if what == "search":
        return {"found": [asdict(one) for one in opened.recall(arguments.search)]}
    if what == "forget":
        return {"forgotten": opened.forget(query=arguments.forget)}
    if what == "export":
        return {"exported": opened.export(arguments.export)}
    if what == "restore":
        return {"restored": opened.import_(arguments.restore)}
    opened.delete()
    return {"deleted": str(opened.path)}


def _print(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, list):
            for one in value:
                print(f"{one['at']}  {one['text']}")
            print(f"{key}: {len(value)}")
        else:
            print(f"{key}: {value}")
