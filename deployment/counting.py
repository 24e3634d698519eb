"""Numbers with their nouns, as a reader expects them: `1 load`, `1,000 loads`."""


def counted(number: int, noun: str) -> str:
    """Of a noun whose plural ends in s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
