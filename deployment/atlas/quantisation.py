"""How many bits the weights of a published checkpoint take, part by part, from its `quantization_config`.

Bits with their scales: fp8 8 (one float32 per 128 × 128 block, or per tensor), MXFP8 8.25, NVFP4 4.5, MXFP4 4.25,
integers in groups of g: bits + 16/g, and a zero point of `bits`/g where they are not symmetric. Which parts are left
out matters: gpt-oss quantises its experts alone, most NVFP4 checkpoints leave attention in bf16. Lists of left-out
modules name single layers; a part that is left out in one counts as left out in all, for lists are often cut.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from deployment.model import LayerGroup, Model
from phases.errors import InputError

ALGORITHMS = {
    "FP8": 8.0, "FP8_PB_WO": 8.0, "FP8_PER_CHANNEL_PER_TOKEN": 8.0, "MXFP8": 8.25, "NVFP4": 4.5, "W4A16_NVFP4": 4.5,
    "NVFP4_AWQ": 4.5, "W4A16_AWQ": 4.15625, "W4A8_AWQ": 4.15625, "INT4_AWQ": 4.15625, "MXFP4": 4.25,
    "INT8_SQ": 8.0, "W8A8_SQ_PER_CHANNEL": 8.0,
}  # fmt: skip
PLAIN = 16.0
_END = r"(\.?\*)?$"
_MIXER = re.compile(r"(self_attn|linear_attn|attn|attention|self_attention)" + _END)
_DENSE = re.compile(r"(shared_experts?|mlp|feed_forward|mlp\.\(gate\|up\|gate_up\|down\)_proj|mlp\.gate_proj)" + _END)
_EXPERTS = re.compile(r"(?<!shared_)experts" + _END)


@dataclass(frozen=True, slots=True)
class StoredBits:
    """Bits per weight of each part of the layers, and of the head."""

    mixer: float = PLAIN
    dense: float = PLAIN
    expert: float = PLAIN
    head: float = PLAIN


def stored_bits(config: Mapping[str, object], name: str) -> StoredBits:
    """Of a whole `config.json`. Raises InputError naming a method or a format that is not known.

    Without a `quantization_config`, NVFP4 or FP8 at the end of the name count: those checkpoints say it in a file
    beside. The list of what is left out is then not known: NVFP4 counts for MLPs and experts alone, which is never
    too little.
    """
    settings = config.get("quantization_config")
    text = config.get("text_config")
    if settings is None and isinstance(text, Mapping):
        settings = text.get("quantization_config")
    if settings is None:
        return _by_name(name)
    if not isinstance(settings, Mapping):
        raise InputError(f"{name}: quantization_config is not an object")
    bits = _by_layer(settings, name) if settings.get("quantized_layers") else _by_method(settings, name)
    if config.get("expert_dtype") == "fp4" and not settings.get("quantized_layers"):
        return replace(bits, expert=ALGORITHMS["MXFP4"])  # DeepSeek-V4: fp4 with one e8m0 scale per 32
    return bits


def applied(model: Model, bits: StoredBits) -> Model:
    """The model with these bits: of the whole where all parts are alike, else of each part of a group."""
    tables = model.vocabulary * model.hidden
    head = tables if model.embedding_parameters >= 2 * tables else 0  # a tied head is the embedding: not quantised
    share = head / model.embedding_parameters
    model = replace(model, embedding_bits=share * bits.head + (1 - share) * PLAIN)
    if bits.mixer == bits.dense == bits.expert:
        return replace(model, stored_bits=bits.mixer)
    groups = tuple(
        replace(group, mixer_bits=bits.mixer, dense_bits=bits.dense, expert_bits=bits.expert) for group in model.layers
    )
    return replace(model, layers=groups, stored_bits=_average(groups))


def _average(groups: Iterable[LayerGroup]) -> float:
    """Bits per weight of the layers."""
    total = weighted = 0.0
    for group in groups:
        for parameters, bits in (
            (group.mixer_parameters, group.mixer_bits),
            (group.dense_parameters, group.dense_bits),
            (group.experts * group.expert_parameters, group.expert_bits),
        ):
            total += group.count * parameters
            weighted += group.count * parameters * (PLAIN if bits is None else bits)
    return weighted / total


def _by_name(name: str) -> StoredBits:
    last = name.rsplit("/", 1)[-1].upper()
    if re.search(r"NVFP4$|-FP4$", last):
        return StoredBits(dense=ALGORITHMS["NVFP4"], expert=ALGORITHMS["NVFP4"])
    if last.endswith("FP8"):
        return StoredBits(mixer=8.0, dense=8.0, expert=8.0)
    return StoredBits()


def _by_method(settings: Mapping[str, object], name: str) -> StoredBits:
    """The same bits for all parts that the list does not leave out."""
    bits = _bits_of(settings, name)
    left_out = [str(one) for one in _left_out(settings)]
    if settings.get("quant_method") == "mxfp4":
        return StoredBits(expert=bits)  # transformers and vLLM quantise experts alone with this method
    kept = {
        "mixer": any(_MIXER.search(_plain(one)) for one in left_out),
        "dense": any(_DENSE.search(_plain(one)) for one in left_out),
        "expert": any(_EXPERTS.search(_plain(one)) for one in left_out),
    }
    return StoredBits(**{part: PLAIN if is_plain else bits for part, is_plain in kept.items()})


def _left_out(settings: Mapping[str, object]) -> list[object]:
    for key in ("ignore", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules"):
        listed = settings.get(key)
        if isinstance(listed, list):
            return listed
    return []


def _plain(pattern: str) -> str:
    """A module's name or pattern in one form: `re:.*self_attn.*` is `*.self_attn*`."""
    return pattern.removeprefix("re:").replace("\\.", ".").replace(".*", "*").rstrip("$")


