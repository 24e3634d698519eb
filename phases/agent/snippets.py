"""The stretch of a text that shows what was asked for.

    snippet(passage.text, "cafe", 60)                # "… there is a café on the corner, where …"

It is for people: a list of hits, a page. Case and accents make no difference; white space becomes single spaces.
"""

import unicodedata
from bisect import bisect_left

from phases.agent.wording import words

_CUT = "…"


def snippet(text: str, query: str, characters: int) -> str:
    """At most `characters` of the text, whole words only, with the most different words of the query, in their middle.

    `…` stands where something is left out. Without a match it is the beginning.
    """
    parts = text.split()
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part) + 1)
    if starts[-1] - 1 <= characters:
        return " ".join(parts)
    room = max(0, characters - 2 * len(f"{_CUT} "))
    first, last = _best(parts, starts, set(_bare_words(query)), room)
    if first == last:  # a single word that is too long
        return parts[first][:characters]
    before, after = f"{_CUT} " * (first > 0), f" {_CUT}" * (last < len(parts))
    return before + " ".join(parts[first:last]) + after


def _best(parts: list[str], starts: list[int], wanted: set[str], room: int) -> tuple[int, int]:
    """The stretch of parts, as (first, one behind the last), that is shown."""
    hits = [wanted.intersection(_bare_words(part)) for part in parts]
    best, most = (0, 0), 0
    for at in (at for at, hit in enumerate(hits) if hit):
        end = bisect_left(starts, starts[at] + room + 2) - 1
        if (number := len(set().union(*hits[at:end]))) > most:
            best, most = (at, end), number
    at, end = best
    hit_last = max((one for one in range(at, end) if hits[one]), default=at)
    spare = room - (starts[hit_last + 1] - 1 - starts[at])
    first = bisect_left(starts, starts[at] - spare // 2) if most and spare > 0 else at
    return first, max(first, bisect_left(starts, starts[first] + room + 2) - 1)


def _bare_words(text: str) -> list[str]:
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return words(bare)
