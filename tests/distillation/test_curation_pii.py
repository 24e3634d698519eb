"""Personal data: found where it is, left alone where it only looks like it, check digits against other arithmetic."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.curation.checksums import is_card, is_iban
from distillation.curation.pii import KINDS, PATTERNS, redact, redact_record
from distillation.curation.retention import expired
from distillation.record import Message, Record, asked
from phases.errors import InputError

DIGITS = st.text("0123456789", min_size=12, max_size=18)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("call +49 (30) 901-820 now", "call [PHONE] now"),
        ("call 0049 30 901820", "call [PHONE]"),
        ("(212) 555-0147 or 212-555-0147", "[PHONE] or [PHONE]"),
        ("IBAN DE89 3704 0044 0532 0130 00, please", "IBAN [IBAN], please"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("card 4111 1111 1111 1111.", "card [CARD]."),
        ("amex 3782-822463-10005", "amex [CARD]"),
        ("5500005555555559", "[CARD]"),
        ("from 192.168.0.17:8080", "from [IP]:8080"),
        ("at 2001:db8::8a2e:370:7334", "at [IP]"),
        ("SSN 078-05-1120", "SSN [SSN]"),
        ("key sk-proj-abcdEFGH1234567890abcd", "key [SECRET]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
        ("ghp_" + "a1" * 18, "[SECRET]"),
        ("postgres://admin:hunter22@db/x", "postgres://[SECRET]@db/x"),
        ('{"password": "correct-horse"}', '{"password[SECRET]"}'),
        ("API_KEY=0123456789abcdef", "API_KEY[SECRET]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- end", "[SECRET] end"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl", "[SECRET]"),
    ],
)
def test_what_is_found(text: str, expected: str) -> None:
    redacted, found = redact(text, KINDS)
    assert redacted == expected
    assert found.total() == expected.count("[")


@pytest.mark.parametrize(
    "text",
    [
        "What is 688 - 716 + 1234567890123456?",
        "State the answer: 4 + 3 - 12 =",
        "Find the GCD of these numbers: 688, 716.",
        "version 1.2.3 of 2024-05-17, 10:30:59",
        "order 4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 01",
        "666-05-1120 and 900-05-1120 and 078-00-1120",
        "999.168.0.17",
        "a task-oriented risk-averse sk-learn user",
        "def f(a: int, b: str) -> C::D",
        "12345678 90123456",
        "the token: yes",
        "user@host",
        "3.14159265358979",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert redact(text, KINDS) == (text, {})


PARTS = """
AKIA ASIA sk- gh ghp_ hf_ glpat- xoxb- AIza eyJ :// a:b@c password ToKen = : jane@example.org +49 00 (212) DE89
3704 0044 0532 0130 4111 1111 078-05-1120 192.168 . - :: 555-0147 3782 822463 10005 XXXXXXXXXXXXXXXX é \u0660\u0661 ſ
paſſword to\u212aen \u0664\u0664\u0664\u0664 a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"""


@given(st.lists(st.sampled_from([*PARTS.split(), " ", "-----BEGIN PRIVATE KEY-----"]), max_size=14).map("".join))
def test_what_a_pattern_needs_is_in_every_text_that_it_changes(text: str) -> None:
    """Against all patterns one after the other, without a look for what they need."""
    expected = text
    for pattern in PATTERNS:
        for found in reversed(list(pattern.form.finditer(expected))):
            if pattern.check(found.group()):
                expected = f"{expected[: found.start()]}[{pattern.kind.upper()}]{expected[found.end() :]}"
    assert redact(text, KINDS)[0] == expected


def test_a_long_number_takes_no_time() -> None:
    """Split into groups in every way it would take years."""
    text = "+" + "1" * 500 + "a"
    assert redact(text, KINDS)[0] == text


@given(DIGITS)
def test_one_last_digit_of_ten_makes_a_card(digits: str) -> None:
    """By the definition: doubled digits from the right, their cross sums."""
    valid = [last for last in "0123456789" if is_card(digits + last)]
    total = sum(sum(map(int, str(int(d) * (2 if i % 2 == 0 else 1)))) for i, d in enumerate(reversed(digits)))
    expected = str(-total % 10)
    assert valid == ([expected] if len(set(digits + expected)) > 1 else [])


@given(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=11, max_size=30), st.sampled_from(["DE", "FR", "GB"]))
def test_one_pair_of_check_digits_makes_an_iban(account: str, country: str) -> None:
    """Computed digit by digit, not as one large number."""
    remainder = 0
    for character in account + country + "00":
        for digit in str(int(character, 36)):
            remainder = (remainder * 10 + int(digit)) % 97
    assert is_iban(f"{country}{98 - remainder:02d}{account}")
    assert not is_iban(f"{country}{(98 - remainder + 1) % 100:02d}{account}")


@given(st.text("0123456789 -+@:=abcxyz.", max_size=60))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once, _ = redact(text, KINDS)
    assert redact(once, KINDS)[0] == once


def test_every_text_of_a_record_is_redacted_and_only_the_kinds_asked_for() -> None:
    mail = "a@example.org"
    record = Record((Message("system", mail), Message("user", mail)), mail, mail, mail, more={"x": mail})
    redacted, found = redact_record(record, KINDS)
    assert mail not in str(redacted)
    assert found == {"email": 6}
    same, found = redact_record(record, ["phone"])
    assert same is record
    assert not found


def test_what_is_older_than_its_period_has_expired() -> None:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    dated = [(asked(str(days)), now - timedelta(days=days)) for days in (0, 30, 31, 400)]
    assert [r.prompt for r in expired(dated, 30, now)] == ["31", "400"]
    assert expired([], 0, now) == []


def test_bad_periods_and_times() -> None:
    now = datetime(2026, 3, 31, tzinfo=UTC)
    with pytest.raises(InputError, match="give 0 days or more"):
        expired([], -1, now)
    with pytest.raises(InputError, match="without its zone"):
        expired([(asked("x"), datetime(2026, 1, 1))], 1, now)
