"""What the model reads in the place of what the user said: the question twice, in parts, with words that make it think.

    asked("How many are 3 and 4?", Prompting(reread=True))
    parts("My boat is called Zumi. What is my boat called?")       # two, asked one after the other

The conversation that is kept has the user's own words.
"""

import math
from collections.abc import Sequence

from phases.agent.calls import Message
from phases.agent.conversation import Turn
from phases.agent.design import Prompting
from phases.agent.summary import split_sentences

STEPS = "Let's think step by step."
"""Word for word as in arXiv 2205.11916."""
AGAIN = "Read the question again:"
"""Word for word as in arXiv 2309.06275."""
REFLECT = "Read your answer again, and say it anew."
"""What the model is asked for where it reflects."""


def asked(question: str, prompting: Prompting) -> str:
    """The question as it is put to the model."""
    if prompting.reread:
        question = f"{question}\n{AGAIN} {question}"
    return f"{question} {STEPS}" if prompting.steps else question


def parts(question: str, prompting: Prompting) -> list[str]:
    """The parts that are asked one after the other: its sentences, or all of it."""
    sentences = split_sentences(question) if prompting.decompose else []
    return sentences if len(sentences) > 1 else [question]


def with_question(messages: Sequence[Message], question: str) -> list[Message]:
    """The conversation with another last message of the user."""
    return [*messages[:-1], {**messages[-1], "content": question}]


def joined(turns: Sequence[Turn]) -> Turn:
    """Turns in which the parts of one question were answered, as one: all calls, then all that was said."""
    if len(turns) == 1:
        return turns[0]
    messages = [message for turn in turns for message in turn.messages[:-1]]
    text = " ".join(turn.text for turn in turns if turn.text)
    ended = next((turn.ended for turn in turns if turn.ended != "said"), turns[-1].ended)
    return Turn([*messages, {"role": "assistant", "content": text}], [c for turn in turns for c in turn.calls], ended)


def unsure(logprobs: Sequence[float], least: float = 0.5) -> bool:
    """Whether the tokens' mean probability is below `least`; of no tokens nothing is unsure."""
    return bool(logprobs) and math.fsum(map(math.exp, logprobs)) / len(logprobs) < least
