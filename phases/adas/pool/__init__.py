"""The pool: a hundred techniques, each of which can be switched on by itself.

    POOL["vote of 5"].says        # "five drawn answers, of which the most frequent is given"

One file a family. What the agent lacks (thoughts, documents, …) is left out by `phases.adas.technique.usable`.
"""

from phases.adas.pool.calling import CALLING
from phases.adas.pool.composing import COMPOSING
from phases.adas.pool.decoding import DECODING
from phases.adas.pool.reasoning import REASONING
from phases.adas.pool.remembering import REMEMBERING
from phases.adas.technique import Technique

FAMILIES = {
    "decoding": DECODING,
    "reasoning": REASONING,
    "tools": CALLING,
    "memory and retrieval": REMEMBERING,
    "experts": COMPOSING,
}
POOL: dict[str, Technique] = {one.name: one for family in FAMILIES.values() for one in family}
"""Every technique, by name."""
