"""What techniques change in a real model: its decoding, its thoughts and its experts, through `Acting`.

One random model of eight layers, with a mixing head and experts of one gradient step each, takes turns by every
technique. What it wrote is replayed on the plain transformers model, and compared with what the technique says.
"""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from phases.adas.pool import FAMILIES, POOL
from phases.adas.technique import Technique
from phases.adas.vectors import ExpertIndex, Kind, record_found, weights_digest, write_index, write_vectors
from phases.agent.acting import Acting
from phases.agent.conversation import TurnLimits
from phases.agent.design import Design
from phases.agent.library import Example, Library
from phases.agent.minds import Minds
from phases.agent.settings import AgentSettings
from phases.agent.template import CHAT_TEMPLATE, encode_chat
from phases.agent.tool import ToolContext
from phases.bitnet.tensors import ternary_names
from phases.checkpoint import Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.quiet_star.delimiters import add_delimiters
from phases.quiet_star.mixing import MixingHead
from phases.quiet_star.storage import ThinkingFile, thinking_files
from phases.quiet_star.thinker import Thinker

LAYERS, WEIGHT = 8, 0.5
"""Of the model, and of a thought in its predictions."""
ASKED = [f"{a}{b}" for a in "abcdef" for b in "qwerty"]
DOMAINS = {
    "cows": ("the cow", "a cow eats", "cow or calf", "my cow"),
    "ships": ("a ship", "the ship sails", "old ship", "ship ho"),
    "trees": ("one tree", "tree", "no tree", "tree top", "tree house"),
}
LIBRARY = Library(examples=tuple(
    Example(domain=name, messages=({"role": "user", "content": text}, {"role": "assistant", "content": name[0] * 5}))
    for name, texts in DOMAINS.items() for text in texts
))  # fmt: skip
FOUND: Mapping[Kind, Mapping[str, float]] = {
    "singular": {"cows": 0.4, "ships": -0.2, "trees": 0.1},
    "task": {"cows": -0.3, "ships": 0.5, "trees": 0.2},
}
Tokens = tuple[int, ...]
Change = Mapping[str, torch.Tensor]


@dataclass
class Played:
    """What became of some conversations."""

    texts: list[Tokens]
    """What was written, an end of text included."""
    passes: list[tuple[int, ...]] = field(default_factory=list)
    """Layers that ran in each pass of the body, one after the other."""
    newest: list[list[int]] = field(default_factory=list)
    """The last token of every row of each pass."""
    thoughts: list[torch.Tensor] = field(default_factory=list)
    """(B, S, n) before every token."""
    layers: dict[int, Any] = field(default_factory=dict)
    """Those that read last."""

    @property
    def weights(self) -> Change:
        """Of these layers, by name."""
        return {f"model.layers.{i}.{name}": w for i, one in self.layers.items() for name, w in one.named_parameters()}


