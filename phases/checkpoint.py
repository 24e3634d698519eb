"""The checkpoint: a directory that plain `from_pretrained` opens, with a manifest that proves what it is.

`config.json`, `model.safetensors` and the tokenizer are the standard files. `forge.json` adds the phase, config,
seed, parents and data by digest, code version, environment, metrics, and the SHA-256 of every other file. The
digest of a checkpoint is the SHA-256 over those names and hashes, so two equal runs have equal digests; measurements
and machine stand in the manifest but outside the digest. Siblings (the cognate phase's branches, whose parent this
checkpoint is) are checkpoints in `siblings/<name>/`; `family_digest` covers them too.
"""

import importlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from phases.environment import environment
from phases.errors import CheckpointError, InputError
from phases.storage import atomic_directory, explain_os_errors, sha256_file, sha256_json

MANIFEST = "forge.json"
SIBLINGS = "siblings"


@dataclass(frozen=True)
class Manifest:
    """What `forge.json` says of a checkpoint, less the file hashes."""

    phase: str
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    parents: tuple[str, ...] = ()
    """Digests of the parent checkpoints."""
    data: tuple[str, ...] = ()
    """Digests of the data it was trained or selected on."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the phase itself measured: final loss, tokens, seconds."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    path: Path
    digest: str
    manifest: Mapping[str, Any]

    @property
    def siblings(self) -> dict[str, "Checkpoint"]:
        """The checkpoints that were made together with this one, by name."""
        root = self.path / SIBLINGS
        names = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
        return {name: open_checkpoint(root / name) for name in names}

    @property
    def family_digest(self) -> str:
        """One digest over this checkpoint and its siblings."""
        return sha256_json([self.digest, self.manifest.get("siblings", {})])

    @property
    def bytes_on_disk(self) -> int:
        """Sum of the file sizes, siblings left out."""
        return sum(p.stat().st_size for p in self.path.iterdir() if p.is_file())

    def model(self, dtype: torch.dtype = torch.float32) -> Any:
        """The model in evaluation mode, on the CPU."""
        return load_model(self.path, dtype)

    def tokenizer(self) -> Any:
        """The tokenizer."""
        return load_tokenizer(self.path)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The parameters by name in float32; tied weights once. Raises `CheckpointError` for a quantised model."""
        model = self.model()
        if getattr(model, "is_quantized", False):
            raise CheckpointError(f"{self.path}: packed, so its weights are no parameters; give what it was made from")
        return {name: p.detach() for name, p in model.named_parameters()}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `forge.json` over a filled folder: its last file."""
    body = {
        "phase": manifest.phase,
        "config": dict(manifest.config),
        "seed": manifest.seed,
        "parents": list(manifest.parents),
        "data": list(manifest.data),
        "files": _hash_files(folder),
    }
    rest = {"siblings": {}, "metrics": dict(manifest.metrics), "environment": environment()}
    _write_manifest(folder, {**body, "digest": sha256_json(body), **rest})


def save_checkpoint(
    out: Path,
    model: Any,
    tokenizer: Any,
    manifest: Manifest,
    tensors: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write a model atomically and return it verified.

    `tensors` (a file name such as `latent.safetensors` to tensors) and `texts` (a file name to its text) ride along.
    """
    with atomic_directory(out) as temporary:
        # Tensors keep the names that the model has for them; a few families (GPT-NeoX) are else renamed in the file.
        model.save_pretrained(temporary, save_original_format=False)
        tokenizer.save_pretrained(temporary)
        for name, content in (tensors or {}).items():
            save_file({k: v.contiguous() for k, v in content.items()}, temporary / name)
        for name, text in (texts or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        write_manifest(temporary, manifest)
    return open_checkpoint(out)


def save_family(out: Path, root: Path, siblings: Mapping[str, Path]) -> Checkpoint:
    """Write finished checkpoints as one: `root` at the top, the others as its siblings. Files are linked or copied."""
    with atomic_directory(out) as temporary:
        shutil.copytree(root, temporary, copy_function=link_or_copy, dirs_exist_ok=True)
        for name, path in siblings.items():
            shutil.copytree(path, temporary / SIBLINGS / name, copy_function=link_or_copy)
        digests = {name: open_checkpoint(path).digest for name, path in siblings.items()}
        (temporary / MANIFEST).unlink()  # a link: writing through it would alter `root`
        _write_manifest(temporary, {**open_checkpoint(root).manifest, "siblings": digests})
    return open_checkpoint(out)


def link_or_copy(source: str, target: str) -> None:
    """A hard link to a file that nobody writes to again; a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Verify a checkpoint and return it.

    A directory without `forge.json` is someone else's model: it is hashed, not verified. Raises `CheckpointError`
    that names the missing, truncated or altered file.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        what = "no such folder" if not path.is_dir() else "config.json is missing"
        raise CheckpointError(f"{path}: not a checkpoint ({what}); give a folder that `forge` or transformers wrote")
    if not (path / MANIFEST).is_file():
        body = {"files": _hash_files(path), "foreign": True}
        return Checkpoint(path, sha256_json(body), body)
    manifest = _read_manifest(path / MANIFEST)
    for name, expected in manifest["files"].items():
        _verify_file(path / name, expected)
    body = {key: manifest[key] for key in _DIGESTED}
    if sha256_json(body) != manifest["digest"]:
        raise CheckpointError(f"{path / MANIFEST}: altered (its digest does not match its contents); {_MEND}")
    for name, digest in manifest["siblings"].items():
        if open_checkpoint(path / SIBLINGS / name).digest != digest:
            raise CheckpointError(f"{path / SIBLINGS / name}: not the checkpoint it was written with; {_MEND}")
    return Checkpoint(path, str(manifest["digest"]), manifest)


_DIGESTED = ("phase", "config", "seed", "parents", "data", "files")
_MEND = "restore it from a copy, or delete the folder and run the phase again"


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in (*_DIGESTED, "siblings", "digest") if key not in manifest]
        if missing:
            raise KeyError(missing[0])
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}: truncated or altered (not a whole manifest); {_MEND}") from None
    return dict(manifest)


def _verify_file(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; {_MEND}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise CheckpointError(f"{path}: truncated ({size:,} bytes, {expected['bytes']:,} expected); {_MEND}")
    digest = sha256_file(path)
    if digest != expected["sha256"]:
        raise CheckpointError(f"{path}: altered (SHA-256 {digest[:12]}…, {expected['sha256'][:12]}… expected); {_MEND}")


def _hash_files(path: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in path.iterdir() if p.is_file() and p.name != MANIFEST)
    return {p.name: {"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in files}


def load_model(path: Path | str, dtype: torch.dtype = torch.float32) -> Any:
    """Open any HF causal LM (a path or hub id), packed ones too, in evaluation mode."""
    # By name: no phase's results depend on how packed weights, which no phase can train, are opened.
    for formats in ("phases.packed", "phases.compression.quantizer"):
        importlib.import_module(formats)
    with explain_load_errors(path):
        model, found = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype, output_loading_info=True)
    if found["missing_keys"]:
        # transformers has filled them with random numbers: other weights, or packed ones that config.json denies.
        missing = sorted(found["missing_keys"])[0]
        raise CheckpointError(f"{path}: its weights lack {missing}, which config.json asks for; {_MEND}")
    return model.eval()


def load_tokenizer(path: Path | str) -> Any:
    """Open any HF tokenizer (a path or hub id)."""
    with explain_load_errors(path):
        return AutoTokenizer.from_pretrained(str(path))


@contextmanager
def explain_load_errors(path: Path | str) -> Iterator[None]:
    """Turn what transformers and safetensors raise about a folder or hub id into one `CheckpointError` line."""
    looks_local = str(path).startswith((".", "/", "~")) or str(path).count("/") > 1
    if looks_local and not Path(path).is_dir():
        raise CheckpointError(f"{path}: no such folder; give a folder or a reachable hub id")
    with explain_os_errors(Path(path)):
        try:
            yield
        except InputError:  # our own, of a packed file
            raise
        except (OSError, ValueError, KeyError, AttributeError, TypeError, StrictDataclassError) as error:
            reason = str(error).strip().split("\n")[0]
            fix = "give a folder or a reachable hub id"
            raise CheckpointError(f"{path}: cannot be loaded ({reason}); {fix}") from error
        except Exception as error:
            if type(error).__name__ != "SafetensorError":
                raise
            raise CheckpointError(f"{path}: model.safetensors is truncated or altered ({error}); {_MEND}") from error
