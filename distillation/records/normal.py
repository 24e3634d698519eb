"""One spelling for every text: Unicode's NFC, line feeds, no characters that nobody sees.

Two texts that look the same get the same key, so this comes before any hash (Unicode Standard Annex 15). Joiners stay:
they change how Persian, Hindi and emoji look. Directional overrides go: they show text in an order it is not in.
"""

import re
import unicodedata

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text in NFC without control characters, empty lines before it and white space after it.

    Spaces before it stay: completions of code begin with them.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text.rstrip().lstrip("\n")


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: no half of a surrogate pair stands alone."""
    return _SURROGATE.search(text) is None
