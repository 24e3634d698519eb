"""Check digits, which tell a bank account or a card from a number of the same length."""

_IBAN_LENGTHS = (15, 34)


def is_iban(text: str) -> bool:
    """ISO 13616: country and check digits go to the end, letters become 10 to 35, and the remainder by 97 is 1."""
    compact = text.replace(" ", "").upper()
    if not _IBAN_LENGTHS[0] <= len(compact) <= _IBAN_LENGTHS[1] or not (compact.isascii() and compact.isalnum()):
        return False
    if not (compact[:2].isalpha() and compact[2:4].isdigit()):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """ISO/IEC 7812: 13 to 19 digits of which not all are equal, whose Luhn sum is a multiple of 10."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    return luhn_sum(digits) % 10 == 0


def luhn_sum(digits: list[int]) -> int:
    """The sum of digits in which every second from the right is doubled and its digits added."""
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled)


def is_ssn(text: str) -> bool:
    """The US Social Security Administration never gave out area 000, 666 or 9xx, group 00 or serial 0000."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"
