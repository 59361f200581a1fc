"""The secrets that this process has opened or sealed, so that its logs can leave them out. Knows neither Django nor the database."""

from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A credential in the clear, for one use. `basic`: the secret is `user:password`; `header`: sent in that header."""

    name: str
    kind: str
    secret: str = field(repr=False)
    header: str | None = None
    version: int = 1


_seen: dict[str, Opened] = {}


def remember(opened: Opened) -> None:
    """A secret that was changed since is remembered too: a late answer may still quote it."""
    if opened.secret not in _seen:
        while len(_seen) >= KEPT:
            _seen.pop(next(iter(_seen)), None)
        _seen[opened.secret] = opened


def newest() -> str | None:
    return next(reversed(_seen), None)


def everything() -> list[Opened]:
    return list(_seen.values())
