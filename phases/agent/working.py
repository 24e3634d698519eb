"""Working memory, the context: the newest turns whole, and the gist of what no longer fits.

    fitted = fit(messages, budget_tokens=512, count=lambda chat: len(encode(tokenizer, render(tokenizer, chat))))
    fitted.messages     # system messages, "Earlier: …", the last turns

A turn is a user's message and all that follows it up to the next, so a call never parts from its result. What falls
out is summarised by its most central sentences (`phases.agent.summary`), one a line, in one system message. A summary
that is there already is summarised along: the result may be kept as the conversation and fitted again.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phases.agent.calls import Message
from phases.agent.summary import by_centrality, distinct, split_sentences

Count = Callable[[Sequence[Message]], int]
EARLIER = "Earlier: "
"""How the summary begins; a system message that begins so is taken for one."""
_SENTENCES, _TRIED = 400, 64
"""Sentences that are ranked (the newest), and of these, that are tried for a place."""
_CUT = " … "


@dataclass(frozen=True)
class Fitted:
    """A conversation that fits."""

    messages: list[Message]
    summary: str
    """What stands for the turns that fell out; empty when nothing does."""
    dropped: int
    """Turns that fell out this time."""


def fit(messages: Sequence[Message], budget_tokens: int, count: Count, share: float = 0.2) -> Fitted:
    """The conversation within a budget. `count`: tokens of a chat; `share`: of the budget, for the summary at most.

    System messages and the last turn always stay. A last turn that is too long alone has its results cut in their
    middle, then its other texts; if that is not enough (a budget below the system messages, calls that are huge), the
    result is over the budget, as short as it can be made.
    """
    summary = next((_text(one)[len(EARLIER) :] for one in messages if _is_summary(one)), "")
    if not messages or count(messages) <= budget_tokens:
        return Fitted(list(messages), summary, 0)
    turns = _turns([one for one in messages if not _is_summary(one)])
    room = int(share * budget_tokens)
    # How many turns fall out: the fewest that leave room for the summary.
    dropped = _least(len(turns) - 1, lambda number: count(_kept(turns, number)) <= budget_tokens - room)
    kept = _cut_to(_kept(turns, dropped), budget_tokens, count)
    most = min(count(kept) + room, budget_tokens)
    told = [summary, *(_text(one) for turn in turns[:dropped] for one in turn if one["role"] != "system")]
    sentences = distinct(sentence for text in told for sentence in split_sentences(text))[-_SENTENCES:]
    summary = _summarise(sentences, lambda text: count(_with_summary(kept, text)) <= most)
    return Fitted(_with_summary(kept, summary), summary, dropped)


def _least(most: int, fits: Callable[[int], bool]) -> int:
    """The least number from 0 to `most` that fits, taking for granted that all greater ones do; `most` if none does."""
    return bisect_left(range(most), True, key=fits)


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Turns; what stands before the first user's message is a part of none and makes one of its own, if it is said."""
    turns: list[list[Message]] = [[]]
    for message in messages:
        if message["role"] == "user" and any(one["role"] != "system" for one in turns[-1]):
            turns.append([])
        turns[-1].append(message)
    return turns


def _kept(turns: Sequence[Sequence[Message]], dropped: int) -> list[Message]:
    """The messages of a conversation without its first turns, whose system messages stay."""
    gone = [one for turn in turns[:dropped] for one in turn if one["role"] == "system"]
    return [*gone, *(one for turn in turns[dropped:] for one in turn)]


def _summarise(sentences: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The most central sentences that fit together, in the order in which they were said."""
    chosen: list[int] = []
    for index in by_centrality(sentences)[:_TRIED]:
        if fits("\n".join(sentences[one] for one in sorted([*chosen, index]))):
            chosen.append(index)
    return "\n".join(sentences[one] for one in sorted(chosen))


def _with_summary(messages: Sequence[Message], summary: str) -> list[Message]:
    """The messages with the summary after the first system message, or in front where there is none."""
    if not summary:
        return list(messages)
    place = int(bool(messages) and messages[0]["role"] == "system")
    return [*messages[:place], {"role": "system", "content": EARLIER + summary}, *messages[place:]]


def _cut_to(messages: list[Message], budget_tokens: int, count: Count) -> list[Message]:
    """The messages with long texts cut in their middle: results first, then all but the system's."""
    for roles in (("tool",), ("tool", "assistant", "user")):
        if count(messages) > budget_tokens:
            messages = _cut_roles(messages, roles, budget_tokens, count)
    return messages


def _cut_roles(messages: list[Message], roles: Sequence[str], budget_tokens: int, count: Count) -> list[Message]:
    """The messages with the texts of these roles cut to one length, the greatest with which they fit."""
    longest = max((len(_text(one)) for one in messages if one["role"] in roles), default=0)
    less = _least(longest, lambda less: count(_shortened(messages, roles, longest - less)) <= budget_tokens)
    return _shortened(messages, roles, longest - less)


def _shortened(messages: Sequence[Message], roles: Sequence[str], characters: int) -> list[Message]:
    """The messages with the texts of these roles cut to so many characters and the mark of the cut."""
    long = [one["role"] in roles and len(_text(one)) > characters + len(_CUT) for one in messages]
    return [
        {**one, "content": _middle_out(_text(one), characters)} if cut else one
        for one, cut in zip(messages, long, strict=True)
    ]


def _middle_out(text: str, characters: int) -> str:
    head = (characters + 1) // 2
    return text[:head] + _CUT + text[len(text) - (characters - head) :]


def _text(message: Message) -> str:
    """What a message says; of a message in parts, its texts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) for part in content)


def _is_summary(message: Message) -> bool:
    return message["role"] == "system" and _text(message).startswith(EARLIER)
