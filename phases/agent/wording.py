"""What texts say as far as words tell: whether two facts are one, which one replaces another, what a question asks for.

    fact_key("My dog is called  Rex.")           # "my dog is called rex": equal facts have equal keys
    statement("my dog is called Rex")            # "my dog is called": a newer fact that says this replaces the older
    query_words("what is my dog called?")        # ["dog"]

Rules, no model: they are the same on every machine and can be read here. The small words are those of English.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator

_WORD = re.compile(r"[^\W_]+")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
MOST_WORDS = 32
"""Words of a query that are looked for; a question has fewer, and a pasted book must not cost minutes."""

STOP_WORDS = frozenset(
    _WORD.findall(
        "a about am an and any are as at be been but by call called can could d did do does for from had has have he "
        "her hers him his how i if in into is it its ll m me mine my name named of on or our ours please re recall "
        "remember s she so t tell than that the their them then there these they this those to us ve was we were what "
        "when where which who whom whose why will with would you your yours"
    )
)
"""Words of questions rather than of answers; `s`, `t` and the like are what an apostrophe leaves."""

_VERBS = frozenset(_WORD.findall("am are is was were live lives work works"))
_GOES_ON = frozenset(_WORD.findall("a an the called named in at on for from by with as"))
_PRONOUNS = frozenset(_WORD.findall("he here i it she that there these they this those we what who you"))


def clean(text: str) -> str:
    """The text with what no database or file can hold (NUL, halves of surrogate pairs) replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def words(text: str) -> list[str]:
    """Words in lower case, in their order."""
    return [word.casefold() for word in _words(text)]


def _words(text: str) -> Iterator[str]:
    """Words as they stand. The index folds case and accents itself, and not quite as Python does (ß)."""
    return (match.group() for match in _WORD.finditer(unicodedata.normalize("NFC", text)))


def query_words(text: str) -> list[str]:
    """Distinct words that a query asks for, `MOST_WORDS` at most: without stop words, unless nothing else is left."""
    asked: dict[str, None] = {}
    every: dict[str, None] = {}
    for word in _words(text):
        (every if word.casefold() in STOP_WORDS else asked)[word] = None
        if len(asked) == MOST_WORDS:
            break
    return list(itertools.islice(asked or every, MOST_WORDS))


def any_of(wanted: list[str]) -> str:
    """FTS5's query for texts with at least one of the words. Quoted, so that no word is syntax."""
    return " OR ".join(f'"{word}"' for word in wanted)


def all_of(wanted: list[str]) -> str:
    """FTS5's query for texts with every one of the words."""
    return " AND ".join(f'"{word}"' for word in wanted)


def phrase(text: str) -> str:
    """FTS5's query for texts that say this word for word; empty for a text without words."""
    said = " ".join(_words(text))
    return f'"{said}"' if said else ""


def fact_key(text: str) -> str:
    """Equal for facts that differ in case, spaces or the final stop alone. Other signs count: C++ is not C#."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".!?,; ")


def statement(text: str) -> str:
    """What a fact gives the value of, or "" when that cannot be told.

    The words before the first of is, are, am, was, were, lives, works, that verb, and what goes on with it (called, in,
    a, …): `my dog is called`, `I live in`. So a dog may be brown and called Rex, but not called Rex and Max. A pronoun
    with a bare verb (`it is`, `I am`) says nothing that has one value.
    """
    said = fact_key(text).split()
    verb = next((place for place, word in enumerate(said) if word in _VERBS), 0)
    end = verb + 1
    while end < len(said) and said[end] in _GOES_ON:
        end += 1
    loose = verb == 1 and said[0] in _PRONOUNS and end == verb + 1
    return "" if verb == 0 or end >= len(said) or loose else " ".join(said[:end])
