"""What stands beside records in a lesson: running text, and an agent's own conversations, in given shares of the rows.

    text = beside_records(data, teacher, len(rows), Shares(text=0.25, conversations=0.25, mix={"text": 1.0}), 256, seed)

A student of an agent learns to be one, not its answers alone: the conversations are those that the agent was made with
(`phases.baking`), made anew, their tools run, and only those that came out right. What the assistant writes counts,
calls included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distillation.training.row_file import tokenizer_digest
from distillation.training.rows import TextRows, from_dataset
from phases.adas.exploring import encode_domains
from phases.adas.trials import ITEMS, open_course
from phases.agent.settings import SETTINGS
from phases.baking.config import CONVERSATIONS
from phases.baking.rows import Encoded, pack_conversations
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset

_ORDER = 61
"""Stream of random numbers."""
_EACH = 100_000
"""Conversations of a kind at most: all."""


@dataclass(frozen=True)
class Shares:
    """Of all rows."""

    text: float
    conversations: float
    """Where the teacher is an agent."""
    mix: Mapping[str, float]
    """Of the data set's streams among the rows of text."""


def is_agent(checkpoint: Checkpoint) -> bool:
    """Whether it talks with tools, and what its conversations were made with is known."""
    return all((checkpoint.path / name).is_file() for name in (SETTINGS, CONVERSATIONS))


def beside_records(
    data: Dataset, teacher: Checkpoint | None, records: int, shares: Shares, length: int, seed: int
) -> TextRows | None:
    """Rows of `length` tokens beside `records` rows; None where there are to be none.

    Raises `InputError` where the agent's tools or documents are not there any more.
    """
    agent = teacher if teacher is not None and is_agent(teacher) else None
    talk = 0.0 if agent is None else shares.conversations
    whole = records / (1 - shares.text - talk)
    parts = []
    if shares.text:
        parts.append(from_dataset(data, shares.mix, max(1, round(whole * shares.text)), seed))
    if agent is not None and talk:
        parts += _conversations(agent, data, length, max(1, round(whole * talk)), seed)
    return _joined(parts) if parts else None


def _conversations(agent: Checkpoint, data: Dataset, length: int, count: int, seed: int) -> list[TextRows]:
    """`count` rows, or as many as there are; nothing where no conversation fits a row."""
    with open_course(agent, data, (), _EACH) as course:
        spoken = {domain: every for domain, every in course.lessons.items() if domain not in ITEMS}
    encoded = [one for every in encode_domains(agent, spoken).values() for one in every]
    fitting = [one for one in encoded if len(one.tokens) <= length + 1]
    if not fitting:
        return []
    tokenizer = agent.tokenizer()
    order = np.random.default_rng([seed, _ORDER]).permutation(len(fitting))
    chosen: list[Encoded] = [fitting[i] for i in order]
    packed = pack_conversations(chosen, length, int(tokenizer.eos_token_id), str(agent.path))
    return [TextRows(packed.tokens_NT[:count], packed.weight_NT[:count], tokenizer_digest(tokenizer))]


def _joined(parts: Sequence[TextRows]) -> TextRows:
    """Rows below one another."""
    tokens_NT = np.concatenate([part.tokens_NT for part in parts])
    return TextRows(tokens_NT, np.concatenate([part.weight_NT for part in parts]), parts[0].tokenizer)
