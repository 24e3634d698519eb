"""What each serving engine takes of an accelerator's memory besides weights and cache, by version.

Three things decide it. Which share of the memory the engine takes (vLLM: 0.90, from 0.22 on 0.92; SGLang: all but a
reserve; TensorRT-LLM: 0.90 of what is free after loading). How large its warm-up is: it decodes the most sequences and
prefills the most tokens that it admits, so its peak is a product of those defaults (`deployment/physics/memory.py`).
And what lies outside the tensors: the CUDA context, NCCL's buffers, CUDA graphs.

Figures are measured, not the engines' promises. Their sources are named per entry:
- M11: eight vLLM start-ups on an H100 (79.18 GiB), image v0.11.0, debug log (llm-d planner, docs of empirical memory)
- M19: 57 vLLM v0.19.0 start-ups of 34 models on an H100, and Qwen3-14B on v0.15 to v0.18 (the same project's report on
  its planner's accuracy, github.com/llm-d-incubation/llm-d-planner pull request 205)
- vLLM's pull requests 10511 (0.6.5), 12126 (0.7.0), 21489 (0.10) and 30515 (CUDA graphs), which print such logs
"""

import re
from dataclasses import dataclass, replace
from functools import cache

from deployment.hardware import Accelerator
from deployment.serving import Engine
from phases.errors import InputError

GIB = 2**30
CONTEXT_BYTES = 0.51 * GIB
"""The CUDA context before anything is loaded (M19)."""
GRAPH_BYTES = 0.022 * GIB
"""vLLM's CUDA graphs of one layer, all batch sizes together (M19: 0.017 to 0.026 GiB; up to 0.054 with experts)."""
LARGE_MEMORY = 70 * GIB
"""vLLM admits more from here on, except on an A100 (its pull request 17885)."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Defaults and overheads of one engine from one version on. Bytes are of one accelerator."""

    engine: Engine
    version: str
    """The first version that this holds for."""
    utilisation: float
    """Share of the memory that the engine takes unless it is told otherwise."""
    sampler_bytes: float
    """Peak of the sampler's warm-up, bytes for each of `max_sequences × vocabulary` logits."""
    keeps_workspace: bool
    """The experts' workspace stays allocated while the sampler runs, so that both peaks add up."""
    deducts_graphs: bool
    """CUDA graphs are taken from the share; else from what the share leaves."""
    non_torch: tuple[float, float]
    """Outside PyTorch's allocator: alone, and with tensor parallelism (NCCL's buffers)."""
    sequences: tuple[int, int]
    """Most sequences at once: on a small and on a large accelerator."""
    tokens: tuple[int, int]
    """Most tokens in one step: on a small and on a large accelerator."""
    of_free: bool = False
    """`utilisation` is of what is free after loading, not of the whole memory."""
    outside: float = 0.0
    """Taken before anything is loaded, and not counted in the share (vLLM)."""
    source: str = ""

    def max_sequences(self, accelerator: Accelerator) -> int:
        """Sequences that one replica decodes at once by default."""
        return self.sequences[_large(accelerator)]

    def max_batched_tokens(self, accelerator: Accelerator) -> int:
        """Tokens of prompts and of decoding that one step holds by default."""
        return self.tokens[_large(accelerator)]


@cache
def facts(engine: Engine, version: str = "") -> EngineFacts:
    """What holds for this version: the newest entry that is not newer; without a version the newest of all.

    Raises InputError for an engine or a version that is not known (older than the oldest entry, or no number).
    """
    entries = [entry for entry in _FACTS if entry.engine == engine]
    if not entries:
        known = ", ".join(sorted({entry.engine for entry in _FACTS}))
        raise InputError(f"engine = {engine!r}: its memory is not known; known are {known}")
    if not version:
        return entries[-1]
    asked = _number(version)
    older = [entry for entry in entries if _number(entry.version) <= asked]
    if not older:
        raise InputError(f"{engine} {version}: older than {entries[0].version}, the oldest that is known here")
    return older[-1]


def sglang_share(memory_bytes: float, tp: int, pp: int) -> float:
    """SGLang's `mem-fraction-static`: all but what it sets aside for activations, graphs and communication.

    MiB: 512, 1.5 a token of a prefill's chunk, 2 a sequence of the largest graph, 128 an accelerator; at least 10 GiB
    on an accelerator of over 60 GiB. Source: SGLang's `server_args.py`, 0.5.
    """
    gib = memory_bytes / GIB
    chunk, few, many = next(row[1:] for row in _SGLANG_DEFAULTS if gib < row[0])
    reserve = 512 + 1.5 * chunk + 2 * (few if tp < 4 else many) + 128 * tp * pp
    if gib > 60:
        reserve = max(reserve, 10 * 1024)
    return max(0.0, 1 - reserve * 2**20 / memory_bytes)


