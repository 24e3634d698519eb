"""Which tool is due, which domain a question is of, and so which expert answers it: learnt from the library.

    classifier = Classifier(library)
    classifier.tool("compute 3*4"), classifier.domain("compute 3*4")       # ("python", "python")

Multinomial naive Bayes (Maron 1961; smoothing of Laplace) over the features of `phases.agent.library` and pairs of
neighbours among them (`my boat is called` tells what `what is my boat called` asks for, in the same words), fitted in
milliseconds. What was never seen says nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch

from phases.agent.design import Dispatch
from phases.agent.library import Example, Library, Nearest, features
from phases.agent.template import encode_chat

TELLING = 12
"""Keywords of a domain."""
SHOTS = 4
"""Examples most like a question on which experts are compared."""


class NaiveBayes:
    """P(label | words)."""

    def __init__(self, pairs: Iterable[tuple[str, Sequence[str]]]) -> None:
        """`pairs`: labels and the words under them."""
        texts: Counter[str] = Counter()
        self.counts: dict[str, Counter[str]] = {}
        for label, said in pairs:
            texts[label] += 1
            self.counts.setdefault(label, Counter()).update(said)
        self.labels = sorted(texts)
        self.prior = {label: math.log(texts[label] / texts.total()) for label in self.labels}
        self.known = {word for count in self.counts.values() for word in count}

    def log_chance(self, label: str, word: str) -> float:
        """ln P(word | label), every word counted once more than it was seen."""
        count = self.counts[label]
        return math.log((count[word] + 1) / (count.total() + len(self.known)))

    def best(self, said: Sequence[str]) -> str:
        """The likeliest label, of equals the first by name; "" when none is known."""
        scores = {
            label: self.prior[label] + math.fsum(self.log_chance(label, word) for word in said if word in self.known)
            for label in self.labels
        }
        return max(self.labels, key=scores.__getitem__, default="")

    def telling(self, label: str, count: int) -> list[str]:
        """The words that speak most for a label: the largest P(word | label) / P(word | any other), most telling first.

        Words that are more frequent under another label are left out.
        """
        odds = {}
        for word in self.counts.get(label, ()):
            others = [self.log_chance(other, word) for other in self.labels if other != label]
            odds[word] = self.log_chance(label, word) - max(others, default=-math.inf)
        return sorted((word for word in odds if odds[word] > 0), key=lambda word: (-odds[word], word))[:count]


def with_pairs(text: str) -> list[str]:
    """The features of a text and each two neighbours, its ends included."""
    said = features(text)
    ends = ["^", *said, "$"]
    return [*said, *(f"{left} {right}" for left, right in pairwise(ends))]


class Classifier:
    """What questions ask for."""

    def __init__(self, library: Library) -> None:
        examples = library.examples
        asked = [(one.domain, text) for one in examples for text in one.questions]
        self.domains = NaiveBayes((domain, with_pairs(text)) for domain, text in asked)
        self.tools = NaiveBayes((tool, with_pairs(text)) for one in examples for text, tool in one.turns())
        words = NaiveBayes((domain, features(text)) for domain, text in asked)
        self.keywords = {domain: words.telling(domain, TELLING) for domain in words.labels}

    def domain(self, text: str) -> str:
        """The domain of a question; "" without a library."""
        return self.domains.best(with_pairs(text))

    def tool(self, text: str) -> str:
        """The tool that is due first; "" where none is."""
        return self.tools.best(with_pairs(text))

    def by_keywords(self, text: str) -> str:
        """The domain with the most keywords in a question, of equals the first by name; "" where there are none."""
        said = set(features(text))
        found = {domain: len(said.intersection(words)) for domain, words in self.keywords.items()}
        best = max(found, key=found.__getitem__, default="")
        return best if best and found[best] else ""


class Dispatcher:
    """Says which expert is to answer."""

    def __init__(
        self, dispatch: Dispatch, library: Library, experts: Sequence[str], loss: Callable[[str, Example], float]
    ) -> None:
        """`loss`: of an expert on an example, nats a token. It is asked once for each pair while this lives."""
        self.dispatch, self.experts, self.loss = dispatch, sorted(experts), loss
        self.classifier, self.nearest = Classifier(library), Nearest(library)
        self._known: dict[tuple[str, int], float] = {}

    def experts_for(self, questions: Sequence[str]) -> list[str | None]:
        """The expert for each question; None where none is found, so that the mixture answers."""
        if self.dispatch == "none" or not self.experts:
            return [None] * len(questions)
        if self.dispatch == "few_shot":
            return self._by_examples(questions)
        by = self.classifier.by_keywords if self.dispatch == "keywords" else self.classifier.domain
        return [found if found in self.experts else None for found in map(by, questions)]

    def _by_examples(self, questions: Sequence[str]) -> list[str | None]:
        nearest = [self.nearest.places(question, SHOTS) for question in questions]
        # An expert after the other: each of them may have to be made first.
        for expert in self.experts:
            for place in sorted({place for places in nearest for place in places}):
                self._loss(expert, place)
        return [
            min(self.experts, key=lambda expert: math.fsum(self._loss(expert, place) for place in places), default=None)
            if places
            else None
            for places in nearest
        ]

    def _loss(self, expert: str, place: int) -> float:
        if (expert, place) not in self._known:
            self._known[expert, place] = self.loss(expert, self.nearest.examples[place])
        return self._known[expert, place]


@torch.inference_mode()
def reply_loss(model: Any, tokenizer: Any, example: Example) -> float:
    """Mean −ln P of the tokens that the assistant says in an example, of those that fit into the model's context."""
    tokens, ours = encode_chat(tokenizer, example.messages)
    most = int(getattr(model.config, "max_position_embeddings", None) or len(tokens))
    ids = torch.tensor([tokens[:most]], device=model.device)
    wanted = torch.tensor(ours[1:most], device=model.device)
    if not wanted.any():
        return math.inf
    logits_TV = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits_TV[wanted], ids[0, 1:][wanted]))
