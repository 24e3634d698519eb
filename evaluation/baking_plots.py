"""Pictures of baking: which conversations come out right, and how long a fact is known."""

import numpy as np
from matplotlib.figure import Figure

from evaluation.judgement import Table
from evaluation.plots import new_figure


def conversation_bars(table: Table) -> Figure:
    """Right answers with standard errors, a group a kind and a bar a model (`baking_report.conversation_tables`)."""
    figure, axes = new_figure(table.title, "", "right", (9.0, 3.6))
    kind, model, right, error = (table.columns.index(name) for name in ("kind", "model", "right", "right ±"))
    kinds = list(dict.fromkeys(row[kind] for row in table.rows))
    models = list(dict.fromkeys(row[model] for row in table.rows))
    width = 0.8 / len(models)
    for index, name in enumerate(models):
        rows = [row for row in table.rows if row[model] == name]
        places = [kinds.index(row[kind]) + (index - (len(models) - 1) / 2) * width for row in rows]
        values, errors = ([float(row[column] or 0) for row in rows] for column in (right, error))
        axes.bar(places, values, width, yerr=errors, capsize=2, label=str(name), color=f"C{index}")
    axes.set_xticks(range(len(kinds)), [str(name) for name in kinds])
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=7)
    return figure


def recall_bars(table: Table) -> Figure:
    """Facts that are recalled with standard errors, by what lay in between (`baking_report.memory_table`)."""
    figure, axes = new_figure(table.title, "", "recalled", (4.6, 3.2))
    values, errors = (np.array([float(row[column] or 0) for row in table.rows]) for column in (2, 3))
    axes.bar(range(len(values)), values, yerr=errors, capsize=3, color="C0")
    axes.set_xticks(range(len(values)), [str(row[0]) for row in table.rows])
    axes.set_ylim(0, 1)
    return figure
