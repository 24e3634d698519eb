"""Conversations about what is to be remembered: a fact is told, time passes, it is asked for.

    my boat is called Zumi      →  remember {"fact": "my boat is called Zumi"}
    … small talk …
    what is my boat called?     →  recall {"query": "my boat"}  →  Your boat is called Zumi.

Or the fact was told in an earlier session, and only the memory knows it. Names are made of syllables, so that those of
held-out conversations have never been seen.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from phases.agent.persona import SmallTalk, answer_in_manner
from phases.baking.scenario import GoldCall, Scenario, ScriptedTurn
from phases.tasks.collect import seeded

_THINGS = """
dog cat boat sister brother street school town team horse friend teacher doctor band garden car bike house ship robot
"""
THINGS = tuple(_THINGS.split())
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
KEPT = "I will remember that."
_TOLD = ("my {thing} is called {name}", "remember: my {thing} is called {name}")


def name_of(rng: random.Random) -> str:
    """A name of two or three syllables, such as `Zumi`."""
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def fact_scenario(
    rng: random.Random, talk: Sequence[SmallTalk], distractors: int | None, traits: Mapping[str, float]
) -> Scenario:
    """One fact, so many turns of small talk, and the question; with None the question alone, in a later session."""
    thing, name = rng.choice(THINGS), name_of(rng)
    fact = f"my {thing} is called {name}"
    asked = ScriptedTurn(
        user=f"what is my {thing} called?",
        calls=(GoldCall(name="recall", arguments={"query": f"my {thing}"}),),
        reply=f"Your {thing} is called {name}.",
        answer=name,
    )
    if distractors is None:
        return Scenario(kind="memory", task="after a restart", turns=(asked,), known=(fact,))
    told = ScriptedTurn(
        user=rng.choice(_TOLD).format(thing=thing, name=name),
        calls=(GoldCall(name="remember", arguments={"fact": fact}),),
        reply=KEPT,
    )
    between = [
        ScriptedTurn(user=one.question, reply=answer_in_manner(one.base, traits, rng))
        for one in (rng.choice(talk) for _ in range(distractors))
    ]
    return Scenario(kind="memory", task=f"after {distractors} turns", turns=(told, *between, asked))


def fact_scenarios(
    talk: Sequence[SmallTalk], distractors: Sequence[int | None], traits: Mapping[str, float], seed: int
) -> Iterator[Scenario]:
    """Endless draws, the numbers of distractors in equal shares; None: a restart lies between."""
    rng = seeded(seed, "facts")
    while True:
        for number in distractors:
            yield fact_scenario(rng, talk, number, traits)


def told_name(scenario: Scenario) -> str:
    """The name that was told: what decides which split a conversation belongs to."""
    return scenario.turns[-1].answer
