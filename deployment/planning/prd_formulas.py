"""The PRDs' formulas beside the ones that are in force, model by model, and why they differ. A lesson, not a method.

    forge recommend --explain

KV        tokens × layers × 2 × d_model / kv_groups × bytes. It takes head_dim for d_model / heads, which Qwen3, gpt-oss
          and Mistral Small do not keep to; it gives every layer a growing cache, which windows and recurrences do not
          have; and it does not know latent attention. In force: layer by layer (`physics/keys_values.py`).
weights   parameters × bits / 8 × overhead. What comes on top does not grow with the weights: it is added, per
          accelerator (`physics/memory.py`); embeddings stay in 16 bits. In force: per tensor (`physics/weights.py`).
score     an additive one, in which what does not fit still scores (`planning/score.py`).
TPOT      the example "Llama-3-8B on an L4: 42 ms" is below the floor: 16.06 GB / 300 GB/s = 53.5 ms (`floors.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deployment.model import Model
from deployment.physics import keys_values, weights
from phases.errors import InputError

OVERHEAD = 1.2
"""The PRDs' factor on the weights."""
GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model by both formulas, bytes."""

    model: str
    context: int
    """Tokens of the sequence that `kv` is of."""
    kv_prd: float | None
    """One token, by the PRDs; None: there is no attention for it to be about."""
    kv_first: float
    """One token while every layer's cache grows: what is inside all windows."""
    kv: float
    """Mean of a token in a sequence of `context` tokens."""
    weights_prd: float
    weights: float
    """Of the checkpoint."""
    reason: str

    @property
    def first_error(self) -> float | None:
        """The PRDs' figure over `kv_first`, less 1: what is wrong about heads and latents."""
        return self._error(self.kv_first)

    @property
    def error(self) -> float | None:
        """The PRDs' figure over `kv`, less 1: windows and states as well."""
        return self._error(self.kv)

    def _error(self, true: float) -> float | None:
        return self.kv_prd / true - 1 if self.kv_prd is not None and true else None


def compare(model: Model, context: int) -> Comparison:
    """Both formulas for one model, at 16-bit keys and values and the weights as stored."""
    try:
        kv_prd: float | None = keys_values.as_in_the_prd(model)
    except InputError:
        kv_prd = None
    empty = keys_values.bytes_per_sequence(model, 0)
    return Comparison(
        model=model.name,
        context=context,
        kv_prd=kv_prd,
        kv_first=keys_values.bytes_per_sequence(model, 1) - empty,
        kv=keys_values.bytes_per_sequence(model, context) / context,
        weights_prd=weights.as_in_the_prd(model, "stored", OVERHEAD),
        weights=weights.checkpoint_bytes(model),
        reason=reason(model),
    )


def reason(model: Model) -> str:
    """Why the PRD's cache differs for this model; empty where it does not."""
    why = []
    mixers = {group.mixer for group in model.layers}
    attention = next((group for group in model.layers if group.mixer == "attention"), None)
    if "latent" in mixers:
        why.append("latent attention keeps one vector a token, not keys and values")
    if attention and attention.heads * attention.head_dim != model.hidden:
        of = f"d_model / heads = {model.hidden / attention.heads:g}"
        why.append(f"head_dim is {attention.head_dim}, not {of}")
    if any(group.window for group in model.layers):
        why.append("layers with a window stop growing")
    if mixers & {"state", "none"}:
        why.append("layers without attention keep nothing per token")
    if any(group.shared_cache for group in model.layers):
        why.append("layers share a cache")
    if attention and any(g.mixer == "attention" and g.kv_heads != attention.kv_heads for g in model.layers):
        why.append("layers differ in KV heads")
    return "; ".join(why)


def table(models: Iterable[Model], context: int) -> list[list[str]]:
    """Rows for print: KV bytes a token by both with the errors, GiB of weights by both, the reason."""
    rows = []
    for one in (compare(model, context) for model in models):
        prd = "–" if one.kv_prd is None else f"{one.kv_prd:,.0f}"
        errors = ["–" if error is None else f"{error:+.1%}" for error in (one.first_error, one.error)]
        caches = [prd, f"{one.kv_first:,.0f}", errors[0], f"{one.kv:,.0f}", errors[1]]
        rows.append([one.model, *caches, f"{one.weights_prd / GIB:.1f}", f"{one.weights / GIB:.1f}", one.reason])
    return rows
