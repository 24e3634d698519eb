"""`forge_ternary` in transformers: `from_pretrained` opens a packed checkpoint, local or from the hub.

The file is verified before any of it is used: transformers hands its path over (for a hub id that of the download)
before it opens it. Weights stay packed; the model is for evaluation only.
"""

from typing import Any

from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer

from phases.errors import CheckpointError
from phases.packed.model import pack_layers
from phases.packed.modules import use_kernel
from phases.packed.settings import QUANT_METHOD, ForgeTernaryConfig
from phases.packed.verify import verify_file


@register_quantizer(QUANT_METHOD)
class ForgeTernaryQuantizer(HfQuantizer):  # type: ignore[misc, unused-ignore]
    """Loads what `phases.packed.file` wrote."""

    requires_calibration = True
    """Other checkpoints are not packed while they load."""
    quantization_config: ForgeTernaryConfig

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> Any:
        settings = self.quantization_config.settings
        if checkpoint_files is None or len(checkpoint_files) != 1:
            raise CheckpointError(
                f"{model.config.name_or_path}: a packed model is loaded from its one model.safetensors; "
                "give the folder that `pack_checkpoint` wrote"
            )
        pack_layers(model, settings, model.dtype)
        verify_file(checkpoint_files[0], model, settings)
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        use_kernel(model, self.quantization_config.kernel)
        # No gradient reaches a packed weight, and a graph would keep the unpacked ones alive.
        return model.requires_grad_(False)

    def is_serializable(self) -> bool:
        """Never: the digest in the file is over bytes that transformers would write anew."""
        raise CheckpointError(
            "a packed model is not saved again: copy its folder, or pack the ternary checkpoint with `pack_checkpoint`"
        )

    @property
    def is_trainable(self) -> bool:
        """Never."""
        return False


register_quantization_config(QUANT_METHOD)(ForgeTernaryConfig)
