"""The tokenizer: byte-level BPE trained on the training split (arXiv 1909.08053's GPT-2 scheme), digits one by one.

Single digits make arithmetic and recall learnable for small models. The chat template is the smallest one that
servers and later phases understand: `<|user|>…<|assistant|>…<|endoftext|>`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from phases.errors import DataError

END, SYSTEM, USER, ASSISTANT = "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|endoftext|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of exactly `vocabulary` entries, as a plain HF tokenizer.

    Raises `DataError` with the number that the text supports when it has too few repeated pairs.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [END, SYSTEM, USER, ASSISTANT]
    if vocabulary < len(alphabet) + len(specials):
        raise DataError(f"data.vocabulary={vocabulary}: a byte-level tokenizer needs at least {len(alphabet) + 4}")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=specials,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    core.train_from_iterator(_non_empty(texts), trainer)
    supported = core.get_vocab_size()
    if supported < vocabulary:
        raise DataError(
            f"data.vocabulary={vocabulary:,} is larger than the data supports ({supported:,}); "
            f"set data.vocabulary={supported} or add text"
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _non_empty(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if text)
