"""Techniques of composition: which expert vectors are added to the weights, how strongly, and who decides."""

from typing import Any

from phases.adas.technique import Technique


def _one(name: str, says: str, paper: str, **settings: Any) -> Technique:
    return Technique(
        name=name, group="experts", says=says, paper=paper, needs=("experts",), patch={"mixture": settings}
    )


_SVF, _TASK, _TIES = "2501.06252", "2212.04089", "2306.01708"
COMPOSING = (
    _one("uniform experts at 0.1", "a tenth of the experts' mean", _SVF, recipe="uniform", scale=0.1),
    _one("uniform experts", "the experts' mean", _SVF, recipe="uniform"),
    _one("found experts", "the mixture that the cross-entropy method found", _SVF, recipe="found"),
    _one("half of found experts", "half of it", _SVF, recipe="found", scale=0.5),
    _one("elected experts", "their mean with signs elected", _TIES, recipe="ties"),
    _one("uniform task vectors at 0.1", "a tenth of their mean", _TASK, kind="task", recipe="uniform", scale=0.1),
    _one("uniform task vectors", "the task vectors' mean", _TASK, kind="task", recipe="uniform"),
    _one("found task vectors", "the mixture of them that was found", _TASK, kind="task", recipe="found"),
    _one("elected task vectors", "their mean with signs elected", _TIES, kind="task", recipe="ties"),
    _one("expert by words", "one expert, by words of its domain", _SVF, dispatch="keywords"),
    _one("expert by classifier", "one expert, by the classifier of questions", _SVF, dispatch="classifier"),
    _one("expert by examples", "one expert, by how it predicts examples like it", _SVF, dispatch="few_shot"),
    _one("task vector by classifier", "one task vector, by the classifier", _TASK, kind="task", dispatch="classifier"),
)  # fmt: skip
