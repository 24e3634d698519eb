"""Techniques of decoding: how tokens are drawn, searched for and held back, and how deep the model is read."""

from typing import Any

from phases.adas.technique import Technique

_DRAWN = 0.7
"""Temperature of what is drawn from a cut distribution: at 0 nothing is drawn, and nothing to cut."""


def _one(name: str, group: str, says: str, paper: str = "", **settings: Any) -> Technique:
    return Technique(name=name, group=group, says=says, paper=paper, patch={"decoding": settings})


def _cut(name: str, says: str, paper: str = "", **settings: Any) -> Technique:
    return _one(name, "sampling", says, paper, temperature=_DRAWN, **settings)


SAMPLING = (
    _one("temperature 0.3", "sampling", "tokens are drawn, mostly the likeliest", temperature=0.3),
    _one("temperature 0.7", "sampling", "tokens are drawn, a little sharper than the model says", temperature=0.7),
    _one("temperature 1", "sampling", "tokens are drawn as the model says", temperature=1.0),
    _cut("top 5", "tokens are drawn from the five likeliest", "1805.04833", top_k=5),
    _cut("top 20", "tokens are drawn from the twenty likeliest", "1805.04833", top_k=20),
    _cut("top-p 0.9", "tokens are drawn from the likeliest that hold 90 %", "1904.09751", top_p=0.9),
    _cut("min-p 0.05", "no token below 5 % of the likeliest is drawn", "2407.01082", min_p=0.05),
    _cut("min-p 0.1", "no token below 10 % of the likeliest is drawn", "2407.01082", min_p=0.1),
    _cut("typical 0.9", "tokens of typical surprise are drawn, 90 % of all", "2202.00666", typical_p=0.9),
    _cut("epsilon 0.01", "no token below 1 % is drawn", "2210.15191", epsilon=0.01),
    _cut("eta 0.01", "no token below 1 % is drawn, or less where the entropy is high", "2210.15191", eta=0.01),
    _cut("top 1 sigma", "only logits within a standard deviation of the largest", "2411.07641", top_n_sigma=1.0),
    _cut("entropy temperature", "colder where the model is sure", "2403.14541", entropy_temperature=True),
)
SEARCHING = (
    _one("beams 2", "beams", "two texts are written, the likelier is taken", "1409.3215", beams=2),
    _one("beams 4", "beams", "four texts are written, the likeliest is taken", "1409.3215", beams=4),
    _one("beams 8", "beams", "eight texts are written, the likeliest is taken", "1409.3215", beams=8),
    _one("short beams", "beams", "four texts, their sum of logs undivided", "1609.08144", beams=4, length_penalty=0.0),
    _one(
        "diverse beams", "beams", "four texts that avoid each other's words", "1610.02424", beams=4, beam_diversity=0.5
    ),
    _one("contrastive search", "contrast", "unlike what was read before", "2202.06417", contrastive=0.6, top_k=4),
    _one("gentle contrastive search", "contrast", "a little so", "2202.06417", contrastive=0.2, top_k=4),
)
PENALTIES = (
    _one("repetition 1.1", "penalty", "tokens that were written are less likely", "1909.05858", repetition_penalty=1.1),
    _one("no 3 again", "n-grams", "three tokens in a row are not written twice", "1705.04304", no_repeat_ngram=3),
    _one("presence penalty", "presence", "half a nat off for what was written", presence_penalty=0.5),
    _one("frequency penalty", "presence", "half a nat off for every time it was written", frequency_penalty=0.5),
)
LAYERS = (
    _one("low contrast", "layers", "less what a low layer predicts", "2309.03883", layer_contrast="low"),
    _one("high contrast", "layers", "less what a high layer predicts", "2309.03883", layer_contrast="high"),
    _one("exit at 1/4", "depth", "read off after a quarter of the layers", "2404.16710", depth=0.25),
    _one("exit at 1/2", "depth", "read off after half of the layers", "2404.16710", depth=0.5),
    _one("exit at 3/4", "depth", "read off after three quarters of the layers", "2404.16710", depth=0.75),
    _one("skip early", "skip", "leaves out a layer of the first half", "2309.08168", skip=0.34),
    _one("skip late", "skip", "leaves out a layer of the second half", "2309.08168", skip=0.67),
)
DECODING = (*SAMPLING, *SEARCHING, *PENALTIES, *LAYERS)
