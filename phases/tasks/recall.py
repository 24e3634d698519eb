"""Multi-query associative recall (MQAR of zoology, arXiv 2312.04927): key-value pairs, then a question for keys.

    s=4;z=2;Q=7?z      →  z=2
    s=4;z=2;Q=7?z;s    →  z=2;s=4      (training only)

The answer restates the pair, so that plain induction (copy what followed the same token before; arXiv 2209.11895) can
solve it. No spaces: a letter is the same token wherever it stands. Training items ask for several keys to give more
signal a token; held-out items ask for exactly one, so that exact match is recall accuracy.
"""

import random
import string
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from phases.strict import StrictModel
from phases.tasks.collect import Counts, Draw, Items, fill, seeded
from phases.tasks.item import Item

KEYS = string.ascii_letters
"""52 one-letter keys; values are numbers of `digits` digits."""
FILLER = ("also", "and", "here", "next", "note", "now", "so", "then")
"""Words without a value; none is a key."""


class RecallConfig(StrictModel):
    """How recall items are made."""

    pairs: tuple[Annotated[int, Field(ge=1, le=len(KEYS))], ...] = Field((2, 3, 4, 6), min_length=1)
    """Numbers of pairs in a prompt, in equal shares; this is the difficulty."""
    digits: int = Field(1, ge=1, le=6)
    """Digits of a value; one digit means that a guess is right in one of ten."""
    max_queries: int = Field(8, ge=1, le=len(KEYS))
    """Training items ask for one up to this many keys; held-out items for one."""
    filler: int = Field(0, ge=0, le=64)
    """Words without meaning that are strewn between the pairs."""


def recall_items(config: RecallConfig, wanted: Counts, seed: int) -> Items:
    """Distinct recall items for each split; equal sets of pairs never stand in two splits."""
    return fill(recall_draws(config, 4 * sum(wanted.values()) + 100, seed), wanted)


def recall_draws(config: RecallConfig, count: int, seed: int) -> Iterator[Draw]:
    """`count` draws of recall, repeats among them."""
    rng = seeded(seed, "recall")
    for index in range(count):
        n = config.pairs[index % len(config.pairs)]
        values = [f"{rng.randrange(10**config.digits):0{config.digits}d}" for _ in range(n)]
        pairs = dict(zip(rng.sample(KEYS, n), values, strict=True))
        context = _context(pairs, config.filler, rng)
        asked = rng.sample(list(pairs), rng.randint(1, min(config.max_queries, n)))
        group = "recall " + " ".join(sorted(f"{key}={value}" for key, value in pairs.items()))
        yield Draw(group, _item(context, pairs, asked), _item(context, pairs, asked[:1]))


def _context(pairs: dict[str, str], filler: int, rng: random.Random) -> str:
    parts = [f"{key}={value}" for key, value in pairs.items()]
    for _ in range(filler):
        parts.insert(rng.randint(0, len(parts)), rng.choice(FILLER))
    return ";".join(parts)


def _item(context: str, pairs: dict[str, str], asked: list[str]) -> Item:
    answer = ";".join(f"{key}={pairs[key]}" for key in asked)
    prompt = f"{context}?{';'.join(asked)}"
    return Item(task="recall", speciality="memory", prompt=prompt, answer=answer, difficulty=len(pairs))
