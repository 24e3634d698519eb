"""`CacheConfig`: how much of a teacher's distributions is stored."""

from typing import Literal

from pydantic import Field

from phases.strict import StrictModel

LEAST_MASS = 0.95
"""Of the k likeliest tokens: below it a renormalised top-k makes students overconfident."""
MOST_BYTES = 40.0
"""A predicted token, on the disk."""
SLACK_BYTES = 1.5
"""A predicted token, by which all rows may take more than those that the number of draws is measured on."""


class CacheConfig(StrictModel):
    """What is stored of a teacher at each position."""

    method: Literal["sampled", "ghost", "renormalised"] = "sampled"
    """Draws from the teacher (unbiased), its likeliest tokens with a bucket for the others, or these alone, made to sum
    to 1 (refused where they hold less than .95 of the mass)."""
    draws: int = Field(56, ge=1, le=255)
    """Of `sampled`, a position; at most: fewer where they would take more than 40 bytes."""
    likeliest: int = Field(14, ge=1, le=255)
    """Tokens of `ghost` and `renormalised`, a position, at most: fewer where they would take more than 40 bytes."""
    tau: float = Field(1.0, gt=0)
    """Temperature of the teacher's distributions; the student's is the same."""
    seed: int = Field(0, ge=0)
    """Of the draws."""
    part_rows: int = Field(64, ge=1)
    """Rows of a part; a killed run repeats the part that it was at."""
