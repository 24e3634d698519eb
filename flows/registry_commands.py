"""`forge promote` and `forge rollback`: which registered agent is the champion. Each returns the exit code."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.champion import Move


def promote(arguments: argparse.Namespace) -> int:
    """Make a version the champion."""
    from flows import champion
    from flows.tracking import existing

    with existing(arguments.out) as client:
        move = champion.promote(client, arguments.model, arguments.version)
    _print(move, "promoted", arguments.json)
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Make the champion before this one the champion again."""
    from flows import champion
    from flows.tracking import existing

    with existing(arguments.out) as client:
        move = champion.rollback(client, arguments.model)
    _print(move, "rolled back", arguments.json)
    return 0


def _print(move: "Move", done: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(move), indent=2, ensure_ascii=False))
    elif move.champion == move.previous:
        print(f"{move.name} {move.champion} is the champion already")
    else:
        before = "there was none before" if move.previous is None else f"before: {move.previous}"
        print(f"{move.name} {move.champion} {done}: it is the champion now ({before})\n{move.link}")
