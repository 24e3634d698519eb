"""How an agent works: what is decoded how, how it reasons, calls tools, remembers, looks things up; its experts.

    design = Design(voting=Voting(samples=5))
    Acting(body, tokenizer, tools, settings.model_copy(update={"design": design}))

The default does nothing special: greedy decoding of one answer by the whole model. `agent.json` holds a design, and
chat, evaluation and serving obey it. Designs are found by phase 7, which puts them together from techniques.
"""

from typing import Literal

from pydantic import Field

from phases.strict import StrictModel


class Decoding(StrictModel):
    """How the next token is chosen."""

    temperature: float = Field(0.0, ge=0)
    """0: the likeliest token; else tokens are drawn."""
    top_k: int | None = Field(None, ge=1)
    """Draw from so many likeliest tokens."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the likeliest tokens that hold this probability together (arXiv 1904.09751)."""
    min_p: float | None = Field(None, gt=0, le=1)
    """Draw from tokens at least this share as likely as the likeliest (arXiv 2407.01082)."""
    typical_p: float | None = Field(None, gt=0, le=1)
    """Draw from the tokens of most typical surprise that hold this probability together (arXiv 2202.00666)."""
    epsilon: float | None = Field(None, gt=0, lt=1)
    """Never draw a token that is less likely (arXiv 2210.15191)."""
    eta: float | None = Field(None, gt=0, lt=1)
    """As epsilon, but lower where the entropy is high (arXiv 2210.15191)."""
    top_n_sigma: float | None = Field(None, gt=0)
    """Draw from tokens whose logit is within so many standard deviations of the largest (arXiv 2411.07641)."""
    entropy_temperature: bool = False
    """Lower the temperature where the model is sure, by the entropy (arXiv 2403.14541)."""
    beams: int = Field(1, ge=1)
    """Texts that are written at the same time, the likeliest of which is taken; 1: none but the one."""
    beam_diversity: float = Field(0.0, ge=0)
    """What a beam pays for a token that another beam has just written (arXiv 1610.02424)."""
    length_penalty: float = 1.0
    """Exponent of the length by which a finished beam's log-likelihood is divided."""
    contrastive: float | None = Field(None, gt=0, lt=1)
    """Contrastive search (arXiv 2202.06417): weight of unlikeness to what was read, over the `top_k` likeliest."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Logits of tokens that were written are divided by it (multiplied where negative; arXiv 1909.05858)."""
    no_repeat_ngram: int = Field(0, ge=0)
    """So many tokens in a row are never written twice (arXiv 1705.04304); 0: they may be."""
    presence_penalty: float = 0.0
    """Taken off the logit of a token that was written."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token for every time that it was written."""
    layer_contrast: Literal["none", "low", "high"] = "none"
    """Subtract what an early layer predicts, one of the lower or of the upper half (DoLa, arXiv 2309.03883)."""
    depth: float = Field(1.0, gt=0, le=1)
    """Share of the layers after which the prediction is read off (early exit, arXiv 2404.16710)."""
    skip: float | None = Field(None, ge=0, le=1)
    """Leave out the layer at this share of the depth (layer skipping, arXiv 2309.08168)."""


class Thoughts(StrictModel):
    """Quiet-STaR's thoughts while writing (arXiv 2403.09629); a model without them has none."""

    tokens: int = Field(0, ge=0)
    """Length of a thought before every token; 0: none."""
    samples: int = Field(1, ge=1)
    """Thoughts a token, whose predictions are averaged."""
    temperature: float = Field(1.0, gt=0)
    """Of drawing them."""
    pause: bool = False
    """Start delimiters only: time to think, without words (arXiv 2310.02226)."""


Form = Literal["as_said", "keywords", "quoted"]
Dispatch = Literal["none", "keywords", "classifier", "few_shot"]
Select = Literal["vote", "likelihood", "mean_likelihood", "agreement", "executed"]


class Voting(StrictModel):
    """Several answers, of which one is taken."""

    samples: int = Field(1, ge=1)
    """Answers that are written."""
    select: Select = "vote"
    """The most frequent answer (self-consistency, arXiv 2203.11171); the likeliest, in all or a token; the one most
    like the others (minimum Bayes risk, arXiv 2211.07634); the likeliest whose calls ran (arXiv 2302.08468)."""
    temperature: float = Field(0.7, gt=0)
    """Of drawing them."""
    adaptive: bool = False
    """Stop as soon as no further answer could change the majority (arXiv 2305.11860)."""
    branch: bool = False
    """Instead of drawing, begin with each of the likeliest first tokens and go on greedily (arXiv 2402.10200)."""


