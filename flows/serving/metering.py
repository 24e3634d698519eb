"""One answer as it is written: what it costs, its text so far, and where it ends early.

    meter = Meter(job.put, job.cancelled.is_set, stops=("\\n",), live=True)
    with meter.watching(model, tokenizer) as watch: …           # every token that the model reads passes by

Watched is the model itself, before each of its steps: whatever way of writing a design has (beams, votes, drawing), it
stops within a token when the client has gone. The text itself is followed only where one text is written at a time.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from phases.agent.acting import Acting
from phases.agent.conversation import Written
from phases.agent.writing import BatchWriter, Request


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Enough(Exception):
    """A stop string was written."""


@dataclass
class Meter:
    """What one request writes."""

    put: Callable[[str], None]
    """Takes pieces of the text as soon as they are certain."""
    cancelled: Callable[[], bool]
    stops: tuple[str, ...] = ()
    calls: bool = True
    """Whether any may be begun."""
    alone: bool = True
    """Whether a token that is read always belongs to the text: not with beams, nor with contrastive search."""
    live: bool = False
    """Whether what is written is the answer whatever comes: no calls, no votes, nothing that is said anew."""
    stripped: bool = True
    """Whether spaces around the answer are left out, as a conversation does."""
    prompt_tokens: int = 0
    """Of what was read first; what tools said later is not counted."""
    completion_tokens: int = 0
    """Of all that was written: calls, and answers that were not taken, as well."""
    sent: int = 0
    """Characters that were put."""

    def begin(self) -> None:
        """The request is one that can be answered: a stream of it may begin."""
        self.put("")

    @contextlib.contextmanager
    def watching(self, model: Any, tokenizer: Any, marker: str = "", alone: bool = True) -> Iterator["Watch"]:
        """Look at each step of a model. Within it `Cancelled` may be raised, and `Enough` after a stop string.

        `marker`: after it comes a call, in which a stop string is none.
        """
        watch = Watch(self, tokenizer, marker, alone and self.alone)
        hook = model.base_model.register_forward_pre_hook(watch, with_kwargs=True)
        try:
            yield watch
        finally:
            hook.remove()

    def see(self, text: str) -> None:
        """Hand on what is new and certain of the text so far."""
        if self.live:
            certain = settled(text, self.stops, self.stripped)
            if len(certain) > self.sent:
                self.put(certain[self.sent :])
                self.sent = len(certain)

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first stop string, and whether there is one."""
        places = [text.index(stop) for stop in self.stops if stop in text]
        return (text[: min(places)], True) if places else (text, False)


class Watch:
    """A hook before each step of a model."""

    def __init__(self, meter: Meter, tokenizer: Any, marker: str, alone: bool) -> None:
        self.meter, self.tokenizer, self.marker = meter, tokenizer, marker
        self.follows = alone and bool(meter.live or meter.stops)
        self.tokens: list[int] = []
        """Those of the text so far that have been read again, which the last one never is."""

    def __call__(self, module: Any, arguments: Any, named: Any) -> None:
        """A step begins."""
        if self.meter.cancelled():
            raise Cancelled
        if not named["past_key_values"].get_seq_length():
            self.tokens = []
            self.meter.prompt_tokens = self.meter.prompt_tokens or int(named["attention_mask"][0].sum())
        elif self.follows:
            self.tokens.append(int(named["input_ids"][0, -1]))
            text = self.text
            if self.meter.cut(text)[1] and not (self.marker and self.marker in text):
                raise Enough
            self.meter.see(text)

    @property
    def text(self) -> str:
        """What the tokens say."""
        return str(self.tokenizer.decode(self.tokens, skip_special_tokens=True))


class MeteredWriter(BatchWriter):
    """A writer that is watched."""

    def __init__(self, writer: BatchWriter, meter: Meter) -> None:
        vars(self).update(vars(writer))
        self.meter = meter

    def write(self, requests: Sequence[Request], seed: Sequence[int], draw: float | None = None) -> list[Written]:
        """What each of the requests asks for, at most up to a stop string."""
        if not self.meter.calls:
            requests = [dataclasses.replace(request, calls=False) for request in requests]
        with self.meter.watching(self.model, self.tokenizer, self.form.marker, len(requests) == 1) as watch:
            try:
                written = super().write(requests, seed, draw)
            except Enough:
                self.meter.completion_tokens += len(watch.tokens)
                return [Written(self.meter.cut(watch.text)[0], True)]
        self.meter.completion_tokens += sum(len(one.logprobs) for one in written)
        return written


class MeteredActing(Acting):
    """An agent whose writers are watched."""

    def __init__(self, meter: Meter, *arguments: Any, **named: Any) -> None:
        self.meter = meter
        super().__init__(*arguments, **named)

    def writer(self, expert: str | None = None) -> BatchWriter:
        """The writer of an expert, or of none."""
        if expert not in self._writers:
            self._writers[expert] = MeteredWriter(super().writer(expert), self.meter)
        return self._writers[expert]


def settled(text: str, stops: Sequence[str], stripped: bool) -> str:
    """What of a text stays as it is, whatever comes: without half a character, half a stop string, and last spaces."""
    text = text.rstrip("\ufffd")  # the rest of a character is still to come
    begun = (n for stop in stops for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n]))
    text = text[: len(text) - max(begun, default=0)]
    return text.strip() if stripped else text