class Agent:
    """A model that can think and has experts, and what it does by a design."""

    def __init__(self, minds: Minds, vectors: Mapping[str, Mapping[str, Change]]) -> None:
        self.minds, self.vectors = minds, vectors
        self.plain = minds.checkpoint.model()
        self.play = cache(self._play)
        self.logits = cache(self._logits)
        self.names = ternary_names(self.plain)
        self.end = int(minds.tokenizer.eos_token_id)
        self._played = Played([])
        assert minds.experts is not None
        for model in (minds.model(Design()), minds.experts.base):
            for number, layer in enumerate(model.model.layers):
                # Copies of the layers, which other weights are put into, keep both.
                layer.self_attn.q_proj.number = number
                layer.register_forward_pre_hook(lambda layer, _: self._note(layer))

    @property
    def delimiters(self) -> tuple[int, int]:
        return self.minds._thinker.start, self.minds._thinker.end

    def prompt(self, question: str) -> Tokens:
        text = self.minds.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        return tuple(self.minds.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _note(self, layer: Any) -> None:
        number = int(layer.self_attn.q_proj.number)  # its `layer_idx` is its place among those that run
        if not self._played.passes or self._played.passes[-1][-1] >= number:
            self._played.passes.append(())
        self._played.passes[-1] = (*self._played.passes[-1], number)
        self._played.layers[number] = layer

    def _play(self, name: str, asked: tuple[str, ...], tokens: int) -> Played:
        """By a technique, or none."""
        design = Design.model_validate(POOL[name].patch if name else {})
        settings = AgentSettings(tools=(), limits=TurnLimits(new_tokens=tokens), design=design)
        acting = Acting(self.minds, (), settings, library=LIBRARY, seed=[5])
        played = self._played = Played([])
        hooks = []
        if design.mixture.dispatch == "none":
            body = acting.writer().model.base_model
            hooks = [body.register_forward_hook(self._after, with_kwargs=True)]
        turns = acting.take_turns([[{"role": "user", "content": one}] for one in asked], ToolContext())
        for hook in hooks:
            hook.remove()
        for turn in turns:
            ids = self.minds.tokenizer(turn.text, add_special_tokens=False)["input_ids"]
            played.texts.append((*ids, *([self.end] if turn.ended == "said" else [])))
        return played

    def _after(self, body: Any, _: Any, inputs: Mapping[str, Any], __: Any) -> None:
        ids_BT = inputs["input_ids"]
        if "threads" not in inputs:  # which are of thoughts
            self._played.newest.append(ids_BT[:, -1].tolist())
        if thought := getattr(body, "newest", None):
            self._played.thoughts.append(thought.tokens_BSPN[:, :, 0])

    @torch.no_grad()
    def _logits(self, prompt: Tokens, text: Tokens) -> torch.Tensor:
        """(T, V) logits of the plain model at the places of the text."""
        return self.masked(self.plain(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1])

    def masked(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., self.plain.generation_config.suppress_tokens] = -math.inf
        return logits

    def steps(self, played: Played, asked: Sequence[str] = ASKED) -> list[tuple[Tokens, Tokens, torch.Tensor]]:
        """(prompt, text, logits) of every text."""
        pairs = [(self.prompt(one), text) for one, text in zip(asked, played.texts, strict=True)]
        return [(prompt, text, self.logits(prompt, text)) for prompt, text in pairs]


def solved(agent_tokenizer: Any, domain: str) -> list[tuple[list[int], list[bool]]]:
    return [encode_chat(agent_tokenizer, one.messages) for one in LIBRARY.examples if one.domain == domain]


def losses(model: Any, tokenizer: Any, domain: str) -> torch.Tensor:
    """Of what the assistant says in the examples of a domain, by transformers."""
    total = []
    for tokens, ours in solved(tokenizer, domain):
        labels = torch.tensor([[token if mine else -100 for token, mine in zip(tokens, ours, strict=True)]])
        total.append(model(torch.tensor([tokens]), labels=labels).loss)
    return torch.stack(total).mean()


def learnt(model: Any, tokenizer: Any) -> dict[str, dict[str, Change]]:
    """An expert a domain and kind: a step down the gradient, of z (z − 1 = −η σ uᵀGv) or of the weights."""
    vectors: dict[str, dict[str, Change]] = {"singular": {}, "task": {}}
    for domain in DOMAINS:
        model.zero_grad()
        torch.autograd.backward(losses(model, tokenizer, domain))
        task, singular = {}, {}
        for name in ternary_names(model):
            weight, gradient = model.get_parameter(name).detach(), model.get_parameter(name).grad
            u, sigma, vt = torch.linalg.svd(weight.double(), full_matrices=False)
            along = sigma * torch.einsum("or,oi,ri->r", u, gradient.double(), vt)
            task[name] = (-0.05 * gradient).half()
            singular[name] = (1 - 0.02 * along).float()
        vectors["task"][domain], vectors["singular"][domain] = task, singular
    model.zero_grad(set_to_none=True)
    return vectors


@pytest.fixture(scope="module")
def agent(make_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Agent:
    tokenizer = train_tokenizer(["a"], 260)
    tokenizer.chat_template = CHAT_TEMPLATE
    options = {"num_hidden_layers": LAYERS, "tie_word_embeddings": False, "initializer_range": 0.2}
    model = make_model("llama", 32, vocab_size=260, max_position_embeddings=512, **options)
    model.lm_head.weight.data *= 1.6
    start, end = add_delimiters(model, tokenizer, "a")
    letters = tokenizer("".join(map(chr, range(65, 123))), add_special_tokens=False)["input_ids"]
    written = {*letters, tokenizer.eos_token_id}  # so that tokens can be told from texts
    model.generation_config.suppress_tokens = [i for i in range(model.config.vocab_size) if i not in written]
    thinker = Thinker(model, MixingHead(32, WEIGHT), start, end)
    files = thinking_files(thinker, ThinkingFile(start=start, end=end, tokens=2))
    root = tmp_path_factory.mktemp("pool")
    checkpoint = save_checkpoint(root / "agent", model, tokenizer, Manifest("adas"), *files)
    plain = checkpoint.model()
    vectors = learnt(plain, tokenizer)
    (root / "experts").mkdir()
    for kind in ("singular", "task"):
        write_vectors(root / "experts", kind, vectors[kind])
    base = weights_digest({name: plain.get_parameter(name) for name in ternary_names(plain)})
    write_index(root / "experts", ExpertIndex(names=tuple(DOMAINS), kinds=("singular", "task"), base=base))
    for kind, weights in FOUND.items():
        record_found(root / "experts", kind, weights)
    return Agent(Minds(checkpoint, root / "experts"), vectors)


def surprise(agent: Agent, name: str, reference: Sequence[Any]) -> tuple[float, int]:
    """How far the surprise (nats) of what was drawn is from what a reference expects, and how often it has no chance.

    In standard errors: given what was written before, each token's surprise has a mean and a variance by the reference.
    """
    excess, variance, outside = 0.0, 0.0, 0
    for _, text, logits in agent.steps(agent.play(name, *SIZES["sampling"])):
        scores = logits.double()
        for warped in reference:
            scores = warped(None, scores)
        chance, surprise = scores.softmax(-1), -logits.double().log_softmax(-1)
        drawn = torch.tensor(text)[:, None]
        outside += int((chance.gather(1, drawn) == 0).sum())
        surprise = surprise.masked_fill(logits == -math.inf, 0)
        mean = (chance * surprise).sum(-1)
        excess += float((surprise.gather(1, drawn)[:, 0] - mean).sum())
        variance += float(((chance * surprise**2).sum(-1) - mean**2).sum())
    return excess / math.sqrt(variance), outside


def within_a_sigma(_: Any, scores: torch.Tensor) -> torch.Tensor:
    spread = torch.stack([row[row.isfinite()].std() for row in scores])[:, None]
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - spread, -math.inf)


def colder_where_sure(_: Any, scores: torch.Tensor) -> torch.Tensor:
    """arXiv 2403.14541: T₀ · N^(θ / entropy), N = .8 and θ = 1."""
    entropy: torch.Tensor = torch.special.entr(scores.softmax(-1)).sum(-1, keepdim=True)
    return scores / (0.7 * 0.8 ** (1 / entropy))


SHARP = TemperatureLogitsWarper(0.7)
REFERENCES: Mapping[str, list[Any]] = {
    "temperature 0.3": [TemperatureLogitsWarper(0.3)],
    "temperature 0.7": [SHARP],
    "temperature 1": [TemperatureLogitsWarper(1.0)],
    "top 5": [SHARP, TopKLogitsWarper(5)],
    "top 20": [SHARP, TopKLogitsWarper(20)],
    "top-p 0.9": [SHARP, TopPLogitsWarper(0.9)],
    "min-p 0.05": [SHARP, MinPLogitsWarper(0.05)],
    "min-p 0.1": [SHARP, MinPLogitsWarper(0.1)],
    "typical 0.9": [SHARP, TypicalLogitsWarper(0.9)],
    "epsilon 0.01": [SHARP, EpsilonLogitsWarper(0.01)],
    "eta 0.01": [SHARP, EtaLogitsWarper(0.01)],
    "top 1 sigma": [SHARP, within_a_sigma],
    "entropy temperature": [colder_where_sure],
}


def sampling(agent: Agent, name: str, played: Played) -> None:
    """What is drawn fits the reference; greedy texts, and those of other temperatures or of no cut, do not."""
    reference = REFERENCES[name]
    away, outside = surprise(agent, name, reference)
    assert abs(away) < 4 and outside == 0
    temperatures = [one for one in REFERENCES if one.startswith("temperature")]
    for other in ["", *(temperatures if name in temperatures else ["temperature 0.7"])]:
        away, outside = surprise(agent, other, reference)
        assert other == name or abs(away) > 4 or outside > 0, (other, away)


BEAMS = {
    "beams 2": (2, 1.0),
    "beams 4": (4, 1.0),
    "beams 8": (8, 1.0),
    "short beams": (4, 0.0),
    "diverse beams": (4, 1.0),
}


def beams(agent: Agent, name: str, played: Played) -> None:
    """As many rows a prompt; the texts that beam search of transformers finds, or beams that differ more than there."""
    count, penalty = BEAMS[name]
    asked, limit = SIZES["beams"]
    assert max(map(len, played.newest)) == count * len(asked)
    scores = {
        one: [
            float(logits.double().log_softmax(-1)[range(len(text)), list(text)].sum()) / len(text) ** penalty
            for _, text, logits in agent.steps(agent.play(one, *SIZES["beams"]), asked)
        ]
        for one in (name, "")
    }
    assert sum(scores[name]) > sum(scores[""])
    if name == "diverse beams":
        return apart(agent, name, asked)
    for question, text in zip(asked, played.texts, strict=True):
        ids = torch.tensor([agent.prompt(question)])
        settings = {"max_new_tokens": limit, "num_beams": count, "length_penalty": penalty, "do_sample": False,
                    "renormalize_logits": True}  # fmt: skip
        theirs = agent.plain.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)
        found = theirs[0, ids.shape[1] :].tolist()
        assert tuple(found[: len(text)]) == text and (len(found) == len(text) or text[-1] == agent.end)


