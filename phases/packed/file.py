"""A ternary checkpoint as one packed file, and back into a model.

    source = open_checkpoint("runs/bitnet")
    packed = pack_checkpoint(source, Path("runs/packed"), "trits")
    model = load_packed(packed.path)                            # or, after `import phases.packed`, from_pretrained

A packed checkpoint has what its source has (tokenizer, generation settings, thoughts), a `config.json` that says how it
is packed, and the packed `model.safetensors`. The latent weights stay behind. What was packed is verified, tensor by
tensor, before the folder appears.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from phases.bitnet.storage import LATENT
from phases.bitnet.storage import SETTINGS as TERNARY
from phases.checkpoint import MANIFEST, Checkpoint, Manifest, open_checkpoint, write_manifest
from phases.errors import CheckpointError, InputError
from phases.packed.container import write_file
from phases.packed.kernels import Preference
from phases.packed.layout import CODECS, TernaryLayout, read_lattice
from phases.packed.model import packed_matrices, unpacked_weights
from phases.packed.plan import WEIGHTS, Plan, plan_file
from phases.packed.settings import ForgeTernaryConfig
from phases.packed.sizes import measure_bytes
from phases.packed.verify import metadata
from phases.storage import atomic_directory, sha256_file

_OWN = ("config.json", WEIGHTS, MANIFEST, LATENT, TERNARY)
"""Files of the source that are written anew or stay behind."""


def pack_checkpoint(source: Checkpoint, out: Path, layout: TernaryLayout = "trits") -> Checkpoint:
    """Pack a ternary checkpoint into the folder `out`, atomically.

    Raises `CheckpointError` when the source is not ternary or its weights are not on the lattice that it says.
    """
    plan = plan_file(source.path, layout)
    with atomic_directory(out) as folder:
        for path in sorted(p for p in source.path.iterdir() if p.is_file() and p.name not in _OWN):
            shutil.copyfile(path, folder / path.name)
        config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
        if not config.keys() & {"dtype", "torch_dtype"}:
            config["dtype"] = "float32"  # or transformers looks for it in the file, before that is verified
        config["quantization_config"] = ForgeTernaryConfig(**plan.settings.model_dump()).to_dict()
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        described = metadata(plan.settings, sha256_file(folder / "config.json"))
        write_file(folder / WEIGHTS, _tensors(source.path / WEIGHTS, plan), described)
        _compare(folder, source)
        sizes = {f"{kind}_bytes": float(count) for kind, count in asdict(measure_bytes(folder)).items()}
        manifest = Manifest(
            phase="packed", config=plan.settings.model_dump(mode="json"), parents=(source.digest,), metrics=sizes
        )
        write_manifest(folder, manifest)
    return open_checkpoint(out)


def load_packed(
    path: Path | str, dtype: torch.dtype | str = "auto", kernel: Preference = "auto", device: str | torch.device = "cpu"
) -> Any:
    """A packed model in evaluation mode. Raises `CheckpointError` that names the damaged or missing file.

    `exact` computes with the weights of the ternary checkpoint bit for bit; `auto` takes the fastest kernel of the
    device, which rounds activations to 8 bits where the model was trained with that.
    """
    try:
        config = AutoConfig.from_pretrained(str(path))
        settings = getattr(config, "quantization_config", None) or {}
        if settings.get("quant_method") != "forge_ternary":
            raise CheckpointError(
                f"{path}: not packed (config.json has no forge_ternary); give what `pack_checkpoint` wrote"
            )
        config.quantization_config = {**settings, "kernel": kernel}
        model = AutoModelForCausalLM.from_pretrained(str(path), config=config, dtype=dtype)
    except InputError:
        raise
    except (OSError, KeyError, ValueError, AttributeError, TypeError, SafetensorError, StrictDataclassError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path}: cannot be loaded ({reason}); give what `pack_checkpoint` wrote") from error
    return model.to(device).eval()


def _compare(folder: Path, source: Checkpoint) -> None:
    """Open what was written and raise `CheckpointError` unless it is the source: every weight, and what it computes."""
    packed, plain = load_packed(folder, torch.float32, "exact"), source.model()
    weights = unpacked_weights(packed)
    for name, parameter in plain.named_parameters():
        if not torch.equal(weights[name], parameter.float()):
            raise CheckpointError(f"{source.path}: {name} would not be the same when packed; nothing was written")
    tokens = torch.arange(min(8, int(plain.config.vocab_size))).unsqueeze(0)
    with torch.inference_mode():
        ours, expected = packed(tokens).logits, plain(tokens).logits
    if not torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise CheckpointError(
            f"{source.path}: {type(plain).__name__} computes more with its weights than a packed model does; nothing "
            "was written"
        )


def _tensors(path: Path, plan: Plan) -> dict[str, torch.Tensor]:
    """Every tensor of the packed file, by name."""
    result = {}
    with safe_open(path, framework="pt") as file:
        for name, matrix in packed_matrices(plan.model).items():
            weight = file.get_tensor(f"{name}.weight")
            lattice = read_lattice(weight, matrix.layout, matrix.group, f"{path}: {name}.weight")
            result[f"{name}.codes"] = CODECS[matrix.layout].pack(lattice.codes_OI)
            result[f"{name}.scale"] = lattice.scale_OG
        result |= {name: file.get_tensor(name) for name in plan.entries.keys() - result.keys()}
    return result
