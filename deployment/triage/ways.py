"""The seven ways, each judged on its own: whether it closes the gap, what speaks for and against it, what it costs.

The rules are those that the literature supports, with the source in the reason that a user reads; costs and times come
from the physics (`costs.py`, `deployment/physics`). A way that cannot be judged, because what it needs was not given,
says what is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deployment.counting import counted
from deployment.physics.finetuning import (
    Aim,
    distillation_cost,
    examples_needed,
    fewest_accelerators,
    finetuning_cost,
)
from deployment.physics.merging import merge_cost
from deployment.physics.training import Setup, training_cost
from deployment.triage.costs import Running, rent, running, usd
from deployment.triage.need import Means, Need, Way, size
from phases.errors import InputError

Verdict = Literal["fits", "partly", "no"]
TOKENS_A_PARAMETER = 20
"""Of a training from scratch (Hoffmann et al. 2022, arXiv 2203.15556)."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way, judged."""

    way: Way
    verdict: Verdict
    reasons: tuple[str, ...]
    data: str
    """What it needs of examples, documents or models."""
    one_off: float = 0.0
    """Before it serves, USD."""
    serving: Running | None = None
    """None: it cannot be served or was not reckoned."""

    def total(self, months: int) -> float:
        """One-off and serving over so many months; infinite where it cannot be served."""
        return float("inf") if self.serving is None else self.one_off + months * self.serving.monthly


def prompt(need: Need, means: Means) -> Option:
    """A better prompt: instructions, and examples in it."""
    shots = means.shots * (need.prompt_tokens + need.output_tokens)
    verdict: Verdict = "fits" if need.gap in ("format", "style") else "partly"
    if need.gap == "knowledge":
        verdict = "no"
    why = {
        "fits": "formats and manners are shown well in a few examples (Brown et al. 2020, arXiv 2005.14165)",
        "partly": "examples in the prompt help with a skill, but less than training on them (Liu et al. 2022, arXiv "
        "2205.05638)",
        "no": "a prompt adds no facts that it does not contain: that is retrieval",
    }[verdict]
    data = f"{means.shots} good examples, some {shots:,} tokens in every prompt"
    return _option("prompt", verdict, [why], data, need, lambda: running(means.model, means, need, more_prompt=shots))


def retrieval(need: Need, means: Means) -> Option:
    """Passages found for each question are put into its prompt."""
    more = means.passages * means.passage_tokens
    verdict: Verdict = "fits"
    if need.gap == "knowledge":
        why = "facts: retrieval beats training them in (Ovadia et al. 2023, arXiv 2312.05934)"
        if need.knowledge_changes != "never":
            why += f", and what changes {need.knowledge_changes} is replaced in the index, not in weights"
    elif need.sources:
        verdict, why = "partly", f"answers can quote what was found, but documents do not teach a {need.gap}"
    else:
        verdict, why = "no", f"the gap is {need.gap}, and documents do not teach that"
    data = f"the documents, cut into passages; {more:,} tokens more in every prompt"
    return _option("retrieval", verdict, [why], data, need, lambda: running(means.model, means, need, more_prompt=more))


def bigger(need: Need, means: Means) -> Option:
    """A model that is better as it is."""
    model = means.bigger
    if model is None:
        return Option("bigger", "no", ("no bigger model was given",), "a bigger model that was measured on this task")
    verdict: Verdict = "fits" if need.gap == "skill" else "partly"
    why = f"{size(model)} instead of {size(means.model)}: "
    why += {
        "skill": "skills come with size, and nothing is trained (Wei et al. 2022, arXiv 2206.07682)",
        "knowledge": "it knows more, but neither your documents nor what has changed since",
    }.get(need.gap, f"size is not what the {need.gap} lacks")
    return _option("bigger", verdict, [why], "none", need, lambda: running(model, means, need))


def finetune(need: Need, means: Means) -> Option:
    """Adapters on the present model, merged into it for serving."""
    verdict, why = _by_examples(need.examples, need.gap)
    reasons = [why]
    if need.knowledge_changes != "never":
        verdict = "no"
        reasons.append(f"facts change {need.knowledge_changes}: each change would be a training run")
    if not need.training_allowed:
        verdict = "no"
        reasons.append("the licence does not allow training")
    tokens, count = need.prompt_tokens + need.output_tokens, max(need.examples, examples_needed(need.gap).typical)

    def once() -> float:
        own = (means.model, means.accelerator, means.price_per_hour)
        return finetuning_cost(*own, examples=count, tokens_per_example=tokens).cost.value

    data = _amount("labelled examples", need.gap)
    return _option("finetune", verdict, reasons, data, need, lambda: running(means.model, means, need), once)


