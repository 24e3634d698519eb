"""A teacher behind an OpenAI-compatible endpoint: many requests at a time, at the provider's pace, whatever goes wrong.

    teacher = EndpointTeacher.open(EndpointTeacherConfig(base_url="http://127.0.0.1:8080/v1", model="qwen"))
    for index, answer in teacher.answer(asks): ...

A request is tried again when that may help (`request.py` says when): after a wait that grows and is drawn, or as long
as the service asks for in `Retry-After`. A service that keeps failing is left alone for a while; one that stays down,
or refuses the key, costs no further requests: every question that is left gets a `Failure` at once.
"""

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, Field

from distillation.teachers.chat_format import plain_extra, request_body
from distillation.teachers.licences import licence_of_address
from distillation.teachers.pacing import Admission, Breaker, TokenBucket, backoff_seconds
from distillation.teachers.prices import OwnPrice, Price, find_price
from distillation.teachers.request import Service, Setback, certificates
from distillation.teachers.teacher import Answer, Ask, Failure, most_prompt_tokens
from phases.agent.search import Address
from phases.errors import ConfigError
from phases.storage import sha256_json
from phases.strict import StrictModel

LOOK_SECONDS = 0.05
"""How often a request that waits for another's probe looks whether it is over."""
Outcome = tuple[int, Answer | Failure]


class EndpointTeacherConfig(StrictModel):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"] = "endpoint"
    """A model behind an OpenAI-compatible endpoint."""
    base_url: Address
    """Address of the API, as in https://api.openai.com/v1 or http://127.0.0.1:8080/v1."""
    model: str = Field(min_length=1)
    """Its name there."""
    name: str = ""
    """As reports have it; empty: the model's name."""
    key_variable: str = ""
    """Name of the environment variable that holds the key; empty: the service wants none."""
    licence: str = ""
    """The provider's terms or the model's licence, as `licences.py` names it; empty: the terms of the address."""
    licence_confirmed: bool = False
    """You have read the terms, and a student may learn from these answers. It stands in the report."""
    price: OwnPrice | None = None
    """What it costs; empty: as the price list has it for this address and model."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests at the same time."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The provider's limit."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """The provider's limit; a request counts as its prompt and the most that may be written, until it is answered."""
    attempts: int = Field(default=5, ge=1)
    """Of a question, the first included."""
    backoff_seconds: float = Field(default=1.0, gt=0)
    """Longest wait before the second attempt; it doubles each time."""
    longest_wait_seconds: float = Field(default=60.0, gt=0)
    """No drawn wait is longer."""
    request_seconds: float = Field(default=120.0, gt=0)
    """How long an attempt may take."""
    total_seconds: float = Field(default=900.0, gt=0)
    """How long a question may take, with all attempts and waits."""
    breaker_failures: int = Field(default=8, ge=1)
    """Failures in a row after which the service is left alone for a while."""
    breaker_pause_seconds: float = Field(default=30.0, gt=0)
    """For how long, before one request looks whether it is back."""
    breaker_probes: int = Field(default=5, ge=1)
    """Such looks in vain after which it counts as down, and nothing more is asked."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the service calls the most tokens of an answer."""
    omit: tuple[Literal["temperature", "seed"], ...] = ()
    """What the service refuses to be told."""
    extra: Annotated[dict[str, Any], AfterValidator(plain_extra)] = Field(default_factory=dict)
    """Further fields of every request; answers depend on them."""
    seed: int = Field(default=0, ge=0)
    """Of the drawn waits."""


@dataclass
class _Line:
    """What the requests of one run share."""

    service: Service
    breaker: Breaker
    buckets: list[tuple[TokenBucket, bool]]
    """Each with whether it counts tokens, else requests."""
    not_before: float = 0.0
    """The service has asked everybody to wait until then."""
    refused: Setback | None = None
    """What every further request would get too."""
    results: "asyncio.Queue[tuple[Outcome, asyncio.Event] | Exception | None]" = field(default_factory=asyncio.Queue)
    """Each with what tells its worker that the reader is done with it."""


