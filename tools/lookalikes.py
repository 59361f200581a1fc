"""Characters that cannot be seen, and those that look like others. Pure."""

import re
import unicodedata
from typing import Final

_FILLERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for span in (range(0xFE00, 0xFE0F), range(0xE0100, 0xE01F0)) for code in span
}
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Cyrillic, Greek and Armenian letters that most typefaces draw like a Latin one.
_LATIN: Final = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԁаеѕіјкорсутхһԛѡɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυχօոսց",
    "ABESIJKMHOPCTYXdaesijkopcytxhqwgABEZHIKMNOPTYXaivopuxonug",
)
_SAME: Final = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "-": "_", ".": "_"})
_LATIN_LETTER: Final = re.compile("[A-Za-z]")


def hidden(text: str) -> str:
    """The characters without a glyph in it, such as `U+202E U+200B`; line breaks and tabs are no secret."""
    found = {char for char in set(text) if _is_hidden(char)}
    return " ".join(f"U+{ord(char):04X}" for char in sorted(found))


def spelled(text: str) -> str:
    """On one line, with what cannot be seen spelt out: a terminal and a page show what is there."""
    return "".join(f"\\u{ord(char):04x}" if _is_hidden(char) or char in "\n\t" else char for char in text)


def _is_hidden(char: str) -> bool:
    return char not in "\n\t" and (char in _FILLERS or unicodedata.category(char) in _HIDDEN)


def plain(text: str) -> str:
    """As a reader takes it: what cannot be seen left out, letters that look like Latin ones made Latin."""
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(char for char in unicodedata.normalize("NFKC", text) if not _is_hidden(char))
    return shown.translate(_LATIN)


def skeleton(name: str) -> str:
    """Two names that a hurried reader could take for one have the same: case, 0 and O, 1 l and I, - and _ count for nothing."""
    return plain(name).casefold().translate(_SAME)


def mixed(text: str) -> str:
    """The first word that mixes Latin letters with others that look like them; "" when there is none."""
    words: list[str] = [] if text.isascii() else re.findall(r"\w+", text)
    for word in words:
        if _LATIN_LETTER.search(word) and any(char != char.translate(_LATIN) for char in word):
            return word
    return ""
