"""The words of a text, and the stretch of it that shows them.

    words("Straße, CAFÉ und os.path")                # ["strasse", "cafe", "und", "os", "path"]
    snippet(long_text, "cafe", 60)                   # "… in the café on the corner, where …"

One folding serves index, query and snippet: case, accents and ligatures make no difference.
"""

import re
import unicodedata
from bisect import bisect_left

_WORD = re.compile(r"[^\W_]+")
_CUT = "…"


def fold(text: str) -> str:
    """The text without case and accents; characters that UTF-8 cannot hold become `?`."""
    if text.isascii():
        return text.casefold()
    text = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode()).casefold()
    return "".join(sign for sign in text if not unicodedata.combining(sign))


def words(text: str) -> list[str]:
    """The folded words, in their order."""
    return _WORD.findall(fold(text))


def snippet(text: str, query: str, characters: int) -> str:
    """The stretch of at most `characters` with the most different words of the query, on one line, whole words only.

    `…` stands where something is left out. Without a match it is the beginning.
    """
    parts = text.split()
    wanted = set(words(query))
    hits = [wanted.intersection(words(part)) for part in parts]
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part) + 1)
    room = characters - 2 * len(f"{_CUT} ")
    if ends[-1] - 1 <= characters:
        return " ".join(parts)
    first = max(range(len(parts)), key=lambda at: (len(_within(hits, ends, at, room // 2)), -at), default=0)
    # The match stands in the middle: half of what is left over goes before it.
    first = bisect_left(ends, max(0, ends[first] - room // 4))
    last = first
    while last < len(parts) and ends[last + 1] - 1 - ends[first] <= room:
        last += 1
    before, after = f"{_CUT} " * (first > 0), f" {_CUT}" * (last < len(parts))
    return before + " ".join(parts[first:last]) + after if last > first else parts[first][:characters]


def _within(hits: list[set[str]], ends: list[int], start: int, characters: int) -> set[str]:
    """The words that are hit from one part on, within so many characters."""
    if not hits[start]:
        return set()
    return set().union(*hits[start : bisect_left(ends, ends[start] + characters)])
