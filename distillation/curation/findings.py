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
from itertools import pairwise

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


class Seen:
    """A record as the tests look at it, with what several of them need."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.prompt, self.completion = record.prompt, record.completion
        self.prompt_words, self.answer_words = self.prompt.split(), self.completion.split()
        self.both = self.prompt + self.completion
        self.lower = self.both.lower()
        """What a pattern needs is looked for here before the pattern itself, which takes a hundred times as long."""
        self.ascii = self.both.isascii()

    def may_have(self, *needs: str) -> bool:
        """Whether one of these, in small letters, is in question or answer; of other scripts only the pattern knows."""
        if self.ascii:
            for need in needs:  # a generator expression would take longer than the search
                if need in self.lower:
                    return True
        return not self.ascii


@dataclass(frozen=True)
class Finding:
    """One thing that can be wrong."""

    name: str
    points: float
    """What it costs of ten."""
    advice: str
    """What to do about it."""
    test: Callable[[Seen, Limits], bool]
    of_answer: bool = True
    """Whether it is looked for only where there is an answer."""


def repetition(text: str) -> float:
    """The share of words that stand in a run of five words which occurs more than once; 0 below 20 words."""
    return _repetition(text.split())


def _repetition(words: list[str]) -> float:
    if len(words) < 20:
        return 0.0
    if len(words) - 1 - len(set(pairwise(words))) < 4:
        return 0.0  # a run of five that comes again brings four pairs that come again, and pairs are sooner counted
    runs = list(zip(*(words[i:] for i in range(5)), strict=False))
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


def _unfinished(text: str, words: int) -> bool:
    """A text of sentences that does not end like one."""
    return words > 30 and text.count(".") >= 2 and text[-1].isalnum()


def _cut_off(record: Record) -> bool:
    return record.more.get("finish", "stop") == "length"


def _has_placeholder(s: Seen) -> bool:
    return s.may_have("{{", "<|", "[insert", "[todo", "[your", "lorem ipsum", "todo:") and bool(
        _PLACEHOLDER.search(s.both)
    )


def _refuses(s: Seen) -> bool:
    needs = ("'m", "i am", "i can", "won't", "will not", "must", "as an ai", "access", "against", "violate")
    return s.may_have(*needs) and bool(_REFUSAL.search(s.completion[:300].replace("’", "'")))


def _speaks_as_model(s: Seen) -> bool:
    return s.may_have("language model", "my training data", "my knowledge cutoff", "openai") and bool(
        _SPEAKS_AS_MODEL.search(s.completion)
    )


def _other_script(s: Seen) -> bool:
    if s.ascii:
        return False
    asked, answered = script(s.prompt), script(s.completion)
    return bool(asked and answered) and asked != answered


FINDINGS = (
    Finding("prompt too short", 3, "ask a whole question", lambda s, m: len(s.prompt_words) < m.prompt_least, False),
    Finding(
        "prompt too long", 3, "shorten it or raise the limit", lambda s, m: len(s.prompt_words) > m.prompt_most, False
    ),
    Finding("placeholder", 4, "fill the template in", lambda s, m: _has_placeholder(s), False),
    Finding(
        "encoding damage",
        3,
        "read it in its encoding",
        lambda s, m: not s.ascii and bool(_DAMAGE.search(s.both)),
        False,
    ),
    Finding("repetitive prompt", 2, "remove the repetition", lambda s, m: _repetition(s.prompt_words) > 0.5, False),
    Finding("answer too short", 3, "ask again or lower the limit", lambda s, m: len(s.answer_words) < m.answer_least),
    Finding("answer too long", 3, "ask for less or raise the limit", lambda s, m: len(s.answer_words) > m.answer_most),
    Finding("refusal", 5, "ask another teacher", lambda s, m: _refuses(s)),
    Finding("speaks as a model", 2, "ask with a system prompt", lambda s, m: _speaks_as_model(s)),
    Finding("repetition", 4, "ask again, at a temperature", lambda s, m: _repetition(s.answer_words) > 0.3),
    Finding("cut off", 4, "ask with more tokens", lambda s, m: _cut_off(s.record)),
    Finding(
        "unfinished",
        1,
        "ask with more tokens",
        lambda s, m: not _cut_off(s.record) and _unfinished(s.completion, len(s.answer_words)),
    ),
    Finding("repeats the question", 4, "ask again", lambda s, m: len(s.prompt_words) > 3 and s.completion == s.prompt),
    Finding("other script", 2, "ask in the wanted language", lambda s, m: _other_script(s)),
    Finding("wrong answer", 5, "ask again, or another teacher", lambda s, m: _wrong(s.record)),
)
