"""How a student learns from its teachers: one strict union, and what all strategies share.

    strategy: {kind: logits, alpha: 0.5}            # what a run does unless told otherwise
    training: {steps: 300, batch_rows: 8}

| kind | learns from | teacher in memory while it trains |
|---|---|---|
| response | the teachers' texts (sequence-level, arXiv 1606.07947) | no |
| logits | one teacher's distributions (arXiv 1503.02531), from the disk | no; yes for jsd, reverse, hidden |
| rationale | worked steps beside the answers (arXiv 2305.02301) | no |
| multi_teacher | several teachers' distributions, pooled or each record by its own | no |
| on_policy | what the teacher thinks of the student's own texts (arXiv 2306.13649) | yes |
| incremental | the same as logits, from the last champion on | no |
| cross_tokenizer | sorted probabilities of a teacher with another vocabulary (arXiv 2402.12030) | no |
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillation.cache.config import CacheConfig
from phases.strict import StrictModel


class Trusting(StrictModel):
    """What strategies share that learn from stored distributions and from right answers at once."""

    trust: float = Field(0.3, ge=0, le=1)
    """How far the teacher is trusted where a completion's answer is known to be right: `alpha` times this is its share
    there, since the text says more than it does. On running text, and on answers that nobody can check, it has all of
    `alpha`. Of stored distributions; `jsd`, `reverse` and `hidden` know of no trust."""
    cache: CacheConfig = CacheConfig()
    """What is stored of each teacher; its `tau` is the temperature of all losses."""

    @model_validator(mode="after")
    def _trusts_no_ghost(self) -> Self:
        if self.trust < 1 and self.cache.method == "ghost":
            raise ValueError(
                "a teacher with a ghost is trusted fully or not at all: set trust: 1, or cache.method: sampled"
            )
        return self


class Response(StrictModel):
    """The teachers' texts alone; all that an endpoint, which shows no probabilities, can give."""

    kind: Literal["response"] = "response"
    """The teachers' texts alone."""


class Logits(Trusting):
    """One teacher's distributions at every predicted token."""

    kind: Literal["logits"] = "logits"
    """One teacher's distributions."""
    alpha: float = Field(0.5, ge=0, le=1)
    """The teacher's share of the loss; the rest is cross-entropy on the text."""
    loss: Literal["forward", "jsd", "reverse"] = "forward"
    """Divergence: forward KL comes from the cache; the others need the teacher in memory."""
    beta: float = Field(0.5, ge=0, le=1)
    """Of `jsd`: 0 is forward KL, 1 reverse KL."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps that learn by forward KL before `jsd` or `reverse` does."""
    hidden: float = Field(0.0, ge=0)
    """Weight of the hidden states' error through a learnt projection; above 0 the teacher is in memory."""

    @property
    def live(self) -> bool:
        """Whether the teacher has to be in memory."""
        return self.loss != "forward" or self.hidden > 0

    @model_validator(mode="after")
    def _warm_before_reverse(self) -> Self:
        if self.loss == "reverse" and not self.warmup:
            raise ValueError(
                "reverse KL on given texts from the first step makes a student put its mass where the teacher is not "
                "(held-out KL 6.2 against 3.9 nats): set warmup above 0, or kind: on_policy"
            )
        return self


class Rationale(StrictModel):
    """Worked steps beside answers. Records without steps are learnt as they are."""

    kind: Literal["rationale"] = "rationale"
    """Worked steps beside answers."""
    form: Literal["before", "apart"] = "apart"
    """Steps before the answer, as it is then written; or asked for apart, so that answers stay short."""
    weight: float = Field(0.5, gt=0)
    """Of the steps against the answer."""
    alpha: float = Field(0.0, ge=0, le=1)
    """The teacher's share of the loss; above 0 its distributions are stored."""
    cache: CacheConfig = CacheConfig()
    """What is stored of the teacher."""


class MultiTeacher(Trusting):
    """Several teachers of one vocabulary."""

    kind: Literal["multi_teacher"] = "multi_teacher"
    """Several teachers."""
    combine: Literal["route", "pool"] = "route"
    """Each record by the teacher that answered it, or all by a mixture of all teachers' distributions."""
    sharpness: float = Field(2.0, ge=0)
    """Of `pool`: a teacher's weight is its held-out quality to this power; 0: all alike."""
    alpha: float = Field(0.5, ge=0, le=1)
    """The teachers' share of the loss."""


class OnPolicy(StrictModel):
    """The teacher judges what the student writes; it stays in memory, beside the student."""

    kind: Literal["on_policy"] = "on_policy"
    """What the teacher thinks of the student's own texts."""
    share: float = Field(0.5, gt=0, le=1)
    """λ: rows of a step that the student writes; the others are records."""
    beta: float = Field(0.5, ge=0, le=1)
    """0 is forward KL, 1 reverse KL, between them the Jensen-Shannon divergence."""
    alpha: float = Field(0.5, ge=0, le=1)
    """The teacher's share of the loss on records; the student's own texts have no other."""
    tau: float = Field(1.0, gt=0)
    """Temperature of both distributions."""
    temperature: float = Field(1.0, gt=0)
    """At which the student writes."""
    max_tokens: int = Field(64, ge=1)
    """Of a text that the student writes."""
    start: float = Field(0.3, ge=0, lt=1)
    """Share of the steps before the student's first own text: until then there is nothing in them to judge."""


class Incremental(Trusting):
    """Learns on from the last champion, so that a night adds to what the nights before it made."""

    kind: Literal["incremental"] = "incremental"
    """On from the last champion."""
    champion: str = ""
    """The checkpoint to go on from; a project's nights put their champion here, and begin like `logits` without one."""
    alpha: float = Field(0.5, ge=0, le=1)
    """The teacher's share of the loss."""
    rate: float = Field(0.5, gt=0, le=1)
    """Factor on the learning rates: what it knows should stay."""


class CrossTokenizer(StrictModel):
    """A teacher whose tokens are others than the student's."""

    kind: Literal["cross_tokenizer"] = "cross_tokenizer"
    """A teacher whose tokens are others."""
    weight: float = Field(1.5, gt=0)
    """λ: of the distance between sorted probabilities, beside cross-entropy on the text."""
    cache: CacheConfig = CacheConfig(method="ghost")
    """What is stored of the teacher: its likeliest tokens, since draws have no order."""


Strategy = Response | Logits | Rationale | MultiTeacher | OnPolicy | Incremental | CrossTokenizer
StrategyConfig = Annotated[Strategy, Field(discriminator="kind")]
