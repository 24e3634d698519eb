"""A teacher on this machine: any Hugging Face causal language model in a folder, ours or anybody's, asked in batches.

    teacher = LocalTeacher(LocalTeacherConfig(checkpoint=Path("runs/first/agent"), licence="own"))
    for index, answer in teacher.answer(asks): ...

What is drawn for a question follows from that question alone, its seed included, and not from who shares the batch
(`Sampler` in `phases.decoding` says what rounding leaves of that). The machine's time is what it costs: without a price
an hour the cost is not known.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import TemplateError
from pydantic import Field

from distillation.teachers.store import ask_key
from distillation.teachers.teacher import Answer, Ask, Failure, most_prompt_tokens
from distillation.training.rows import render_messages
from phases.checkpoint import open_checkpoint
from phases.decoding import Sampler, decode, encode, likeliest, stop_ids
from phases.strict import StrictModel
from phases.training.processes import device

WINDOW = 4
"""Batches that are looked at together, so that prompts of similar length share one."""
TIMED_TOKENS = 8
"""Written once, alone, to say beforehand what an answer may cost."""


class LocalTeacherConfig(StrictModel):
    """A model on this machine."""

    kind: Literal["local"] = "local"
    """A model on this machine."""
    checkpoint: Path
    """Folder of a Hugging Face causal language model, with its tokenizer."""
    name: str = ""
    """As reports have it; empty: the folder's name."""
    licence: str = Field(min_length=1)
    """The model's licence, as `licences.py` names it; `own` for one of yours."""
    licence_confirmed: bool = False
    """You have read the licence, and a student may learn from these answers. It stands in the report."""
    usd_per_hour: float | None = Field(default=None, ge=0)
    """What an hour of this machine costs; empty: not known."""
    batch: int = Field(default=64, ge=1)
    """Prompts that are written for side by side."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: on the GPU if there is one; `cpu`: for a model that does not fit there."""


@dataclass(frozen=True)
class _Prompt:
    """A question as the model reads it."""

    index: int
    ask: Ask
    tokens: list[int]
    limit: int
    """Tokens that may be written: what was asked for, or what the model's context has left."""


class LocalTeacher:
    """Asks a model, which is in memory from the first question until `forget`."""

    def __init__(self, config: LocalTeacherConfig) -> None:
        """Verifies the checkpoint. Raises CheckpointError for a folder that has none."""
        self.checkpoint = open_checkpoint(config.checkpoint)
        self.config, self.licence = config, config.licence
        self.name = config.name or config.checkpoint.resolve().name
        self.identity = f"local {self.checkpoint.digest}"
        self._seconds_per_token: float | None = None

    @cached_property
    def model(self) -> Any:
        """The model. Raises CheckpointError when it cannot be opened."""
        return self.checkpoint.model().to(device() if self.config.device == "auto" else "cpu")

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.checkpoint.tokenizer()

    def forget(self) -> None:
        """Give the model's memory back; a further question opens it again."""
        self.__dict__.pop("model", None)
        torch.cuda.empty_cache()  # else it stays this process's

    def most_usd(self, ask: Ask) -> float | None:
        """As if it had the machine to itself, by tokens that were timed here; a batch shares the time."""
        if self.config.usd_per_hour is None:
            return None
        if self._seconds_per_token is None:
            self._seconds_per_token = self._time()
        return self._usd(self._seconds_per_token * (most_prompt_tokens(ask) + ask.max_tokens))

    def answer(self, asks: Iterable[Ask]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answers batch by batch; what cannot be asked comes first."""
        source = enumerate(asks)
        while window := list(islice(source, WINDOW * self.config.batch)):
            read = [self._read(index, ask) for index, ask in window]
            yield from (
                (index, prompt) for (index, _), prompt in zip(window, read, strict=True) if isinstance(prompt, Failure)
            )
            prompts = sorted((p for p in read if isinstance(p, _Prompt)), key=lambda p: (len(p.tokens), p.index))
            for start in range(0, len(prompts), self.config.batch):
                yield from self._write(prompts[start : start + self.config.batch])

    def _read(self, index: int, ask: Ask) -> _Prompt | Failure:
        try:
            tokens = encode(self.tokenizer, render_messages(self.tokenizer, ask.messages))
        except TemplateError as error:
            return Failure(f"the model's chat template refuses the conversation ({error})", lasting=True)
        context = int(getattr(self.model.config, "max_position_embeddings", None) or 2**31)
        if len(tokens) >= context or not tokens:
            return Failure(f"the prompt has {len(tokens)} tokens, and the model reads 1 to {context - 1}", lasting=True)
        return _Prompt(index, ask, tokens, min(ask.max_tokens, context - len(tokens)))

    def _write(self, prompts: Sequence[_Prompt]) -> Iterator[tuple[int, Answer]]:
        began = time.monotonic()
        choose = OwnDraws([prompt.ask for prompt in prompts])
        tokens, limits = [prompt.tokens for prompt in prompts], [prompt.limit for prompt in prompts]
        stop = stop_ids(self.model, self.tokenizer)
        written = decode(self.model, tokens, limits, stop, choose, self.config.batch)
        seconds = (time.monotonic() - began) / len(prompts)
        for prompt, new in zip(prompts, written, strict=True):
            finish = "stop" if new and new[-1] in stop else "length"
            text = str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()
            usd = None if self.config.usd_per_hour is None else self._usd(seconds)
            yield prompt.index, Answer(text, len(prompt.tokens), len(new), seconds=seconds, usd=usd, finish=finish)

    def _usd(self, seconds: float) -> float:
        assert self.config.usd_per_hour is not None
        return seconds * self.config.usd_per_hour / 3600

    def _time(self) -> float:
        """Seconds of a token, written alone."""
        prompt = [min(stop_ids(self.model, self.tokenizer), default=0)]
        decode(self.model, [prompt], [1], set(), likeliest)  # whatever is compiled on first use is so now
        began = time.monotonic()
        decode(self.model, [prompt], [TIMED_TOKENS], set(), likeliest)
        return (time.monotonic() - began) / TIMED_TOKENS


class OwnDraws:
    """Chooses tokens: the likeliest at temperature 0, else a draw from a generator that the ask alone seeds."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.drawn = [i for i, ask in enumerate(asks) if ask.temperature > 0]
        self.place = {i: place for place, i in enumerate(self.drawn)}
        self.sampler = Sampler([asks[i].temperature for i in self.drawn], [0])
        self.sampler.generators = [np.random.default_rng(ask_seed(asks[i])) for i in self.drawn]

    def __call__(self, logits_BV: torch.Tensor, index: Sequence[int]) -> torch.Tensor:
        """(B,) token ids."""
        chosen_B = likeliest(logits_BV, index)
        rows = [row for row, i in enumerate(index) if i in self.place]
        if rows:
            chosen_B[rows] = self.sampler(logits_BV[rows], [self.place[index[row]] for row in rows])
        return chosen_B


def ask_seed(ask: Ask) -> int:
    """What the draws for an ask follow from."""
    return int.from_bytes(hashlib.sha256(ask_key("", ask).encode()).digest()[:8], "big")
