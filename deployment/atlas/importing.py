"""Make the shipped catalogue from config.json files.

    python -m deployment.atlas.importing FOLDER [FOLDER …] [--out deployment/atlas/models.json]

A folder holds files `org--name_config.json`, or folders `org--name/config.json`. What is not in a config (licence,
tasks, published quality with its source) comes from `cards.json`, and the context where the figures are a table's that
has another one than the model's card; models that the catalogue has and the folders do not stay as they are, with the
card as it is now. Nothing is fetched. A config that the physics does not know is named and
left out, and the exit code is then 2.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployment.atlas.catalogue import FILE
from deployment.atlas.reading import read_file
from deployment.atlas.storing import VERSION, as_json, from_json, read_json
from deployment.model import Model, Quality
from phases.errors import ForgeError, InputError
from phases.storage import write_text

CARDS = Path(__file__).with_name("cards.json")


def configs(folder: Path) -> dict[str, Path]:
    """Hub id → its config.json. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    found = {path.name.removesuffix("_config.json"): path for path in folder.glob("*--*_config.json")}
    found |= {path.parent.name: path for path in folder.glob("*--*/config.json")}
    if not found:
        raise InputError(f"{folder}: holds no org--name_config.json and no org--name/config.json")
    return {name.replace("--", "/", 1): found[name] for name in sorted(found)}


def with_card(model: Model, cards: Mapping[str, Mapping[str, Any]]) -> Model:
    """The model with what its card says; `like` takes tasks from the card of the model that it was made from."""
    card = cards.get(model.name, {})
    origin = cards.get(str(card.get("like")), {})
    return replace(
        model,
        context=card.get("context", model.context),
        licence=card.get("licence", origin.get("licence", "unknown")),
        tasks=tuple(card.get("tasks", origin.get("tasks", ()))),
        quality=tuple(Quality(**one) for one in card.get("quality", ())),
        source=card.get("source", "its config.json"),
    )


def catalogued(folders: list[Path], existing: Path | None) -> tuple[list[Model], list[str]]:
    """All models by name, and what could not be read."""
    cards: dict[str, Any] = read_json(CARDS)["models"]  # type: ignore[assignment]
    made: dict[str, Model] = {}
    if existing is not None and existing.exists():
        listed = read_json(existing).get("models")
        if not isinstance(listed, list):
            raise InputError(f"{existing}: holds no models; name a new file or a catalogue with --out")
        made = {one.name: one for one in (from_json(data, str(existing)) for data in listed)}
    refused = []
    for folder in folders:
        for name, path in configs(folder).items():
            try:
                made[name] = read_file(path, name)
            except InputError as error:
                refused.append(str(error))
    return [with_card(made[name], cards) for name in sorted(made, key=str.lower)], refused


def main(arguments: list[str] | None = None) -> int:
    """Read the folders and write the catalogue, whole or not at all."""
    parser = argparse.ArgumentParser(prog="python -m deployment.atlas.importing", description="Make the catalogue.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of config.json files")
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="the catalogue (default: the shipped)")
    parsed = parser.parse_args(arguments)
    try:
        models, refused = catalogued(parsed.folders, parsed.out)
        lines = ",\n".join(json.dumps(as_json(model), separators=(", ", ": ")) for model in models)
        write_text(parsed.out, f'{{"version": {VERSION}, "models": [\n{lines}\n]}}\n')
    except ForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for line in refused:
        print(line, file=sys.stderr)
    print(f"{parsed.out}: {len(models)} models" + (f"; {len(refused)} left out" if refused else ""))
    return 2 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
