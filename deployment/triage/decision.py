"""The triage: all seven ways in order, best first, and why.

    from deployment.triage.decision import triage
    decision = triage(Need(requests_per_day=50_000, prompt_tokens=800, output_tokens=200, examples=2_000), means)
    print(decision.text())

Ways that fit come before those that fit in part, then those that do not; within each the cheaper over the horizon
comes first, and of equals the one with less effort. Where nothing fits, the order still says what comes closest.
"""

from dataclasses import dataclass, replace

from deployment.counting import counted
from deployment.physics.calibration_store import observations
from deployment.triage.costs import Running, running, usd
from deployment.triage.need import Means, Need
from deployment.triage.ways import WAYS, Option
from phases.errors import InputError

ORDER = {"fits": 0, "partly": 1, "no": 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """Ranked ways, and what the present model costs as it is."""

    need: Need
    options: tuple[Option, ...]
    present: Running | None
    """None: it cannot be served on this accelerator; the notes say why."""
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Option | None:
        """The first that fits, at least in part."""
        return next((option for option in self.options if option.verdict != "no"), None)

    def text(self) -> str:
        """The decision in words, one way a paragraph."""
        lines = [f"Advice: {self.best.way}." if self.best else "Advice: none of the ways meets this need."]
        if self.present:
            present = self.present
            lines.append(f"As it is: {usd(present.monthly)} a month, {present.seconds:.3g} s a request.")
        lines += [*self.notes, *(_paragraph(option, self.need.horizon_months) for option in self.options)]
        return "\n".join(lines)


def triage(need: Need, means: Means) -> Decision:
    """Judge all ways and order them.

    Raises InputError where the calibration cannot be read. It is read before anything is judged: what a way raises
    speaks against that way, and a broken file would speak against all of them.
    """
    observations()
    notes: tuple[str, ...] = ()
    present: Running | None = None
    try:
        present = running(means.model, means, need)
    except InputError as error:
        notes = (str(error),)
    options = [_worthwhile(way(need, means), need, present) for way in WAYS]
    options.sort(key=lambda option: (ORDER[option.verdict], option.total(need.horizon_months)))  # stable: least effort
    return Decision(need, tuple(options), present, notes)


def _worthwhile(option: Option, need: Need, present: Running | None) -> Option:
    """Where no quality is missing, a way has to make the service cheaper or faster."""
    served = option.serving
    if need.gap_points > 0 or present is None or served is None:
        return option
    if served.monthly < present.monthly or served.seconds < present.seconds:
        return option
    why = "no quality is missing, and this makes the service neither cheaper nor faster"
    return replace(option, verdict="no", reasons=(*option.reasons, why))


def _paragraph(option: Option, months: int) -> str:
    lines = [f"- {option.way} ({option.verdict}): {'; '.join(option.reasons)}.", f"  Needs: {option.data}."]
    if option.serving:
        running = option.serving
        where = f", on {running.rented}" if running.rented else ""
        each = counted(running.serving.accelerators, "accelerator")
        lines.append(
            f"  Costs: {usd(option.one_off)} once, {usd(running.monthly)} a month "
            f"({counted(running.replicas, 'replica')} with {each}{' each' if running.replicas > 1 else ''}{where}), "
            f"{usd(option.total(months))} in {counted(months, 'month')}; {running.seconds:.3g} s a request."
        )
    return "\n".join(lines)
