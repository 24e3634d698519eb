"""What may be written: tokens are tried from the likeliest on, until one fits.

    constraint = CallConstraint(tokenizer, CallGrammar(form, tools))
    decode(model, prompts, limits, stop, Kept(likeliest, constraint, prompts=64))

After the marker of a call only tokens that lead to a valid one are allowed (Willard & Louf, arXiv 2307.09702, do this
with precomputed tables; here nearly always the first token that is tried will do).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch

from phases.agent.grammar import CallGrammar, NoCalls
from phases.decoding import Choice

TRIED = 64
"""Likeliest tokens that are tried before all others are."""


class Constraint(Protocol):
    """Says which tokens may be written."""

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether `token` may follow what is `written` (token ids since the prompt) for that prompt."""
        ...


class CallConstraint:
    """Calls are well-formed."""

    def __init__(self, tokenizer: Any, grammar: CallGrammar | NoCalls) -> None:
        self.tokenizer, self.grammar = tokenizer, grammar
        self.special = {int(i) for i in tokenizer.all_special_ids}
        """Ends of a turn and other tokens that are no text."""

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether a token goes on with a valid call, or is outside of one."""
        if token in self.special:
            return self._open_call(written) is None
        # A token may end the marker and go on, so those outside of calls are judged as well.
        tail = self._open_call([*written, token])
        return tail is None or self.grammar.allows(tail)

    def _open_call(self, tokens: Sequence[int]) -> str | None:
        return self.grammar.open_call(str(self.tokenizer.decode(tokens, skip_special_tokens=True)))


class Begun:
    """Each text begins with given tokens."""

    def __init__(self, starts: Sequence[Sequence[int]]) -> None:
        """Token ids by prompt; none where nothing is given."""
        self.starts = starts

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether a token is the one that is given at its place, or stands after them."""
        start = self.starts[prompt]
        return len(written) >= len(start) or token == start[len(written)]


class AllOf:
    """Several constraints, of which each must hold."""

    def __init__(self, constraints: Iterable[Constraint]) -> None:
        """The first that does not hold ends the trial, so those that are quick come first."""
        self.constraints = tuple(constraints)

    def fits(self, prompt: int, written: Sequence[int], token: int) -> bool:
        """Whether a token fits all of them."""
        return all(one.fits(prompt, written, token) for one in self.constraints)


def allowed(
    constraint: Constraint | None, prompt: int, written: Sequence[int], count: int, *orders_V: torch.Tensor
) -> list[int]:
    """The `count` likeliest tokens that fit, the likeliest first; fewer where fewer of the `TRIED` likeliest fit.

    `orders_V` are scores of all tokens, −∞ for those that are out of the question. Where none of the likeliest by the
    first fits, those by the next are tried, then all tokens; where none fits at all (a call that its tokenizer cuts
    off), the likeliest by the last is taken.
    """
    failed: set[int] = set()
    for most in (max(TRIED, count), len(orders_V[0])):
        for order_V in orders_V:
            found: list[int] = []
            for token in _best(order_V, most):
                if token in failed:
                    continue
                if constraint is None or constraint.fits(prompt, written, token):
                    found.append(token)
                    if len(found) == count:
                        return found
                else:
                    failed.add(token)
            if found:
                return found
    return [int(orders_V[-1].argmax())]


def _best(score_V: torch.Tensor, most: int) -> list[int]:
    """The tokens with the largest scores, the largest first, without those of −∞."""
    values, tokens = score_V.topk(min(most, len(score_V)))
    return [token for value, token in zip(values.tolist(), tokens.tolist(), strict=True) if value > float("-inf")]


def keep(
    constraint: Constraint,
    chosen_B: torch.Tensor,
    index: Sequence[int],
    written: Sequence[Sequence[int]],
    *orders_BV: torch.Tensor,
) -> None:
    """Put the likeliest token that fits in the place of each chosen one that does not.

    `index` says which prompt each row is, `written` what was written after every prompt.
    """
    for row, prompt in enumerate(index):
        if not constraint.fits(prompt, written[prompt], int(chosen_B[row])):
            orders_V = [order_BV[row] for order_BV in orders_BV]
            chosen_B[row] = allowed(constraint, prompt, written[prompt], 1, *orders_V)[0]


class Kept:
    """A choice of tokens that keeps to a constraint."""

    def __init__(self, choose: Choice, constraint: Constraint, prompts: int) -> None:
        self.choose, self.constraint = choose, constraint
        self.written: list[list[int]] = [[] for _ in range(prompts)]

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) token ids."""
        chosen_B = self.choose(logits_BV, index)
        keep(self.constraint, chosen_B, index, self.written, logits_BV)
        for row, prompt in enumerate(index):
            self.written[prompt].append(int(chosen_B[row]))
        return chosen_B
