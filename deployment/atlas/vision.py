"""Parameters of vision towers with their projectors: loaded with a multimodal model, not used by text tokens.

Counted from `vision_config`. A config without one has no tower that can be counted. A tower of a kind that is not
known is refused, as everything else is.
"""

from deployment.atlas.fields import Fields
from deployment.atlas.layers import gated_mlp, plain_mlp


def tower_parameters(fields: Fields) -> int:
    """Of the config's `vision_config`; 0 where it has none. InputError for a kind that is not known."""
    if "vision_config" not in fields:
        return 0
    vision = fields.nested("vision_config")
    if "vt_hidden_size" in vision:
        return _moonvit(vision)
    kind = vision.text("model_type")
    if kind.startswith(("qwen3_vl", "qwen3_5")):
        return _qwen(vision)
    if kind.startswith("qwen2_5_vl"):
        return _qwen25(vision)
    if kind == "pixtral":
        return _pixtral(vision, fields)
    if kind == "gemma4_vision":
        return _gemma(vision, fields.nested("text_config").positive("hidden_size"))
    if kind == "clip_vision_model":
        return _clip(vision, fields)
    if kind == "siglip_vision_model":
        return _siglip(vision, fields.nested("text_config").positive("hidden_size"))
    raise vision.refuse("model_type", f"= {kind!r} is a vision tower that the physics does not know")


def _block(width: int, inner: int, *, bias: bool = True) -> int:
    """A transformer block with two layer norms."""
    return 4 * width * (width + bias) + plain_mlp(width, inner, bias=bias) + 2 * width * (1 + bias)


def _qwen(vision: Fields) -> int:
    """Qwen3-VL and Qwen3.5: a ViT with 3-D patches, a merger, and one more merger per deep-stack layer."""
    width, merged = (
        vision.positive("hidden_size"),
        vision.positive("hidden_size") * vision.positive("spatial_merge_size") ** 2,
    )
    patch = (
        vision.positive("in_channels", 3) * vision.positive("temporal_patch_size") * vision.positive("patch_size") ** 2
    )
    out = vision.positive("out_hidden_size")
    merger = merged * (merged + 1) + merged * out + out
    stacked = vision.config.get("deepstack_visual_indexes") or []
    if not isinstance(stacked, list):
        raise vision.refuse("deepstack_visual_indexes", "is not a list")
    blocks = vision.positive("depth") * _block(width, vision.positive("intermediate_size"))
    embedded = (patch + 1) * width + vision.positive("num_position_embeddings") * width
    return embedded + blocks + merger + 2 * width + len(stacked) * (merger + 2 * merged)


def _gemma(vision: Fields, text_hidden: int) -> int:
    width, dim = vision.positive("hidden_size"), vision.positive("head_dim")
    heads, kv_heads = vision.positive("num_attention_heads"), vision.positive("num_key_value_heads")
    block = 2 * width * (heads + kv_heads) * dim + gated_mlp(width, vision.positive("intermediate_size"))
    blocks = vision.positive("num_hidden_layers") * (block + 2 * dim + 4 * width)
    patch = 3 * vision.positive("patch_size") ** 2
    return blocks + (patch + 2 * vision.positive("position_embedding_size") + text_hidden) * width


def _moonvit(vision: Fields) -> int:
    """Kimi's MoonViT; K3's has a width of its own for queries, keys and values, and no biases."""
    width, inner = vision.positive("vt_hidden_size"), vision.positive("vt_intermediate_size")
    inside, bias = vision.positive("qkv_hidden_size", width), vision.flag("linear_bias", True)
    rms = vision.text("norm_type", "layernorm") == "rmsnorm"
    block = 4 * width * inside + bias * (3 * inside + width) + plain_mlp(width, inner, bias=bias)
    norm = width if rms else 2 * width
    patch = 3 * vision.positive("patch_size") ** 2 + vision.flag("patch_embed_proj_bias", True)
    positions = vision.positive("init_pos_emb_height") * vision.positive("init_pos_emb_width")
    merged = 4 * vision.positive("mm_hidden_size")
    projector = merged * (merged + bias) + (merged + bias) * vision.positive("text_hidden_size") + norm
    return vision.positive("vt_num_hidden_layers") * (block + 2 * norm) + (patch + positions) * width + norm + projector


def _clip(vision: Fields, fields: Fields) -> int:
    """MiniMax-M3's: rotary positions, so that there is no table; two pairs of projections to the text's width."""
    width, out = vision.positive("hidden_size"), fields.positive("projector_hidden_size")
    text = fields.nested("text_config").positive("hidden_size")
    merge = vision.nested("img_token_compression_config")
    tokens = merge.positive("spatial_merge_size") ** 2
    patch = 3 * merge.positive("temporal_patch_size") * vision.positive("patch_size") ** 2
    blocks = vision.positive("num_hidden_layers") * _block(width, vision.positive("intermediate_size"))
    projector = (width + 1) * out + (out + 1) * text + (text * tokens + 1) * out + (out + 1) * text
    return patch * width + 2 * width + blocks + projector


def _siglip(vision: Fields, text_hidden: int) -> int:
    """Gemma 3's: positions in a table, a pooling head where the config does not switch it off, one projection."""
    width, inner = vision.positive("hidden_size"), vision.positive("intermediate_size")
    size, block = vision.positive("patch_size"), _block(width, inner)
    head = block - width if vision.flag("vision_use_head", True) else 0  # a query in place of a norm
    positions = (vision.positive("image_size") // size) ** 2
    blocks = vision.positive("num_hidden_layers") * block
    return (3 * size**2 + 1 + positions) * width + blocks + head + 2 * width + width * (text_hidden + 1)


def _qwen25(vision: Fields) -> int:
    """Qwen2.5-VL's: gated MLPs with biases, norms without."""
    width, inner = vision.positive("hidden_size"), vision.positive("intermediate_size")
    out, merged = vision.positive("out_hidden_size"), width * vision.positive("spatial_merge_size", 2) ** 2
    patch = (
        vision.positive("in_channels", 3)
        * vision.positive("temporal_patch_size", 2)
        * vision.positive("patch_size") ** 2
    )
    block = 4 * width * (width + 1) + gated_mlp(width, inner, bias=True) + 2 * width
    return patch * width + vision.positive("depth") * block + width + merged * (merged + 1) + (merged + 1) * out


def _pixtral(vision: Fields, fields: Fields) -> int:
    """Mistral Small 3's, with the merger and the two projections of its wrapper."""
    width, text = vision.positive("hidden_size"), fields.nested("text_config").positive("hidden_size")
    tokens, bias = fields.positive("spatial_merge_size", 2) ** 2, fields.flag("multimodal_projector_bias", False)
    block = 4 * width * width + gated_mlp(width, vision.positive("intermediate_size")) + 2 * width
    tower = 3 * vision.positive("patch_size") ** 2 * width + width + vision.positive("num_hidden_layers") * block
    return tower + width + tokens * width * width + (width + bias) * text + (text + bias) * text
