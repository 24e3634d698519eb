"""What can be wrong with a record, one test each: the evidence behind the quality score (`quality.py`).

Each finding has a name, the points that it costs of ten, and what to do about it. More than two points put a record
below the default threshold of eight alone: those are faults that a student would learn as such. Two or fewer are signs
that are harmless alone and tell in company. Repetition is measured as in Gopher (arXiv 2112.11446, app. A), encoding
damage by the traces of UTF-8 that was read as Latin-1.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from distillation.record import Record
from phases.tasks.item import extract_answer

_REFUSAL = re.compile(
    r"\b(i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:'t|not)|won't|will not|must decline to) "
    r"(?:help|assist|provide|answer|fulfil|comply|create|do that|discuss|share)|as an ai\b"
    r"|i (?:do not|don't) have access to|(?:against|violates?) (?:my|our|the) (?:guidelines|policy|policies))",
    re.IGNORECASE,
)
_SPEAKS_AS_MODEL = re.compile(
    r"\b(as an? (?:ai|large )?language model|my (?:training data|knowledge cutoff)|openai)\b", re.I
)
_DAMAGE = re.compile(r"\ufffd|Ã[\x80-\xbf\u00a0-\u00bf]|Â[\u00a0-\u00bf]|â€[\u2122\u0153\u009d\u2013\u201c\u02dc]?")
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|<\|[a-z_]+\|>|\[(?:INSERT|TODO|YOUR)[^\]]*\]|\blorem ipsum\b|\bTODO:", re.I)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_OPEN_ENDED = 8
"""Words from which a reference is a text to be like, not an answer to be equal to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Lengths in words."""

    prompt_least: int
    prompt_most: int
    answer_least: int
    answer_most: int


@dataclass(frozen=True)
class Finding:
    """One thing that can be wrong."""

    name: str
    points: float
    """What it costs of ten."""
    advice: str
    """What to do about it."""
    test: Callable[[Record, Limits], bool]
    of_answer: bool = True
    """Whether it is looked for only where there is an answer."""


def repetition(text: str) -> float:
    """The share of words that stand in a run of five words which occurs more than once; 0 below 20 words."""
    words = text.split()
    if len(words) < 20:
        return 0.0
    runs = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    counts = Counter(runs)
    covered = {place for i, run in enumerate(runs) if counts[run] > 1 for place in range(i, i + 5)}
    return len(covered) / len(words)


def same_answer(given: str, reference: str) -> bool:
    """Whether two short answers are one: by case, space and final stop, or as numbers (`4.0`, `4`; `1,000`, `1000`)."""
    left, right = (" ".join(text.casefold().split()).rstrip(".") for text in (given, reference))
    if left == right:
        return True
    if _NUMBER.fullmatch(left) and _NUMBER.fullmatch(right):
        return float(left.replace(",", "")) == float(right.replace(",", ""))
    return False


def script(text: str) -> str:
    """The script of most letters (`LATIN`, `CYRILLIC`, `CJK` …); empty when there are fewer than 20 letters."""
    letters = [c for c in text[:400] if c.isalpha()]
    if len(letters) < 20:
        return ""
    if sum(c.isascii() for c in letters) * 2 > len(letters):
        return "LATIN"
    names = Counter(unicodedata.name(c, "UNKNOWN").split()[0] for c in letters)
    return names.most_common(1)[0][0]


def states(completion: str, reference: str) -> bool:
    """Whether a completion's answer is the reference: after `####`, as its last number, or as its last words."""
    wanted = extract_answer(reference)
    if same_answer(extract_answer(completion), wanted):
        return True
    if _NUMBER.fullmatch(wanted):
        numbers = _NUMBER.findall(completion)
        return bool(numbers) and same_answer(numbers[-1], wanted)
    end = re.findall(r"\w+", wanted.casefold())
    return bool(end) and re.findall(r"\w+", completion.casefold())[-len(end) :] == end


def _wrong(record: Record) -> bool:
    """Only where the reference is an answer; longer ones are for graded scores."""
    short = bool(record.reference) and len(record.reference.split()) <= _OPEN_ENDED
    return short and not states(record.completion, record.reference)


def _unfinished(text: str) -> bool:
    """A text of sentences that does not end like one."""
    return len(text.split()) > 30 and text.count(".") >= 2 and text[-1].isalnum()


def _cut_off(record: Record) -> bool:
    return record.more.get("finish", "stop") == "length"


def _length(text: str) -> int:
    return len(text.split())


FINDINGS = (
    Finding("prompt too short", 3, "ask a whole question", lambda r, m: _length(r.prompt) < m.prompt_least, False),
    Finding(
        "prompt too long", 3, "shorten it or raise the limit", lambda r, m: _length(r.prompt) > m.prompt_most, False
    ),
    Finding(
        "placeholder", 4, "fill the template in", lambda r, m: bool(_PLACEHOLDER.search(r.prompt + r.completion)), False
    ),
    Finding(
        "encoding damage",
        3,
        "read it in its encoding",
        lambda r, m: bool(_DAMAGE.search(r.prompt + r.completion)),
        False,
    ),
    Finding("repetitive prompt", 2, "remove the repetition", lambda r, m: repetition(r.prompt) > 0.5, False),
    Finding("answer too short", 3, "ask again or lower the limit", lambda r, m: _length(r.completion) < m.answer_least),
    Finding(
        "answer too long", 3, "ask for less or raise the limit", lambda r, m: _length(r.completion) > m.answer_most
    ),
    Finding(
        "refusal", 5, "ask another teacher", lambda r, m: bool(_REFUSAL.search(r.completion[:300].replace("’", "'")))
    ),
    Finding(
        "speaks as a model", 2, "ask with a system prompt", lambda r, m: bool(_SPEAKS_AS_MODEL.search(r.completion))
    ),
    Finding("repetition", 4, "ask again, at a temperature", lambda r, m: repetition(r.completion) > 0.3),
    Finding("cut off", 4, "ask with more tokens", lambda r, m: _cut_off(r)),
    Finding("unfinished", 1, "ask with more tokens", lambda r, m: not _cut_off(r) and _unfinished(r.completion)),
    Finding("repeats the question", 4, "ask again", lambda r, m: _length(r.prompt) > 3 and r.completion == r.prompt),
    Finding("other script", 2, "ask in the wanted language", lambda r, m: _other_script(r)),
    Finding("wrong answer", 5, "ask again, or another teacher", lambda r, m: _wrong(r)),
)


def _other_script(record: Record) -> bool:
    asked, answered = script(record.prompt), script(record.completion)
    return bool(asked and answered) and asked != answered
