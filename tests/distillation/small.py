"""Models and lessons that are made and trained in a second."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillation.record import Record
from distillation.training.strategies import Lesson, Tutor, prepare
from distillation.training.strategy_config import (
    Strategy,
)
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.data.tokenizer import train_tokenizer
from phases.training.config import TrainingConfig

BLOCK = 48
QUICK = TrainingConfig(steps=4, batch_rows=4, save_seconds=0, warmup=0, decay=0)


def model(vocabulary: int, seed: int, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": layers, "intermediate_size": 64, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes, **heads, bos_token_id=0, eos_token_id=0)).eval()


def saved(path: Path, vocabulary: int = 260, seed: int = 1, layers: int = 3) -> Checkpoint:
    tokenizer = train_tokenizer(["the cat and the hat"] * 9, vocabulary)
    return save_checkpoint(path, model(vocabulary, seed, layers), tokenizer, Manifest("cognate"))


def lesson_of(strategy: Strategy, tutors: list[Tutor], records: list[Record], work: Path) -> Lesson:
    tokenizer = train_tokenizer(["the cat and the hat"] * 9, 260)
    return prepare(strategy, records, tutors, tokenizer, BLOCK, work)
