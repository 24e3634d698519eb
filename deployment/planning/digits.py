"""How numbers are written for people: enough digits to tell two apart, never an exponent, units that suit the size.

    from deployment.planning.digits import alike, duration, number, size
    number(2000.0), number(0.8333), duration(711.4), size(2 * 2**20)    # '2,000', '0.833', '711 s', '2 MiB'
    alike(14.5612, 14.5584)                                             # ['14.561', '14.558']

`.3g` writes 2,000 requests as `2e+03`, and a fixed number of decimals writes a floor of two microseconds as 0.00 ms and
the memory that a system misses by a hair as equal to what there is.
"""

import math

DIGITS = 3
"""Of a number by itself."""
COMPARED = 4
"""Of the larger of two that are compared, before more are needed to tell them apart."""
MOST_DECIMALS = 12
GIB, MIB = 2.0**30, 2.0**20
LONG = 10.0
"""Seconds from which a time is not written in milliseconds."""


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on, thousands grouped: `0.833`, `24`, `15,067`."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    text = f"{value:,.{_decimals(value, DIGITS)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def alike(*values: float) -> list[str]:
    """With equally many decimals, and as many as show every difference: `['16,384', '8,192']`."""
    decimals = min(MOST_DECIMALS, _decimals(max(map(abs, values)), COMPARED))
    texts = _with(decimals, values)
    while len(set(texts)) < len(set(values)) and decimals < MOST_DECIMALS:
        decimals += 1
        texts = _with(decimals, values)
    while decimals and all(text.endswith("0") for text in texts):
        decimals -= 1
        texts = _with(decimals, values)
    return texts


def times(*seconds: float) -> tuple[list[str], str]:
    """Several times and the unit that they share, by the first: milliseconds below `LONG`."""
    scale, unit = (1.0, "s") if seconds[0] >= LONG else (1e3, "ms")
    return [number(one * scale) for one in seconds], unit


def duration(seconds: float) -> str:
    """`424 ms`, `19.8 s`."""
    (text,), unit = times(seconds)
    return f"{text} {unit}"


def size(count_bytes: float) -> str:
    """`31.96 GiB`; MiB below a tenth of a GiB."""
    gib = count_bytes / GIB
    return f"{gib:.2f} GiB" if gib >= 0.1 else f"{number(count_bytes / MIB)} MiB"


def rate(per_second: float) -> str:
    """`1 request/s`, `2,000 requests/s`."""
    text = number(per_second)
    return f"{text} request/s" if text == "1" else f"{text} requests/s"


def _decimals(value: float, digits: int) -> int:
    """Decimals that give `value` so many digits; none where it has more before the point."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0


def _with(decimals: int, values: tuple[float, ...]) -> list[str]:
    return [f"{value:,.{decimals}f}" for value in values]
