"""May a student learn from this teacher's answers? A gate for every teacher, before anything is asked.

    verdict = check_licence("gpt", "openai", confirmed=True)      # or InputError that says how to allow it

`yes` passes. `conditions` and `unknown` pass when the user confirms them in the config, which the report then says.
`no` does not pass. The table is a reading of the terms, made by engineers from the version that it names: it is no
legal advice, terms change, and what could not be read is `unknown`.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from phases.errors import ConfigError

Allows = Literal["yes", "no", "conditions", "unknown"]


class Terms(NamedTuple):
    """What terms say of models that learn from answers."""

    allows_training: Allows
    says: str
    url: str
    version: str
    """Of the text that was read, by its own date; empty where it has none."""


_NOTHING = "restricts what may be done with the weights' copies, not with what the model writes"
_LLAMA_NEWER = (
    "a model that learnt from outputs and is passed on has a name that begins with Llama, and shows Built with Llama"
)
_LLAMA_OLDER = "outputs may not improve any other large language model than Llama and its derivatives"
TERMS: dict[str, Terms] = {
    "own": Terms("yes", "your own model", "", ""),
    "apache-2.0": Terms("yes", _NOTHING, "https://www.apache.org/licenses/LICENSE-2.0", "2004-01"),
    "mit": Terms("yes", _NOTHING, "https://opensource.org/license/mit", ""),
    "openai": Terms(
        "conditions",
        "output may not be used to develop models that compete with OpenAI",
        "https://openai.com/policies/terms-of-use/",
        "2024-01-31",
    ),
    "anthropic": Terms(
        "conditions",
        "outputs may train specialised models that do not compete with Anthropic's; others need written permission",
        "https://support.claude.com/en/articles/12326764-can-i-use-my-outputs-to-train-an-ai-model",
        "",
    ),
    "google": Terms(
        "conditions",
        "the services may not be used to develop models that compete with them (Gemini API, Google AI Studio)",
        "https://ai.google.dev/gemini-api/terms",
        "2025-05-20",
    ),
    "gemma": Terms(
        "conditions",
        "a model that learnt from outputs to perform like Gemma is a derivative: the terms go along with it",
        "https://ai.google.dev/gemma/terms",
        "2026-04-01",
    ),
    "llama2": Terms("no", _LLAMA_OLDER, "https://ai.meta.com/llama/license/", "2023-07-18"),
    "llama3": Terms("no", _LLAMA_OLDER, "https://www.llama.com/llama3/license/", "2024-04-18"),
    "llama3.1": Terms("conditions", _LLAMA_NEWER, "https://www.llama.com/llama3_1/license/", "2024-07-23"),
    "llama3.2": Terms("conditions", _LLAMA_NEWER, "https://www.llama.com/llama3_2/license/", "2024-09-25"),
    "llama3.3": Terms("conditions", _LLAMA_NEWER, "https://www.llama.com/llama3_3/license/", "2024-12-06"),
    "qwen": Terms(
        "conditions",
        "a model that learnt from outputs and is passed on shows Built with Qwen or Improved using Qwen",
        "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
        "",
    ),
    "deepseek": Terms(
        "conditions",
        "distillation is allowed; the licence's limits of use go along with what is derived",
        "https://deepseeklicense.github.io",
        "2023-10-23",
    ),
    "mistral": Terms(
        "unknown",
        "what was read forbids only to learn from images; the models' own licences differ (Apache-2.0, research)",
        "https://mistral.ai/terms",
        "2025-02-06",
    ),
}
_ALIASES = {"apache 2.0": "apache-2.0", "apache2.0": "apache-2.0", "llama-2": "llama2", "llama-3": "llama3"}
_ADDRESSES = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "api.mistral.ai": "mistral",
}


@dataclass(frozen=True, slots=True)
class LicenceVerdict:
    """What the gate said; it stands in the report."""

    teacher: str
    licence: str
    allows_training: Allows
    says: str
    url: str
    version: str
    confirmed: bool
    """The user has confirmed it in the config."""

    @property
    def needs_confirmation(self) -> bool:
        """Whether it passes only because the user says so."""
        return self.allows_training in ("conditions", "unknown")

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {name: getattr(self, name) for name in self.__slots__}


def check_licence(teacher: str, licence: str, confirmed: bool) -> LicenceVerdict:
    """The verdict on a teacher whose answers a student is to learn from. Raises ConfigError when it does not pass."""
    terms = terms_of(licence)
    verdict = LicenceVerdict(teacher, licence, *terms, confirmed)
    where = f" ({terms.url})" if terms.url else ""
    head = f"teacher {teacher}, licence '{licence}'"
    if terms.allows_training == "no":
        fix = "if you have an agreement of your own, name it as `licence` and set `licence_confirmed: true`"
        raise ConfigError(f"{head}: {terms.says}{where}; choose another teacher; {fix}")
    if verdict.needs_confirmation and not confirmed:
        fix = "read the terms, and set `licence_confirmed: true` in the teacher's config if a student may learn from it"
        raise ConfigError(f"{head}: {terms.says}{where}; {fix}")
    return verdict


def terms_of(licence: str) -> Terms:
    """What is known of a licence by its name, in any case."""
    name = " ".join(licence.lower().split())
    missing = f"nothing is known of it; known are {', '.join(TERMS)}"
    return TERMS.get(_ALIASES.get(name, name), Terms("unknown", missing, "", ""))


def licence_of_address(url: str) -> str:
    """The terms of an API's provider; `unknown` where the address is not one of the well-known ones."""
    return _ADDRESSES.get((urlsplit(url).hostname or "").lower(), "unknown")
