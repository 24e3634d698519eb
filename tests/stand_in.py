"""A stand-in for a GPU: this machine's memory, some of whose tensors count as the GPU's, so that mixing is found.

    python -m pytest -p tests.stand_in tests/phases/test_bitnet_run.py::test_what_is_written

What is moved or made there (`.to("cuda")`, `device=…`) is marked by its storage and says `device` cuda. Everything is
computed on the CPU, and an operation that a GPU would refuse is refused: two devices in one operation, unless it is a
copy, an index from the CPU, or a number without dimensions beside an operation element by element; a CPU generator for
draws there; numpy. Training, and whatever asks `phases.training.processes.device`, is there. It shows on which device
things are. It shows nothing about kernels, precision, speed or memory.

Not seen: the saved tensors of activation checkpointing and the decompositions of forward-mode derivatives, which torch
makes below the level of these modes. The exponent of the forge phase is therefore computed without them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

THERE = torch.device("cuda", 0)
aten: Any = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {
    *(aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default),
    *(aten.index_put_.default, aten._index_put_impl_.default),
}
"""Their first tensor may be there while the indices are not."""
NUMPY = (torch.Tensor.numpy, torch.Tensor.__array__)


class Ledger:
    """Which storages count as the GPU's."""

    def __init__(self) -> None:
        self._marked: dict[int, StorageWeakRef] = {}

    def mark(self, tensor: torch.Tensor) -> None:
        """From now on, with all that share its storage."""
        storage = tensor.untyped_storage()
        self._marked[storage._cdata] = StorageWeakRef(storage)

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether it is there."""
        if tensor.layout != torch.strided:
            return False
        key = tensor.untyped_storage()._cdata
        if key in self._marked and self._marked[key].expired():
            del self._marked[key]
        return key in self._marked


class Operations(TorchDispatchMode):
    """Refuses what a GPU would; results of what is there are there."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.device.type != "meta"]
        there = [self.ledger.has(x) for x in tensors]
        if any(there) and not all(there) and not self._allowed(func, args, tensors, there):
            sides = ", ".join(f"{tuple(x.shape)} {'cuda' if t else 'cpu'}" for x, t in zip(tensors, there, strict=True))
            raise RuntimeError(f"{func}: tensors on two devices: {sides}")
        result = func(*args, **(kwargs or {}))
        if any(there) and func is not aten.copy_.default:
            for x in tree_leaves(result):
                if isinstance(x, torch.Tensor) and x.device.type != "meta":
                    self.ledger.mark(x)
        return result

    def _allowed(self, func: Any, args: Any, tensors: list[torch.Tensor], there: list[bool]) -> bool:
        if func in COPIES:
            return True
        if func in INDEXED:
            values = args[2] if len(args) > 2 else None
            return there[0] and (values is None or values.dim() == 0 or self.ledger.has(values))
        # Torch groups the tensors of a foreach operation by device below the level of these modes.
        if "foreach" in func.name():
            return all(t or x.dim() == 0 for x, t in zip(tensors, there, strict=True))
        if func.name().split(".")[0].endswith("_") and not there[0]:
            return False
        numbers = [x for x, t in zip(tensors, there, strict=True) if not t]
        by_element = torch.Tag.pointwise in func.tags or "fill" in func.name()
        return by_element and len(numbers) == 1 and numbers[0].dim() == 0


class Names(TorchFunctionMode):
    """What Python sees: devices, moves, and factories that are given a device."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of the library."""
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return THERE if self.ledger.has(args[0]) else func(*args)
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self.ledger.has(args[0])
        if func in NUMPY and self.ledger.has(args[0]) and not kwargs.get("force"):
            raise TypeError("numpy of a tensor that is on cuda:0: move it to the CPU first")
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(args[0], func.__name__)
        if func is torch.Tensor.to:
            return self._to(func, args, kwargs)
        to_gpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        marked = any(isinstance(x, torch.Tensor) and self.ledger.has(x) for x in args)
        if kwargs.get("generator") is not None and (to_gpu or marked):
            raise RuntimeError(f"{func.__name__}: a generator of the CPU for numbers on cuda:0")
        if not to_gpu:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        made = made.clone() if any(made is x for x in args) else made
        self.ledger.mark(made)
        return made

    def _to(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        """`Tensor.to` in its three forms: of a device, a type, or another tensor."""
        tensor, *rest = args
        goal, kind = kwargs.get("device"), kwargs.get("dtype")
        for value in rest:
            if isinstance(value, torch.Tensor):
                goal, kind = value.device if not self.ledger.has(value) else THERE, value.dtype
            elif isinstance(value, torch.dtype):
                kind = value
            elif isinstance(value, str | torch.device):
                goal = value
        if goal is not None and torch.device(goal).type == "meta":
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        cast: torch.Tensor = tensor if kind is None else func(tensor, kind)
        found = cast if goal is None else self._moved(cast, torch.device(goal).type)
        return found.clone() if kwargs.get("copy") and found is tensor else found

    def _moved(self, tensor: torch.Tensor, goal: str) -> torch.Tensor:
        here = "cuda" if self.ledger.has(tensor) else "cpu"
        return tensor if here == goal else _Move.apply(tensor, goal, self.ledger)  # type: ignore[no-untyped-call]


class _Move(torch.autograd.Function):
    """A copy on the other device; its gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, goal: str, ledger: Ledger) -> torch.Tensor:
        ctx.back, ctx.ledger = ("cpu" if goal == "cuda" else "cuda"), ledger
        return _placed(tensor, goal, ledger)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _placed(grads[0], ctx.back, ctx.ledger), None, None


def _placed(tensor: torch.Tensor, goal: str, ledger: Ledger) -> torch.Tensor:
    with _disable_current_modes():
        copy = tensor.detach().clone()
    if goal == "cuda":
        ledger.mark(copy)
    return copy


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """A machine with such a GPU, from here on; what trains does so on it."""
    ledger = Ledger()
    names = Names(ledger)
    # The engine's own calls, such as hooks, run where the mode of the call that started it is off.
    engine, run = torch.autograd.graph, torch.autograd.graph._engine_run_backward

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with names:
            return run(*args, **kwargs)

    engine._engine_run_backward = torch.autograd._engine_run_backward = run_backward  # type: ignore[attr-defined]
    try:
        with names, Operations(ledger):
            yield
    finally:
        engine._engine_run_backward = torch.autograd._engine_run_backward = run  # type: ignore[attr-defined]


class Accelerator:
    """What the training loop asks of accelerate, on the stand-in."""

    device, num_processes, process_index, is_main_process = THERE, 1, 0, True

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module:
        """Moved, as `Accelerator.prepare` does."""
        return module.to("cuda")

    def no_sync(self, module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
        """There is one process."""
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Plain."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Any, norm: float) -> torch.Tensor:
        """Plain."""
        return torch.nn.utils.clip_grad_norm_(list(parameters), norm)

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        """There is one process."""
        return tensor


def pytest_sessionstart(session: Any) -> None:
    """As a plugin: the whole session is on that machine."""
    from phases.forge import objective
    from phases.training import loop, processes

    exponent = objective.lyapunov_exponent

    def plainly(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            return exponent(*args, **kwargs)

    objective.lyapunov_exponent = plainly
    loop.open_accelerator = processes.group = Accelerator
    session.stand_in = stand_in()
    session.stand_in.__enter__()


def pytest_sessionfinish(session: Any) -> None:
    """Back on this one."""
    session.stand_in.__exit__(None, None, None)
