"""The champion: which version of a registered agent is in use. Promotion, rollback, and their history.

    forge promote forge-agent --version 3
    forge rollback forge-agent

History is kept as tags of the versions: the n-th promotion of a model is `promotion.n`, with its time, on the version
that was promoted, and `rollback.n` when it was taken back. Every promotion writes a tag of its own, so two at once lose
nothing; the alias `champion` is written last and decides, so a command that was cut off may be given again.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.pages import version_page
from flows.registry import CHALLENGER, versions_of
from flows.tracking import MlflowClient, unless
from phases.checkpoint import open_checkpoint
from phases.errors import CheckpointError, InputError

CHAMPION = "champion"
UNKNOWN = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class Move:
    """What a promotion or a rollback did."""

    name: str
    champion: int
    previous: int | None
    """Who was the champion before; the same number when nothing changed."""
    link: str


@dataclass(frozen=True, order=True)
class Promotion:
    """One line of a model's history."""

    number: int
    time: str
    version: int
    taken_back: bool


def promote(client: MlflowClient, name: str, number: int | None = None) -> Move:
    """Make a version the champion; by default the challenger.

    Raises `InputError` when there is none such, its gates were not passed, or its files are not what was registered.
    """
    aliases = _aliases(client, name)
    champion, chosen = aliases.get(CHAMPION), aliases.get(CHALLENGER) if number is None else number
    if chosen is None:
        raise InputError(f"{name}: no challenger; choose a version with --version N ({_listed(client, name)})")
    version = _version(client, name, chosen)
    move = Move(name, chosen, champion, version_page(name, chosen))
    if chosen == champion:
        return move
    if version.tags.get("gates") != "passed":
        raise InputError(f"{name} {chosen}: its gates were not passed; promote another with --version N")
    if number is None and any(key.startswith("rollback.") for key in version.tags):
        raise InputError(f"{name} {chosen}: was rolled back; to promote it again say --version {chosen}")
    verify(client, version)
    after = 1 + max((promotion.number for promotion in history(client, name)), default=0)
    client.set_model_version_tag(name, str(chosen), f"promotion.{after}", _now())
    client.set_registered_model_alias(name, CHAMPION, str(chosen))
    return move


def rollback(client: MlflowClient, name: str) -> Move:
    """Make the version that was promoted before it the champion again. Raises `InputError` when there is none."""
    champion = _aliases(client, name).get(CHAMPION)
    standing = [promotion for promotion in history(client, name) if not promotion.taken_back]
    # What comes after the champion's own promotion was cut off before its alias was written.
    own = max((i for i, promotion in enumerate(standing) if promotion.version == champion), default=len(standing))
    earlier = [promotion for promotion in standing[:own] if promotion.version != champion]
    if champion is None or not earlier:
        raise InputError(f"{name}: nothing to go back to; `forge promote {name} --version N` chooses a version")
    back = earlier[-1]
    verify(client, _version(client, name, back.version))
    for promotion in standing:
        if promotion > back:
            client.set_model_version_tag(name, str(promotion.version), f"rollback.{promotion.number}", _now())
    client.set_registered_model_alias(name, CHAMPION, str(back.version))
    return Move(name, back.version, champion, version_page(name, back.version))


def history(client: MlflowClient, name: str) -> list[Promotion]:
    """Every promotion of the model, oldest first."""
    return sorted(
        Promotion(int(found[1]), time, int(version.version), f"rollback.{found[1]}" in version.tags)
        for version in versions_of(client, name)
        for key, time in version.tags.items()
        if (found := re.fullmatch(r"promotion\.(\d+)", key))
    )


def verify(client: MlflowClient, version: Any) -> None:
    """Fetch the version's files and raise `InputError` unless they are the checkpoint that was registered."""
    wanted, what = version.tags.get("checkpoint.digest"), f"{version.name} {version.version}"
    folder = version.source.removeprefix(f"runs:/{version.run_id}/")
    with tempfile.TemporaryDirectory(prefix="forge-") as temporary:
        fetched = unless(UNKNOWN, lambda: client.download_artifacts(version.run_id, folder, temporary))
        if fetched is None:
            raise InputError(f"{what}: its files are gone from MLflow; run `forge run` again, or promote another")
        try:
            digest = open_checkpoint(fetched).digest
        except CheckpointError as error:
            reason = str(error).replace(f"{fetched}/", "").split(";")[0]
            raise InputError(f"{what}: its files in MLflow are damaged ({reason}); promote another version") from None
    if digest != wanted:
        raise InputError(f"{what}: its files in MLflow are not what was registered; promote another version")


def _aliases(client: MlflowClient, name: str) -> Mapping[str, int]:
    model = unless(UNKNOWN, lambda: client.get_registered_model(name))
    if model is None:
        names = ", ".join(sorted(found.name for found in client.search_registered_models())) or "none yet"
        raise InputError(f"{name}: no such registered model; there are: {names}")
    return {alias: int(number) for alias, number in model.aliases.items()}


def _version(client: MlflowClient, name: str, number: int) -> Any:
    version = unless(UNKNOWN, lambda: client.get_model_version(name, str(number)))
    if version is None:
        raise InputError(f"{name} {number}: no such version; there are: {_listed(client, name)}")
    return version


def _listed(client: MlflowClient, name: str) -> str:
    return ", ".join(str(number) for number in sorted(int(v.version) for v in versions_of(client, name))) or "none"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
