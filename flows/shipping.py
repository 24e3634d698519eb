"""What a run ends with: the agent's one small file and all that it is, in `<run>/agent`.

    checkpoints/laptop/agent          opens with from_pretrained once our package is imported; chats, serves, exports

It is the artefact beside the last phase's checkpoint, linked rather than copied, and a model card of the report's
figures. A run whose compression was rolled back has none, and keeps none of an earlier one: the agent is then what the
report names.
"""

import shutil
from pathlib import Path

from evaluation.model_card import model_card
from evaluation.report import Report
from phases.baking.bundle import add_files
from phases.checkpoint import Checkpoint
from phases.compression.press import AGENT

CARD = "README.md"


def ship(kept: Checkpoint | None, folder: Path, report: Report) -> Path | None:
    """Put the agent in its place; its folder, or None where there is no artefact."""
    out = folder / AGENT
    made = None if kept is None else kept.siblings.get(AGENT)
    shutil.rmtree(out, ignore_errors=True)
    if made is None:
        return None
    return add_files(made, out, "agent", {CARD: model_card(report)}, {}).path
