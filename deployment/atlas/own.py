"""The user's own models: added from a config.json, a checkpoint or the hub, and a forge's agents, which enter alone.

    own.enter(Path("checkpoints/laptop/compression"))

They are kept in `checkpoints/atlas.json` (or where FORGE_ATLAS says), written by one process at a time, whole under
another name and renamed, so that nothing is lost and a reader never sees half a file. Only JSON files of a checkpoint
are read, and the sizes of its weights.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployment.atlas.storing import VERSION, as_json, from_json, read_json
from deployment.exclusive import exclusive
from deployment.model import Model, Quality
from phases.errors import InputError
from phases.storage import replace_text

VARIABLE = "FORGE_ATLAS"
DEFAULT = Path("checkpoints/atlas.json")
LICENCE = "own"
"""Of what was made here: whoever made it decides."""


def file() -> Path:
    """Where one's own models are kept."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def models(path: Path | None = None) -> tuple[Model, ...]:
    """One's own; none where the file does not exist. Raises InputError when it is broken."""
    path = path or file()
    if not path.exists():
        return ()
    content = read_json(path)
    listed = content.get("models")
    if content.get("version") != VERSION or not isinstance(listed, list):
        raise InputError(f"{path}: is not an atlas of version {VERSION}; move it away, then add your models again")
    return tuple(from_json(data, str(path)) for data in listed)


def keep(model: Model, path: Path | None = None) -> Model:
    """Add a model, or replace the one of its name; the file is changed as a whole or not at all."""
    path = path or file()
    try:
        with exclusive(path):
            kept = [one for one in models(path) if one.name != model.name]
            content = {"version": VERSION, "models": [as_json(one) for one in (*kept, model)]}
            replace_text(path, json.dumps(content, indent=1))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); set {VARIABLE} to another file") from None
    return model


def add(source: str, *, name: str | None = None, path: Path | None = None) -> Model:
    """Add a model from a config.json, a folder that has one, or a hub id.

    Raises InputError when it is none of these, when the hub cannot be reached, or when the physics does not know it.
    """
    from deployment.atlas.reading import read_file  # all readers; asking the catalogue does without

    place = Path(source)
    if place.is_dir():
        if (place / "forge.json").is_file() and name is None:
            return enter(place, path=path)
        return keep(read_file(place / "config.json", name or str(place)), path)
    if place.is_file():
        return keep(read_file(place, name or str(place)), path)
    if source.count("/") != 1 or source.startswith(("/", ".")) or source.endswith((".json", "/")):
        raise InputError(f"{source}: is no config.json, no folder with one, and no hub id (organisation/name)")
    return keep(replace(read_file(_from_hub(source), name or source), source=f"huggingface.co/{source}"), path)


def enter(
    checkpoint: Path,
    *,
    bits: float | None = None,
    quality: Sequence[Quality] = (),
    tasks: Sequence[str] = (),
    path: Path | None = None,
) -> Model:
    """Enter a forge's agent under the path of its checkpoint; arguments as for `read_checkpoint`."""
    return keep(read_checkpoint(checkpoint, bits=bits, quality=quality, tasks=tasks), path)


def read_checkpoint(
    checkpoint: Path, *, bits: float | None = None, quality: Sequence[Quality] = (), tasks: Sequence[str] = ()
) -> Model:
    """A forge's agent: a folder with `config.json` and `forge.json`, its weights packed, compressed or plain.

    `bits` per weight; None: the size of its weights' files over its parameters, which holds for every way to store
    them. `quality`: as measured; none given: the retention in its `compression.json`, where it has one. Raises
    InputError when a file is missing or broken.
    """
    from deployment.atlas.reading import read_config

    config, manifest = read_json(checkpoint / "config.json"), read_json(checkpoint / "forge.json")
    config.pop("quantization_config", None)  # our own methods; the size says it
    plain = read_config(config, str(checkpoint))
    measured = _bits(checkpoint, plain) if bits is None else bits
    groups = tuple(replace(group, mixer_bits=None, dense_bits=None, expert_bits=None) for group in plain.layers)
    return replace(
        plain,
        layers=groups,
        stored_bits=measured,
        embedding_bits=measured,
        licence=LICENCE,
        tasks=tuple(tasks),
        quality=tuple(quality) or _retention(checkpoint),
        source=f"{checkpoint / 'forge.json'}, phase {manifest.get('phase', 'unknown')}",
    )


def _retention(checkpoint: Path) -> tuple[Quality, ...]:
    """Share of its parent's right answers that a compressed agent gives, as its own report says."""
    said = checkpoint / "compression.json"
    if not said.exists():
        return ()
    report: Any = read_json(said)
    try:
        share = float(report["rungs"][report["taken"]]["retention"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(f"{said}: says no retention of the rung that was taken; compress again") from None
    return (Quality("retention", 100 * share, str(said)),)


def _bits(checkpoint: Path, model: Model) -> float:
    """Bits per parameter over the whole file, embeddings included: what the artefact stores, shared out evenly."""
    stored = [*checkpoint.glob("model*.safetensors")]
    if not stored:
        raise InputError(f"{checkpoint}: has no model.safetensors, so that its size is not known; give its bits")
    return sum(one.stat().st_size for one in stored) * 8 / model.parameters


def _from_hub(name: str) -> Path:
    """The config of a model on the hub, or from the local cache."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise InputError("a hub id needs huggingface_hub: pip install huggingface_hub; or give a config.json") from None
    try:
        return Path(hf_hub_download(name, "config.json"))
    except HFValidationError as error:
        raise InputError(f"{name}: is no hub id ({error})") from None
    except LocalEntryNotFoundError:
        raise InputError(
            f"{name}: the hub cannot be reached and the config is not in the local cache; download its config.json "
            f"elsewhere and run `forge models add config.json --name {name}`"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"{name}: no config.json from the hub ({why}); give a config.json instead") from None
