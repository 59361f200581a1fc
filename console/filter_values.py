"""What a filter of runs asks for: some values (`a,b`: any of them), or anything but some (`!a,!b`). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tenants.errors import Refused

MOST = 50  # values of one filter
LONGEST = 2000  # characters of one filter
NOT = "!"


@dataclass(frozen=True, slots=True)
class Values:
    """`names`: without repetition, in the order they were given; `none_of` turns them into what is left out."""

    names: tuple[str, ...] = ()
    none_of: bool = False

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def text(self) -> str:
        return ",".join(f"{NOT}{name}" if self.none_of else name for name in self.names)

    @property
    def key(self) -> tuple[bool, frozenset[str]]:
        """Equal for what finds the same."""
        return self.none_of, frozenset(self.names)

    def has(self, names: Iterable[str]) -> bool:
        return set(names) <= set(self.names)

    def toggled(self, names: Iterable[str]) -> Values:
        """With all of `names`, or without any of them where all are there."""
        wanted = tuple(names)
        left = tuple(name for name in self.names if name not in wanted)
        return Values(left if self.has(wanted) else tuple(dict.fromkeys((*self.names, *wanted))), self.none_of)

    def turned(self) -> Values:
        return Values(self.names, not self.none_of)


def read(filter_name: str, text: str) -> Values:
    """`a,b` or `!a,!b`; empty pieces count for nothing. Refuses bad_<filter> 400."""
    if len(text) > LONGEST:
        raise unreadable(filter_name, f"has at most {LONGEST:,} characters: name fewer values")
    pieces = [piece.strip() for piece in text.split(",")]
    given = tuple(dict.fromkeys(piece for piece in pieces if piece))
    if len(given) > MOST:
        raise unreadable(filter_name, f"has at most {MOST} values: name fewer")
    denied = [piece.startswith(NOT) for piece in given]
    if any(denied) and not all(denied):
        raise unreadable(filter_name, "must be either values (a,b) or values to leave out (!a,!b), not both")
    names = tuple(dict.fromkeys(piece.removeprefix(NOT).strip() for piece in given))
    if "" in names or any(name.startswith(NOT) for name in names):
        raise unreadable(filter_name, "must name a value after each !, as in !a,!b")
    return Values(names, any(denied))


def unreadable(filter_name: str, what: str) -> Refused:
    return Refused(f"bad_{filter_name}", f"{filter_name} {what}.", 400)


def words(values: Values, known: dict[str, str]) -> str:
    """`failed or cancelled`, `not failed or cancelled`. A key of `known` may be several values, told as one where all are there."""
    rest, told = list(values.names), []
    for key, label in known.items():
        group = key.split(",")
        if rest and set(group) <= set(rest):
            told.append(label)
            rest = [name for name in rest if name not in group]
    told += rest
    return ("not " if values.none_of else "") + " or ".join(told)
