"""The production artefact: a compressed model in a folder of its own, and back into plain weights.

    made = write_artefact(source, stored, Path("agent"))
    model = load_artefact(made.path)            # or from_pretrained after `import phases.compression.quantizer`
    plain = dequantise(made.path, Path("plain"))                # float32, which needs none of our code

The folder has what its source has besides weights (tokenizer, chat template, agent, documents), a `config.json` that
names the format, and one `model.safetensors`, in which is everything that decoding needs: its size is the model's. Of a
model that thinks the mixing head is beside it, in float16.
What was written is read back and compared with what was stored, weight by weight, before the folder appears.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from phases.bitnet.config import Quantisation
from phases.bitnet.storage import SETTINGS, TernaryFile, is_ternary, read_settings
from phases.checkpoint import (
    MANIFEST,
    Checkpoint,
    Manifest,
    explain_load_errors,
    load_model,
    open_checkpoint,
    write_manifest,
)
from phases.compression.file_format import MATRIX, Contents, books_of, file_tensors, split
from phases.compression.modules import LazyMatrix, use_kernel
from phases.compression.quantizer import ForgeCompressedConfig
from phases.compression.sealing import kinds_of, matrix_shapes
from phases.compression.sizes import sizes
from phases.compression.stored import Stored
from phases.compression.ternary import Ternary
from phases.compression.thoughts import thoughts_of
from phases.compression.verify import metadata, verify_file
from phases.errors import CheckpointError
from phases.packed.container import write_file
from phases.packed.kernels import Preference
from phases.packed.modules import PackedMatrix
from phases.packed.plan import WEIGHTS, empty_model
from phases.quiet_star.storage import HEAD
from phases.storage import atomic_directory, sha256_file

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_LEFT_BEHIND = (
    *(_CONFIG, MANIFEST, SETTINGS, "adas.json", "archive*"),
    *("model*.safetensors*", "latent.safetensors", "experts.*", "task_vectors.*"),
)
"""Files of the source that are written anew, or belong to its weights and its making."""


def write_artefact(
    source: Checkpoint,
    stored: Stored,
    out: Path,
    *,
    phase: str = "compression",
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    data: tuple[str, ...] = (),
    metrics: Mapping[str, float] | None = None,
    activations: bool | None = None,
    texts: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Write a model as it is stored into the folder `out`, atomically.

    `activations`: whether kernels may round activations to 8 bits; as the source was trained, where it is not said.
    `texts` (a file name to its text) ride along, in place of files of the source. Config, seed, data and metrics are
    the manifest's, which gets the file's bytes by kind besides. Raises `CheckpointError` that names the tensor when
    `stored` is not of the source's model, or could not be read back.
    """
    model = empty_model(source.path)
    _check(source, stored, model)
    if activations is None:
        activations = is_ternary(source.path) and read_settings(source.path).quantisation.activations
    try:
        tensors, contents = file_tensors(stored, activations)
    except ValueError as error:
        raise CheckpointError(f"{source.path}: cannot be written as it is stored: {error}") from None
    with atomic_directory(out) as folder:
        _copy_rest(source.path, folder)
        if (thoughts := thoughts_of(source.path)).tensors:
            (folder / HEAD).write_bytes(thoughts.file)
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        described = json.loads((source.path / _CONFIG).read_text(encoding="utf-8"))
        if not described.keys() & {"dtype", "torch_dtype"}:
            described["dtype"] = "float32"  # or transformers looks for it in the file, before that is verified
        described["quantization_config"] = ForgeCompressedConfig().to_dict()
        (folder / _CONFIG).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_file(folder / WEIGHTS, tensors, metadata(contents, sha256_file(folder / _CONFIG)))
        _compare(folder, stored)
        spent = {f"{kind}_bytes": float(count) for kind, count in asdict(sizes(folder)).items()}
        manifest = Manifest(phase, config or {}, seed, (source.digest,), data, {**(metrics or {}), **spent})
        write_manifest(folder, manifest)
    return open_checkpoint(out)


def load_artefact(path: Path | str, dtype: torch.dtype = torch.float32, kernel: Preference = "auto") -> Any:
    """A compressed model in evaluation mode. Raises `CheckpointError` that names the damaged or missing file.

    `exact` computes with the weights of `Stored.weights` bit for bit; `auto` takes the fastest kernel of ternary
    layers, which rounds activations to 8 bits where the model was trained with that.
    """
    model = load_model(path, dtype)
    use_kernel(model, kernel)
    return model


