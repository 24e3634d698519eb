"""What a packed file is made of: `quantization_config` of `config.json`, repeated in the file under its digest."""

from typing import Any, Literal, get_args

from pydantic import Field
from transformers.utils.quantization_config import QuantizationConfigMixin

from phases.errors import ConfigError
from phases.packed.kernels import Preference
from phases.packed.layout import CodesLayout, TernaryLayout
from phases.strict import StrictModel

QUANT_METHOD = "forge_ternary"
"""The format's name in `config.json`."""


class PackedSettings(StrictModel):
    """The layout of a packed file: all that is needed to read it."""

    layout: TernaryLayout = "trits"
    """Of ternary codes: 5 trits a byte, or 2 bits each."""
    group: int | None = Field(128, ge=1)
    """Neighbouring weights of a row that share a scale; empty: one scale for the whole tensor."""
    embedding_bits: Literal[8, 4] | None = 8
    """Bits of a weight of embeddings and head; empty: they are stored as they are."""
    activations: bool = True
    """Whether it was trained with activations of 8 bits a token, so that kernels may round them."""
    modules_to_not_convert: tuple[str, ...] = ()
    """Linear layers of the body that are not ternary."""

    @property
    def embedding_layout(self) -> CodesLayout | None:
        """Of embeddings and head; None: they are not packed."""
        return {8: "8bit", 4: "4bit", None: None}[self.embedding_bits]


class ForgeTernaryConfig(QuantizationConfigMixin):  # type: ignore[misc, unused-ignore]
    """`PackedSettings` as transformers wants them, and the kernel to compute with.

    Raises `ConfigError` for a wrong key or value.
    """

    def __init__(self, quant_method: str = QUANT_METHOD, kernel: Preference = "auto", **settings: Any) -> None:
        self.quant_method = quant_method
        if kernel not in get_args(Preference):
            raise ConfigError(f"quantization_config.kernel: {kernel!r} is none of {', '.join(get_args(Preference))}")
        self.kernel = kernel
        self.settings = PackedSettings.parse(settings, "quantization_config")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `config.json`; the kernel is the reader's choice and no part of it."""
        return {"quant_method": self.quant_method, **self.settings.model_dump(mode="json")}
