"""Techniques of calling tools: what may be written in a call, how often, and what is made of the results."""

from typing import Any

from phases.adas.technique import Need, Technique

_TOOLS: tuple[Need, ...] = ("tools",)
_LIBRARY: tuple[Need, ...] = ("tools", "library")


def _one(
    name: str, group: str, says: str, paper: str = "", needs: tuple[Need, ...] = _TOOLS, **settings: Any
) -> Technique:
    return Technique(name=name, group=group, says=says, paper=paper, needs=needs, patch={"calling": settings})


CALLING = (
    _one("free calls", "grammar", "calls may be malformed", constrained=False),
    _one("copied strings", "arguments", "strings of a call stand in the question", "1704.04368", copied="strings"),
    _one("copied numbers", "arguments", "numbers of a call stand in the question", "1704.04368", copied="numbers"),
    _one("copied arguments", "arguments", "numbers in code, whole strings elsewhere", "1704.04368", copied="all"),
    _one("grounded numbers", "reply", "numbers of a reply stand in the results", reply="numbers"),
    _one("result as reply", "reply", "the result itself is the reply", reply="result"),
    _one("no calls", "calls", "no tool is called", calls=0),
    _one("1 call", "calls", "one call a turn", calls=1),
    _one("2 calls", "calls", "two calls a turn at most", calls=2),
    _one("short results", "results", "80 characters of a result are read", result_chars=80),
    _one("shorter results", "results", "120 characters of a result are read", result_chars=120),
    _one("1 retry", "retries", "a failed call is taken back and drawn anew", "2303.11366", retries=1),
    _one("3 retries", "retries", "the same, up to three times", "2303.11366", retries=3),
    _one("other tool", "fallback", "where nothing is found, the other look-up is asked", "2401.15884", fallback=True),
    _one("routed calls", "routing", "the tool that a classifier names is called", "", _LIBRARY, route="force"),
    _one("no needless calls", "routing", "none where it names none", "", _LIBRARY, route="forbid"),
    Technique(
        name="tools shown",
        group="tools",
        says="the tools' signatures stand before the conversation",
        paper="2210.03629",
        needs=_TOOLS,
        patch={"prompting": {"show_tools": True}},
    ),
)