class EndpointTeacher:
    """Asks an endpoint; of one thread, and of no running event loop."""

    def __init__(self, config: EndpointTeacherConfig, key: str, price: Price | None) -> None:
        self.config, self.price, self._key = config, price, key
        self.name = config.name or config.model
        self.licence = config.licence or licence_of_address(config.base_url)
        varies = {"extra": config.extra, "omit": sorted(config.omit)} if config.extra or config.omit else None
        self.identity = f"{config.base_url.rstrip('/')} {config.model}" + (f" {sha256_json(varies)}" if varies else "")

    @classmethod
    def open(cls, config: EndpointTeacherConfig) -> "EndpointTeacher":
        """With the key of the environment and the price of the config or of the list.

        Raises ConfigError where the key is missing.
        """
        key = os.environ.get(config.key_variable, "").strip() if config.key_variable else ""
        if config.key_variable and not (key and key.isascii() and key.isprintable()):
            raise ConfigError(f"teacher {config.model}: no key; set the environment variable {config.key_variable}")
        price = config.price.price(config.model) if config.price else find_price(config.model, address=config.base_url)
        return cls(config, key, price)

    def most_usd(self, ask: Ask) -> float | None:
        """At list price, with every byte of the prompt a token, and as many tokens written as may be."""
        return None if self.price is None else self.price.usd(most_prompt_tokens(ask), 0, ask.max_tokens)

    def answer(self, asks: Iterable[Ask]) -> Iterator[Outcome]:
        """Answers as they come. `asks` is drawn from when a place is free; what it raises comes out here."""
        with asyncio.Runner() as runner:
            answers = self._answers(asks)
            try:
                while (one := runner.run(_next(answers))) is not None:
                    yield one
            finally:
                runner.run(answers.aclose())

    async def _answers(self, asks: Iterable[Ask]) -> AsyncGenerator[Outcome, None]:
        config, source = self.config, enumerate(asks)
        limit = httpx.Limits(max_connections=config.concurrency)
        async with httpx.AsyncClient(limits=limit, verify=certificates()) as client:
            url = config.base_url.rstrip("/") + "/chat/completions"
            service = Service(client, url, self._key, config.request_seconds, self.price)
            limits = [(config.requests_per_minute, False), (config.tokens_per_minute, True)]
            buckets = [(TokenBucket(limit), is_tokens) for limit, is_tokens in limits if limit is not None]
            breaker = Breaker(config.breaker_failures, config.breaker_pause_seconds, config.breaker_probes)
            line = _Line(service, breaker, buckets)
            crew = [asyncio.create_task(self._work(source, line)) for _ in range(config.concurrency)]
            try:
                busy = len(crew)
                while busy:
                    result = await line.results.get()
                    if isinstance(result, Exception):
                        raise result
                    if result is None:
                        busy -= 1
                    else:
                        yield result[0]
                        result[1].set()
            finally:
                for worker in crew:
                    worker.cancel()
                await asyncio.gather(*crew, return_exceptions=True)

    async def _work(self, source: Iterator[tuple[int, Ask]], line: _Line) -> None:
        try:
            for index, ask in source:
                outcome, is_kept = await self._ask(index, ask, line), asyncio.Event()
                line.results.put_nowait(((index, outcome), is_kept))
                await is_kept.wait()  # a slow reader has no more answers in memory than there are places
        except Exception as error:  # of whoever gives the questions; it belongs to the reader of the answers
            line.results.put_nowait(error)
        else:
            line.results.put_nowait(None)

    async def _ask(self, index: int, ask: Ask, line: _Line) -> Answer | Failure:
        """One question, with all its attempts."""
        config, wasted = self.config, 0
        draw = random.Random(hashlib.sha256(f"{config.seed} {index}".encode()).digest())
        deadline = time.monotonic() + config.total_seconds
        body = request_body(ask, config.model, config.limit_field, config.omit, config.extra)
        for attempt in range(config.attempts):
            admission = await self._turn(ask, line, deadline)
            if isinstance(admission, Failure):
                return replace(admission, wasted=wasted)
            outcome = await self._attempt(body, ask, line, admission)
            if isinstance(outcome, Answer):
                return replace(outcome, wasted=wasted)
            wasted += outcome.charged
            if outcome.every:
                line.refused = outcome
            if outcome.lasting:
                return Failure(outcome.reason, lasting=True, wasted=wasted)
            wait = backoff_seconds(attempt, config.backoff_seconds, config.longest_wait_seconds, draw)
            if outcome.wait_seconds is not None:
                wait = max(wait, outcome.wait_seconds)
                line.not_before = max(line.not_before, time.monotonic() + outcome.wait_seconds)
            if attempt + 1 == config.attempts or time.monotonic() + wait > deadline:
                return Failure(f"{outcome.reason}; given up after {attempt + 1} attempts", False, wasted)
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns")

    async def _turn(self, ask: Ask, line: _Line, deadline: float) -> Admission | Failure:
        """Waits until a request may go: for the breaker, the rate limits, and what the service has asked for."""
        now = time.monotonic()
        most = most_prompt_tokens(ask) + ask.max_tokens
        waits = [bucket.reserve(most if counts_tokens else 1, now) for bucket, counts_tokens in line.buckets]
        ready = now + max(waits, default=0.0)
        while True:
            now = time.monotonic()
            if line.refused is not None:
                return Failure(line.refused.reason, lasting=True)
            if now > deadline:
                return Failure(f"no turn within {self.config.total_seconds:g} s", lasting=False)
            if now >= max(ready, line.not_before):
                admission = line.breaker.admit(now)
                if admission == "down":
                    return Failure("the endpoint is down: nothing was asked", lasting=False)
                if admission != "wait":
                    return admission
            await asyncio.sleep(max(LOOK_SECONDS, min(max(ready, line.not_before) - now, 1.0)))

    async def _attempt(self, body: dict[str, Any], ask: Ask, line: _Line, admission: Admission) -> Answer | Setback:
        try:
            outcome = await line.service.post(body)
        except BaseException:
            line.breaker.left(admission)
            raise
        if isinstance(outcome, Setback) and outcome.down:
            line.breaker.failed(time.monotonic(), admission)
        else:
            line.breaker.worked()
        if isinstance(outcome, Answer) and outcome.prompt_tokens is not None and outcome.completion_tokens is not None:
            used = outcome.prompt_tokens + outcome.completion_tokens
            for bucket, tokens in line.buckets:
                bucket.give_back(max(0, most_prompt_tokens(ask) + ask.max_tokens - used) if tokens else 0)
        return outcome


async def _next(answers: AsyncGenerator[Outcome, None]) -> Outcome | None:
    return await anext(answers, None)