def distil(need: Need, means: Means) -> Option:
    """A smaller model learns from the answers of the bigger one (or the present one, where only cost is wrong)."""
    student, teacher = means.student, means.teacher
    if student is None:
        return Option("distil", "no", ("no smaller model was given",), "a smaller model as the student")
    inputs = need.examples + need.unlabelled
    count = max(examples_needed("skill").low, inputs)
    # Whatever the teacher's gap was, the student learns the whole task: it needs the inputs of a skill.
    verdict, why = _by_examples(inputs, "knowledge" if need.gap == "knowledge" else "skill", "input")
    where = "on one narrow task" if need.narrow else "in open conversation only in part"
    follows = f"a student with {size(student)} follows its teacher {where} (Hsieh et al. 2023, arXiv 2305.02301)"
    reasons = [follows, why]
    if verdict == "fits" and not need.narrow:
        verdict = "partly"
    if need.gap_points > 0 and means.bigger is None:
        verdict = "no"
        reasons.append("the present model would be the teacher, and it misses the goal itself")
    if need.knowledge_changes != "never":
        verdict = "no"
        reasons.append(f"facts change {need.knowledge_changes}; the student knows those of its training day")
    if not need.answers_allowed:
        verdict = "no"
        reasons.append("the teacher's licence does not allow training on its answers")
    there = f"{need.examples:,} labelled and {need.unlabelled:,} unlabelled ones are there"
    data = f"{_amount('real inputs, which the teacher answers', 'skill')}; {there}, costs are of {count:,}"

    def once() -> float:
        source = running(teacher, means, need)
        return distillation_cost(
            source.tokens_per_s,
            rent(teacher, means, source.serving, 1)[0],
            student,
            means.accelerator,
            means.price_per_hour,
            examples=count,
            prompt_tokens=need.prompt_tokens,
            output_tokens=need.output_tokens,
        ).cost.value

    return _option("distil", verdict, reasons, data, need, lambda: running(student, means, need), once)


def merge(need: Need, means: Means) -> Option:
    """The present model and its siblings, averaged in weight space."""
    data = f"siblings of the same base ({means.siblings} given), and a held-out set to choose the weights on"
    if means.siblings < 1:
        return Option("merge", "no", ("no sibling of the same base was given that is good at this",), data)
    verdict: Verdict = "fits" if need.gap == "skill" else "partly"
    why = "task vectors of one base add up without training (Ilharco et al. 2023, arXiv 2212.04089)"

    def once() -> float:
        return merge_cost(means.model, means.siblings + 1, means.price_per_hour, with_base=True).cost

    return _option("merge", verdict, [why], data, need, lambda: running(means.model, means, need), once)


def forge(need: Need, means: Means) -> Option:
    """An agent of one's own, trained for this task alone."""
    agent = means.agent
    if agent is None:
        return Option("forge", "no", ("no shape of an agent was given",), "the shape that the forge would train")
    verdict, why = _by_examples(need.examples + need.unlabelled, "skill")
    reasons = [f"an agent with {size(agent)}", why]
    if not need.narrow:
        verdict = "no"
        reasons.append("the task is not narrow, and so small a model knows only what it is trained on")
    if need.gap == "knowledge" or need.knowledge_changes != "never":
        verdict = "no"
        reasons.append("facts do not fit into so few weights")

    def once() -> float:
        setup = fewest_accelerators(agent, means.accelerator, Setup(sequence=need.prompt_tokens + need.output_tokens))
        tokens = TOKENS_A_PARAMETER * agent.parameters
        return training_cost(agent, means.accelerator, setup, tokens, means.price_per_hour).cost.value

    data = _amount("examples or inputs of the task", "skill")
    return _option("forge", verdict, reasons, data, need, lambda: running(agent, means, need), once)


def _amount(noun: str, aim: Aim) -> str:
    """How many are needed, and who says so."""
    wanted = examples_needed(aim)
    return f"{wanted.low:,} to {wanted.high:,} {noun}, typically {wanted.typical:,}: {wanted.reason}"


def _by_examples(have: int, aim: Aim, noun: str = "example") -> tuple[Verdict, str]:
    """A verdict by their number; where the numbers are from stands with what is needed (`_amount`)."""
    wanted, examples = examples_needed(aim), counted(have, noun)
    if aim == "knowledge":
        return "no", "training adds facts poorly (Ovadia et al. 2023, arXiv 2312.05934); retrieve them"
    if have >= wanted.typical:
        return "fits", f"{examples} are enough for a {aim}"
    if have >= wanted.low:
        return "partly", f"{examples} are a beginning; {wanted.typical:,} are typical for a {aim}"
    verb = "is" if have == 1 else "are"
    return "no", f"{examples} {verb} too few for a {aim}: at least {wanted.low:,}"


def _option(
    way: Way,
    verdict: Verdict,
    reasons: list[str],
    data: str,
    need: Need,
    serve: Callable[[], Running],
    once: Callable[[], float] = float,
) -> Option:
    """With costs, and with the limits on time and money applied to them."""
    try:
        serving, one_off = serve(), once()
    except InputError as error:
        return Option(way, "no", (*reasons, str(error)), data)
    if need.latency_goal_s is not None and serving.seconds > need.latency_goal_s:
        verdict = "no"
        reasons = [*reasons, f"a request takes {serving.seconds:.3g} s where {need.latency_goal_s:.3g} s is the goal"]
    if need.monthly_budget is not None and serving.monthly > need.monthly_budget:
        verdict = "no"
        reasons = [*reasons, f"serving costs {usd(serving.monthly)} a month, the budget is {usd(need.monthly_budget)}"]
    return Option(way, verdict, tuple(reasons), data, one_off, serving)


WAYS: tuple[Callable[[Need, Means], Option], ...] = (prompt, retrieval, merge, finetune, distil, bigger, forge)
"""From the least effort to the most, which decides between equals."""
