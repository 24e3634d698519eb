"""`Item`: one question with a verifiable answer, and how it is turned into text.

A completion is `steps #### answer` when worked steps exist (GSM8K's convention, arXiv 2110.14168), else just the
answer. The prompt goes through the tokenizer's chat template when it has one, so that later phases, servers and
other people's base models all see the same form.
"""

import hashlib
from typing import Any

from phases.strict import StrictModel

MARK = "#### "


class Item(StrictModel):
    """One question with a verifiable answer."""

    task: str
    """Name of the generator or file it came from, e.g. `chain_sum` or `recall`."""
    speciality: str
    """What it measures: `reasoning`, `memory`, `copying` or `choice`."""
    prompt: str
    answer: str
    steps: str = ""
    """Worked steps before the answer; empty when there are none."""
    difficulty: int = 0
    """The generator's own measure: number of terms, pairs, digits."""
    licence: str = "generated"
    """Licence of the data it came from."""
    choices: tuple[str, ...] = ()
    """For multiple choice: all options, the answer among them."""

    @property
    def key(self) -> str:
        """Content hash: equal questions have equal keys, whatever their seed."""
        return hashlib.sha256(f"{self.task}\0{self.prompt}".encode()).hexdigest()

    @property
    def completion(self) -> str:
        """What the model should write after the prompt."""
        return f"{self.steps} {MARK}{self.answer}" if self.steps else self.answer


def render_prompt(tokenizer: Any, prompt: str) -> str:
    """The text that precedes the completion: by chat template, or `Question: … Answer:` without one."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return f"Question: {prompt}\nAnswer:"


def render_completion(tokenizer: Any, item: Item) -> str:
    """The text that follows the prompt, end-of-text included; plain prompts want a leading space (BPE words)."""
    lead = "" if tokenizer.chat_template else " "
    return f"{lead}{item.completion}{tokenizer.eos_token}"


def extract_answer(text: str) -> str:
    """The answer in a completion: what follows the last `####`, up to the end of its line; else the whole text."""
    return text.rsplit(MARK.strip(), 1)[-1].strip().split("\n")[0].strip()
