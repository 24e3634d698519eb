"""A file of measured serving points, read into cases: which model, which accelerators, how many, under what load.

The format is that of NVIDIA aiconfigurator's silicon sample (Apache-2.0): one CSV row per point; `agg` rows with
`batch_size, tp_size, attention_dp_size, moe_*_size`, `disagg` rows with `prefill_*` and `decode_*`. What the columns
leave open is read as follows (checked on points that the sample holds in several writings):

- requests in flight are `batch_size` per attention rank; disaggregated: `silicon_concurrency` of the whole system;
- some rows count accelerators twice (TP 64 for TP 8 × EP 8). The id's `tpX` is right; else moe_tp = moe_ep with a
  product of all accelerators, and tp = dp with that many experts' ranks, are the two ways of counting twice;
- a disaggregated row without `num_workers` does not say how many workers there are: they are guessed from the load;
- such a row copies the prefill pool's expert parallelism to a decode pool of another size. Rows that say everything
  spread the experts over the whole decode pool, and beyond 8 accelerators its attention is data-parallel;
- 8-bit and narrower checkpoints are served with an 8-bit cache, as the benchmarks' recipes do.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from deployment.hardware import Accelerator
from deployment.model import Model
from deployment.physics.latency import LENGTH_SHARE, Case
from deployment.physics.memory import max_sequences, sequence_bytes
from deployment.physics.precision import weight_format
from deployment.physics.systems import features
from deployment.physics.terms import work
from deployment.serving import Engine, Precision, Serving
from phases.errors import InputError

Row = Mapping[str, str]
NODE = 8
"""Accelerators beyond which a decode pool has one copy of the attention on each."""
LEAST_CACHE = 0.07
"""Share of the memory that a measured point had at least for its cache: it ran."""
_PRECISIONS: dict[str, Precision] = {
    **{"fp8": "fp8", "fp8_block": "fp8", "fp4": "nvfp4", "nvfp4": "nvfp4", "int4": "int4", "int4_wo": "int4"},
    **{"bf16": "bf16", "bfloat16": "bf16", "int8": "int8", "w8a8": "fp8", "mxfp4": "mxfp4", "": "bf16"},
}
_ENGINES: dict[str, Engine] = {name: name for name in ("vllm", "sglang", "trtllm", "tgi", "llama.cpp")}
_NEEDED = ("model_path", "system", "backend", "mode", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured point and the case that it is; seconds."""

    model: Model
    accelerator: Accelerator
    serving: Serving
    """Of the decode pool."""
    mode: str
    case: Case
    ttft: float
    tpot: float

    @property
    def engine(self) -> str:
        """Of the decode pool."""
        return self.serving.engine

    @property
    def format(self) -> str:
        """Of most of the weights."""
        return weight_format(self.model, self.serving)

    @property
    def architecture(self) -> str:
        """The same for published variants of one model: layers, widths, experts."""
        model = self.model
        experts = max((group.experts for group in model.layers), default=0)
        return f"{model.depth} layers, {model.hidden} wide, {experts} experts"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. Raises InputError when it is not there or lacks a column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows: list[Row] = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not rows:
        raise InputError(f"{path}: holds no rows")
    missing = [name for name in _NEEDED if name not in rows[0]]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}")
    return rows


def measured(row: Row) -> Measured:
    """One row. Raises InputError where the model, the system or a number is not known."""
    model, accelerator = find_model(row["model_path"]), _accelerator(row["system"])
    prompt, output = (LENGTH_SHARE * _number(row, name) for name in ("isl", "osl"))
    pools = _pools(row, model)
    works = [work(model, accelerator, serving, prompt, output) for serving in pools]
    apart = row["mode"] == "disagg"
    guessed = apart and _count(row, "decode_num_workers") == 0
    kind = features(model, accelerator, pools[1], disaggregated=apart, guessed=guessed)
    case = Case(
        prefill=works[0],
        decode=works[1],
        output_tokens=output,
        concurrency=_concurrency(row, apart),
        slots=_slots(model, accelerator, pools[1], round(prompt + output / 2)),
        prefill_workers=_count(row, "prefill_num_workers") if apart else 1.0,
        decode_workers=_count(row, "decode_num_workers") if apart else 1.0,
        disaggregated=float(apart),
        features=kind,
    )
    ttft, tpot = (_number(row, f"silicon_{name}_ms") / 1e3 for name in ("ttft", "tpot"))
    return Measured(model, accelerator, pools[1], row["mode"], case, ttft, tpot)


@cache
def find_model(path: str) -> Model:
    """The catalogue's model of this name, or of this name without organisation, precision and other suffixes."""
    from deployment.atlas import catalogue

    try:
        return catalogue.model(path)
    except InputError as error:
        found = [model for model in catalogue.models() if _bare(model.name) == _bare(path)]
        if not found:
            raise InputError(str(error)) from None
        return found[0]


