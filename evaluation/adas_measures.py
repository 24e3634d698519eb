"""What the judge of adas measures: designs on held-out conversations, and how long they take.

field = measure_designs(players, course, course.trials["test"], config)
field.played["adas"].right["python"], field.seconds
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metric import Control, Metric, mean_metric, paired_control, standard_error
from evaluation.significance import Difference, stratified_bootstrap
from phases.adas.playing import CountingMinds, Played, play
from phases.adas.trials import LEFT_OUT, Course, Trials, first
from phases.agent.library import Library, read_library
from phases.agent.settings import AgentSettings, read_settings
from phases.checkpoint import Checkpoint

NAME, PARENT, RANDOM, UNIFORM = "adas", "parent", "random search", "uniform mixture"
PAIRS = 5
"""Pairs of timed runs."""


@dataclass(frozen=True)
class Player:
    """An agent at its design."""

    minds: CountingMinds
    settings: AgentSettings
    library: Library

    @classmethod
    def of(cls, agent: Checkpoint) -> "Player":
        """The agent of a checkpoint, with its own settings and examples."""
        return cls(CountingMinds(agent), read_settings(agent.path), read_library(agent.path))

    def play(self, course: Course, trials: Trials, batch: int) -> Played:
        """The trials by this agent."""
        return play(self.minds, course, self.settings, trials, self.library, batch)


@dataclass(frozen=True)
class Field:
    """Every player on the same held-out conversations."""

    played: Mapping[str, Played]
    transfer: Mapping[str, Played]
    """On the domain that was left out; empty where the data has none."""
    times: Sequence[tuple[float, float]]
    """Seconds of (ours, the parent) on the same conversations, one after the other, pair by pair."""

    def over_parent(self, name: str) -> float:
        """Counted work of a player over the parent's."""
        return self.played[name].work / self.played[PARENT].work

    @property
    def slower(self) -> float:
        """Median over the pairs of ours over the parent's time."""
        return statistics.median(ours / parent for ours, parent in self.times)

    def against(self, name: str, resamples: int, seed: int) -> Difference:
        """Ours less a player's mean over the domains."""
        ours, other = self.played[NAME].right, self.played[name].right
        return stratified_bootstrap([(ours[domain], other[domain]) for domain in ours], resamples, seed)


def measure_designs(
    players: Mapping[str, Player], course: Course, trials: Trials, units: int, timed: int, batch: int
) -> Field:
    """Play `units` trials of every domain by every player, and `timed` of each one at a time for the clock."""
    chosen = first(trials, course.domains, units)
    played = {name: player.play(course, chosen, batch) for name, player in players.items()}
    transfer = {}
    if LEFT_OUT in trials:
        left_out = first(trials, (LEFT_OUT,), units)
        transfer = {name: player.play(course, left_out, batch) for name, player in players.items()}
    clock = first(trials, course.domains, timed)
    times = [tuple(_seconds(players[name], course, clock) for name in (NAME, PARENT)) for _ in range(PAIRS)]
    return Field(played, transfer, [(ours, parent) for ours, parent in times])


def _seconds(player: Player, course: Course, trials: Trials) -> float:
    """Wall time of the trials, one conversation at a time, as a user would have them."""
    started = time.perf_counter()
    player.play(course, trials, 1)
    return time.perf_counter() - started


def design_metrics(field: Field, split: str) -> list[Metric]:
    """Every player's share right by domain and over all of them, its counted work, and the time of ours."""
    metrics = []
    parent = field.played[PARENT]
    for name, played in field.played.items():
        for domain, values in played.right.items():
            before = None if name == PARENT else float(np.mean(parent.right[domain]))
            metrics.append(mean_metric(f"{name}/{domain}_right", split, values, parent=before))
        metrics.append(_mean(name, played, split, None if name == PARENT else parent.mean))
        n = sum(map(len, played.right.values()))
        metrics.append(Metric(name=f"{name}/work", split=split, value=field.over_parent(name), n=n, unit="× parent"))
    for name, played in field.transfer.items():
        before = None if name == PARENT else field.transfer[PARENT].mean
        metrics.append(mean_metric(f"{name}/{LEFT_OUT}_right", split, played.right[LEFT_OUT], parent=before))
    ratios = np.array([ours / theirs for ours, theirs in field.times])
    slower = Metric(
        name=f"{NAME}/time", split=split, value=field.slower, stderr=standard_error(ratios), n=PAIRS, unit="× parent"
    )
    return [*metrics, slower]


def _mean(name: str, played: Played, split: str, parent: float | None) -> Metric:
    """Mean over the domains; they are independent samples, so the errors add as squares."""
    errors = [standard_error(values) or 0.0 for values in played.right.values()]
    return Metric(
        name=f"{name}/mean_right",
        split=split,
        value=played.mean,
        stderr=float(np.sqrt(np.square(errors).sum())) / len(errors),
        n=sum(map(len, played.right.values())),
        unit="share",
        parent=parent,
    )


def design_controls(field: Field, budgets: Mapping[str, str], resamples: int, seed: int) -> list[Control]:
    """Ours against every other player: on the mean, on each domain, and on the domain that was left out."""
    controls = []
    ours = field.played[NAME]
    for name in (other for other in field.played if other != NAME):
        played, budget = field.played[name], budgets.get(name, "an ablation of ours")
        by = field.against(name, resamples, seed)
        controls.append(
            Control(
                name=name,
                metric="mean_right",
                ours=ours.mean,
                control=played.mean,
                difference=by.difference,
                stderr=by.stderr,
                n=by.n,
                budget=budget,
            )
        )
        for domain, values in played.right.items():
            controls.append(paired_control(name, f"{domain}_right", ours.right[domain], values, budget))
        if name in field.transfer:
            here, there = (field.transfer[player].right[LEFT_OUT] for player in (NAME, name))
            controls.append(paired_control(name, f"{LEFT_OUT}_right (left out)", here, there, budget))
    return controls
