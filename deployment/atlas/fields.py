"""The fields of a `config.json`, read so that nothing is guessed: what is missing, wrong or not understood is named.

A reader (`dense.py`, `mixtures.py`, …) asks for each field that it needs. In the end `refuse_unread` looks for fields
that change layers, caches or experts and that nobody asked for: a variant that the reader does not know.
"""

import re
from collections.abc import Collection, Mapping

from phases.errors import InputError

# Fields with such words in them change what the physics counts; one that no reader asked for is not understood.
_PHYSICAL = re.compile(
    r"expert|lora_rank|window|layer_types|layers_block|index_|indexer|sparse|ssm|mamba|linear_|kv_shared|attention_chunk"
    r"|compress|latent|block_config|pattern|moe|attn_type|hc_mult|head_dim|_heads|per_layer|intermediate|conv|gate|swa_"
    r"|k_eq_v|double_wide|interval|shared_layers|dense_replace|interleave"
)
# Of those, the ones that change no byte and no shape: routing, activations, positions, initialisation, time steps.
_HARMLESS = re.compile(
    r"router|routed_scaling|routing|scoring|topk|aux_loss|renormalize|activation|hidden_act|rope|position|max_window"
    r"|time_|dtype|sinkhorn|_topk|index_share|index_skip|_init_|group|loss|floor|multiplier|output_gate_type|gate_lower"
    r"|kernels|norm_|_norm|seed|cross_attention|swiglu|linear_beta|image_|video_|vision|mtp|nextn|shared_expert_overlap"
)


MOST, MOST_LAYERS = 10**12, 10_000
"""What a config may count at most. Layers are listed one by one, so that a billion of them would take hours."""


class Fields:
    """A config with its name; each access checks the type and remembers that the field was read."""

    def __init__(self, config: Mapping[str, object], name: str, *, within: str = "") -> None:
        """`within`: the path of a nested config, for messages."""
        self.config = config
        self.name = name
        self.within = within
        self.read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether the field is there and not null; asking counts as reading."""
        self.read.add(key)
        return self.config.get(key) is not None

    def refuse(self, key: str, why: str) -> InputError:
        """The error that names a field."""
        return InputError(f"{self.name}: {self.within}{key} {why}")

    def integer(self, key: str, default: int | None = None) -> int:
        """A number of things; `default` where the implementation itself has one. InputError when absent or wrong."""
        self.read.add(key)
        value = self.config.get(key)
        if value is None:
            if default is None:
                raise self.refuse(key, "is missing; the physics cannot do without it")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refuse(key, f"= {value!r} is not a whole number of 0 or more")
        most = MOST_LAYERS if key.endswith("_layers") else MOST
        if value > most:
            raise self.refuse(key, f"is more than {most:,}: no model has so many")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """Like `integer`, and at least 1."""
        value = self.integer(key, default)
        if value < 1:
            raise self.refuse(key, f"= {value} has to be at least 1")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false; `default` is the implementation's own."""
        self.read.add(key)
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(key, f"= {value!r} is neither true nor false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A word."""
        self.read.add(key)
        value = self.config.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value:
            raise self.refuse(key, "is missing" if value is None else f"= {value!r} is not a word")
        return value

    def items(self, key: str, length: int, *, allowed: Collection[object] | None = None) -> list[object]:
        """A list with one entry per layer; entries beyond `length` belong to multi-token prediction and are left out.

        InputError when it is shorter, or holds something that the physics does not know.
        """
        self.read.add(key)
        value = self.config.get(key)
        if not isinstance(value, list):
            raise self.refuse(key, "is missing" if value is None else f"= {value!r} is not a list")
        if len(value) < length:
            raise self.refuse(key, f"has {len(value)} entries for {length} layers")
        for entry in value[:length]:
            if allowed is not None and entry not in allowed:
                known = ", ".join(sorted(str(one) for one in allowed))
                raise self.refuse(key, f"names {entry!r}, which the physics does not know; it knows {known}")
        return value[:length]

    def nested(self, key: str) -> "Fields":
        """A config within the config."""
        self.read.add(key)
        value = self.config.get(key)
        if not isinstance(value, Mapping):
            raise self.refuse(key, "is missing" if value is None else "is not an object")
        return Fields(value, self.name, within=f"{self.within}{key}.")

    def refuse_unread(self) -> None:
        """InputError naming a field that changes the physics and that the reader did not ask for."""
        for key, value in self.config.items():
            idle = value is None or value is False or value == 0 or value == [] or isinstance(value, Mapping)
            if key in self.read or idle or not _PHYSICAL.search(key) or _HARMLESS.search(key):
                continue
            family = self.config.get("model_type")
            raise self.refuse(key, f"= {str(value)[:60]} is not known for model_type {family!r}; nothing is guessed")
