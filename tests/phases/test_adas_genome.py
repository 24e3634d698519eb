"""Genomes: canonical, validated, and the design that they stand for."""

import pytest
from pydantic import ValidationError

from phases.adas.genome import PARENT, WEIGHTS, Genome
from phases.adas.pool import POOL
from phases.agent.design import Design
from phases.errors import ConfigError


def test_equal_parts_in_any_order_are_equal_genomes():
    one = Genome(techniques=("vote of 5", "beams 2"), weights={"b": 1.0, "a": 2.0})
    other = Genome(techniques=("beams 2", "vote of 5"), weights={"a": 2.0, "b": 1.0})
    assert one == other and one.key == other.key
    assert Genome.model_validate_json(one.key).key == one.key
    assert list(one.weights) == ["a", "b"]


def test_the_empty_genome_is_the_parent():
    assert PARENT.design(POOL) == Design()
    assert PARENT.describe() == "the parent" and PARENT.parts == ()


def test_a_design_has_what_its_techniques_set():
    design = Genome(techniques=("vote of 5", "beams 2"), weights={"facts": 0.1}).design(POOL, ("facts",))
    assert (design.voting.samples, design.decoding.beams, design.mixture.weights) == (5, 2, {"facts": 0.1})
    assert design.model_copy(update={"mixture": Design().mixture}) == Design.model_validate(
        {"voting": {"samples": 5}, "decoding": {"beams": 2}}
    )


def test_weights_stand_beside_the_kind_of_the_mixture():
    design = Genome(techniques=("uniform task vectors",), weights={"facts": -0.2}).design(POOL)
    assert (design.mixture.kind, design.mixture.weights) == ("task", {"facts": -0.2})


def test_parts_can_be_taken_out():
    genome = Genome(techniques=("vote of 5", "beams 2"), weights={"facts": 0.1})
    assert genome.parts == ("beams 2", "vote of 5", WEIGHTS)
    assert genome.without("beams 2") == Genome(techniques=("vote of 5",), weights={"facts": 0.1})
    assert genome.without(WEIGHTS) == Genome(techniques=("vote of 5", "beams 2"))


def test_it_is_described_in_words():
    genome = Genome(techniques=("vote of 5", "beams 2"), weights={"facts": 0.1, "code": -0.254})
    assert genome.describe() == "beams 2, vote of 5; experts: code -0.25, facts +0.10"
    assert Genome(weights={"facts": 0.1}).describe() == "experts: facts +0.10"


@pytest.mark.parametrize(
    ("genome", "said"),
    [
        (Genome(techniques=("magic",)), "no technique is called 'magic'"),
        (Genome(techniques=("vote of 3", "vote of 5")), "'vote of 3' and 'vote of 5' exclude each other"),
        (Genome(weights={"poetry": 0.1}), "no expert is called 'poetry'; there are facts"),
    ],
)
def test_what_is_no_design_is_said_in_one_line(genome, said):
    with pytest.raises(ConfigError, match=f"^design: {said}") as caught:
        genome.design(POOL, ("facts",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"techniques": ("a", "a")}, {"weights": {"a": float("nan")}}, {"technique": ()}, {"techniques": "ab"}]
)
def test_what_is_no_genome_is_refused(wrong):
    with pytest.raises(ValidationError):
        Genome(**wrong)
