"""Warm-up, stable, decay: the learning-rate schedule as a pure function of the step (MiniCPM, arXiv 2404.06395)."""


def warmup_stable_decay(step: int, steps: int, warmup: float, decay: float, final: float) -> float:
    """Factor on the peak rate at `step` (0 … steps − 1).

    Rises linearly over the first `warmup` share of the steps, stays at 1, and falls linearly to `final` over the last
    `decay` share. The first step is never 0, so that no step is wasted.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_steps = round(decay * steps)
    into = step - (steps - decay_steps)
    if decay_steps == 0 or into < 0:
        return 1.0
    return 1.0 - (1.0 - final) * (into + 1) / decay_steps
