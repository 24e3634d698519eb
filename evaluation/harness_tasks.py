"""Our held-out items as lm-evaluation-harness tasks: YAML and JSONL that plain `lm-eval` reads too.

    lm-eval run --model hf --model_args pretrained=CHECKPOINT --include_path DIR --tasks forge_reasoning

Three tasks: `forge_reasoning` and `forge_memory` (exact match of a greedy generation) and `forge_cloze` (multiple
choice by log-likelihood). Prompts are already rendered by the tokenizer's chat template, so the harness must not
apply one again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from phases.dataset import Dataset, Split
from phases.decoding import token_limit
from phases.storage import atomic_directory
from phases.tasks.item import MARK, Item, render_prompt

LOCAL = {"forge_reasoning": "reasoning", "forge_memory": "memory", "forge_cloze": "choice"}
"""Task name to the speciality of its items."""
ANSWER = rf"(?s)^(?:.*{MARK.strip()})?\s*([^\n]*)"
"""`extract_answer` as a regular expression: after the last mark, up to the end of its line."""


def write_tasks(data: Dataset, split: Split, folder: Path, tokenizer: Any, limit: int | None = None) -> list[str]:
    """Write the tasks that the split has items for into `folder` (replaced); returns their names."""
    folder = folder.resolve()
    names = []
    with atomic_directory(folder) as temporary:
        for name, speciality in LOCAL.items():
            items = data.items(split, speciality)[:limit]
            if not items:
                continue
            rows = [json.dumps(_row(tokenizer, item), ensure_ascii=False) + "\n" for item in items]
            (temporary / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
            recipe = _recipe(name, folder, tokenizer, items)
            (temporary / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
            names.append(name)
    return names


def _row(tokenizer: Any, item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": render_prompt(tokenizer, item.prompt), "answer": item.answer}
    if item.choices:
        row |= {"choices": list(item.choices), "gold": item.choices.index(item.answer)}
    return row


def _recipe(name: str, folder: Path, tokenizer: Any, items: Sequence[Item]) -> dict[str, Any]:
    """The task's YAML."""
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / f"{name}.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
    }
    kind = _choice(tokenizer) if items[0].choices else _generation(tokenizer, items)
    return {**common, **kind, "metadata": {"version": 1}}


def _generation(tokenizer: Any, items: Sequence[Item]) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {
            "until": [tokenizer.eos_token],
            "do_sample": False,
            "max_gen_toks": token_limit(tokenizer, items),
        },
        "filter_list": [
            {
                "name": "answer",
                "filter": [
                    {"function": "regex", "regex_pattern": ANSWER, "group_select": 0, "fallback": ""},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _choice(tokenizer: Any) -> dict[str, Any]:
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_bytes")]
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "target_delimiter": "" if tokenizer.chat_template else " ",
        "metric_list": metrics,
    }
