"""Names and texts from outside: names made into ours or refused, texts without what nobody sees. Pure."""

import re
import unicodedata
from typing import Any, Final

MAX_NAME: Final = 64
MAX_TEXT: Final = 4000
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]+")
# Controls, formatting (zero width, direction), surrogates, private use, unassigned, and separators that look like none.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
_KEPT: Final = "\n\t"
_ALSO_UNSEEN: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")  # letters and marks that show nothing


class BadName(ValueError):
    """A name that cannot become one of ours; the text says why."""


def our_name(prefix: str, remote: str) -> str:
    """`server.tool`. Letters that only look like ASCII, and what nobody sees, are refused; other odd ASCII becomes `_`."""
    if not remote.isascii() or not remote.isprintable():
        raise BadName("its name holds characters that cannot be told from others or cannot be seen")
    cleaned = _ODD.sub("_", remote).strip("_-")
    if not cleaned:
        raise BadName("its name holds neither a letter nor a digit")
    name = f"{prefix}.{cleaned}"
    if len(name) > MAX_NAME:
        raise BadName(f"{name[:80]} is longer than {MAX_NAME} characters")
    return name


def unseen(char: str) -> bool:
    variation = "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    return char not in _KEPT and (variation or char in _ALSO_UNSEEN or unicodedata.category(char) in _UNSEEN)


def seen(text: str) -> tuple[str, int]:
    """-> (the text without what nobody sees, how many characters that was)."""
    if text.isascii() and text.isprintable():
        return text, 0
    kept = "".join(char for char in text if not unseen(char))
    return kept, len(text) - len(kept)


def seen_all(value: Any) -> tuple[Any, int]:
    """The same for every text and key in a JSON value of limited depth."""
    if isinstance(value, str):
        return seen(value)
    if isinstance(value, list):
        pairs = [seen_all(item) for item in value]
        return [item for item, _ in pairs], sum(count for _, count in pairs)
    if isinstance(value, dict):
        made, total = {}, 0
        for key, item in value.items():
            (name, in_key), (inner, in_item) = seen(key), seen_all(item)
            made[name] = inner
            total += in_key + in_item
        return made, total
    return value, 0
