"""Settings from YAML files, shipped or one's own, and from `key.key=value` on the command line, over defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import configs
from phases.errors import ConfigError
from phases.storage import explain_os_errors
from phases.strict import StrictModel


@dataclass(frozen=True)
class Settings:
    """What a command was given, before it is checked."""

    values: dict[str, Any]
    where: str
    """For messages."""


def shipped(folder: str = "") -> dict[str, Path]:
    """Shipped settings by name, from a folder of `configs/`."""
    return {path.stem: path for path in sorted((Path(configs.__file__).parent / folder).glob("*.yaml"))}


def read_settings(
    kind: str, known: Mapping[str, Path], name: str, file: Path | None, sets: Sequence[str], named: tuple[str, ...]
) -> Settings:
    """What a shipped file or one's own holds, with `a.b=c` settings over it; the keys `named` are the file's name.

    Raises `ConfigError` for an unknown name, bad YAML, or a setting that is none.
    """
    if file is None and name not in known:
        raise ConfigError(f"{kind} '{name}': unknown; choose from {', '.join(known)}, or give a file with --config")
    path = file or known[name]
    values = {**dict.fromkeys(named, path.stem), **read_yaml(path)}
    for setting in sets:
        put_setting(values, setting)
    where = str(path) if file else f"{kind} {path.stem}"
    return Settings(values, f"{where} with --set" if sets else where)


def section_defaults(model: type[StrictModel], but: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The defaults of a model's sections, as settings, without the keys `but`."""
    sections = {name: field.default for name, field in model.model_fields.items()}
    return {n: value.model_dump(exclude=set(but)) for n, value in sections.items() if isinstance(value, StrictModel)}


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` over `defaults`, key by key; another `kind` of something has no defaults from the first."""
    both = {k: v for k, v in values.items() if isinstance(v, dict) and isinstance(defaults.get(k), dict)}
    if values.get("kind", defaults.get("kind")) != defaults.get("kind"):
        return dict(values)
    return {**defaults, **values, **{key: merged(defaults[key], value) for key, value in both.items()}}


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file. Raises `ConfigError` when it is none of YAML, or is not there."""
    try:
        with explain_os_errors(path):
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such file; give a YAML file, or a shipped profile with --profile") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({_one_line(error)}); mend it there") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, not settings; write `key: value` lines")
    return values or {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def put_setting(values: dict[str, Any], setting: str) -> None:
    """Put `a.b=c` into nested settings; the value is read as YAML. Raises `ConfigError`."""
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {setting}: write it as key.key=value, e.g. cognate.trunk.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML ({_one_line(error)}); quote it") from None
    target = values
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {setting}: '{part}' has no keys of its own; set it whole")
    target[parts[-1]] = value