def apart(agent: Agent, name: str, asked: Sequence[str]) -> None:
    """Each beam goes on alone, with the likeliest token less half a nat for each beam before that has just taken it."""
    steps = 0
    for question in asked:
        newest = agent.play(name, (question,), SIZES["beams"][1]).newest[1:]
        whole = list(itertools.takewhile(lambda ids: len(ids) == 4, newest))  # up to where one is at its end
        four: list[Tokens] = list(zip(*whole, strict=True))
        assert len(set(four)) > 1 or not whole  # without a price all would be the greedy one
        chances = [agent.logits(agent.prompt(question), text).log_softmax(-1) for text in four]
        for place, (beam, text) in itertools.product(range(len(whole)), enumerate(four)):
            scores = chances[beam][place].clone()
            scores[agent.end] = -math.inf  # with which a beam does not go on
            for other in four[:beam]:
                scores[other[place]] -= 0.5
            assert scores[text[place]] > scores.max() - 1e-3
            steps += beam > 0
    assert steps > 60


@torch.no_grad()
def contrast(agent: Agent, name: str, played: Played) -> None:
    """Each token is, of the four likeliest, the best by (1 − α) p − α max cos (arXiv 2202.06417)."""
    weight, (asked, _) = {"contrastive search": 0.6, "gentle contrastive search": 0.2}[name], SIZES["contrast"]
    assert max(map(len, played.newest)) == 4 * len(asked)
    for prompt, text, logits in agent.steps(played, asked):
        for place, token in enumerate(text):
            chance, tried = logits[place].softmax(-1).topk(4)
            ids = torch.tensor([[*prompt, *text[:place], int(one)] for one in tried])
            states = agent.plain.model(ids).last_hidden_state
            alike = cosine_similarity(states[:, :-1], states[:, -1:], dim=-1).amax(-1)
            value = (1 - weight) * chance - weight * alike
            assert token in tried.tolist() and value[tried.tolist().index(token)] > value.max() - 1e-3


