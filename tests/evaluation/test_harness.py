"""lm-eval on our items gives our own numbers; wrong names and a missing network give one clear line."""

import re
from pathlib import Path

import pytest
import yaml

from evaluation.choice import multiple_choice
from evaluation.generation import exact_match
from evaluation.harness import run_tasks
from evaluation.harness_tasks import ANSWER, write_tasks
from phases.checkpoint import Checkpoint
from phases.dataset import Dataset
from phases.errors import InputError
from phases.tasks.item import extract_answer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lm_eval", "ignore::DeprecationWarning:datasets")


def test_results_equal_our_own(family: Checkpoint, world: Dataset, tmp_path: Path) -> None:
    checkpoint, tokenizer = family.siblings["memory"], world.tokenizer
    names = ["forge_reasoning", "forge_memory", "forge_cloze"]
    found = {m.name: m for m in run_tasks(checkpoint, names, tmp_path / "tasks", world, batch=16)}
    model = checkpoint.model()
    for task in ("reasoning", "memory"):
        ours = exact_match(model, tokenizer, world.items("test", task)).right_N
        theirs = found[f"lm-eval:forge_{task}/exact_match"]
        assert (theirs.value, theirs.n) == (ours.mean(), len(ours))
        assert theirs.stderr == pytest.approx(ours.std(ddof=1) / len(ours) ** 0.5)
    choices = multiple_choice(model, tokenizer, world.items("test", "choice"))
    assert found["lm-eval:forge_cloze/acc"].value == pytest.approx(choices.right_sum_N.mean())
    assert found["lm-eval:forge_cloze/acc_bytes"].value == pytest.approx(choices.right_N.mean())


@pytest.mark.slow
def test_unknown_and_unreachable_standard_tasks(family: Checkpoint, tmp_path: Path) -> None:
    """About 20 s: the index of standard tasks."""
    with pytest.raises(InputError, match="task helaswag: unknown; did you mean hellaswag"):
        run_tasks(family, ["helaswag"], tmp_path)
    with pytest.raises(InputError, match=r"tasks hellaswag: their data could not be fetched .* connect to the network"):
        run_tasks(family, ["hellaswag"], tmp_path)


def test_our_tasks_need_data(family: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="forge_memory: needs prepared data"):
        run_tasks(family, ["forge_memory"], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "3",
        " 3",
        "1+1=2 #### 2",
        "#### 1 then #### 7 \nand more",
        "a\nb",
        "",
        "####",
        "no mark\n\n",
        "\n\nlate",
        "x ####\n9",
    ],
)
def test_the_filter_reads_answers_as_we_do(text: str) -> None:
    assert re.findall(ANSWER, text)[0].strip() == extract_answer(text)


def test_written_tasks_are_complete(world: Dataset, tmp_path: Path) -> None:
    names = write_tasks(world, "test", tmp_path / "tasks", world.tokenizer, limit=5)
    assert names == ["forge_reasoning", "forge_memory", "forge_cloze"]
    for name in names:
        recipe = yaml.safe_load((tmp_path / "tasks" / f"{name}.yaml").read_text())
        assert recipe["task"] == name
        assert len(Path(recipe["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()) == 5
