"""A persona: a name and traits with strengths, the prompt that asks for it, and small talk that shows it.

    persona = Persona(name="Forge", traits={"helpful": 0.75, "creative": 0.25, "precise": 1.0})
    persona_prompt(persona)                      # "You are Forge: very helpful, slightly creative, extremely precise."

A trait's strength is how often it shows in an answer. A large model knows what the words mean. A small one is taught by
small talk that is generated here: what is said depends on the question, and each trait adds a turn of phrase of its own
with a chance of its strength. That is all that "persona" means at this size, and all that is measured.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, field_validator

from phases.strict import StrictModel

LEVELS: Mapping[float, str] = {0.0: "not", 0.25: "slightly", 0.5: "fairly", 0.75: "very", 1.0: "extremely"}
"""Strength to the word that the prompt has for it."""


class Persona(StrictModel):
    """Who the agent is."""

    name: str = Field("Forge", min_length=1, max_length=40)
    """What it calls itself."""
    traits: dict[str, float] = Field({"helpful": 0.75, "creative": 0.25, "precise": 1.0})
    """Trait to strength, 0 to 1: how often it shows."""
    prompt: str = ""
    """Your own system prompt instead of the one made from name and traits."""

    @field_validator("traits")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name, strength in value.items() if not 0 <= strength <= 1]:
            raise ValueError(f"the strength of '{wrong[0]}' must lie between 0 and 1")
        return value


def persona_prompt(persona: Persona) -> str:
    """The system prompt that asks for a persona."""
    if persona.prompt:
        return persona.prompt
    traits = ", ".join(f"{level(strength)} {name}" for name, strength in persona.traits.items())
    return f"You are {persona.name}" + (f": {traits}." if traits else ".")


def level(strength: float) -> str:
    """The word for a strength: that of the nearest level."""
    return LEVELS[min(LEVELS, key=lambda known: abs(known - strength))]


@dataclass(frozen=True)
class Manner:
    """How a trait shows in an answer."""

    phrases: tuple[str, ...]
    leads: bool = False
    """Whether it stands before what is said, or after it."""


MANNERS: Mapping[str, Manner] = {
    "helpful": Manner(("Ask me for more.", "I can look it up.", "Tell me what you need.")),
    "creative": Manner(("Like a spark in the dark:", "As rivers find the sea:", "Picture a small lamp:"), leads=True),
    "precise": Manner(("That is exact.", "Nothing is left out.", "Each word counts.")),
    "cheerful": Manner(("How nice!", "Hurray!", "What a day!"), leads=True),
    "formal": Manner(("With kind regards.", "Your humble servant.", "Most respectfully.")),
    "curious": Manner(("And you?", "What do you think?", "Why do you ask?")),
}
"""Traits that small talk can show."""

_TOPICS = """
music rain tea trains winter summer books chess cats dogs bread paint night maps bridges gardens clocks ships wind stars
stone snow honey glass paper salt rope fire sand leaves coffee towns fields birds fish boats wool iron tales hills
rivers lakes forests moss bells drums flutes songs poems letters stamps coins kites wheels candles mirrors keys doors
windows walls roofs chairs tables spoons bowls apples pears plums nuts berries mushrooms bees ants crabs owls
"""
_ASKED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "greeting": (("hello", "hi there", "good morning", "good evening", "hey", "greetings"), "Hello."),
    "who": (("who are you?", "what is your name?", "what are you called?", "tell me who you are"), "I am {name}."),
    "thanks": (("thank you", "thanks a lot", "many thanks", "that was kind"), "You are welcome."),
    "farewell": (("goodbye", "see you soon", "good night", "bye for now"), "Goodbye."),
    "liking": (("do you like {topic}?", "are you fond of {topic}?", "what about {topic}?"), "I like {topic}."),
    "telling": (("tell me of {topic}", "say something on {topic}", "talk about {topic}"), "There is much in {topic}."),
}
"""What is asked, and what is answered before any trait shows."""


@dataclass(frozen=True)
class SmallTalk:
    """A question of small talk and what there is to say."""

    question: str
    base: str


def small_talk(name: str) -> list[SmallTalk]:
    """Every question there is, in a fixed order."""
    found = []
    for patterns, base in _ASKED.values():
        for pattern in patterns:
            topics = _TOPICS.split() if "{topic}" in pattern else [""]
            for address in ("",) if "{topic}" in pattern else ("", ", friend", f", {name}", " again"):
                for topic in topics:
                    end = "?" if pattern.endswith("?") else ""
                    question = pattern.removesuffix("?").format(topic=topic) + address + end
                    found.append(SmallTalk(question, base.format(topic=topic, name=name)))
    return found


def answer_in_manner(base: str, traits: Mapping[str, float], rng: random.Random) -> str:
    """What a persona with these traits says, each trait shown with a chance of its strength."""
    before: list[str] = []
    after: list[str] = []
    for trait, strength in traits.items():
        manner = MANNERS[trait]
        phrase = rng.choice(manner.phrases)
        if rng.random() < strength:
            (before if manner.leads else after).append(phrase)
    return " ".join([*before, base, *after])


def shown(text: str, trait: str) -> bool:
    """Whether an answer shows a trait by one of its phrases."""
    return any(phrase in text for phrase in MANNERS[trait].phrases)