Score = Callable[[torch.Tensor, Tokens], torch.Tensor]


def misses(agent: Agent, name: str, group: str, score: Score) -> int:
    """How many of the tokens that were written do not have the largest score, by far more than rounding."""
    asked, missed = SIZES[group][0], 0
    for _, text, logits in agent.steps(agent.play(name, *SIZES[group]), asked):
        for place, token in enumerate(text):
            scores = score(logits[place], text[:place])
            missed += bool(scores[token] < scores.max() - 1e-3)
    return missed


def repeated(logits: torch.Tensor, written: Tokens) -> torch.Tensor:
    if not written:
        return logits
    scores: torch.Tensor = RepetitionPenaltyLogitsProcessor(1.1)(torch.tensor([written]), logits[None].clone())[0]
    return scores


def no_three(logits: torch.Tensor, written: Tokens) -> torch.Tensor:
    gone = [c for a, b, c in zip(written, written[1:], written[2:], strict=False) if (a, b) == written[-2:]]
    return logits.index_fill(0, torch.tensor(gone, dtype=torch.long), -math.inf)


def present(logits: torch.Tensor, written: Tokens) -> torch.Tensor:
    return logits - 0.5 * (torch.bincount(torch.tensor(written, dtype=torch.long), minlength=len(logits)) > 0)