def _bits_of(settings: Mapping[str, object], name: str) -> float:
    method, algorithm = str(settings.get("quant_method") or "modelopt"), settings.get("quant_algo")
    if isinstance(algorithm, str) and method in ("modelopt", "modelopt_fp4", "nvfp4"):
        if algorithm.upper() not in ALGORITHMS:
            raise InputError(f"{name}: quantization_config.quant_algo = {algorithm!r} is not known")
        return ALGORITHMS[algorithm.upper()]
    if method in ("fp8", "fbgemm_fp8", "deepspeed_fp8", "ptpc_fp8"):
        return 8.0
    if method == "mxfp4":
        return ALGORITHMS["MXFP4"]
    if method in ("awq", "gptq", "gptq_marlin", "awq_marlin", "auto-round"):
        bits, group = (
            settings.get("bits") or settings.get("w_bit"),
            settings.get("group_size") or settings.get("q_group_size"),
        )
        return _grouped(bits, group, name, zero_point=not settings.get("sym", False))
    if method == "bitsandbytes":
        return 4.127 if settings.get("load_in_4bit") else 8.0  # NF4, its scales quantised too (QLoRA, arXiv 2305.14314)
    if method == "compressed-tensors":
        return _compressed_tensors(settings, name)
    raise InputError(
        f"{name}: quantization_config.quant_method = {method!r} is not known; of a forge's own checkpoint add the "
        "folder, whose files say their size"
    )


def _grouped(bits: object, group: object, name: str, *, zero_point: bool) -> float:
    if not isinstance(bits, int) or not isinstance(group, int):
        raise InputError(
            f"{name}: quantization_config needs whole numbers as bits and group_size, not {bits!r}, {group!r}"
        )
    return bits + (16 + bits * zero_point) / group if group > 0 else float(bits)


def _compressed_tensors(settings: Mapping[str, object], name: str) -> float:
    groups = settings.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping) or not isinstance(weights.get("num_bits"), int):
        raise InputError(f"{name}: quantization_config.config_groups says no num_bits of weights")
    bits, group = int(weights["num_bits"]), weights.get("group_size")
    if bits == 8 or not isinstance(group, int) or group <= 0:
        return float(bits)
    if weights.get("type") == "float":
        return bits + 8 / group  # one byte of scale: MXFP4 in groups of 32, NVFP4 in groups of 16
    return bits + (16 + (0 if weights.get("symmetric", True) else bits)) / group


def _by_layer(settings: Mapping[str, object], name: str) -> StoredBits:
    """Where each quantised layer is named with its own format; what is not named has the method's bits."""
    listed = settings["quantized_layers"]
    if not isinstance(listed, Mapping):
        raise InputError(f"{name}: quantization_config.quantized_layers is not an object")
    rest = 8.0 if settings.get("quant_method") == "fp8" else PLAIN
    found: dict[str, float] = {}
    for module, format_ in listed.items():
        part = _part(str(module))
        if part in found or not part:
            continue
        algorithm = format_.get("quant_algo") if isinstance(format_, Mapping) else None
        if str(algorithm).upper() not in ALGORITHMS:
            raise InputError(f"{name}: quantization_config.quantized_layers: {algorithm!r} of {module} is not known")
        found[part] = ALGORITHMS[str(algorithm).upper()]
    head = found.pop("head", PLAIN)
    return StoredBits(head=head, **{part: found.get(part, rest) for part in ("mixer", "dense", "expert")})


def _part(module: str) -> str:
    """Which part a module of the reference implementation belongs to; "" for none."""
    if module.endswith(("lm_head", "head")):
        return "head"
    if re.search(r"(?<!shared_)experts(\.|$)", module) and "shared" not in module:
        return "expert"
    if re.search(r"attn|attention", module):
        return "mixer"
    return "dense" if re.search(r"mlp|shared_expert|feed_forward|ffn", module) else ""