class Prompting(StrictModel):
    """What the model gets to read besides the conversation."""

    reread: bool = False
    """The question twice (arXiv 2309.06275)."""
    steps: bool = False
    """`Let's think step by step.` (arXiv 2205.11916)"""
    decompose: bool = False
    """A question of several sentences is asked sentence by sentence (arXiv 2205.10625)."""
    examples: int = Field(0, ge=0)
    """Solved examples before the conversation (arXiv 2005.14165)."""
    nearest: bool = False
    """Those most like the question instead of always the same (arXiv 2101.06804)."""
    show_tools: bool = False
    """The tools' signatures (ReAct, arXiv 2210.03629)."""
    reflect: Literal["never", "doubt", "always"] = "never"
    """Read one's answer again and say it anew (arXiv 2303.17651): always, or where its tokens' mean probability is
    below one half."""


class Calling(StrictModel):
    """How tools are called, and what is made of results."""

    constrained: bool | None = None
    """Well-formed calls only; empty: as the agent's settings say."""
    copied: Literal["none", "strings", "numbers", "all"] = "none"
    """Arguments must stand in the conversation: whole strings, the numbers in them, or both."""
    reply: Literal["free", "numbers", "result"] = "free"
    """After a result: any reply, one whose numbers stand in the conversation, or the result itself."""
    calls: int | None = Field(None, ge=0)
    """Calls a turn; empty: as the agent's settings say."""
    result_chars: int | None = Field(None, ge=16)
    """Characters of a result that are read; empty: as the agent's settings say."""
    retries: int = Field(0, ge=0)
    """Draw a call that failed anew, so often."""
    fallback: bool = False
    """Where nothing was found, ask the other tool that looks things up."""
    route: Literal["none", "force", "forbid"] = "none"
    """A classifier of questions, learnt from the training conversations: begin the call of the tool that is due, or
    allow none where none is due."""


class Remembering(StrictModel):
    """Memory besides the tools."""

    recall_first: int = Field(0, ge=0)
    """So many facts that come to mind are read before answering, where the question is about one's own."""
    keep: bool = False
    """What the user says of theirs (`my … is …`) is kept without being asked to."""
    context_tokens: int | None = Field(None, ge=64)
    """Tokens of the conversation that are read; empty: as the agent's settings say."""
    summary: bool = True
    """What falls out is summarised; off: it is gone."""


class Retrieving(StrictModel):
    """Looking things up besides the tools."""

    first: int = Field(0, ge=0)
    """So many passages are read before answering a question with a quoted part (RAG, arXiv 2005.11401)."""
    query: Form = "as_said"
    """What a look-up asks for, the tools' included: the words as they are, without stop words, or the quoted part."""


class Mixture(StrictModel):
    """Which expert vectors are added to the weights, and how strongly."""

    kind: Literal["singular", "task"] = "singular"
    """Scales of singular values (arXiv 2501.06252), or task vectors (arXiv 2212.04089)."""
    recipe: Literal["none", "uniform", "found", "ties"] = "none"
    """Weights: none; 1/K each; those that the cross-entropy method found; 1/K each with signs elected (TIES,
    arXiv 2306.01708)."""
    weights: dict[str, float] = Field({})
    """Weights by expert instead of the recipe's."""
    scale: float = 1.0
    """Factor of all weights."""
    dispatch: Dispatch = "none"
    """One expert for each conversation instead: by words of its domain, by the classifier of questions, or by how well
    it predicts solved examples like the question."""
    spared: tuple[str, ...] = ()
    """Experts that are not chosen: what would be theirs is left to the weights without any."""


class Design(StrictModel):
    """How an agent works."""

    decoding: Decoding = Decoding()
    thoughts: Thoughts = Thoughts()
    voting: Voting = Voting()
    prompting: Prompting = Prompting()
    calling: Calling = Calling()
    remembering: Remembering = Remembering()
    retrieving: Retrieving = Retrieving()
    mixture: Mixture = Mixture()
