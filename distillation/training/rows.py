"""Records as rows of tokens: packed, weighted, and shifted so that exactly what predicts a completion is learnt.

    rows = pack_records(records, tokenizer, 256, out, text=from_dataset(data, {"text": 1.0}, 100, seed))

As in `phases.data.pack` a record never crosses rows, several short ones share a row, and a row's rest is padding.
Weights are those of *predicting* tokens[:, 1:]: the first weighted position of a record is the last token of its
prompt, and the last one predicts end-of-text. A record's tokens share its weight evenly: short and long answers have
the same say. Weights are scaled so that a row has 1 on average, which is what a row of text has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    tokenizer: str
    """Digest of the vocabulary."""


@dataclass(frozen=True)
class _Wording:
    """A prompt, and what is written after it, in pieces each with its say in the loss."""

    record: int
    prompt: str
    pieces: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _Example:
    """A wording in tokens, and the weight of each; weight 0 is read only."""

    record: int
    index: int
    tokens: list[int]
    weight: list[float]


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
    return TextRows(rows.tokens_BT.numpy(), rows.weight_BT.numpy(), tokenizer_digest(data.tokenizer))


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
    Raises `DataError` for a record without completion and when none fits, `ConfigError` for text that does not fit in.
    """
    width, digest = block_tokens + 1, tokenizer_digest(tokenizer)
    say = partial(_wordings, tokenizer=tokenizer, rationale=rationale, share=rationale_weight)
    examples = _encode([wording for index, record in enumerate(records) for wording in say(index, record)], tokenizer)
    fitting = [one for one in examples if len(one.tokens) <= width]
    if not fitting and text is None:
        shortest = min((len(one.tokens) for one in examples), default=0)
        raise DataError(
            f"no record fits a row of {block_tokens} tokens (the shortest has {shortest}): raise block_tokens"
        )
    arrays = _place(fitting, width, tokenizer)
    own = len(arrays["tokens"])
    if text is not None:
        arrays = _join(arrays, text, digest)
    counts = {
        "rows": len(arrays["tokens"]),
        "text_rows": len(arrays["tokens"]) - own,
        "records": len(records),
        "left_out": len({one.record for one in examples} - {one.record for one in fitting}),
        "predicted_tokens": int((arrays["weight"] > 0).sum()),
    }
    made = {"block_tokens": block_tokens, "vocabulary": len(tokenizer), "tokenizer": digest}
    return write_rows(out, arrays, made | counts)


def _wordings(index: int, record: Record, tokenizer: Any, rationale: Rationale, share: float) -> list[_Wording]:
    """One example, or two where the rationale stands apart."""
    if not record.completion:
        raise DataError(f"{record.source or f'record {index}'}: no completion; ask a teacher, or leave it out")
    lead, end = "" if tokenizer.chat_template else " ", tokenizer.eos_token
    prompt = render_messages(tokenizer, record.messages)
    steps, completion = _taken_apart(record) if rationale != "off" else ("", record.completion)
    if not steps:
        return [_Wording(index, prompt, ((f"{lead}{record.completion}{end}", record.weight),))]
    answer, of_steps = record.weight / (1 + share), record.weight * share / (1 + share)
    if rationale == "before":
        # Cut before the space, so that tokens are those of the whole.
        return [_Wording(index, prompt, ((lead + steps, of_steps), (f" {MARK}{completion}{end}", answer)))]
    last = record.messages[-1]
    asked = render_messages(tokenizer, [*record.messages[:-1], Message(last.role, last.content + SHOW_STEPS)])
    return [
        _Wording(index, prompt, ((f"{lead}{completion}{end}", answer),)),
        _Wording(index, asked, ((f"{lead}{steps}{end}", of_steps),)),
    ]


def _taken_apart(record: Record) -> tuple[str, str]:
    """(worked steps, answer alone): from the record's rationale, or from a completion of both, as GSM8K has them."""
    before, mark, answer = (part.strip() for part in record.completion.rpartition(MARK.strip()))
    if not mark or not answer or "\n" in answer:  # a heading in a longer text is no answer
        return record.rationale, record.completion
    return record.rationale or before, answer


def _encode(wordings: Sequence[_Wording], tokenizer: Any) -> list[_Example]:
    flat = [text for wording in wordings for text in (wording.prompt, *(piece for piece, _ in wording.pieces))]
    encoded = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"] if flat else [])
    examples = []
    for index, wording in enumerate(wordings):
        tokens = list(next(encoded))
        weight = [0.0] * len(tokens)
        for _, say in wording.pieces:
            ids = next(encoded)
            tokens += ids
            weight += [say / len(ids)] * len(ids)
        examples.append(_Example(wording.record, index, tokens, weight))
    return examples


def _place(examples: Sequence[_Example], width: int, tokenizer: Any) -> dict[str, npt.NDArray[Any]]:
    """Examples in their order, whole ones to a row."""
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
    example_NT = np.full((len(rows), width), -1, dtype=np.int32)
    for i, row in enumerate(rows):
        used = sum(len(one.tokens) for one in row)
        tokens_NT[i, :used] = [token for one in row for token in one.tokens]
        weight_NT[i, :used] = [weight for one in row for weight in one.weight]
        example_NT[i, :used] = [one.index if weight else -1 for one in row for weight in one.weight]
    # The very first token of a row is predicted from nothing: it is always a prompt's, of weight 0.
    assert not weight_NT[:, :1].any(), "a prompt without tokens"
    total = weight_NT.sum()
    scaled = (weight_NT[:, 1:] * (len(rows) / total if total else 1.0)).astype(np.float32)
    return {"tokens": tokens_NT, "weight": scaled, "example": example_NT[:, 1:]}


def _join(arrays: Mapping[str, npt.NDArray[Any]], text: TextRows, digest: str) -> dict[str, npt.NDArray[Any]]:
    """Rows of text below those of records."""
    have, want = text.tokens_NT.shape[1] - 1, arrays["tokens"].shape[1] - 1
    if have != want:
        raise ConfigError(f"rows of {want} tokens cannot join text in rows of {have}: set block_tokens={have}")
    if text.tokenizer != digest:
        raise ConfigError("the text rows were made with another tokenizer than the records': prepare data with theirs")
    below = {
        "tokens": text.tokens_NT.astype(arrays["tokens"].dtype),
        "weight": text.weight_NT,
        "example": np.full(text.weight_NT.shape, -1, dtype=np.int32),
    }
    return {name: np.concatenate([array, below[name]]) for name, array in arrays.items()}
