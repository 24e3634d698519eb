"""What the judge of baking measures in conversations: every model with and without its prompts, and what follows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.config import EvaluationConfig
from evaluation.metric import Control, Gate, Metric, Values, gate, mean_metric, paired_control
from evaluation.persona_style import PersonaClassifier, divergence, opposite, prompt_of, replies, traits_shown
from evaluation.retention import TASKS
from evaluation.significance import paired_bootstrap
from evaluation.specialities import Units
from evaluation.tool_use import Bench, Used
from phases.agent.writing import NO_PROMPT, Prompt
from phases.baking.kitchen import PLAIN, PROMPTED
from phases.baking.scenario import TOOL_KINDS, Kind, holds

NAME, PARENT, BARE = "baking", "parent prompted", "parent"
FEW_SHOT = 2
"""Examples that the prompted parent is shown."""
RECALLED = ((0, False), (4, False), (12, False), (0, True))
"""Turns between a fact and its question, and whether everything but the memory's file was lost in between."""
Uses = dict[str, dict[Kind, Used]]


class Found:
    """Everything that was measured in conversations."""

    def __init__(
        self, bench: Bench, models: Mapping[str, Any], tokenizer: Any, units: Units, config: EvaluationConfig
    ) -> None:
        self.uses: Uses = {}
        ours, bare, plain = models[NAME], models[BARE], models[PLAIN]
        teacher = models.get(PROMPTED, bare)
        kinds = [kind for kind in TOOL_KINDS if kind in bench.test]
        for name, model, prompted in (
            (NAME, ours, None),
            (PARENT, bare, FEW_SHOT),
            (BARE, bare, None),
            (PROMPTED, teacher, 0),
            (PLAIN, plain, None),
        ):
            if name == PROMPTED and PROMPTED not in models:
                continue
            prompts = {kind: NO_PROMPT if prompted is None else _prompt(bench, kind, prompted) for kind in kinds}
            self.uses[name] = {kind: bench.measure(model, tokenizer, kind, prompts[kind]) for kind in kinds}
        without = {kind: bench.measure(ours, tokenizer, kind, calls=False).replies for kind in kinds}
        self.answered = {
            kind: np.array([_holds(bench, kind, i, text) for i, text in enumerate(texts)])
            for kind, texts in without.items()
        }
        self.free = {kind: bench.measure(ours, tokenizer, kind, constrained=False) for kind in kinds[:1]}
        items = [item for task in TASKS for item in units.items[task][:64]]
        self.false_calls = bench.false_calls(ours, tokenizer, items)
        self.recalled = (
            {case: bench.recall_after(ours, tokenizer, *case, config.recall_conversations) for case in RECALLED}
            if "memory" in bench.test
            else {}
        )
        self.in_persona: dict[str, Values] = {}
        self.divergences: dict[str, dict[str, Values]] = {}
        self.traits: dict[str, dict[str, Values]] = {}
        if "persona" in bench.test:
            self._persona(bench, {**models, PROMPTED: teacher}, tokenizer, config)

    def _persona(self, bench: Bench, models: Mapping[str, Any], tokenizer: Any, config: EvaluationConfig) -> None:
        persona, teacher = bench.config.persona, models[PROMPTED]
        asked, learnt = bench.scenarios("persona"), [one.scenario for one in bench.train["persona"]]
        said = [replies(bench, teacher, tokenizer, learnt, prompt_of(one)) for one in (persona, opposite(persona))]
        classify = PersonaClassifier(said[0], [*said[1], *replies(bench, models[BARE], tokenizer, learnt, NO_PROMPT)])
        texts = {
            f"{PROMPTED}, with prompt": replies(bench, teacher, tokenizer, asked, prompt_of(persona)),
            f"{PROMPTED}, opposite prompt": replies(bench, teacher, tokenizer, asked, prompt_of(opposite(persona))),
            **{name: replies(bench, models[name], tokenizer, asked, NO_PROMPT) for name in (NAME, BARE, PLAIN)},
            PARENT: replies(bench, models[BARE], tokenizer, asked, _prompt(bench, "persona", FEW_SHOT)),
        }
        texts[f"{NAME}, after {config.stable_turns} turns"] = bench.late_replies(
            models[NAME], tokenizer, config.stable_turns, min(24, config.recall_conversations)
        )
        self.in_persona = {name: classify(found) for name, found in texts.items()}
        self.traits = {name: traits_shown(found, persona) for name, found in texts.items()}
        students = {name: models[name] for name in (NAME, BARE, PLAIN, PROMPTED)}
        prompts = {"tools": _prompt(bench, "python", 0), "persona": prompt_of(persona)}
        for what, prompt in prompts.items():
            kinds = ("persona",) if what == "persona" else TOOL_KINDS
            talks = [one.played.messages for kind in kinds for one in bench.test.get(kind, ())[:16]]
            self.divergences[what] = {
                name: divergence(teacher, student, tokenizer, talks, prompt) for name, student in students.items()
            }

    def values(self, name: str) -> dict[str, Values]:
        """What counts of a model, by kind: conversations that came out right, answers in the persona."""
        found = {str(kind): used.right for kind, used in self.uses.get(name, {}).items()}
        return {**found, "persona": self.in_persona[name]} if name in self.in_persona else found

    def metrics(self, split: str) -> list[Metric]:
        """Every figure with n and standard error; ours beside the unprompted parent's."""
        metrics, before = [], self.values(BARE)
        for name in (NAME, PARENT, BARE, PROMPTED, PLAIN):
            for kind, used in self.uses.get(name, {}).items():
                for what in ("valid", "executed", "exact", "right"):
                    parent = None if name != NAME else float(np.mean(getattr(self.uses[BARE][kind], what)))
                    metric = mean_metric(f"{name}/{kind}_{what}", split, getattr(used, what), parent=parent)
                    metrics.append(metric)
        for name, values in self.in_persona.items():
            parent = float(np.mean(before["persona"])) if name == NAME else None
            metrics.append(mean_metric(f"{name}/persona_classified", split, values, parent=parent))
        for what, by_model in self.divergences.items():
            metrics += [mean_metric(f"{n}/{what}_kl_to_prompted", split, v, "nats/token") for n, v in by_model.items()]
        for kind, right in self.answered.items():
            metrics.append(mean_metric(f"{NAME}/{kind}_right_without_tools", split, right))
        for kind, used in self.free.items():
            metrics.append(mean_metric(f"{NAME}/{kind}_valid_unconstrained", split, used.valid))
        for (turns, restart), right in self.recalled.items():
            name = f"{NAME}/recall_after_{'restart' if restart else f'{turns}_turns'}"
            metrics.append(mean_metric(name, split, right))
        return [*metrics, mean_metric(f"{NAME}/false_calls", split, self.false_calls)]

    def controls(self, budgets: Mapping[str, str]) -> list[Control]:
        """Ours against the parent with and without its prompts, and against plain fine-tuning."""
        ours = self.values(NAME)
        return [
            paired_control(name, what, ours[what], theirs, budgets[name])
            for name in (PARENT, BARE, PLAIN)
            for what, theirs in self.values(name).items()
        ]

    def gates(self, config: EvaluationConfig) -> list[Gate]:
        """No worse than the prompted parent, better than the bare one, calls only where they are due."""
        gates, ours = [], self.values(NAME)
        for what, theirs in self.values(PARENT).items():
            found = paired_bootstrap(ours[what], theirs, config.resamples, config.seed)
            title, metric = f"{what}: no worse than the prompted parent", f"{NAME}/{what} less {PARENT}'s"
            gates.append(gate(title, metric, found.difference, ">=", -config.sigmas * found.stderr))
        for what, theirs in self.values(BARE).items():
            found = paired_bootstrap(ours[what], theirs, config.resamples, config.seed)
            title, metric = f"{what}: better than the parent without a prompt", f"{NAME}/{what} less {BARE}'s"
            gates.append(gate(title, metric, found.difference, ">", config.sigmas * found.stderr))
        rate = float(np.mean(self.false_calls))
        return [*gates, gate("calls where none is due", f"{NAME}/false_calls", rate, "<=", config.regression)]


def _prompt(bench: Bench, kind: Kind, examples: int) -> Prompt:
    """What asks for a kind of conversation, with examples of it."""
    shown = tuple(message for one in bench.train.get(kind, ())[:examples] for message in one.played.messages)
    if kind == "persona":
        return Prompt(system=prompt_of(bench.config.persona).system, examples=shown)
    return Prompt(tools=bench.tools, examples=shown)


def _holds(bench: Bench, kind: Kind, index: int, text: str) -> bool:
    """Whether the answer stands in what was said."""
    return holds(text, bench.scenarios(kind)[index].turns[-1].answer)