def frequent(logits: torch.Tensor, written: Tokens) -> torch.Tensor:
    return logits - 0.5 * torch.bincount(torch.tensor(written, dtype=torch.long), minlength=len(logits))


PENALISED: Mapping[str, Score] = {"repetition 1.1": repeated, "no 3 again": no_three, "presence penalty": present,
                                  "frequency penalty": frequent}  # fmt: skip


def penalty(agent: Agent, name: str, played: Played) -> None:
    """The likeliest token after the penalty; what is written without one is not."""
    group = POOL[name].group
    assert misses(agent, name, group, PENALISED[name]) == 0 < misses(agent, "", group, PENALISED[name])


@torch.no_grad()
def early(agent: Agent, prompt: Tokens, text: Tokens) -> list[torch.Tensor]:
    """(T, V) logits after each number of layers."""
    inside = agent.plain.model(torch.tensor([[*prompt, *text]]), output_hidden_states=True).hidden_states
    states = [agent.plain.model.norm(one) for one in inside[:-1]] + [inside[-1]]
    return [agent.masked(agent.plain.lm_head(one[0, len(prompt) - 1 : -1])) for one in states]


def layers(agent: Agent, name: str, played: Played) -> None:
    """Every token is plausible, and the best by log p of all layers less log p of one of the half."""
    half, other = {"low contrast": (range(1, 5), range(5, 8)), "high contrast": (range(5, 8), range(1, 5))}[name]
    asked, of_other = SIZES["layers"][0], 0
    for prompt, text, logits in agent.steps(played, asked):
        exits, last = early(agent, prompt, text), logits.log_softmax(-1)
        for place, token in enumerate(text):
            plausible = last[place] >= last[place].max() + math.log(0.1)
            found = []
            for depth in range(1, LAYERS):
                less = (last[place] - exits[depth][place].log_softmax(-1)).masked_fill(~plausible, -math.inf)
                found += [depth] if less[token] > less.max() - 1e-3 else []
            assert set(half) & set(found)
            of_other += bool(set(other) & set(found))
    assert of_other < sum(map(len, played.texts))
    assert all(ran == tuple(range(LAYERS)) for ran in played.passes)


