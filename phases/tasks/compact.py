"""Short questions for small models, built from reasoning-gym's metadata (arXiv 2505.24760).

Its own prompts spend 60 to 400 characters on instructions, which a model of a million parameters pays for in every
item. Each function here rewrites one generator's question as a few tokens and keeps its answer; what changes in the
answer is notation only (`88.0` is written `88`, a list is written with spaces). Generators that are not listed keep
their own text.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from phases.errors import ConfigError

Entry = Mapping[str, Any]
"""One reasoning-gym draw: `question`, `answer`, `metadata`."""


@dataclass(frozen=True)
class Question:
    """What is asked, the answer, the worked steps (empty when there are none) and the generator's difficulty."""

    prompt: str
    answer: str
    steps: str = ""
    difficulty: int = 0


def question(name: str, entry: Entry) -> Question:
    """The compact form of a draw of generator `name`, or its own text for a generator without one.

    Raises `ConfigError` for a generator without a single right answer: exact match cannot judge it.
    """
    if not isinstance(entry["answer"], str) or not entry["answer"].strip():
        raise ConfigError(f"tasks.reasoning: '{name}' has no single right answer; choose another generator")
    return COMPACT.get(name, _verbatim)(entry)


def plain_number(text: str) -> str:
    """A decimal without a fraction of zeros: `88.0` → `88`, `2.50` → `2.5`, `7` → `7`."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def running_totals(expression: str) -> str:
    """Worked steps of a sum of three or more terms, left to right: `3 + 4 - 5` → `3+4=7;7-5=2`."""
    terms = re.findall(r"([+-]?)\s*(\d+)", expression)
    total = int(terms[0][0] + terms[0][1])
    steps = []
    for sign, digits in terms[1:]:
        after = total + int(digits) * (-1 if sign == "-" else 1)
        steps.append(f"{total}{sign}{digits}={after}")
        total = after
    return ";".join(steps) if len(steps) > 1 else ""


def euclid(a: int, b: int) -> str:
    """Worked steps of Euclid's algorithm: remainders until zero, `22 17` → `22%17=5;17%5=2;5%2=1;2%1=0`."""
    steps = []
    while b:
        steps.append(f"{a}%{b}={a % b}")
        a, b = b, a % b
    return ";".join(steps)


def _chain_sum(entry: Entry) -> Question:
    expression = str(entry["metadata"]["expression"])
    prompt = expression.replace(" ", "") + "="
    return Question(prompt, entry["answer"], running_totals(expression), int(entry["metadata"]["num_terms"]))


def _products(entry: Entry) -> Question:
    meta = entry["metadata"]
    return Question(str(meta["expression"]).replace(" ", "") + "=", entry["answer"], "", int(meta["num_terms"]))


def _gcd(entry: Entry) -> Question:
    numbers = [int(n) for n in entry["metadata"]["numbers"]]
    steps = euclid(*numbers) if len(numbers) == 2 else ""
    return Question(f"gcd {_spaced(numbers)}", entry["answer"], steps, len(numbers))


def _lcm(entry: Entry) -> Question:
    numbers = [int(n) for n in entry["metadata"]["numbers"]]
    steps = f"{euclid(*numbers)};{numbers[0]}/{math.gcd(*numbers)}*{numbers[1]}" if len(numbers) == 2 else ""
    return Question(f"lcm {_spaced(numbers)}", entry["answer"], steps, len(numbers))


def _count_bits(entry: Entry) -> Question:
    number = int(entry["metadata"]["number"])
    return Question(f"bits {number}", entry["answer"], f"{number:b}", number.bit_length())


def _spell_backward(entry: Entry) -> Question:
    """Letters apart, so that a letter is a token and the task does not ask for a tokenizer's secrets."""
    word = str(entry["metadata"]["word"])
    return Question(f"backward: {_spaced(word)}", _spaced(entry["answer"]), "", len(word))


def _letter_counting(entry: Entry) -> Question:
    """reasoning-gym counts without regard to case, so the words are shown in lower case."""
    meta = entry["metadata"]
    return Question(
        f"count {meta['target_letter']}: {_spaced(meta['span']).lower()}",
        entry["answer"],
        "",
        len(meta["span"]),
    )


def _number_sorting(entry: Entry) -> Question:
    meta = entry["metadata"]
    numbers = [plain_number(n) for n in meta["original_numbers"]]
    direction = "up" if meta["direction"] == "ascending" else "down"
    answer = _spaced(plain_number(n) for n in ast.literal_eval(entry["answer"]))
    return Question(f"sort {direction} {_spaced(numbers)}", answer, "", len(numbers))


def _verbatim(entry: Entry) -> Question:
    """The generator's own words; difficulty is the first whole number that its metadata calls one."""
    meta = entry["metadata"]
    numbers = (value for key, value in sorted(meta.items()) if key.startswith(("num_", "n_")) and type(value) is int)
    return Question(str(entry["question"]).strip(), str(entry["answer"]).strip(), "", next(numbers, 0))


def _spaced(parts: Any) -> str:
    return " ".join(str(part) for part in parts)


COMPACT: Mapping[str, Callable[[Entry], Question]] = {
    "chain_sum": _chain_sum,
    "products": _products,
    "gcd": _gcd,
    "lcm": _lcm,
    "count_bits": _count_bits,
    "spell_backward": _spell_backward,
    "letter_counting": _letter_counting,
    "number_sorting": _number_sorting,
}
"""Generators with a compact form."""
