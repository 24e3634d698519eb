"""The judge of every phase, by the phase's name."""

from evaluation import (
    judge_adas,
    judge_baking,
    judge_bitnet,
    judge_cognate,
    judge_compression,
    judge_evomerge,
    judge_forge,
    judge_quiet_star,
)
from evaluation.judgement import Judge

JUDGES: dict[str, Judge] = {
    "cognate": judge_cognate.judge,
    "evomerge": judge_evomerge.judge,
    "quiet_star": judge_quiet_star.judge,
    "bitnet": judge_bitnet.judge,
    "forge": judge_forge.judge,
    "baking": judge_baking.judge,
    "adas": judge_adas.judge,
    "compression": judge_compression.judge,
}