def _bare(name: str) -> str:
    """`nvidia/Llama-3.1-8B-Instruct-FP8` → `llama318b`."""
    last = name.lower().rsplit("/", 1)[-1]
    words = re.split(r"[-_]", last)
    dropped = {"meta", "instruct", "chat", "it", "hf", "fp8", "fp4", "nvfp4", "mxfp4", "int4", "awq", "gptq", "bf16"}
    return re.sub(r"[^a-z0-9]", "", "".join(word for word in words if word not in dropped))


@cache
def _accelerator(system: str) -> Accelerator:
    from deployment.market.accelerators import accelerator

    return accelerator(system)


def _pools(row: Row, model: Model) -> tuple[Serving, Serving]:
    """Prefill's and decode's pool; the same one where they are together."""
    if row["mode"] == "disagg":
        prefill, decode = (_apart(row, model, pool) for pool in ("prefill", "decode"))
        return prefill, decode if _count(row, "decode_num_workers") else _unsaid(prefill, decode)
    pool = _serving(row, model, *together(row))
    return pool, pool


def _apart(row: Row, model: Model, pool: str) -> Serving:
    names = ("tp_size", "attention_dp_size", "moe_ep_size")
    return _serving(row, model, *(int(_count(row, f"{pool}_{name}") or 1) for name in names))


def _unsaid(prefill: Serving, decode: Serving) -> Serving:
    """The decode pool of a row that says no number of workers: its expert parallelism is the prefill pool's, copied."""
    pool = decode.tp * decode.dp
    if pool == prefill.tp * prefill.dp:
        return decode
    if pool > NODE:
        return replace(decode, tp=1, dp=pool, ep=pool)
    return replace(decode, ep=pool) if decode.ep > 1 else decode


def _serving(row: Row, model: Model, tp: int, dp: int, ep: int) -> Serving:
    precision = _precision(row)
    if precision == "nvfp4" and model.family == "gpt_oss":
        precision = "stored"
    return Serving(
        engine=_engine(row["backend"]),
        precision=precision,
        kv_bits=16 if precision in ("bf16", "int4") else 8,
        tp=tp,
        dp=dp,
        ep=min(ep, tp * dp),
    )


def together(row: Row) -> tuple[int, int, int]:
    """(tp, dp, ep) of an aggregated row, each accelerator counted once."""
    tp, dp = int(_count(row, "tp_size") or 1), int(_count(row, "attention_dp_size") or 1)
    moe_tp, ep = int(_count(row, "moe_tp_size") or 1), int(_count(row, "moe_ep_size") or 1)
    said, counted = re.search(r"_tp(\d+)_", row.get("id", "") + "_"), tp * dp
    if said:
        width = int(said[1])
    elif moe_tp == ep > 1 and moe_tp * ep == counted:
        width = ep
    elif tp == dp > 1 and ep == counted:
        width = tp
    else:
        width = counted
    ranks = width if dp > 1 and tp == 1 else 1
    return width // ranks, ranks, min(ep, width)


def _concurrency(row: Row, apart: bool) -> float:
    if not apart:
        return max(1.0, _number(row, "batch_size") * max(1.0, _count(row, "attention_dp_size")))
    said = re.search(r"silicon_concurrency=(\d+)", row.get("silicon_data_source", ""))
    if said:
        return float(said[1])
    ranks = max(1.0, _count(row, "decode_attention_dp_size")) * max(1.0, _count(row, "decode_num_workers"))
    return _number(row, "decode_batch_size") * ranks


def _slots(model: Model, accelerator: Accelerator, serving: Serving, tokens: int) -> float:
    each = sequence_bytes(model, serving, tokens)
    ran = serving.dp * LEAST_CACHE * accelerator.memory_bytes / each if each else 1.0
    return max(1.0, ran, float(max_sequences(model, accelerator, serving, tokens)))


def _precision(row: Row) -> Precision:
    said = row.get("precision") or row.get("gemm_quant_mode") or ""
    if said.lower() not in _PRECISIONS:
        raise InputError(f"precision {said!r} is not known; known are {', '.join(filter(None, _PRECISIONS))}")
    return _PRECISIONS[said.lower()]


def _engine(name: str) -> Engine:
    if name.lower() not in _ENGINES:
        raise InputError(f"backend {name!r} is not known; known are {', '.join(_ENGINES)}")
    return _ENGINES[name.lower()]


def _number(row: Row, name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{name} = {row.get(name)!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise InputError(f"{name} = {value}: has to be above 0")
    return value


def _count(row: Row, name: str) -> float:
    """A number of things; 0 where the row does not say."""
    return float(row.get(name) or 0.0)


def usable(rows: list[Row]) -> Iterator[tuple[int, Measured]]:
    """Index and point of every row that can be read."""
    for index, row in enumerate(rows):
        try:
            yield index, measured(row)
        except InputError:
            continue
