"""Rows as files: CSV that a spreadsheet cannot be made to calculate with, and JSON Lines. Pure.

A cell that begins as a formula would (`= + - @`, TAB, CR, NUL) gets an apostrophe in front, numbers excepted; every cell is quoted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

RISKY = ("=", "+", "-", "@", "\t", "\r", "\0")
MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}


def cell(value: Any) -> str:
    text = "" if value is None else json.dumps(value) if isinstance(value, bool | dict | list) else str(value)
    if isinstance(value, str) and text.startswith(RISKY):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"'


def csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """RFC 4180, its first line the names of the columns."""
    lines = [",".join(map(cell, columns)), *(",".join(cell(row.get(name)) for name in columns) for row in rows)]
    return "\r\n".join(lines) + "\r\n"


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def attachment(name: str) -> str:
    """Content-Disposition (RFC 6266) for any name: a plain one for old readers, and the exact one in UTF-8."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_. ") else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
