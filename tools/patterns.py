"""What a regular expression of a schema may cost, read from its text. Pure.

The engine that runs patterns (Rust's `regex`) never backtracks, so its worst time is states x length. That is harmless for an
expression that is simple to follow, and seconds for `[ab]*a[ab]{3000}` on a megabyte: so the states are counted here.
"""

import re
from dataclasses import dataclass
from typing import Final

_ENDLESS: Final = 1 << 16  # stands for "no upper bound"
_MANY: Final = 10  # from so many repeats on, what is repeated inside makes a pattern that backtracking engines drown in
_QUANTIFIER: Final = re.compile(r"(?:([*+?])|\{(\d+)(,?)(\d*)\})[?+]?")
_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:[pPxu]\{[^}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[pP].|.)", re.DOTALL)
_OPENING: Final = re.compile(r"\((?:\?(?:P?<\w+>|[a-zA-Z-]*:))?")
_NOTHING: Final = frozenset({"\\b", "\\B", "\\A", "\\z"})


@dataclass(frozen=True, slots=True)
class Shape:
    """`states`: how many an automaton needs, about. `longest`: characters it can take, at most (None: no bound).

    `choices`: repetitions with a say in how often. `firm`: something in it must match a fixed number of times.
    `nested`: an uncertain repetition of nothing but uncertain repetitions, as in `(a+)+`.
    """

    states: int = 0
    longest: int = 0
    choices: int = 0
    firm: bool = False
    nested: bool = False

    def then(self, other: "Shape") -> "Shape":
        return Shape(
            min(self.states + other.states, _ENDLESS),
            min(self.longest + other.longest, _ENDLESS),
            self.choices + other.choices,
            self.firm or other.firm,
            self.nested or other.nested,
        )

    def beside(self, other: "Shape") -> "Shape":
        """Either of the two."""
        choices, states = self.choices + other.choices + 1, min(self.states + other.states, _ENDLESS)
        return Shape(states, max(self.longest, other.longest), choices, self.firm and other.firm, self.nested or other.nested)

    def repeated(self, least: int, most: int) -> "Shape":
        uncertain = least != most
        return Shape(
            min(self.states * (max(least, 1) if most >= _ENDLESS else max(most, 1)), _ENDLESS),
            min(self.longest * most, _ENDLESS),
            self.choices * min(most, 2) + uncertain,
            self.firm and least > 0 and not uncertain,
            self.nested or (uncertain and most >= _MANY and self.choices > 0 and not self.firm),
        )


_ATOM: Final = Shape(1, 1, 0, True)


@dataclass(frozen=True, slots=True)
class Cost:
    """`bounded`: only texts up to some length match. `nested`: as `Shape`. `slow`: states to be reckoned with at each
    character; 0 where the next character always decides (anchored, and at most one repetition that has a choice)."""

    bounded: bool
    nested: bool
    slow: int


def cost(pattern: str) -> Cost:
    """Read a pattern. One that cannot be read is left to the engine to refuse, and counts as slow."""
    try:
        shape, end = _alternatives(pattern, 0)
    except RecursionError:
        return Cost(False, True, _ENDLESS)
    anchored = pattern.startswith("^") and "|" not in pattern
    whole = anchored and pattern.endswith("$") and not pattern.endswith("\\$")
    simple = anchored and shape.choices <= 1 and end == len(pattern)
    return Cost(whole and shape.longest < _ENDLESS, shape.nested, 0 if simple else shape.states)


def _alternatives(text: str, at: int) -> tuple[Shape, int]:
    """-> (shape, where it ends: at a closing bracket or the end of the text)."""
    shape, at = _sequence(text, at)
    while text[at : at + 1] == "|":
        other, at = _sequence(text, at + 1)
        shape = shape.beside(other)
    return shape, at


def _sequence(text: str, at: int) -> tuple[Shape, int]:
    shape = Shape()
    while at < len(text) and text[at] not in "|)":
        part, at = _atom(text, at)
        while found := _QUANTIFIER.match(text, at):
            part, at = part.repeated(*_times(found)), found.end()
        shape = shape.then(part)
    return shape, at


def _atom(text: str, at: int) -> tuple[Shape, int]:
    mark = text[at]
    if mark == "(" and (opening := _OPENING.match(text, at)):
        shape, end = _alternatives(text, opening.end())
        return shape, end + 1
    if mark == "\\" and (found := _ESCAPE.match(text, at)):
        return (Shape() if found.group() in _NOTHING else _ATOM), found.end()
    if mark == "[" and (found := _CLASS.match(text, at)):
        return _ATOM, found.end()
    return (Shape() if mark in "^$" else _ATOM), at + 1


def _times(found: re.Match[str]) -> tuple[int, int]:
    mark, least, comma, most = found.groups()
    if mark:
        return {"*": (0, _ENDLESS), "+": (1, _ENDLESS), "?": (0, 1)}[mark]
    low = min(int(least[:6]), _ENDLESS)
    return low, (low if not comma else min(int(most[:6]), _ENDLESS) if most else _ENDLESS)
