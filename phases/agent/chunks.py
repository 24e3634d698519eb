"""Texts in chunks: the pieces that a search finds and a model reads.

    chunks_of("math.gcd\\n\\nGreatest common divisor.\\n\\n\\nmath.lcm\\n\\nLeast common multiple.", 400)
    # [(0, 37), (37, 32)]: two sections, each a heading with its paragraph

Two blank lines end a section, and no chunk goes beyond one. Within a section whole paragraphs are put together while
they fit; a longer one is cut at line ends, a longer line between words. A heading never parts from what it stands
above: a chunk begins with its subject, which is how a name is looked up.
"""

import re
from collections.abc import Iterator

CHUNK_CHARS = 400
_GAP = re.compile(r"\n(?:[ \t\r]*\n)+")
_HEADING = re.compile(r"\s*[^\n]{0,79}\w[^\n.,;:{}=]{0,20}(?:\n[*=~^#\"-]+)?\s*")
"""One line that ends like none of prose or code, perhaps underlined."""


def chunks_of(text: str, size: int = CHUNK_CHARS) -> list[tuple[int, int]]:
    """(start, length) of the chunks, in order, of at most `size` characters; only white space stands in none."""
    chunks: list[tuple[int, int]] = []
    start = end = 0
    for stop, closes in _blocks(text, size):
        if end > start and stop - start > size:
            chunks.append((start, end))
            start = end
        end = stop
        if closes or end - start > size:
            chunks += _pieces(text, start, end, size)
            start = end
    return [(start, end - start) for start, end in chunks if text[start:end].strip()]


def _blocks(text: str, size: int) -> Iterator[tuple[int, bool]]:
    """(where it ends, whether its section does) of paragraphs, each with the headings above it."""
    at = 0
    for gap in _GAP.finditer(text):
        closes = gap[0].count("\n") > 2
        paragraph = text[at : gap.end()] if gap.end() - at < size // 2 else ""
        at = gap.end()
        if closes or not _HEADING.fullmatch(paragraph):
            yield at, closes
    if at < len(text):
        yield len(text), True
    elif text:
        yield at, True


def _pieces(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of one block's parts, broken at the last line end or space of their second half."""
    while end - start > size:
        # A break in the first half would part a heading from its paragraph, or leave crumbs.
        breaks = (text.rfind(sign, start + size // 2, start + size) for sign in "\n ")
        stop = next((at + 1 for at in breaks if at >= 0), start + size)
        yield start, stop
        start = stop
    yield start, end
