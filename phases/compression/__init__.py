"""Phase 8: final compression.

Importing this package registers `forge_compressed` with transformers, so that `AutoModelForCausalLM.from_pretrained`
opens what `phases.compression.artefact.write_artefact` wrote. Without the import transformers only warns of an unknown
method and goes on with random weights.
"""

from phases.compression.quantizer import ForgeCompressedConfig, ForgeCompressedQuantizer

__all__ = ["ForgeCompressedConfig", "ForgeCompressedQuantizer"]