_SGLANG_DEFAULTS = (
    (20.0, 2048, 8, 8),
    (35.0, 2048, 24, 80),
    (60.0, 4096, 32, 160),
    (160.0, 8192, 256, 512),
    (float("inf"), 16384, 512, 512),
)
"""Below so many GiB: tokens of a chunk, largest graph with TP below 4 and from 4 on."""


def _number(version: str) -> tuple[int, int]:
    found = re.match(r"[vb]?(\d+)(?:\.(\d+))?", version.strip())
    if not found:
        raise InputError(f"version = {version!r}: a version is a number such as 0.19.0")
    return int(found[1]), int(found[2] or 0)


def _large(accelerator: Accelerator) -> bool:
    return accelerator.memory_bytes >= LARGE_MEMORY and "a100" not in accelerator.name.lower()


_V0 = EngineFacts(
    engine="vllm",
    version="0.6",
    utilisation=0.90,
    sampler_bytes=38.0,
    keeps_workspace=False,
    deducts_graphs=False,
    non_torch=(1.79 * GIB, 3.58 * GIB),
    sequences=(256, 256),
    tokens=(8192, 8192),
    outside=CONTEXT_BYTES,
    source="vLLM pull request 10511: Llama-3-8B, TP 1 and 2, activation 1.26 GiB",
)
_V07 = replace(_V0, version="0.7", non_torch=(0.16 * GIB, 0.55 * GIB), source="vLLM pull request 12126; TP from M11")
_V08 = replace(
    _V07,
    version="0.8",
    keeps_workspace=True,  # careful: measured from 0.19 on, and issue 21348's pool (0.10) is smaller yet
    non_torch=(0.14 * GIB, 0.55 * GIB),
    sequences=(256, 1024),
    tokens=(2048, 8192),
    source="M11 (0.11 to 0.16); pull request 21489 (0.10: gemma-3-4b 9.96 GiB at 16,384 tokens)",
)
_V17 = replace(_V08, version="0.17", sampler_bytes=14.5, source="M19: Qwen3-14B 5.64 → 2.23 GiB")
_V18 = replace(_V17, version="0.18", non_torch=(0.25 * GIB, 2.1 * GIB), source="M19")
_V21 = replace(_V18, version="0.21", deducts_graphs=True, source="M19; graphs: pull request 30515")
_V22 = replace(_V21, version="0.22", utilisation=0.92, source="M19; vLLM's CacheConfig")
_CONTEXT = (CONTEXT_BYTES, 1.53 * GIB)
"""M19: taken before anything is loaded, alone and with NCCL; vLLM leaves it outside its share, the others do not."""
_SGLANG = EngineFacts(
    engine="sglang",
    version="0.4",
    utilisation=0.88,  # where the memory is not known; else `sglang_share`
    sampler_bytes=0.0,
    keeps_workspace=False,
    deducts_graphs=False,
    non_torch=(CONTEXT_BYTES, 2.1 * GIB),
    sequences=(2048, 2048),
    tokens=(2048, 8192),
    source="SGLang's server_args.py (activations lie in the reserve); vLLM issue 21348: 16.46 GiB measured",
)
_TRTLLM = EngineFacts(
    engine="trtllm",
    version="0.1",
    utilisation=0.90,
    sampler_bytes=6.0,
    keeps_workspace=False,
    deducts_graphs=False,
    non_torch=_CONTEXT,
    sequences=(2048, 2048),
    tokens=(8192, 8192),
    of_free=True,
    source="TensorRT-LLM's guide on memory; logits in bf16 and float32, not measured",
)
_TGI = EngineFacts(
    engine="tgi",
    version="2.0",
    utilisation=0.90,
    sampler_bytes=0.0,
    keeps_workspace=False,
    deducts_graphs=False,
    non_torch=_CONTEXT,
    sequences=(128, 128),
    tokens=(4096, 4096),
    source="TGI 3: TGI_WIGGLE_ROOM 0.90, 4,096 tokens of prefill, 128 requests; not measured",
)
_LLAMA_CPP = EngineFacts(
    engine="llama.cpp",
    version="0",
    utilisation=1.0,
    sampler_bytes=4.0,
    keeps_workspace=False,
    deducts_graphs=False,
    non_torch=_CONTEXT,
    sequences=(1, 1),
    tokens=(512, 512),
    source="llama.cpp: a micro-batch of 512 tokens, all of their logits in float32",
)
_FACTS = (_V0, _V07, _V08, _V17, _V18, _V21, _V22, _SGLANG, _TRTLLM, _TGI, _LLAMA_CPP)
