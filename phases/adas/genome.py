"""The genome: a design as the techniques that it is put together from and the weights of its experts.

    genome = Genome(techniques=("vote of 5", "examples 2"), weights={"python": 0.1})
    genome.design(POOL)                          # phases.agent.design.Design
    genome.describe()                            # "examples 2, vote of 5; experts: python +0.10"

Names are sorted and weights too, so equal designs of equal parts are equal genomes and a score is never measured twice.
The empty genome is the parent: the agent as it was.
"""

from collections.abc import Mapping

from pydantic import Field, field_validator

from phases.adas.technique import Technique, combine
from phases.agent.design import Design
from phases.errors import ConfigError
from phases.strict import StrictModel

WEIGHTS = "expert weights"
"""What explicit weights are called where they stand beside techniques."""
SPARED = "spared experts"
"""The same of experts that are not chosen."""


class Genome(StrictModel):
    """One candidate design."""

    techniques: tuple[str, ...] = ()
    """Names of techniques, sorted; one of a group at most."""
    weights: dict[str, float] = Field({})
    """Weights by expert instead of those of the mixture's recipe; empty: none."""
    spared: tuple[str, ...] = ()
    """Experts that a design which chooses among them does not choose, sorted."""

    @field_validator("techniques", "spared")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name stands in it twice; name each once")
        return tuple(sorted(names))

    @field_validator("weights")
    @classmethod
    def _in_order(cls, weights: dict[str, float]) -> dict[str, float]:
        return dict(sorted(weights.items()))

    @property
    def key(self) -> str:
        """The genome as one canonical line of JSON."""
        return self.model_dump_json()

    @property
    def parts(self) -> tuple[str, ...]:
        """What can be taken out of it: its techniques, its explicit weights as one, and what it spares as one."""
        return self.techniques + ((WEIGHTS,) if self.weights else ()) + ((SPARED,) if self.spared else ())

    def design(self, pool: Mapping[str, Technique], experts: tuple[str, ...] | None = None) -> Design:
        """The design that it stands for.

        Raises `ConfigError` for techniques that the pool does not have, for two of one group and, where `experts` are
        named, for others.
        """
        if unknown := [name for name in self.techniques if name not in pool]:
            raise ConfigError(f"design: no technique is called '{unknown[0]}'; the pool has {', '.join(sorted(pool))}")
        named = (*self.weights, *self.spared)
        if experts is not None and (unknown := [name for name in named if name not in experts]):
            raise ConfigError(f"design: no expert is called '{unknown[0]}'; there are {', '.join(experts) or 'none'}")
        try:
            design = combine(pool[name] for name in self.techniques)
        except ValueError as error:
            raise ConfigError(f"design: {error}") from None
        if not named:
            return design
        mixture = design.mixture.model_copy(update={"weights": self.weights, "spared": self.spared})
        return design.model_copy(update={"mixture": mixture})

    def describe(self) -> str:
        """One readable line."""
        if not self.parts:
            return "the parent"
        weights = ", ".join(f"{name} {weight:+.2f}" for name, weight in self.weights.items())
        spared = f"no expert for {', '.join(self.spared)}" if self.spared else ""
        return "; ".join(filter(None, [", ".join(self.techniques), weights and f"experts: {weights}", spared]))

    def without(self, part: str) -> "Genome":
        """Without a technique, without explicit weights, or with none spared."""
        return Genome(
            techniques=tuple(name for name in self.techniques if name != part),
            weights={} if part == WEIGHTS else self.weights,
            spared=() if part == SPARED else self.spared,
        )


PARENT = Genome()
"""The agent as it was."""
