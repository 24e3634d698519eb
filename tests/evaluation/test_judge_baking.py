"""The verdict on a baked model: a real run that learns nothing, and the measures on made-up figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.baking_report import kept_table, memory_table
from evaluation.config import EvaluationConfig
from evaluation.judge_baking import judge
from evaluation.judgement import Judgement
from evaluation.judges import JUDGES
from evaluation.persona_style import PersonaClassifier, divergence, opposite, traits_shown
from evaluation.tool_use import _used
from phases.agent.conversation import CallRecord, Turn
from phases.agent.persona import Persona
from phases.agent.template import encode_chat, with_tools
from phases.agent.writing import Prompt
from phases.baking.config import BakingConfig
from phases.baking.record import BakeRecord, Record
from phases.baking.run import run
from phases.baking.scenario import GoldCall, Scenario, ScriptedTurn
from phases.checkpoint import Checkpoint, Manifest, save_checkpoint
from phases.dataset import Dataset
from phases.errors import CheckpointError

QUICK = EvaluationConfig(resamples=300, zero_shot_items=4, recall_conversations=2, stable_turns=2)
STEP = {"steps": 1, "batch_rows": 2, "precision": "fp32"}
CONFIG = {
    "scenarios": {
        "train": {"python": 4, "retrieve": 0, "search": 0, "memory": 3, "persona": 4},
        "held_out": 2,
        "distractors": [0],
    },
    "tools": {"limits": {"new_tokens": 6}},
    "teaching": STEP,
    "training": {**STEP, "steps": 2},
    "sampling": {"conversations": 8},
    "row_tokens": 640,
    "mix": {"text": 1.0, "reasoning": 0.0, "memory": 0.0, "copying": 0.0},
}


def tiny_llama(context: int = 256) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "max_position_embeddings": context}
    return LlamaForCausalLM(LlamaConfig(vocab_size=257, num_key_value_heads=2, **sizes, **ends)).eval()


@pytest.fixture(scope="module")
def parent(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = tiny_llama(1024)
    return save_checkpoint(tmp_path_factory.mktemp("p") / "parent", model, world.tokenizer, Manifest("own"))


@pytest.fixture(scope="module")
def made(parent: Checkpoint, world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return run([parent], BakingConfig.parse(CONFIG, "test"), tmp_path_factory.mktemp("b") / "baking", data=world)


@pytest.fixture(scope="module")
def judgement(made: Checkpoint, parent: Checkpoint, world: Dataset) -> Judgement:
    return JUDGES["baking"](made, [parent], world, QUICK)


def test_a_model_that_learnt_nothing_does_not_pass(judgement: Judgement) -> None:
    gates = {gate.name: gate.passed for gate in judgement.gates}
    for kind in ("python", "memory"):
        assert gates[f"{kind}: no worse than the prompted parent"]  # nobody is right
        assert not gates[f"{kind}: better than the parent without a prompt"]
    assert gates["the control had as many steps"] and gates["calls where none is due"]
    assert not judgement.passed


def test_every_figure_has_its_n_and_its_error(judgement: Judgement) -> None:
    for what in ("python_right", "python_valid", "memory_exact", "persona_classified", "tools_kl_to_prompted"):
        metric = judgement.metric(f"baking/{what}")
        assert metric.n >= 2 and metric.stderr is not None
    assert judgement.metric("baking/recall_after_restart").n == 2
    assert judgement.metric("prompted/tools_kl_to_prompted").value > 0
    assert {control.name for control in judgement.controls} == {"parent prompted", "parent", "plain"}
    assert {"conversations", "recall after", "persona", "divergence", "traits", "kept"} <= set(judgement.tables)


def test_what_is_missing_is_said(made: Checkpoint, parent: Checkpoint, world: Dataset) -> None:
    with pytest.raises(CheckpointError, match="its control plain is missing"):
        judge(parent, [parent], world, QUICK)


def scenario(*turns: ScriptedTurn) -> Scenario:
    return Scenario(kind="python", task="x", turns=turns)


def turn(text: str, *calls: CallRecord) -> Turn:
    return Turn([{"role": "assistant", "content": text}], list(calls))


def call(code: str, verdict: Any = "done") -> CallRecord:
    return CallRecord(verdict, "python", {"code": code}, "12")


def test_right_is_strict() -> None:
    gold = ScriptedTurn(user="3*4", calls=(GoldCall(name="python", arguments={"code": "3*4"}),), answer="12")
    cases = {
        "as asked": (turn("12", call("3*4")), (1, 1, 1, 1)),
        "by another way": (turn("12", call("4*3")), (1, 1, 0, 1)),
        "without the tool": (turn("12"), (0, 0, 0, 0)),
        "wrong answer": (turn("13", call("3*4")), (1, 1, 1, 0)),
        "called twice": (turn("12", call("3*4"), call("3*4", "repeated")), (1, 0, 0, 0)),
        "malformed first": (turn("12", call("", "malformed"), call("3*4")), (0, 0, 0, 0)),
    }
    used = _used([scenario(gold)] * len(cases), [[done] for done, _ in cases.values()])
    found = zip(used.valid, used.executed, used.exact, used.right, strict=True)
    assert [tuple(map(int, one)) for one in found] == [wanted for _, wanted in cases.values()]


def test_the_classifier_tells_a_persona_on_texts_it_has_not_seen() -> None:
    ours = [f"I like {word}. Nothing is left out." for word in "rain tea cats books".split(" ")]  # noqa: SIM905
    others = [f"I like {word}." for word in ("rain", "tea", "cats", "books")]
    classify = PersonaClassifier(ours * 5, others * 5)
    assert classify(["I like snow. Nothing is left out."])[0] > 0.8 and classify(["I like snow."])[0] < 0.2


def test_traits_are_counted_and_their_opposite_is_as_strong_as_they_are_weak() -> None:
    persona = Persona(traits={"helpful": 1.0, "precise": 0.25})
    shown = traits_shown(["Hello. Ask me for more.", "Hello."], persona)
    assert shown["helpful"].tolist() == [True, False] and not shown["precise"].any()
    assert opposite(persona).traits == {"helpful": 0.0, "precise": 0.75}


def test_divergence_is_the_mean_over_the_assistants_tokens(world: Dataset) -> None:
    tokenizer, prompt = with_tools(world.tokenizer), Prompt(system="Be kind.")
    teacher, student = tiny_llama(), tiny_llama()
    torch.nn.init.normal_(student.lm_head.weight, std=0.3)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    found = divergence(teacher, student, tokenizer, [messages], prompt)
    expected = []
    for model, system in ((teacher, "Be kind."), (student, "")):
        ids, ours = encode_chat(tokenizer, messages, (), system)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        expected.append([logits[i - 1].log_softmax(-1) for i, mine in enumerate(ours) if mine])
    pairs = zip(*expected, strict=True)
    wanted = np.mean([float(F.kl_div(q, p, reduction="sum", log_target=True)) for p, q in pairs])
    assert found[0] == pytest.approx(wanted, rel=1e-4) and wanted > 0


def test_tables_say_what_was_left_out_and_why() -> None:
    bake = BakeRecord(
        name="tools",
        asked=8,
        kept=3,
        right=3,
        reasons={"wrong answer": 5},
        left_out=0,
        steps=4,
        kl_start=1.0,
        kl_end=0.5,
    )
    record = Record(made={"python": 9}, rejected={"python": {"python: failed": 2}}, train={"python": 7}, bakes=(bake,))
    rows = kept_table(record).rows
    assert rows == (
        ("python conversations", 9, 7, 2, "python: failed (2)"),
        ("sampled for 'tools'", 8, 3, 5, "wrong answer (5)"),
    )
    table = memory_table({(4, False): np.array([1, 0]), (0, True): np.array([1, 1])})
    assert [row[:3] for row in table.rows] == [("4 turns", 2, 0.5), ("a restart", 2, 1.0)]


def test_the_folder_is_left_as_it_was(made: Checkpoint, judgement: Judgement) -> None:
    assert judgement.gates and not list(Path(made.path).glob("*-journal")) and made.siblings
