"""The user's own base model as the trunk, and adapters for its branches.

`full` tunes every weight, `lora` small adapters that are merged back into the weights (arXiv 2106.09685), `qlora` the
same over a base held in 4 bits (NF4, arXiv 2305.14314) where a CUDA GPU is present. Whatever the way, the branch that
is written is a plain checkpoint of the base's own architecture.
"""

import warnings
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from phases.checkpoint import load_model
from phases.cognate.config import CognateConfig
from phases.errors import MissingDependency

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def check_tuning(config: CognateConfig) -> None:
    """Raise `MissingDependency` when `qlora` has no GPU to run on."""
    if config.base and config.tuning == "qlora" and not torch.cuda.is_available():
        raise MissingDependency("cognate.tuning=qlora needs a CUDA GPU and none is here; use lora or full instead")


def with_adapters(path: str, config: CognateConfig) -> Any:
    """The model at `path` with trainable adapters on every matrix of its layers."""
    # Imported here: peft pulls in bitsandbytes, seconds that a run without adapters need not wait.
    from peft import LoraConfig, get_peft_model

    if config.tuning == "qlora":
        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        model = AutoModelForCausalLM.from_pretrained(path, quantization_config=quantised)
    else:
        model = load_model(path)
    adapter = config.adapter
    lora = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=MODULES,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 still asks transformers by a name that transformers 5 has deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, lora)


def merge_adapters(model: Any, path: str) -> Any:
    """A plain model of the base's architecture with the adapters added to its float32 weights.

    The update is added to the *unquantised* base at `path`, so that QLoRA's 4-bit rounding does not stay in it.
    """
    merged = load_model(path)
    with torch.no_grad():
        for name, module in model.base_model.model.named_modules():
            if hasattr(module, "lora_A"):
                update = module.get_delta_weight("default").float().cpu()
                merged.get_submodule(name).weight.add_(update)
    return merged
