"""Tables of the baking phase: conversations by kind and model, recall over time, persona, what was learnt from."""

from collections.abc import Mapping

import numpy as np

from evaluation.judgement import Cell, Table
from evaluation.metric import Values, standard_error
from evaluation.tool_use import Used
from phases.agent.persona import Persona
from phases.baking.record import Record
from phases.baking.scenario import Kind

COUNTED = ("valid", "executed", "exact", "right")


def _cells(values: Values) -> tuple[Cell, Cell]:
    return float(np.mean(values)), standard_error(values)


def conversation_tables(
    uses: Mapping[str, Mapping[Kind, Used]], without_tools: Mapping[Kind, Values]
) -> dict[str, Table]:
    """A row for each kind and model: calls that are valid, that ran, that are right to the letter; right answers."""
    rows: list[tuple[Cell, ...]] = []
    for name, by_kind in uses.items():
        for kind, used in by_kind.items():
            cells = [cell for what in COUNTED for cell in _cells(getattr(used, what))]
            rows.append((kind, name, len(used.right), *cells))
    for kind, right in without_tools.items():
        rows.append((kind, "baking, calls forbidden", len(right), *(None,) * 6, *_cells(right)))
    if not rows:
        return {}
    rows.sort(key=lambda row: list(uses).index(str(row[1])) if row[1] in uses else len(uses))
    rows.sort(key=lambda row: str(row[0]))
    columns = ("kind", "model", "n", *(c for what in COUNTED for c in (what, f"{what} ±")))
    return {"conversations": Table(title="Held-out conversations with tools", columns=columns, rows=tuple(rows))}


def memory_table(recalled: Mapping[tuple[int, bool], Values]) -> Table:
    """Facts that are still known."""
    rows: list[tuple[Cell, ...]] = [
        ("a restart" if restart else f"{turns} turns", len(right), *_cells(right))
        for (turns, restart), right in recalled.items()
    ]
    return Table(title="A fact is recalled after", columns=("after", "n", "recalled", "recalled ±"), rows=tuple(rows))


def persona_table(
    in_persona: Mapping[str, Values], divergences: Mapping[str, Mapping[str, Values]]
) -> dict[str, Table]:
    """How sure the classifier is of the persona, and how far each model is from the prompted one."""
    tables = {}
    if in_persona:
        rows: list[tuple[Cell, ...]] = [(name, len(v), *_cells(v)) for name, v in in_persona.items()]
        columns = ("answers of", "n", "in persona", "in persona ±")
        title = "Held-out classifier: probability that an answer is in the persona"
        tables["persona"] = Table(title=title, columns=columns, rows=tuple(rows))
    if divergences:
        apart: list[tuple[Cell, ...]] = [
            (prompt, name, len(v), *_cells(v))
            for prompt, by_model in divergences.items()
            for name, v in by_model.items()
        ]
        named = ("prompt", "model without it", "n", "KL, nats a token", "KL ±")
        title = "Divergence from the prompted model, on held-out conversations"
        tables["divergence"] = Table(title=title, columns=named, rows=tuple(apart))
    return tables


def trait_table(shown: Mapping[str, Mapping[str, Values]], persona: Persona) -> dict[str, Table]:
    """The share of answers in which each trait shows, beside its strength."""
    if not shown:
        return {}
    traits = list(next(iter(shown.values())))
    rows: list[tuple[Cell, ...]] = [("wanted", None, *(c for trait in traits for c in (persona.traits[trait], None)))]
    for name, by_trait in shown.items():
        count = len(next(iter(by_trait.values()), ()))
        rows.append((name, count, *(cell for trait in traits for cell in _cells(by_trait[trait]))))
    columns = ("answers of", "n", *(c for trait in traits for c in (trait, f"{trait} ±")))
    return {"traits": Table(title="Answers in which a trait shows", columns=columns, rows=tuple(rows))}


def kept_table(record: Record) -> Table:
    """What was made, rejected, taught, sampled and baked from."""
    rows: list[tuple[Cell, ...]] = []
    for kind, made in record.made.items():
        out = record.rejected.get(kind, {})
        why = "; ".join(f"{reason} ({n})" for reason, n in out.items())
        rows.append((f"{kind} conversations", made, record.train.get(kind, 0), sum(out.values()), why or "–"))
    if record.traces:
        out = {reason: n for reason, n in record.traces.items() if reason != "kept"}
        why = "; ".join(f"{reason} ({n})" for reason, n in out.items())
        kept = record.traces.get("kept", 0)
        rows.append(("own traces", kept + sum(out.values()), kept, sum(out.values()), why or "–"))
    for bake in record.bakes:
        why = "; ".join(f"{reason} ({n})" for reason, n in bake.reasons.items())
        rows.append((f"sampled for '{bake.name}'", bake.asked, bake.kept, bake.asked - bake.kept, why or "–"))
    columns = ("what", "made or asked", "learnt from", "rejected", "why")
    return Table(title="What was learnt from", columns=columns, rows=tuple(rows))
