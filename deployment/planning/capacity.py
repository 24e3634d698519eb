"""The smallest number of replicas that holds the objectives: a search over a property that more replicas never break.

Replicas share the traffic evenly, so each sees `rate / n`; the physics' latencies never fall as the rate rises
(`tests/deployment/test_planning_recommend.py` tries every number as well), which makes the search exact.
"""

from collections.abc import Callable


def least(meets: Callable[[int], bool], most: int, guess: int = 1) -> int | None:
    """The smallest n in 1 … `most` with `meets(n)`; None if even `most` does not.

    `meets` must be monotone: once true, true for every larger n. From `guess` it goes up or down in steps that double,
    then bisects: 2·log2(|answer − guess|) calls or so.
    """
    low, high, step = 0, min(max(1, guess), most), 1  # meets(low) is false
    while not meets(high):
        if high == most:
            return None
        low, high, step = high, min(high + step, most), 2 * step
    step = 0 if low else 1
    while high - low > 1:
        middle = max(high - step, (low + high) // 2) if step else (low + high) // 2
        if meets(middle):
            high, step = middle, 2 * step
        else:
            low, step = middle, 0
    return high
