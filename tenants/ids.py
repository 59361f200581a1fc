"""Typed, sortable ids: a prefix and a ULID in text, the ULID's 128 bits as uuid in the database."""

import os
import re
import time
import uuid
from datetime import datetime, timedelta

SKEW = timedelta(hours=1)  # between the clock that makes an id and the database's
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
SHAPE = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


def new_id() -> uuid.UUID:
    """48 bits of milliseconds since 1970, then 80 random bits: ids made later sort later."""
    return uuid.UUID(int=(time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10)))


def first_at(at: datetime) -> uuid.UUID:
    """Nothing that was made at or after `at` has a lesser id."""
    return uuid.UUID(int=int((at - SKEW).timestamp() * 1000) << 80)


def encode(prefix: str, value: uuid.UUID) -> str:
    """`agt`, uuid -> `agt_01J9M7R2...` (26 characters after the prefix)."""
    number = value.int
    return f"{prefix}_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))


def decode(prefix: str, text: str) -> uuid.UUID:
    """The reverse of `encode`. Raises ValueError for anything else, however strange."""
    head, _, body = text.partition("_")
    if head != prefix or not SHAPE.match(body):
        raise ValueError(f"not an id of the form {prefix}_…")
    number = 0
    for letter in body:
        number = number << 5 | VALUES[letter]
    return uuid.UUID(int=number)
