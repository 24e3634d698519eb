"""The state of an unfinished training run: parameters, optimizer state, memory and step, in one safetensors file.

It is replaced atomically, so a kill at any moment leaves the last whole state. Everything else that a step needs
(rows, dropout masks, rates) is a function of the seed and the step, so the run continues bit for bit.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from phases.storage import explain_os_errors, fsync_path
from phases.training.optimizer import flatten_state, restore_state

STATE = "training_state.safetensors"
MEMORY = "memory."


@dataclass
class TrainingState:
    """What is saved and restored."""

    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens trained on."""
    loss: float = float("nan")
    """Mean loss of the last reported step."""
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    """What the objective remembers."""

    def save(self, folder: Path) -> None:
        """Write the state of all steps done so far."""
        tensors = {f"model.{n}": p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        tensors |= flatten_state(self.optimizers) | {f"{MEMORY}{n}": t.clone() for n, t in self.memory.items()}
        header = {"step": str(self.step), "tokens": str(self.tokens), "loss": repr(self.loss)}
        path = folder / STATE
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with explain_os_errors(path):
            try:
                save_file(tensors, temporary, header)
                fsync_path(temporary)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            fsync_path(folder)

    def restore(self, folder: Path, name: str = STATE) -> bool:
        """Continue from a saved state; False when there is none. A state that cannot be read is started over."""
        path = folder / name
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys() if not key.startswith("model.")}  # noqa: SIM118
        except FileNotFoundError:
            return False
        except SafetensorError:
            path.unlink(missing_ok=True)  # of several processes each finds it broken
            return False
        restore_parameters(self.model, path)
        self.memory = {key[len(MEMORY) :]: tensors.pop(key) for key in list(tensors) if key.startswith(MEMORY)}
        restore_state(self.optimizers, tensors)
        self.step, self.tokens, self.loss = int(header["step"]), int(header["tokens"]), float(header["loss"])
        return True


def restore_parameters(model: torch.nn.Module, path: Path) -> None:
    """Copy the parameters of a saved state into a model that trains the same ones, and nothing else of it."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(file.get_tensor(f"model.{name}"))


def clear_state(folder: Path) -> None:
    """Remove a saved state: the run it belongs to has ended."""
    (folder / STATE).unlink(missing_ok=True)
