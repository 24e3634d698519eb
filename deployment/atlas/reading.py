"""`read_config`: a published `config.json` becomes a `Model`, or an error that names what the physics does not know.

    from deployment.atlas.reading import read_config, read_folder
    model = read_config(json.load(open("config.json")), "org/name")

`model_type` decides the reader. A multimodal config holds its language model in `text_config`; the tower counts as
`other_parameters`. Multi-token-prediction layers are left out: engines load them only for speculative decoding.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from deployment.atlas import dense, gemma, latent, mamba, mixtures, patterned, quantisation, recurrent
from deployment.atlas.fields import Fields
from deployment.atlas.storing import read_json
from deployment.atlas.vision import tower_parameters
from deployment.model import Model
from phases.errors import InputError

Reader = Callable[[Fields], Model]

READERS: dict[str, Reader] = {
    **dict.fromkeys(dense.FAMILIES, dense.read_dense),
    "nemotron-nas": dense.read_block_configs,
    "mixtral": mixtures.read_mixtral,
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text", "olmoe"), mixtures.read_qwen_moe),
    "gpt_oss": mixtures.read_gpt_oss,
    "llama4_text": mixtures.read_llama4,
    "minimax_m2": mixtures.read_minimax_m2,
    "minimax_m3": patterned.read_minimax_m3,
    "mimo_v2_flash": patterned.read_mimo_v2,
    **dict.fromkeys(("step3p5", "step3p7"), patterned.read_step),
    "glm4_moe": patterned.read_glm4_moe,
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite"), latent.read_deepseek
    ),
    "deepseek_v4": latent.read_deepseek_v4,
    "deepseek_ref": latent.read_deepseek_v4,
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), recurrent.read_qwen_delta
    ),
    "kimi_linear": recurrent.read_kimi_linear,
    "nemotron_h": mamba.read_nemotron_h,
    "falcon_h1": mamba.read_falcon_h1,
    "granitemoehybrid": mamba.read_granite_hybrid,
    "mamba2": mamba.read_mamba2,
    "gemma4_text": gemma.read_gemma4,
}
# What `text_config` is where it does not say.
_TEXT_OF = {"minimax_m3_vl": "minimax_m3"}


def read_config(config: Mapping[str, object], name: str) -> Model:
    """The model of a parsed `config.json`. Licence, tasks and quality are not in it.

    Raises InputError naming the field that is missing, wrong or not known; nothing is guessed.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"{name}: config.json is not an object but {type(config).__name__}")
    outer = Fields(config, name)
    family = outer.text("model_type")
    fields, other = outer, 0
    if isinstance(config.get("text_config"), Mapping):
        fields, other = _inner(outer, family), tower_parameters(outer)
    kind = fields.text("model_type")
    if kind not in READERS:
        near = get_close_matches(kind, READERS, 3)
        hint = f"; near it: {', '.join(near)}" if near else f"; it knows {', '.join(sorted(READERS))}"
        raise fields.refuse("model_type", f"= {kind!r} is not known to the physics{hint}")
    model = READERS[kind](fields)
    fields.refuse_unread()
    model = replace(model, family=family, other_parameters=model.other_parameters + other, source="its config.json")
    return quantisation.applied(model, quantisation.stored_bits(config, name))


def _inner(outer: Fields, family: str) -> Fields:
    """The language model's own config, with what the outer one says for both."""
    text = outer.nested("text_config").config
    said = {"model_type": _TEXT_OF.get(family)} if "model_type" not in text else {}
    tied = (
        {}
        if text.get("tie_word_embeddings") is not None
        else {"tie_word_embeddings": outer.config.get("tie_word_embeddings")}
    )
    return Fields({**text, **said, **tied}, outer.name, within="text_config.")


def read_file(path: Path, name: str) -> Model:
    """From a `config.json` on disk; ModelOpt's `hf_quant_config.json` beside it is read too."""
    config = read_json(path)
    beside = path.with_name("hf_quant_config.json")
    if "quantization_config" not in config and beside.is_file():
        settings = read_json(beside).get("quantization")
        if isinstance(settings, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **settings}
    return read_config(config, name)
