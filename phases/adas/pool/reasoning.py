"""Techniques of reasoning: thoughts, several answers, what stands before the question, a second look."""

from typing import Any

from phases.adas.technique import Need, Technique

_LIBRARY: tuple[Need, ...] = ("library",)


def _one(
    name: str, group: str, says: str, paper: str, part: str, needs: tuple[Need, ...] = (), **settings: Any
) -> Technique:
    return Technique(name=name, group=group, says=says, paper=paper, needs=needs, patch={part: settings})


def _thought(name: str, says: str, paper: str = "2403.09629", **settings: Any) -> Technique:
    return _one(name, "thoughts", says, paper, "thoughts", ("thoughts",), **settings)


def _several(name: str, says: str, paper: str, **settings: Any) -> Technique:
    return _one(name, "voting", says, paper, "voting", **settings)


def _read(name: str, group: str, says: str, paper: str, needs: tuple[Need, ...] = (), **settings: Any) -> Technique:
    return _one(name, group, says, paper, "prompting", needs, **settings)


THOUGHTS = (
    _thought("thoughts of 2", "a thought of two tokens before every token", tokens=2),
    _thought("thoughts of 4", "a thought of four tokens before every token", tokens=4),
    _thought("thoughts of 8", "a thought of eight tokens before every token", tokens=8),
    _thought("thoughts of 16", "a thought of sixteen tokens before every token", tokens=16),
    _thought("two thoughts", "two thoughts a token, averaged", tokens=8, samples=2),
    _thought("cold thoughts", "thoughts of the likeliest words", tokens=8, temperature=0.3),
    _thought("pauses", "start delimiters instead of thoughts", "2310.02226", tokens=8, pause=True),
)
SEVERAL = (
    _several("vote of 3", "three answers, of which the most frequent is given", "2203.11171", samples=3),
    _several("vote of 5", "five answers, of which the most frequent is given", "2203.11171", samples=5),
    _several("vote of 9", "nine answers, of which the most frequent is given", "2203.11171", samples=9),
    _several("cool vote of 5", "five answers that differ little", "2203.11171", samples=5, temperature=0.3),
    _several("adaptive vote", "up to nine, until the majority is sure", "2305.11860", samples=9, adaptive=True),
    _several("best of 4", "the likeliest of four answers", "1805.04833", samples=4, select="likelihood"),
    _several("best of 8", "the likeliest of eight answers", "1805.04833", samples=8, select="likelihood"),
    _several("best token of 4", "the likeliest a token", "1609.08144", samples=4, select="mean_likelihood"),
    _several("agreement of 5", "the answer most like the others", "2211.07634", samples=5, select="agreement"),
    _several("executed of 4", "the likeliest whose calls ran", "2302.08468", samples=4, select="executed"),
    _several("executed of 8", "the same among eight", "2302.08468", samples=8, select="executed"),
    _several("branches 3", "a vote over three first tokens", "2402.10200", samples=3, branch=True),
    _several(
        "surest branch of 4", "the surest over four first tokens", "2402.10200",
        samples=4, branch=True, select="mean_likelihood",
    ),
)  # fmt: skip
READING = (
    _read("reread", "question", "the question stands there twice", "2309.06275", reread=True),
    _read("step by step", "steps", "`Let's think step by step.`", "2205.11916", steps=True),
    _read("sentence by sentence", "parts", "a question in parts, one after the other", "2205.10625", decompose=True),
    _read("1 example", "examples", "a solved example", "2005.14165", _LIBRARY, examples=1),
    _read("2 examples", "examples", "two solved examples", "2005.14165", _LIBRARY, examples=2),
    _read(
        "nearest example",
        "examples",
        "the solved example most like it",
        "2101.06804",
        _LIBRARY,
        examples=1,
        nearest=True,
    ),
    _read("2 nearest examples", "examples", "the two most like it", "2101.06804", _LIBRARY, examples=2, nearest=True),
    _read("reflect", "reflection", "the answer is read again and said anew", "2303.17651", reflect="always"),
    _read("reflect in doubt", "reflection", "only where it was unsure", "2303.17651", reflect="doubt"),
)
REASONING = (*THOUGHTS, *SEVERAL, *READING)
