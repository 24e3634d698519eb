"""Records as rows of tokens: packed, weighted, and shifted so that exactly what a record's completion predicts is learnt.

    rows = pack_records(records, tokenizer, 256, out, text=from_dataset(data, {"text": 1.0}, 100, seed))

As in `phases.data.pack` a record never crosses rows, several short ones share a row, and a row's rest is padding.
Weights are those of *predicting* tokens[:, 1:]: the first weighted position of a record is the last token of its
prompt, and the last one predicts end-of-text. A record's tokens share its weight evenly: short and long answers have
the same say. Weights are scaled so that a row has 1 on average, which is what a row of text has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distillation.record import Message, Record
from distillation.training.row_file import RowFile, tokenizer_digest, write_rows
from phases.data.pack import token_type
from phases.dataset import Dataset
from phases.errors import ConfigError, DataError
from phases.tasks.item import MARK, render_prompt
from phases.training.batches import Mixture

_OWN_ORDER = 3_000_000_019
"""Text rows are drawn in an order of their own: earlier phases have seen the beginnings of theirs."""
SHOW_STEPS = "\nShow the steps."
"""What asks for a rationale apart from the answer."""
Rationale = Literal["off", "before", "apart"]
"""Left out; before the answer, as task items have worked steps; or an example of its own (arXiv 2305.02301)."""


@dataclass(frozen=True)
class TextRows:
    """Rows of running text that join those of records."""

    tokens_NT: npt.NDArray[Any]
    weight_NT: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Example:
    """Tokens, and the weight of each; weight 0 is read only."""

    tokens: list[int]
    weight: list[float]
    record: int


def render_messages(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text that precedes a completion; one question exactly as task items and teachers have it."""
    if len(messages) == 1 and messages[0].role == "user":
        return render_prompt(tokenizer, messages[0].content)
    if tokenizer.chat_template:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    leads = {"system": "", "user": "Question: ", "assistant": "Answer: "}
    return "\n".join([leads[message.role] + message.content for message in messages] + ["Answer:"])


def from_dataset(data: Dataset, streams: Mapping[str, float], count: int, seed: int) -> TextRows:
    """`count` training rows of a data set's streams in given shares; of task items only answers count."""
    rows = Mixture(data, streams, seed + _OWN_ORDER, 0.0).rows(0, count)
    return TextRows(rows.tokens_BT.numpy(), rows.weight_BT.numpy())


def pack_records(
    records: Sequence[Record],
    tokenizer: Any,
    block_tokens: int,
    out: Path,
    *,
    rationale: Rationale = "off",
    rationale_weight: float = 0.5,
    text: TextRows | None = None,
) -> RowFile:
    """Write completed records, and rows of text where there are any; what is longer than a row is left out and counted.

    With rationales a record's say is split: (answer + `rationale_weight` · rationale) / (1 + `rationale_weight`).
    Raises `DataError` for a record without completion and when none fits, `ConfigError` for text of another length.
    """
    width = block_tokens + 1
    if text is not None and text.tokens_NT.shape[1] != width:
        raise ConfigError(
            f"rows of {block_tokens} tokens cannot join text in rows of {text.tokens_NT.shape[1] - 1}: "
            f"set block_tokens={text.tokens_NT.shape[1] - 1}, or leave the text out"
        )
    examples = _examples(records, tokenizer, rationale, rationale_weight)
    fitting = [one for one in examples if len(one.tokens) <= width]
    if not fitting and text is None:
        shortest = min((len(one.tokens) for one in examples), default=0)
        raise DataError(
            f"no record fits a row of {block_tokens} tokens (the shortest has {shortest}): raise block_tokens"
        )
    tokens_NT, weight_NT, record_NT = _place(fitting, width, tokenizer)
    own = len(tokens_NT)
    if text is not None:
        tokens_NT = np.concatenate([tokens_NT, text.tokens_NT.astype(tokens_NT.dtype)])
        weight_NT = np.concatenate([weight_NT, text.weight_NT])
        marked = np.where(text.weight_NT > 0, -2 - np.arange(len(text.weight_NT))[:, None], -1)
        record_NT = np.concatenate([record_NT, marked.astype(np.int32)])
    counts = {
        "rows": len(tokens_NT),
        "text_rows": len(tokens_NT) - own,
        "records": len(records),
        "left_out": len({one.record for one in examples} - {one.record for one in fitting}),
        "predicted_tokens": int((weight_NT > 0).sum()),
    }
    arrays = {"tokens.npy": tokens_NT, "weight.npy": weight_NT, "record.npy": record_NT}
    made = {"block_tokens": block_tokens, "vocabulary": len(tokenizer), "tokenizer": tokenizer_digest(tokenizer)}
    return write_rows(out, arrays, made | counts)


