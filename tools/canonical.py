"""JSON in one form: canonical bytes (RFC 8785), values that the database can hold, and parsing with a depth."""

import json
import math
import re
from json.encoder import encode_basestring
from typing import Any, Final

MAX_DEPTH: Final = 64
_INT64: Final = 1 << 63
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def dumps(value: Any) -> bytes:
    """Canonical JSON: keys in UTF-16 order, no spaces, numbers as ECMAScript prints them.

    One deviation from RFC 8785: a Python int is written in full, never rounded to a double, because the bytes are what
    a tool receives. Raises ValueError for what JSON cannot say (NaN, lone surrogates, other types, endless nesting).
    """
    out: list[str] = []
    try:
        _write(value, out)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return "".join(out).encode()


def _write(value: Any, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(encode_basestring(value))
    elif isinstance(value, dict):
        _write_object(value, out)
    elif isinstance(value, list | tuple):
        mark = "["
        for item in value:
            out.append(mark)
            _write(item, out)
            mark = ","
        out.append("]" if mark == "," else "[]")
    else:
        out.append(_scalar(value))


def _write_object(value: dict[Any, Any], out: list[str]) -> None:
    if not all(isinstance(key, str) for key in value):
        raise ValueError("the keys of an object must be strings")
    mark = "{"
    for key in _ordered(value):
        out.append(f"{mark}{encode_basestring(key)}:")
        _write(value[key], out)
        mark = ","
    out.append("}" if mark == "," else "{}")


def _ordered(keys: dict[str, Any]) -> list[str]:
    if "".join(keys).isascii():
        return sorted(keys)
    return sorted(keys, key=lambda key: key.encode("utf-16-be"))


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _number(value)
    raise ValueError(f"{type(value).__name__} is not JSON")


def _number(value: float) -> str:
    """As ECMAScript's Number::toString: the shortest digits, exponents only from 1e21 and below 1e-6."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinity are not JSON")
    text = float.__repr__(value)
    if "e" not in text:  # between 1e-4 and 1e16 both languages agree but for the ".0"
        return text.removesuffix(".0").replace("-0", "0") if value == 0 else text.removesuffix(".0")
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).rstrip("0")
    return sign + _place(digits, len(whole) + int(exponent))


def _place(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{rest}e{point - 1:+d}"


def clean(value: Any) -> tuple[Any, int]:
    """-> (the value as jsonb can hold it, how many places were changed).

    NUL and lone surrogates become U+FFFD; NaN, infinities and integers beyond 64 bits become strings. The argument is
    not changed; a clean value is returned as it is. Expects a value of limited depth (`loads_limited`).
    """
    changed = 0

    def walk(item: Any) -> Any:
        nonlocal changed
        if isinstance(item, dict):
            return {_text(key): walk(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [walk(inner) for inner in item]
        if isinstance(item, str):
            return _text(item)
        if _unstorable_number(item):
            changed += 1
            return _spelled(item)
        return item

    def _text(item: str) -> str:
        nonlocal changed
        if item.isascii() and "\x00" not in item:
            return item
        text, places = _UNSTORABLE.subn("�", item)
        changed += places
        return text

    cleaned = walk(value)
    return (cleaned, changed) if changed else (value, 0)


def _unstorable_number(item: Any) -> bool:
    if isinstance(item, float):
        return not math.isfinite(item)
    return isinstance(item, int) and not -_INT64 <= item < _INT64


def _spelled(item: Any) -> str:
    if isinstance(item, float):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return str(item) if item.bit_length() < 4096 else hex(item)  # long decimal strings are refused by Python itself


def loads_limited(raw: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON in UTF-8. Raises ValueError when it is not, or is nested deeper than `max_depth`; never RecursionError.

    NaN and infinities are let through for `clean` to make storable.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"nested deeper than {max_depth}") from None
    if raw.count(b"[") + raw.count(b"{") > max_depth:
        check_depth(value, max_depth)
    return value


def check_depth(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """Raises ValueError when lists and dicts are nested deeper than `max_depth`."""
    level = [value] if isinstance(value, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > max_depth:
            raise ValueError(f"nested deeper than {max_depth}")
        below: list[Any] = []
        for item in level:
            inner = item.values() if isinstance(item, dict) else item
            below.extend(part for part in inner if isinstance(part, dict | list))
        level = below
