"""Personal data and secrets in texts become placeholders: `[EMAIL]`, `[PHONE]`, `[IBAN]` …

    text, found = redact("Mail jane@example.org or call +49 30 901820", KINDS)    # {"email": 1, "phone": 1}

Found by pattern, and where a number has check digits by these (ISO 7064 for IBANs, Luhn for cards), so that an order
number is not taken for a card. **Not found: names of people, postal addresses, dates of birth, and whatever has no
pattern of its own.** Who needs these gone has to remove them before; the card of a data set says which kinds were
looked for. A placeholder stands for the kind, not for the value: nothing can be found again from it.

Most texts hold nothing, so each pattern names a few letters without which it cannot be there: to look for these takes a
hundredth of the time.
"""

import ipaddress
import re
import string
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
    letters: tuple[bytes, ...]
    """One of these, or of `shapes`, is in every text with such a value: here in small letters …"""
    shapes: tuple[bytes, ...]
    """… and here with digits as # and capitals as A."""
    check: Callable[[str], bool] = bool
    """Whether what has the form is such a value."""

    def may_be_in(self, lower: bytes, shape: bytes) -> bool:
        """Whether a text in small letters, and as digits and capitals, has what such a value needs."""
        for needs, text in ((self.letters, lower), (self.shapes, shape)):
            for need in needs:  # a generator expression would take longer than the search
                if need in text:
                    return True
        return False


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_phone(text: str) -> bool:
    return 8 <= sum(c.isdigit() for c in text) <= 15


def _pattern(kind: Kind, form: str, needs: str, check: Callable[[str], bool] = bool) -> Pattern:
    each = needs.encode().split(b"|")
    shapes = tuple(need for need in each if b"#" in need)
    return Pattern(kind, re.compile(form), tuple(need for need in each if b"#" not in need), shapes, check)


PATTERNS = (
    _pattern(
        "secret",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        "-----begin ",
    ),
    _pattern("secret", r"\bsk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}", "sk-"),
    _pattern("secret", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "akia|asia"),
    _pattern(
        "secret",
        r"\b(?:gh[oprsu]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,})",
        "_|glpat-",
    ),
    _pattern(
        "secret",
        r"\b(?:xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})",
        "xox|aiza|eyj",
    ),
    _pattern("secret", r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)", "://"),
    _pattern(
        "secret",
        r"(?i:(?<=password)|(?<=passwd)|(?<=api_key)|(?<=api-key)|(?<=secret)|(?<=token))[\"']?[=:]\s*[\"']?[^\s\"',;]{8,}",
        "passw|api|secret|token",
    ),
    _pattern("email", r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b", "@"),
    _pattern("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", "AA##", is_iban),
    _pattern(
        "card",
        r"(?<![\w.,-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|[.,]\d)",
        "########|#### ####|####-####",
        is_card,
    ),
    _pattern(
        "card",
        r"(?<![\w.,-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|[.,]\d)",
        "##########|#### ######|####-######",
        is_card,
    ),
    _pattern("ssn", r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", "###-##-####", is_ssn),
    _pattern("ip", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)", "#.#", _is_ip),
    _pattern(
        "ip",
        r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])",
        ":",
        lambda text: text.count(":") > 2 and _is_ip(text),
    ),
    _pattern("phone", r"(?<![\w+])(?<!\d )(?:\+|00)[1-9](?:[ ./-]?\(?\d++\)?){1,8}(?!\w)", "+|00", _is_phone),
    _pattern(
        "phone", r"(?<![\w-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}(?![\w-])", "###-####|###.####"
    ),
)
"""In this order: a secret may hold what looks like something else."""
_WITHOUT_NUMBERS = tuple(pattern for pattern in PATTERNS if pattern.letters)
"""Those whose values need no digit; a telephone number is told by its plus or its zeros."""
_SHAPES = bytes.maketrans(
    (string.digits + string.ascii_uppercase).encode(), b"#" * len(string.digits) + b"A" * len(string.ascii_uppercase)
)
_ODD = re.compile(r"(?![0-9])\d|[\u0130\u0131\u017f\u212a]")
"""Digits of other scripts, and letters that are `i`, `s` or `k` in another case."""


def redact(text: str, kinds: Sequence[Kind]) -> tuple[str, Counter[str]]:
    """The text with placeholders, and how many values of each kind it had."""
    found: Counter[str] = Counter()
    return _redacted(text, kinds, found), found


def _redacted(text: str, kinds: Sequence[Kind], found: Counter[str]) -> str:
    """The text with placeholders, which are counted."""
    if not text:
        return text
    plain = text.encode("ascii", "replace")
    lower, shape = plain.lower(), plain.translate(_SHAPES)
    odd = not text.isascii() and _ODD.search(text) is not None
    for pattern in PATTERNS if odd or b"#" in shape else _WITHOUT_NUMBERS:
        if pattern.kind in kinds and (odd or pattern.may_be_in(lower, shape)):
            text = pattern.form.sub(partial(_placeholder, pattern, found), text)
    return text


def _placeholder(pattern: Pattern, found: Counter[str], match: re.Match[str]) -> str:
    value = match.group()
    if not pattern.check(value):
        return value
    found[pattern.kind] += 1
    return f"[{pattern.kind.upper()}]"


def redact_record(record: Record, kinds: Sequence[Kind]) -> tuple[Record, Counter[str]]:
    """The record with placeholders in every text of it; the record itself when nothing was found."""
    found: Counter[str] = Counter()
    clean = partial(_redacted, kinds=kinds, found=found)
    messages = tuple(clean(message.content) for message in record.messages)
    completion, rationale, reference = clean(record.completion), clean(record.rationale), clean(record.reference)
    more = {name: clean(value) for name, value in record.more.items()}
    if not found:
        return record, found
    return replace(
        record,
        messages=tuple(Message(m.role, content) for m, content in zip(record.messages, messages, strict=True)),
        completion=completion,
        rationale=rationale,
        reference=reference,
        more=more,
    ), found
