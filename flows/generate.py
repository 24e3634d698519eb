"""`forge generate`: what a checkpoint writes after a prompt, token by token, with or without thoughts.

    forge generate CKPT --prompt "def area(" --max-new-tokens 40
    echo "What is 3 + 4?" | forge generate CKPT --question --think --show-thoughts

transformers' own `generate` does the writing, with its KV cache, so any causal language model will do; thoughts need
one that the quiet_star phase wrote. Standard output gets the text alone.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flows.console import say
from phases.errors import InputError

if TYPE_CHECKING:
    from phases.quiet_star.decoder import Mode


@dataclass(frozen=True)
class Step:
    """One written token and the thought before it."""

    thought: str
    mixing_weight: float
    """Share of the prediction that came from the thought."""
    token: str


def generate(arguments: argparse.Namespace) -> int:
    """Write what follows the prompt: streamed, or as JSON when it is done."""
    from evaluation.thinking import open_model
    from phases.checkpoint import open_checkpoint

    prompt = _prompt(arguments)
    _check(arguments)
    checkpoint = open_checkpoint(arguments.checkpoint)
    mode: Mode = "shuffled" if arguments.shuffled else "on" if arguments.think else "off"
    model = open_model(checkpoint, mode, arguments.seed, arguments.tokens)
    streamed = not (arguments.json or arguments.show_thoughts)
    writer = Writer(model, checkpoint.tokenizer(), _show if streamed else _keep)
    if arguments.show_thoughts:
        writer.on_step = _show_step
    ids = prompt_ids(writer.tokenizer, prompt, arguments.question)
    start = time.perf_counter()
    write(writer, ids, room(model, ids, arguments), arguments.temperature, arguments.seed)
    seconds = round(time.perf_counter() - start, 3)
    if arguments.json:
        made = {"prompt": prompt, "text": writer.text, "tokens": len(writer.ids), "seconds": seconds}
        print(json.dumps({**made, "thoughts": [asdict(step) for step in writer.steps]}, indent=2, ensure_ascii=False))
    else:
        print("" if streamed else writer.text)
    return 0


def _prompt(arguments: argparse.Namespace) -> str:
    """The prompt that was given or piped in, less the newline that ends a piped one."""
    given = arguments.prompt
    if given is None and sys.stdin.isatty():
        raise InputError("no prompt; give --prompt TEXT or pipe one in")
    try:
        prompt = str(given) if given is not None else sys.stdin.read().removesuffix("\n")
        prompt.encode()
    except UnicodeError:
        raise InputError("the prompt is not UTF-8; give it as UTF-8 text") from None
    if not prompt:
        raise InputError("the prompt is empty; give --prompt TEXT or pipe one in")
    return prompt


def _check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for the first option that makes no sense."""
    thinks = arguments.think or arguments.shuffled
    wrong = {
        f"--max-new-tokens {arguments.max_new_tokens}: give 1 or more": arguments.max_new_tokens < 1,
        f"--temperature {arguments.temperature}: give 0 (the likeliest token) or more": not (
            0 <= arguments.temperature < math.inf
        ),
        f"--seed {arguments.seed}: give a number from 0 to 2⁶³ − 1": not 0 <= arguments.seed < 2**63,
        f"--tokens {arguments.tokens}: give 0 or more": (arguments.tokens or 0) < 0,
        "--tokens is the length of a thought; add --think": arguments.tokens is not None and not thinks,
        "--show-thoughts: there are none; add --think": arguments.show_thoughts and not thinks,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise InputError(message)


def prompt_ids(tokenizer: Any, prompt: str, question: bool) -> list[int]:
    """Token ids of the prompt as it is, or as the question of a task."""
    from phases.decoding import encode
    from phases.tasks.item import render_prompt

    ids = encode(tokenizer, render_prompt(tokenizer, prompt)) if question else list(tokenizer(prompt)["input_ids"])
    if not ids:
        raise InputError("the prompt has no tokens in this checkpoint's tokenizer; give another text")
    return ids


def room(model: Any, ids: list[int], arguments: argparse.Namespace) -> int:
    """Tokens to write: as many as were asked for, or as the context still holds."""
    wanted = int(arguments.max_new_tokens)
    context = int(getattr(model.config, "max_position_embeddings", None) or len(ids) + wanted)
    if len(ids) >= context:
        raise InputError(
            f"the prompt has {len(ids):,} tokens and the model's context {context:,}; give at most {context - 1:,}"
        )
    if len(ids) + wanted > context:
        say(f"generate: the context of {context:,} tokens leaves room for {context - len(ids):,} more")
    return min(wanted, context - len(ids))


class Writer:
    """A streamer of transformers: takes tokens from `generate` and hands on text as soon as it is whole."""

    def __init__(self, model: Any, tokenizer: Any, on_text: Callable[[str], None]) -> None:
        self.model, self.tokenizer, self.on_text = model, tokenizer, on_text
        self.on_step: Callable[[Step], None] = _keep
        self.ids: list[int] = []
        self.steps: list[Step] = []
        self.text = ""
        self._prompt_came = False

    def put(self, ids: Any) -> None:
        """The prompt's ids first, then one token at a time."""
        if not self._prompt_came:
            self._prompt_came = True
            return
        self.ids += ids.flatten().tolist()
        self._think(self.ids[-1])
        text = str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        if not text.endswith("\ufffd"):  # else the rest of a character is still to come
            self._hand_on(text)

    def end(self) -> None:
        """Whatever is left, whole or not."""
        self._hand_on(str(self.tokenizer.decode(self.ids, skip_special_tokens=True)))

    def _hand_on(self, text: str) -> None:
        self.on_text(text[len(self.text) :])
        self.text = text

    def _think(self, token: int) -> None:
        from evaluation.thinking import newest_thought

        thought = newest_thought(self.model)
        if thought is not None:
            said = str(self.tokenizer.decode(thought.tokens_BSPN[0, 0, -1].tolist()))
            weight = round(float(thought.weight_BSP[0, 0, -1]), 6)
            self.steps.append(Step(said, weight, str(self.tokenizer.decode([token]))))
            self.on_step(self.steps[-1])


def write(writer: Writer, ids: list[int], limit: int, temperature: float, seed: int) -> None:
    """Continue the ids by at most `limit` tokens; the generation config of the model holds, top-k and top-p apart."""
    import torch

    from evaluation.thinking import at_last_position
    from phases.decoding import stop_ids

    model, prompt = writer.model, torch.tensor([ids])
    stop = sorted(stop_ids(model, writer.tokenizer))
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    with torch.random.fork_rng(devices=[]), at_last_position(model):
        torch.manual_seed(seed)
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=limit,
            do_sample=bool(temperature),
            eos_token_id=stop or None,
            pad_token_id=stop[0] if stop else 0,
            streamer=writer,
            **sampling,
        )


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _keep(_: object) -> None:
    """Nothing is printed before the end."""


def _show_step(step: Step) -> None:
    thought, token = (json.dumps(text, ensure_ascii=False) for text in (step.thought, step.token))
    print(f"{step.mixing_weight:.3f}  {thought}  →  {token}", file=sys.stderr, flush=True)
