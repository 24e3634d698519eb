"""What a teacher is: something with a name that answers questions, and says what that cost.

`LocalTeacher` (`local.py`) and `EndpointTeacher` (`endpoint.py`) are the two; `collect` (`collect.py`) asks either,
through the capture store, so that no stored answer is ever paid twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from distillation.record import Message


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a teacher, with everything that its answer depends on."""

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    """Tells samples of the same question apart."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher said."""

    text: str
    prompt_tokens: int | None
    """None: the teacher does not say."""
    completion_tokens: int | None
    """None: the teacher does not say."""
    cached_tokens: int = 0
    """Of the prompt's, those that were charged at the cache's price."""
    seconds: float = 0.0
    """From the request to the answer; of a local model's batch its share."""
    usd: float | None = None
    """What it cost; None: the price is not known. 0.0 is a price."""
    finish: str = "stop"
    """`stop`, or `length` when it was cut off."""
    wasted: int = 0
    """Attempts before it that brought nothing and that the provider may have charged for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer."""

    reason: str
    lasting: bool
    """Whether asking again would be of no use (a refused key, a prompt that is too long)."""
    wasted: int = 0
    """Attempts that the provider may have charged for."""


class Teacher(Protocol):
    """Whoever answers."""

    name: str
    """As reports have it."""
    identity: str
    """What answers depend on: a checkpoint's digest, or address and model of an endpoint."""
    licence: str
    """`own`, an SPDX name, or the provider's terms; `licences.py` says whether students may learn from it."""

    def answer(self, asks: Iterable[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answers as they come, each with its question's index. Asks are taken when there is room for one more."""
        ...


class PricedTeacher(Teacher, Protocol):
    """A teacher that says beforehand what a question may cost: what a budget needs."""

    def most_usd(self, ask: Ask) -> float | None:
        """No request for `ask` costs more; None: the price is not known."""
        ...


def most_prompt_tokens(ask: Ask) -> int:
    """An upper bound: no tokenizer that works on bytes makes more, and a template's own words are few."""
    return 64 + sum(16 + len(message.content.encode("utf-8", "replace")) for message in ask.messages)