def _examples(records: Sequence[Record], tokenizer: Any, rationale: Rationale, share: float) -> list[_Example]:
    """What is written after which prompt, in tokens; a record gives one example, or two with its rationale apart."""
    texts: list[tuple[int, str, list[tuple[str, float]]]] = []
    lead, end = "" if tokenizer.chat_template else " ", tokenizer.eos_token
    for index, record in enumerate(records):
        if not record.completion:
            raise DataError(f"{record.source or f'record {index}'}: no completion; ask a teacher, or leave it out")
        prompt, answer = render_messages(tokenizer, record.messages), f"{record.completion}{end}"
        steps, say = record.rationale if rationale != "off" else "", record.weight
        if not steps:
            texts.append((index, prompt, [(lead + answer, say)]))
        elif rationale == "before":
            texts.append(
                (index, prompt, [(lead + steps, say * share / (1 + share)), (f" {MARK}{answer}", say / (1 + share))])
            )
        else:
            last = record.messages[-1]
            asked = [*record.messages[:-1], Message(last.role, last.content + SHOW_STEPS)]
            texts.append((index, prompt, [(lead + answer, say / (1 + share))]))
            texts.append(
                (index, render_messages(tokenizer, asked), [(f"{lead}{steps}{end}", say * share / (1 + share))])
            )
    flat = [piece for _, prompt, parts in texts for piece in (prompt, *(part for part, _ in parts))]
    encoded = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"]) if flat else iter(())
    examples = []
    for index, _, parts in texts:
        tokens = list(next(encoded))
        weight = [0.0] * len(tokens)
        for _, say in parts:
            ids = next(encoded)
            tokens += ids
            weight += [say / len(ids)] * len(ids)
        examples.append(_Example(tokens, weight, index))
    return examples


def _place(examples: Sequence[_Example], width: int, tokenizer: Any) -> tuple[npt.NDArray[Any], ...]:
    """(N, T+1) tokens, (N, T) weights, (N, T) record indices: examples in their order, whole ones to a row."""
    rows: list[list[_Example]] = []
    used = width
    for one in examples:
        if used + len(one.tokens) > width:
            rows.append([])
            used = 0
        rows[-1].append(one)
        used += len(one.tokens)
    tokens_NT = np.full((len(rows), width), tokenizer.eos_token_id, dtype=token_type(len(tokenizer)))
    weight_NT = np.zeros((len(rows), width), dtype=np.float64)
    record_NT = np.full((len(rows), width), -1, dtype=np.int32)
    for i, row in enumerate(rows):
        used = sum(len(one.tokens) for one in row)
        tokens_NT[i, :used] = [token for one in row for token in one.tokens]
        weight_NT[i, :used] = [weight for one in row for weight in one.weight]
        record_NT[i, :used] = [one.record if weight else -1 for one in row for weight in one.weight]
    # The very first token of a row is predicted from nothing: it is always a prompt's, of weight 0.
    assert not weight_NT[:, :1].any(), "a prompt without tokens"
    total = weight_NT.sum()
    scaled = (weight_NT[:, 1:] * (len(rows) / total if total else 1.0)).astype(np.float32)
    return tokens_NT, scaled, record_NT[:, 1:]
