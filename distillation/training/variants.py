"""Records that are learnt once more, put differently: what stands around a question should not decide its answer.

    records = with_variants(records, 0.2, seed)

White space and framing alone, which leave every question what it is (`validation.transformations`). The answer stays,
so a student learns from its teacher that it does not matter; the control learns from the same rows.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np

from distillation.record import Record
from distillation.validation.transformations import Transformation, transform

WAYS: tuple[Transformation, ...] = ("white_space", "framing")
_CHOSEN = 67
"""Stream of random numbers."""


def with_variants(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """The records, and a share of them once more, the ways in turn; those that a way leaves as they are come once."""
    order = np.random.default_rng([seed, _CHOSEN]).permutation(len(records))[: round(share * len(records))]
    # Another seed than any examination's: nothing of it is learnt by heart.
    changed = [
        (records[i], transform(records[i], way, seed + _CHOSEN)) for i, way in zip(order, cycle(WAYS), strict=False)
    ]
    return [*records, *(new for old, new in changed if new is not old)]
