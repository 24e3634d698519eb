"""The smallest number of replicas that holds the objectives: a search over a property that more replicas never break.

Replicas share the traffic evenly, so each sees `rate / n`; the physics' latencies never fall as the rate rises
(`tests/deployment/test_planning_recommend.py` tries every number as well), which makes doubling and halving exact.
"""

from collections.abc import Callable


def least(meets: Callable[[int], bool], most: int, guess: int = 1) -> int | None:
    """The smallest n in 1 … `most` with `meets(n)`; None if even `most` does not.

    `meets` must be monotone: once true, true for every larger n. From `guess` it doubles or halves away, then
    bisects: 2·log2(answer / guess) calls or so.
    """
    low, high = 0, min(max(1, guess), most)  # meets(low) is false
    while not meets(high):
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    step = 1
    while high - low > 1:
        # Downwards the steps double as well: a good guess is near the answer.
        middle = max(high - step, (low + high) // 2) if step else (low + high) // 2
        if meets(middle):
            high, step = middle, 2 * step
        else:
            low, step = middle, 0
    return high
