"""The judge of phase 4: does the ternary model keep what its parent could do, and is it as small as promised?

    judge(checkpoint, [parent], data, EvaluationConfig())

The model was reloaded from disk. Of each task's right answers it has to keep 95 %, its bits per byte may rise by 5 %,
every linear weight in the file must lie on the lattice, and the packed file must have exactly the bytes that its
shapes promise and give back exactly these weights. It also has to beat its control at equal bytes, the parent rounded
to the same lattice without training. Beside them stand bitsandbytes' NF4 and int8 (more bytes, no training), the same
steps without a teacher, and the same steps in full precision: retention against a parent that trained less flatters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluation.config import EvaluationConfig
from evaluation.judgement import Cell, Judgement, Table
from evaluation.measured import Measured, floor_metrics, item_tables, measure, model_metrics, text_floors
from evaluation.metric import Control, Gate, finite_check, gate, paired_control
from evaluation.packed_file import PackedFile, file_gates, inspect_packed
from evaluation.ratio import bits_difference, bits_per_byte, text_control
from evaluation.retention import TASKS, mean_retention, retention_metrics, task_retention, task_table
from evaluation.rounded import round_by_bitsandbytes, round_to_ternary
from evaluation.specialities import NAMES, held_out, matrix_table
from evaluation.ternary_report import lattice_table, size_table
from evaluation.unseen import unseen_losses, unseen_table
from phases.bitnet.run import FULL_PRECISION, NO_TEACHER, PACKED
from phases.bitnet.storage import count_off_lattice, read_settings, ternary_lattices
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError

NAME, PARENT = "bitnet", "parent"
RUNS = "packed, as it runs"
"""With the kernel that this machine takes, which rounds activations: what people will meet."""
ROUNDED, NF4, INT8 = "rounded to ternary", "bitsandbytes NF4", "bitsandbytes int8"


def judge(checkpoint: Checkpoint, parents: Sequence[Checkpoint], data: Dataset, config: EvaluationConfig) -> Judgement:
    """Judge a bitnet checkpoint. Raises `CheckpointError` when a control or the packed file is missing."""
    siblings = checkpoint.siblings
    for name in (NO_TEACHER, FULL_PRECISION):
        if name not in siblings:
            raise CheckpointError(f"{checkpoint.path}: its control {name} is missing; run the phase again")
    units, tokenizer = held_out(data, config), checkpoint.tokenizer()
    model, packed = checkpoint.model(), inspect_packed(checkpoint)
    measured = {NAME: measure(model, tokenizer, units, config)}
    finite, finite_gate = finite_check(measured[NAME].not_finite, units.split, len(units.text_NT))
    if not finite_gate.passed:
        return Judgement(metrics=(finite,), gates=(finite_gate,))
    before = parents[0].model()
    measured[PARENT] = measure(before, tokenizer, units, config)
    unseen = {name: unseen_losses(m, tokenizer, data, config) for name, m in ((NAME, model), (PARENT, before))}
    # Multiple choice costs as much as all the rest and is near chance here: of the two only.
    fewer = replace(units, items={**units.items, "choice": []})
    rivals = _rivals(checkpoint, parents[0], siblings, packed)
    sizes = {NAME: packed.bytes, PARENT: 4 * packed.parameters}
    # One at a time: models may be large.
    for name, build in rivals.items():
        rival, sizes[name] = build()
        measured[name] = measure(rival, tokenizer, fewer, config)
        if name != RUNS:
            unseen[name] = unseen_losses(rival, tokenizer, data, config)
    ours, parent = measured[NAME], measured[PARENT]
    off = count_off_lattice(checkpoint.path, ternary_names(model))
    metrics = (
        finite,
        *model_metrics(NAME, ours, units.split, parent),
        *retention_metrics(NAME, ours, parent, units),
        *(m for name in rivals for m in retention_metrics(name, measured[name], parent, units)),
        *model_metrics(PARENT, parent, units.split),
        *packed.metrics(units.split),
        *floor_metrics(data, units, text_floors(data, units)),
    )
    scores = {name: found.scores for name, found in measured.items()}
    return Judgement(
        metrics=metrics,
        controls=_controls(measured, checkpoint, sizes),
        gates=(finite_gate, *_retention_gates(measured, config), *file_gates(NAME, off, packed)),
        tables={
            "retention": task_table(units, ours, parent, NAME),
            "rivals": _rival_table(measured, sizes, packed, config),
            **({} if off else {"lattice": lattice_table(ternary_lattices(checkpoint.path), parents[0].tensors())}),
            "size": size_table(packed.by_kind),
            "unseen": unseen_table(NAME, PARENT, unseen),
            "matrix": matrix_table(scores),
            **item_tables(units, scores),
        },
    )


def _rivals(
    checkpoint: Checkpoint, parent: Checkpoint, siblings: Mapping[str, Checkpoint], packed: PackedFile
) -> dict[str, Callable[[], tuple[Any, int]]]:
    """How to make each model to compare with, and the bytes that its weights would take in a file."""
    quantisation = read_settings(checkpoint.path).quantisation
    return {
        RUNS: lambda: (siblings[PACKED].model(), packed.bytes),
        ROUNDED: lambda: (round_to_ternary(parent.model(), quantisation), packed.bytes),
        NO_TEACHER: lambda: (siblings[NO_TEACHER].model(), packed.bytes),
        FULL_PRECISION: lambda: (siblings[FULL_PRECISION].model(), 4 * packed.parameters),
        NF4: lambda: round_by_bitsandbytes(parent.model(), "nf4"),
        INT8: lambda: round_by_bitsandbytes(parent.model(), "int8"),
    }


def _controls(
    measured: Mapping[str, Measured], checkpoint: Checkpoint, sizes: Mapping[str, int]
) -> tuple[Control, ...]:
    """Ours against each rival: right answers of each task, and −bits per byte, so that more is better."""
    trained = checkpoint.manifest.get("metrics", {})
    steps = f"the same {trained.get('steps', 0):.0f} steps and {trained.get('tokens', 0):.0f} tokens"
    spent = {NO_TEACHER: steps, FULL_PRECISION: steps}
    ours = measured[NAME]
    controls = []
    for name in (name for name in measured if name not in (NAME, RUNS)):
        theirs = measured[name]
        budget = f"{spent.get(name, 'no training')}; {sizes[name]:,} bytes of weights, ours {sizes[NAME]:,}"
        tasks = (paired_control(name, NAMES[t], ours.scores[t], theirs.scores[t], budget) for t in TASKS)
        controls += [text_control(name, ours.text, theirs.text, budget), *tasks]
    return tuple(controls)


def _retention_gates(measured: Mapping[str, Measured], config: EvaluationConfig) -> list[Gate]:
    """Of each task what the config allows to lose; bits per byte; and better than the same bytes without training."""
    ours, parent, rounded = (measured[name] for name in (NAME, PARENT, ROUNDED))
    kept = 1 - config.regression
    gates = [
        gate(f"{task}: {kept:.0%} of the parent's right answers", f"{NAME}/{task}_retention", share, ">=", kept)
        for task, (share, _) in task_retention(ours, parent).items()
    ]
    allowed = (1 + config.regression) * bits_per_byte(parent.text, PARENT, config.split).value
    for name, title in ((NAME, "bits per byte"), (RUNS, f"{RUNS}: bits per byte")):
        bits = bits_per_byte(measured[name].text, f"{name}/bits_per_byte", config.split)
        title = f"{title} within {config.regression:.0%} of the parent's"
        gates.append(gate(title, bits.name, bits.value, "<=", allowed))
    worse, stderr = bits_difference(ours.text, rounded.text)
    metric = f"{NAME}/bits_per_byte less {ROUNDED}"
    return [*gates, gate("beats rounding at equal bytes", metric, worse, "<", -config.sigmas * (stderr or 0.0))]


def _rival_table(
    measured: Mapping[str, Measured], sizes: Mapping[str, int], packed: PackedFile, config: EvaluationConfig
) -> Table:
    """Bytes, bits a parameter, bits per byte and retention of everything that was measured."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in measured.items():
        bits = bits_per_byte(found.text, "", config.split)
        share, error = mean_retention(found, measured[PARENT]) or (None, None)
        per_parameter = 8 * sizes[name] / packed.parameters
        rows.append((name, sizes[name], per_parameter, bits.value, bits.stderr, share, error))
    columns = ("model", "bytes", "bits a parameter", "bits per byte", "bits per byte ±", "tasks kept", "tasks kept ±")
    return Table(title="Against other ways to be small, and against the same steps", columns=columns, rows=tuple(rows))