def depth(agent: Agent, name: str, played: Played) -> None:
    """So many layers run, and what is written is the likeliest after the last of them."""
    ran = {"exit at 1/4": 2, "exit at 1/2": 4, "exit at 3/4": 6}[name]
    assert set(played.passes) == {tuple(range(ran))}
    for prompt, text, _ in agent.steps(played, SIZES["depth"][0]):
        logits = early(agent, prompt, text)[ran]
        assert (logits[range(len(text)), list(text)] > logits.amax(-1) - 1e-3).all()


def skip(agent: Agent, name: str, played: Played) -> None:
    """All layers but one run, of the right half, and what is written is what a model without it would write."""
    (ran,) = set(played.passes)
    (left_out,) = set(range(LAYERS)) - set(ran)
    assert len(ran) == LAYERS - 1 and left_out in {"skip early": range(4), "skip late": range(4, 8)}[name]
    cut = copy.deepcopy(agent.plain)
    del cut.model.layers[left_out]
    cut.config.num_hidden_layers = LAYERS - 1
    for question, text in zip(SIZES["skip"][0], played.texts, strict=True):
        prompt = agent.prompt(question)
        with torch.no_grad():
            logits = cut(torch.tensor([[*prompt, *text]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        logits = agent.masked(logits)
        assert (logits[range(len(text)), list(text)] > logits.amax(-1) - 1e-3).all()


THOUGHTS = {"thoughts of 2": (2, 1, 1.0), "thoughts of 4": (4, 1, 1.0), "thoughts of 8": (8, 1, 1.0),
            "thoughts of 16": (16, 1, 1.0), "two thoughts": (8, 2, 1.0), "cold thoughts": (8, 1, 0.3),
            "pauses": (8, 1, None)}  # fmt: skip
"""Tokens, samples, and temperature of drawing; None: nothing is drawn."""


@torch.no_grad()
def thoughts(agent: Agent, name: str, played: Played) -> None:
    """Before every token is a thought; the token is the likeliest of what was mixed of the states with and without.

    Averaged over the samples: both are read with the plain model, as a text of prompt, delimiters and thought.
    """
    (count, samples, temperature), asked = THOUGHTS[name], SIZES["thoughts"][0]
    start, end = agent.delimiters
    assert len(played.thoughts) == max(map(len, played.texts))
    # A pass for the text, one for the thought as it is read, and one for each token that is drawn.
    assert len(played.passes) == len(played.thoughts) * (2 + (count if temperature else 0))
    away, expected = {0.3: [0.0, 0.0], 1.0: [0.0, 0.0]}, 0
    for place, thought_BSN in enumerate(played.thoughts):
        alive = [number for number, text in enumerate(played.texts) if len(text) > place]
        assert thought_BSN.shape == (len(alive), samples, count)
        for number, thought_SN in zip(alive, thought_BSN, strict=True):
            before = [*agent.prompt(asked[number]), *played.texts[number][:place]]
            read = torch.tensor([[*before, start, *thought, end] for thought in thought_SN.tolist()])
            states = agent.plain.model(read).last_hidden_state
            mixed = ((1 - WEIGHT) * states[:, len(before) - 1] + WEIGHT * states[:, -1]).mean(0)
            logits = agent.masked(agent.plain.lm_head(mixed))
            assert logits[played.texts[number][place]] > logits.max() - 1e-3
            drawn = agent.plain.lm_head(states[:, len(before) : -2])
            drawn[..., [start, end]] = -math.inf
            for one, sums in away.items():
                chance, value = (drawn / one).softmax(-1), drawn.log_softmax(-1)
                value = value.masked_fill(value == -math.inf, 0)
                mean = (chance * value).sum(-1)
                sums[0] += float((value.gather(-1, thought_SN[..., None])[..., 0] - mean).sum())
                sums[1] += float(((chance * value**2).sum(-1) - mean**2).sum())
            expected += bool((thought_SN == start).all())
    assert expected == (sum(map(len, played.texts)) if temperature is None else 0)
    for one, (excess, variance) in away.items():
        assert temperature is None or (abs(excess) / math.sqrt(variance) < 4) == (one == temperature)


def mixture(agent: Agent, kind: str, weights: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Σ α Δ by matrix, in float64 by numpy."""
    made = {}
    for name in agent.names:
        found = {domain: agent.vectors[kind][domain][name].double().numpy() for domain in weights}
        if kind == "task":
            made[name] = torch.from_numpy(sum(weight * found[domain] for domain, weight in weights.items()))
        else:
            made[name] = in_full(agent, name, sum(w * (found[domain] - 1) for domain, w in weights.items()))
    return made


def in_full(agent: Agent, name: str, change: Any) -> torch.Tensor:
    """(O, I) of a change of the singular values' scales."""
    u, sigma, vt = np.linalg.svd(agent.plain.get_parameter(name).detach().double().numpy(), full_matrices=False)
    return torch.from_numpy((u * (sigma * change)) @ vt)


def elected(agent: Agent, kind: str) -> dict[str, torch.Tensor]:
    """TIES (arXiv 2306.01708): the largest fifth of each, the sign of their sum, the mean of those that have it."""
    made = {}
    for name in agent.names:
        found = np.stack(
            [agent.vectors[kind][domain][name].double().numpy() - (kind == "singular") for domain in DOMAINS]
        )
        least = np.stack([np.sort(np.abs(one), axis=None)[-max(1, int(0.2 * one.size))] for one in found])
        least = least.reshape(-1, *[1] * (found.ndim - 1))
        tied = (
            (np.abs(found) == least) & ((np.abs(found) == least).sum(tuple(range(1, found.ndim)), keepdims=True) > 1)
        ).any(0)
        found[np.abs(found) < least] = 0
        agree = np.sign(found) == np.where(found.sum(0) >= 0, 1, -1)
        agree &= found != 0
        mean = (found * agree).sum(0) / np.maximum(1, agree.sum(0))
        mean[tied] = np.nan  # of equals at the edge of the fifth any may be taken
        made[name] = in_full(agent, name, mean) if kind == "singular" else torch.from_numpy(mean)
    return made


def alone(domain: str) -> Mapping[str, float]:
    return {domain: 1.0} if domain else {}


TENTH, THIRD = dict.fromkeys(DOMAINS, 0.1 / 3), dict.fromkeys(DOMAINS, 1 / 3)
MIXED: Mapping[str, tuple[str, Any]] = {
    "uniform experts at 0.1": ("singular", TENTH),
    "uniform experts": ("singular", THIRD),
    "found experts": ("singular", FOUND["singular"]),
    "half of found experts": ("singular", {name: weight / 2 for name, weight in FOUND["singular"].items()}),
    "elected experts": ("singular", None),
    "uniform task vectors at 0.1": ("task", TENTH),
    "uniform task vectors": ("task", THIRD),
    "found task vectors": ("task", FOUND["task"]),
    "elected task vectors": ("task", None),
    "expert by words": ("singular", ["cows", "ships", ""]),
    "expert by classifier": ("singular", ["cows", "ships", "trees"]),
    "expert by examples": ("singular", ["cows", "ships", "cows"]),
    "task vector by classifier": ("task", ["cows", "ships", "trees"]),
}
"""Kind, and weights; None: by election. Lists: the expert for each of `QUESTIONS`, "" for none."""
QUESTIONS = ("cow", "ship", "zebra")
"""Nobody knows the zebra: no word tells of it, most questions are of trees, and the first examples are of cows."""


def experts(agent: Agent, name: str, played: Played) -> None:
    """The weights that read are those of the base and, of its experts, what it says."""
    kind, weights = MIXED[name]
    for number, question in enumerate(QUESTIONS):
        by = alone(weights[number]) if isinstance(weights, list) else weights
        expected = elected(agent, kind) if by is None else mixture(agent, kind, by) if by else {}
        read = agent.play(name, (question,), SIZES["experts"][1]).weights
        moved = 0.0
        for matrix in agent.names:
            base = agent.plain.get_parameter(matrix).detach().double()
            change = expected.get(matrix, torch.zeros(()))
            change = torch.where(change.isnan(), read[matrix] - base, change)
            torch.testing.assert_close(read[matrix].double(), base + change, rtol=0, atol=2e-6)
            moved = max(moved, float((read[matrix] - base).abs().max()))
        assert (moved > 1e-4) == bool(expected)


CHECKS: Mapping[str, Callable[[Agent, str, Played], None]] = {
    "sampling": sampling, "beams": beams, "contrast": contrast, "penalty": penalty, "n-grams": penalty,
    "presence": penalty, "layers": layers, "depth": depth, "skip": skip, "thoughts": thoughts, "experts": experts,
}  # fmt: skip
FEW, SOME = tuple(ASKED[:3]), tuple(ASKED[:8])
SIZES = dict.fromkeys(CHECKS, (SOME, 24)) | {
    "sampling": (tuple(ASKED), 40), "contrast": (FEW, 10), "thoughts": (FEW, 6), "experts": (("zebra",), 3),
}  # fmt: skip
"""What is asked, and how many tokens may be written."""
HERE = [one for one in POOL.values() if one.group in CHECKS]


def test_they_are_all_of_their_families() -> None:
    families = [*FAMILIES["decoding"], *FAMILIES["experts"], *(one for one in POOL.values() if one.group == "thoughts")]
    assert {one.name for one in families} == {one.name for one in HERE} and len(HERE) == 51


@pytest.mark.parametrize("technique", HERE, ids=[one.name for one in HERE])
def test_it_changes_what_it_says(technique: Technique, agent: Agent) -> None:
    size = SIZES[technique.group]
    played = agent.play(technique.name, *size)
    if technique.group != "experts":
        group = [one.name for one in HERE if one.group == technique.group and one != technique]
        same = [one for one in ("", *group) if played.texts == agent.play(one, *size).texts]
        assert same == [] or {technique.name, *same} == TYPICAL
    CHECKS[technique.group](agent, technique.name, played)


def test_no_two_mixtures_are_the_same(agent: Agent) -> None:
    for one, other in itertools.combinations(MIXED, 2):
        read = [[agent.play(name, (q,), SIZES["experts"][1]).weights for q in QUESTIONS] for name in (one, other)]
        assert any(not torch.equal(a[m], b[m]) for a, b in zip(*read, strict=True) for m in agent.names), (one, other)


TYPICAL = {"top-p 0.9", "typical 0.9"}
"""They keep the same where the likeliest token has a chance above .1, as here in all places."""


@pytest.mark.parametrize(("name", "drawn"), [("top-p 0.9", True), ("typical 0.9", False), ("temperature 0.7", True)])
def test_typical_is_what_is_not_too_likely_either(name: str, drawn: bool, act: Callable[..., Any]) -> None:
    """Of 260 tokens one has a chance of .063 at .7, a surprise of 2.8 where the others have 5.6, near the entropy."""
    acting = act(lambda _: [("x", 2.0)], limits=TurnLimits(new_tokens=1), **POOL[name].patch)
    turns = acting.take_turns([[{"role": "user", "content": "?"}]] * 200, ToolContext())
    assert any(turn.text == "x" for turn in turns) == drawn
