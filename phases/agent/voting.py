"""Of several answers one is taken: the most frequent, the likeliest, the one most like the others.

    choose(["12", "13", "12"], logprobs, ran, "vote")      # 0: the first of those that say 12
    settled(["12", "12", "12"], most=5)                    # True: two more could not change that

Answers are compared by the last thing that was said, its `#### ` and white space taken off. Of equals the one written
first is taken, so a vote of answers that all differ takes the first, which is written as without any vote.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence

from phases.agent.calls import Said
from phases.agent.conversation import Turn
from phases.agent.design import Select
from phases.agent.wording import words
from phases.tasks.item import extract_answer

SURE = 0.95
"""A majority this sure is not tried further."""


def answer_of(turn: Turn) -> str:
    """What answers are compared by."""
    return " ".join(extract_answer(turn.text).split())


def call_key(said: Said) -> str:
    """What turns are compared by that wait for calls which nobody may make twice."""
    return json.dumps([[call.name, dict(call.arguments)] for call in said.calls], sort_keys=True, default=str)


def choose(answers: Sequence[str], logprobs: Sequence[Sequence[float]], ran: Sequence[bool], select: Select) -> int:
    """Number of the answer that is taken.

    `logprobs`: of each answer's tokens; `ran`: whether all calls of each ran, which `executed` asks for (where none
    did, any will do).
    """
    numbers = range(len(answers))
    if select == "executed":
        numbers_ran = [number for number in numbers if ran[number]]
        return max(numbers_ran or numbers, key=lambda number: math.fsum(logprobs[number]))
    return max(numbers, key=_scores(answers, logprobs, select).__getitem__)


def _scores(answers: Sequence[str], logprobs: Sequence[Sequence[float]], select: Select) -> list[float]:
    if select == "vote":
        votes = Counter(answers)
        return [float(votes[answer]) for answer in answers]
    if select == "agreement":
        return [math.fsum(likeness(one, other) for other in answers) for one in answers]
    sums = [math.fsum(values) for values in logprobs]
    if select == "likelihood":
        return sums
    return [total / max(1, len(values)) for total, values in zip(sums, logprobs, strict=True)]


def likeness(one: str, other: str) -> float:
    """F₁ of the words that two answers have in common, with 1 for equal ones: the utility of minimum Bayes risk."""
    if one == other:
        return 1.0
    left, right = Counter(words(one)), Counter(words(other))
    return 2 * (left & right).total() / max(1, left.total() + right.total())


def settled(answers: Sequence[str], most: int) -> bool:
    """Whether more answers, up to `most` in all, are not worth writing (adaptive consistency, arXiv 2305.11860).

    Either they could not change which answer is taken, or the paper's criterion holds: with v₁ votes for the first and
    v₂ for the second answer, that it is the more frequent has a chance of P(Beta(v₁ + 1, v₂ + 1) > ½) ≥ 0.95.
    """
    if not answers:
        return most == 0
    votes = Counter(answers)  # in the order in which they were first said, which decides between equals
    first = max(votes, key=votes.__getitem__)
    ahead = list(votes).index(first)
    left = most - len(answers)
    others = [(count, place < ahead) for place, (answer, count) in enumerate(votes.items()) if answer != first]
    others.append((0, False))  # one that nobody has said so far
    if not any(count + left > votes[first] - earlier for count, earlier in others):
        return True
    return majority_chance(votes[first], max(count for count, _ in others)) >= SURE


def majority_chance(first: int, second: int) -> float:
    """P(Beta(first + 1, second + 1) > ½): the chance of at most `first` heads among first + second + 1 coins."""
    coins = first + second + 1
    return float(sum(math.comb(coins, heads) for heads in range(first + 1)) / 2**coins)


def least_to_settle(most: int) -> int:
    """How many equal answers settle the matter: fewer need not be looked at."""
    return next(count for count in range(most + 1) if settled(["same"] * count, most))
