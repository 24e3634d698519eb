"""What comes out of the forge besides checkpoints: packed ternary weights, for transformers and for other engines.

Importing this package registers `forge_ternary` with transformers, so that `AutoModelForCausalLM.from_pretrained` opens
what `phases.packed.file.pack_checkpoint` wrote. Without the import transformers only warns of an unknown method and
goes on with random weights.
"""

from phases.packed.quantizer import ForgeTernaryQuantizer
from phases.packed.settings import ForgeTernaryConfig

__all__ = ["ForgeTernaryConfig", "ForgeTernaryQuantizer"]
