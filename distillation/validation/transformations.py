"""Ways to change how a question is put without changing its right answer, seeded.

What carries the answer is left alone: everything in quotes or code, every word with a digit or a sign in it, words of
fewer than four letters, and words that stand in the right answer. Still, where letters are what is asked about
(counting them, copying them without quotes), typos and casing change the question: name such groups in
`RobustnessConfig.letter_groups`.

`framing` changes only what stands around the question ("Please answer: …"); it is a table of templates, not a rewording
of the question itself, which takes a model and a judge that the meaning stayed. `paraphrase` is such a rewording that
somebody wrote: the column of that name of the user's own records. Questions without one stay as they are.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from distillation.record import Message, Record
from phases.errors import InputError

Transformation = Literal["typos", "casing", "white_space", "framing", "length", "paraphrase"]
Change = Callable[[Record, random.Random], str]

BY_LETTER: frozenset[Transformation] = frozenset({"typos", "casing"})
"""What changes letters."""
PARAPHRASE = "paraphrase"
"""In `Record.more`: the question in other words."""
FRAMES = (
    "Please answer: {}",
    "Question: {}",
    "I would like to know: {}",
    "Here is my question. {}",
    "Can you help me with this? {}",
    "{}\nThank you.",
)
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_KEPT = re.compile(r"```.*?```|`[^`]*`|\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)|\S*[^\sA-Za-z.,!?;:()]\S*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]{4,}")


def transform(record: Record, name: Transformation, seed: int, filler: Sequence[str] = (), words: int = 60) -> Record:
    """The record with its last turn changed; itself where there is nothing to change.

    The same record, name and seed give the same text, whatever other records there are. `filler` and `words` are of
    `length`: texts to draw from, and how many words of one are put before the question.
    """
    rng = random.Random(f"{seed} {name} {record.prompt_key}")
    if name == "length":
        if not filler:
            raise InputError("'length' puts text before a question and was given none; give texts, or leave it out")
        text = f"{_excerpt(rng.choice(filler), words, rng)}\n\n{record.prompt}"
    else:
        text = _CHANGES[name](record, rng)
    last = Message(record.messages[-1].role, text)
    return record if text == record.prompt else replace(record, messages=(*record.messages[:-1], last))


def _typos(record: Record, rng: random.Random) -> str:
    """A tenth of the words, at least one: two letters swapped, or one hit beside its key; first letters stay."""
    words = _words(record)
    chosen = rng.sample(words, max(1, len(words) // 10)) if words else []
    return _replaced(record.prompt, {span: _mistyped(record.prompt[slice(*span)], rng) for span in chosen})


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    beside = rng.choice(_neighbours(word[at].lower()))
    return word[:at] + (beside.upper() if word[at].isupper() else beside) + word[at + 1 :]


def _neighbours(letter: str) -> str:
    """Keys left and right of a letter's."""
    row = next(row for row in _ROWS if letter in row)
    at = row.index(letter)
    return row[max(at - 1, 0) : at] + row[at + 1 : at + 2]


def _casing(record: Record, rng: random.Random) -> str:
    """All words in capitals, or all without."""
    change = rng.choice((str.upper, str.lower))
    return _replaced(record.prompt, {span: change(record.prompt[slice(*span)]) for span in _words(record)})


def _white_space(record: Record, rng: random.Random) -> str:
    """Single spaces between words become two or three, and blank lines stand around the question."""
    text = record.prompt
    kept = [match.span() for match in _KEPT.finditer(text)]
    inside = [m.span() for m in re.finditer(r"(?<=\S) (?=\S)", text) if not _within(m.span(), kept)]
    return "\n\n" + _replaced(text, {span: " " * rng.choice((1, 2, 3)) for span in inside}) + "  \n"


def _framing(record: Record, rng: random.Random) -> str:
    before, after = rng.choice(FRAMES).split("{}")
    return before + record.prompt + after


def _paraphrase(record: Record, rng: random.Random) -> str:
    return record.more.get(PARAPHRASE) or record.prompt


def _excerpt(text: str, words: int, rng: random.Random) -> str:
    found = text.split()
    start = rng.randrange(max(len(found) - words, 0) + 1)
    return " ".join(found[start : start + words])


def _words(record: Record) -> list[tuple[int, int]]:
    """Spans of words whose letters do not matter."""
    answer = {word.lower() for word in re.findall(r"\w+", f"{record.reference} {record.completion}")}
    kept = [match.span() for match in _KEPT.finditer(record.prompt)]
    found = [match.span() for match in _WORD.finditer(record.prompt)]
    return [span for span in found if not _within(span, kept) and record.prompt[slice(*span)].lower() not in answer]


def _within(span: tuple[int, int], kept: Sequence[tuple[int, int]]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in kept)


def _replaced(text: str, changes: dict[tuple[int, int], str]) -> str:
    for (start, end), new in sorted(changes.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


_CHANGES: dict[Transformation, Change] = {
    "typos": _typos,
    "casing": _casing,
    "white_space": _white_space,
    "framing": _framing,
    "paraphrase": _paraphrase,
}
