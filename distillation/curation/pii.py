"""Personal data and secrets in texts become placeholders: `[EMAIL]`, `[PHONE]`, `[IBAN]` …

    text, found = redact("Mail jane@example.org or call +49 30 901820", KINDS)    # {"email": 1, "phone": 1}

Found by pattern, and where a number has check digits by these (ISO 7064 for IBANs, Luhn for cards), so that an order
number is not taken for a card. **Not found: names of people, postal addresses, dates of birth, and whatever has no
pattern of its own.** Who needs these gone has to remove them before; the card of a data set says which kinds were
looked for. A placeholder stands for the kind, not for the value: nothing can be found again from it.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from distillation.curation.checksums import is_card, is_iban, is_ssn
from distillation.record import Message, Record

Kind = Literal["secret", "email", "iban", "card", "ssn", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Pattern:
    """How one kind of value is found."""

    kind: Kind
    form: re.Pattern[str]
    check: Callable[[str], bool] = bool
    """Whether what has the form is such a value."""


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone(text: str) -> bool:
    return 8 <= sum(c.isdigit() for c in text) <= 15


def _pattern(kind: Kind, form: str, check: Callable[[str], bool] = bool) -> Pattern:
    return Pattern(kind, re.compile(form), check)


PATTERNS = (
    _pattern("secret", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    _pattern("secret", r"\bsk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}"),
    _pattern("secret", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    _pattern("secret", r"\b(?:gh[oprsu]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,})"),
    _pattern("secret", r"\b(?:xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})"),
    _pattern("secret", r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"),
    _pattern(
        "secret",
        r"(?i:(?<=password)|(?<=passwd)|(?<=api_key)|(?<=api-key)|(?<=secret)|(?<=token))[\"']?[=:]\s*[\"']?[^\s\"',;]{8,}",
    ),
    _pattern("email", r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
    _pattern("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", is_iban),
    _pattern("card", r"(?<![\w.,-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|[.,]\d)", is_card),
    _pattern("card", r"(?<![\w.,-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|[.,]\d)", is_card),
    _pattern("ssn", r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", is_ssn),
    _pattern("ip", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)", _is_ip),
    _pattern(
        "ip", r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])", lambda t: t.count(":") > 2 and _is_ip(t)
    ),
    _pattern("phone", r"(?<![\w+])(?<!\d )(?:\+|00)[1-9](?:[ ./-]?\(?\d+\)?){2,8}(?!\w)", _is_phone),
    _pattern("phone", r"(?<![\w-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}(?![\w-])"),
)
"""In this order: a secret may hold what looks like something else."""


def redact(text: str, kinds: Sequence[Kind]) -> tuple[str, Counter[str]]:
    """The text with placeholders, and how many values of each kind it had."""
    found: Counter[str] = Counter()
    if not any(c.isdigit() or c in "@-:=" for c in text):
        return text, found
    for pattern in PATTERNS:
        if pattern.kind in kinds:
            text = pattern.form.sub(partial(_placeholder, pattern, found), text)
    return text, found


def _placeholder(pattern: Pattern, found: Counter[str], match: re.Match[str]) -> str:
    value = match.group()
    if not pattern.check(value):
        return value
    found[pattern.kind] += 1
    return f"[{pattern.kind.upper()}]"


def redact_record(record: Record, kinds: Sequence[Kind]) -> tuple[Record, Counter[str]]:
    """The record with placeholders in every text of it; the record itself when nothing was found."""
    found: Counter[str] = Counter()

    def clean(text: str) -> str:
        redacted, counts = redact(text, kinds)
        found.update(counts)
        return redacted

    redacted = replace(
        record,
        messages=tuple(Message(m.role, clean(m.content)) for m in record.messages),
        completion=clean(record.completion),
        rationale=clean(record.rationale),
        reference=clean(record.reference),
        more={name: clean(value) for name, value in record.more.items()},
    )
    return (redacted if found else record), found
