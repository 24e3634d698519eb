"""Is the persona there without its prompt: divergence from the prompted model, a classifier, the traits that show.

The classifier (bag of words and word pairs, logistic regression) learns to tell the prompted model's answers from those
of the same model prompted with the opposite persona, and from the unprompted parent's, on questions of the training
split; what it says of answers to held-out questions is what counts. It knows no phrases, so any persona will do.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from evaluation.metric import Values
from evaluation.tool_use import DRAWN, Bench
from phases.agent.calls import Message
from phases.agent.persona import MANNERS, Persona, persona_prompt, shown
from phases.agent.template import encode_chat
from phases.agent.writing import NO_PROMPT, Prompt
from phases.baking.scenario import Scenario
from phases.baking.trajectories import converse


def opposite(persona: Persona) -> Persona:
    """Every trait as strong as it is weak."""
    return persona.model_copy(update={"traits": {name: 1 - value for name, value in persona.traits.items()}})


def replies(bench: Bench, model: Any, tokenizer: Any, scenarios: Sequence[Scenario], prompt: Prompt) -> list[str]:
    """What a model answers to the first thing that is said, drawn."""
    asked = [one.model_copy(update={"turns": one.turns[:1]}) for one in scenarios]
    writer = bench.writer(model, tokenizer, prompt, calls=False, **DRAWN)
    done, _ = converse(writer.take_turns, asked, bench.context)
    return [turns[0].text for turns in done]


class PersonaClassifier:
    """P(an answer is in the persona)."""

    def __init__(self, ours: Sequence[str], others: Sequence[str]) -> None:
        # Imported here: scikit-learn takes a second that no other measure needs.
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        self.model = make_pipeline(
            CountVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+"), LogisticRegression(max_iter=1000)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its solver, about matters of speed
            self.model.fit([*ours, *others], [1] * len(ours) + [0] * len(others))

    def __call__(self, texts: Sequence[str]) -> Values:
        """(N,) probability that each answer is in the persona."""
        return np.asarray(self.model.predict_proba(list(texts))[:, 1])


def traits_shown(texts: Sequence[str], persona: Persona) -> dict[str, Values]:
    """Per trait that has phrases: which answers show it."""
    return {name: np.array([shown(text, name) for text in texts]) for name in persona.traits if name in MANNERS}


@torch.no_grad()
def divergence(
    teacher: Any, student: Any, tokenizer: Any, conversations: Sequence[Sequence[Message]], prompt: Prompt
) -> Values:
    """(N,) mean KL(teacher with the prompt ‖ student without) over the assistant's tokens of each talk, nats."""
    values = []
    for messages in conversations:
        logits = []
        for model, before in ((teacher, prompt), (student, NO_PROMPT)):
            ids, ours = encode_chat(tokenizer, messages, before.tools, before.system)
            at = torch.tensor([t - 1 for t, mine in enumerate(ours) if mine])
            logits.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, at].float().log_softmax(-1))
        values.append(float(F.kl_div(logits[1], logits[0], reduction="none", log_target=True).sum(-1).mean()))
    return np.array(values)


def prompt_of(persona: Persona) -> Prompt:
    """The system prompt of a persona."""
    return Prompt(system=persona_prompt(persona))