def read_stored(path: Path | str) -> tuple[Stored, Contents]:
    """What a compressed checkpoint holds, and what it says of it. Raises `CheckpointError` as `verify_file` does."""
    file, model = Path(path) / WEIGHTS, empty_model(path)
    contents, header = verify_file(file, model)
    kinds, shapes, tensors = kinds_of(contents, header), matrix_shapes(model), load_file(file)
    encoded = {}
    for layer, kind in kinds.items():
        try:
            encoded[f"{layer}.weight"] = split(tensors.pop(f"{layer}{MATRIX}"), kind, shapes[layer])
        except ValueError as error:
            raise CheckpointError(f"{file}: {layer}{MATRIX}: {error}; restore it from a copy") from None
    codecs, names = {f"{layer}.weight": kind.coding for layer, kind in kinds.items()}, model.state_dict().keys()
    plain = {name: tensor for name, tensor in tensors.items() if name in names}
    return Stored(codecs, encoded, books_of(contents, tensors), plain), contents


def dequantise(path: Path | str, out: Path, manifest: Manifest | None = None) -> Checkpoint:
    """Write a compressed checkpoint as a plain one in float32, atomically; plain `from_pretrained` opens it."""
    source = open_checkpoint(path)
    model = float_model(source.path, read_stored(path)[0].weights())
    with atomic_directory(out) as folder:
        # Tensors keep the names that the model has for them; a few families are else renamed in the file.
        model.save_pretrained(folder, save_original_format=False)
        _copy_rest(source.path, folder)
        write_manifest(folder, manifest or Manifest("dequantised", parents=(source.digest,)))
    return open_checkpoint(out)


def gguf_parts(path: Path | str) -> tuple[TernaryFile, Any]:
    """What `phases.packed.gguf_export` asks of a ternary checkpoint: its lattices, and a model on them.

    Ternary layers keep their codes and scales; embeddings, heads and layers of other codecs are float32 in the model,
    and so is everything where no layer is ternary. Raises `CheckpointError` for groups of different sizes.
    """
    stored, contents = read_stored(path)
    model = float_model(path, stored.weights())
    ends = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    names = [name for name, codec in stored.codecs.items() if isinstance(codec, Ternary)]
    names = [name for name in names if model.get_parameter(name) not in ends]
    groups = {codec.group for name in names if isinstance(codec := stored.codecs[name], Ternary)}
    if len(groups) > 1:
        raise CheckpointError(
            f"{path}: {len(names)} ternary layers with {len(groups)} sizes of groups, GGUF needs one; export it with "
            "--dequantise"
        )
    group = groups.pop() if groups else None
    quantisation = Quantisation(group=group, activations=contents.activations, embedding_bits=None)
    return TernaryFile(quantisation=quantisation, ternary=tuple(names), embeddings=()), model


def float_model(path: Path | str, weights: Mapping[str, torch.Tensor]) -> Any:
    """The plain model of a folder's `config.json` with these weights, float32, in evaluation mode."""
    with explain_load_errors(path):
        config = AutoConfig.from_pretrained(str(path))
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if (Path(path) / _GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(str(path))
    model.load_state_dict(weights, strict=False)
    return model.eval()


def _check(source: Checkpoint, stored: Stored, model: Any) -> None:
    """Raise `CheckpointError` unless every tensor of the model is stored once, in its shape."""
    assert stored.codecs.keys() == stored.encoded.keys()
    tied, matrices = model.all_tied_weights_keys, matrix_shapes(model)
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in tied}
    found = {n: (e.shape, n.removesuffix(".weight") in matrices) for n, e in stored.encoded.items()}
    found |= {n: (tuple(t.shape), t.dtype == torch.float16) for n, t in stored.plain.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != (wanted.get(name), True):
            shape = f"stored as {found[name][0]}" if name in found else "not stored"
            raise CheckpointError(
                f"{source.path}: {name} is {shape} and {wanted.get(name, 'missing')} in a {type(model).__name__}; "
                "encode weights of linear layers and embeddings, once where they are tied, and the rest in float16"
            )


def _copy_rest(source: Path, folder: Path) -> None:
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        if not any(fnmatch(path.name, pattern) for pattern in _LEFT_BEHIND):
            shutil.copyfile(path, folder / path.name)


def _compare(folder: Path, stored: Stored) -> None:
    """Raise `CheckpointError` unless what was written is what is stored: every weight, and what it computes."""
    model, weights = load_artefact(folder, kernel="exact"), stored.weights()
    modules = {n: m for n, m in model.named_modules() if isinstance(m, (LazyMatrix, PackedMatrix))}
    read = {f"{name}.weight": module for name, module in modules.items()}
    for name, weight in weights.items():
        if not torch.equal(read[name].weight if name in read else model.get_parameter(name), weight):
            raise CheckpointError(f"{folder}: {name} would not be what is stored; nothing was written")
    plain = float_model(folder, weights)
    tokens = torch.arange(min(8, int(plain.config.vocab_size))).unsqueeze(0)
    with torch.inference_mode():
        ours, expected = model(tokens).logits, plain(tokens).logits
    if not torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise CheckpointError(f"{folder}: a {type(plain).__name__} computes more with its weights; nothing was written")
