"""`forge_compressed` in transformers: `from_pretrained` opens a compressed checkpoint, local or from the hub.

The file is verified before any of it is used: transformers hands its path over (for a hub id that of the download)
before it opens it. The model is for evaluation only.
"""

from typing import Any, get_args

from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from phases.compression.modules import use_kernel
from phases.compression.sealing import open_layers, seal_layers
from phases.compression.verify import CONTENTS, verify_file
from phases.errors import CheckpointError, ConfigError
from phases.packed.kernels import Preference


class ForgeCompressedConfig(QuantizationConfigMixin):  # type: ignore[misc, unused-ignore]
    """The kernel to compute with; all else is in the file, under its digest.

    Raises `ConfigError` for a wrong key or value.
    """

    def __init__(self, quant_method: str = CONTENTS, kernel: Preference = "auto", **settings: Any) -> None:
        if settings:
            raise ConfigError(f"quantization_config: unknown key '{sorted(settings)[0]}'; allowed here: kernel")
        if kernel not in get_args(Preference):
            raise ConfigError(f"quantization_config.kernel: {kernel!r} is none of {', '.join(get_args(Preference))}")
        self.quant_method, self.kernel = quant_method, kernel

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `config.json`; the kernel is the reader's choice and no part of it."""
        return {"quant_method": self.quant_method}


@register_quantizer(CONTENTS)
class ForgeCompressedQuantizer(HfQuantizer):  # type: ignore[misc, unused-ignore]
    """Loads what `phases.compression.artefact` wrote."""

    requires_calibration = True
    """Other checkpoints are not compressed while they load."""
    quantization_config: ForgeCompressedConfig

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> Any:
        if checkpoint_files is None or len(checkpoint_files) != 1:
            raise CheckpointError(
                f"{model.config.name_or_path}: a compressed model is loaded from its one model.safetensors; "
                "give the folder that `write_artefact` wrote"
            )
        self._file = checkpoint_files[0]
        self._contents, self._header = verify_file(self._file, model)
        seal_layers(model, self._contents, self._header)
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        open_layers(model, self._contents, self._header, self._file)
        use_kernel(model, self.quantization_config.kernel)
        # No gradient reaches a compressed weight, and a graph would keep the decoded ones alive.
        return model.requires_grad_(False)

    def is_serializable(self) -> bool:
        """Never: the digest in the file is over bytes that transformers would write anew."""
        raise CheckpointError("a compressed model is not saved again: copy its folder, or write it with `dequantise`")

    @property
    def is_trainable(self) -> bool:
        """Never."""
        return False


register_quantization_config(CONTENTS)(ForgeCompressedConfig)
