"""Letters that pass for others: a Cyrillic "а" in an address, a fullwidth digit in a sum. Pure."""

import re
import unicodedata
from collections.abc import Iterator

# Letters of other alphabets that most typefaces draw like one of the letters A to Z.
CYRILLIC = "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d\u04bb\u04cf\u0410\u0412\u0415\u041a\u041c\u041d"
CYRILLIC += "\u041e\u0420\u0421\u0422\u0425\u0405\u0406\u0408\u04ae\u0443\u0474\u050c"
GREEK = (
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c5\u03c7\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
OTHERS = "\u0131\u0251\u0261\u0269\u028f\u0237\u13a2\u13aa\u13b3\u13bb\u13c0\u13c2\u13da\u13de\u0578\u057d\u0585\u0570\u0566\u0563\u04c0"
TWINS = frozenset(CYRILLIC + GREEK + OTHERS)
WORD = re.compile(r"[^\W_]+")
ASCII = re.compile("[A-Za-z0-9]")


def marked(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is one letter that passes for another.

    A twin is marked in a word that has ASCII letters or digits too, or that is made of twins alone; a character that is only another
    form of an ASCII one (fullwidth, mathematical) always.
    """
    if text.isascii():
        yield text, False
        return
    at = 0
    for place in sorted(places(text)):
        if place > at:
            yield text[at:place], False
        yield text[place], True
        at = place + 1
    if at < len(text):
        yield text[at:], False


def places(text: str) -> set[int]:
    found = {at for at, character in enumerate(text) if ord(character) > 0xFF and is_form(character)}
    for word in WORD.finditer(text):
        if word[0].isascii():
            continue
        twins = {word.start() + at for at, character in enumerate(word[0]) if character in TWINS}
        if twins and (ASCII.search(word[0]) or len(twins) == len(word[0]) > 1):
            found |= twins
    return found


def is_form(character: str) -> bool:
    """Another form of one ASCII letter or digit."""
    plain = unicodedata.normalize("NFKC", character)
    return len(plain) == 1 and plain.isascii() and plain.isalnum()


def has_any(text: str) -> bool:
    return not text.isascii() and bool(places(text))
