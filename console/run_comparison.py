"""Two runs side by side: their model turns and tool calls aligned, and what differs in each row. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from .alignment import align

MOST = 400  # calls of each run


@dataclass(frozen=True, slots=True)
class Move:
    """A model turn (`ord` 0) or a tool call. `args` is the digest of what was sent, empty for a turn."""

    step: int
    ord: int
    role: str
    name: str  # the model's, or the tool's
    state: str
    args: str = ""
    error: str = ""
    latency_ms: int | None = None
    cost_micro: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Turns are told apart by their role, whichever model took them."""
        return (self.role, self.name if self.ord else "", self.args)

    @property
    def place(self) -> str:
        return f"{self.step}.{self.ord}" if self.ord else str(self.step)


@dataclass(frozen=True, slots=True)
class Line:
    left: Move | None
    right: Move | None
    differs: tuple[str, ...]  # in words; empty where both did the same, or one of them nothing

    @property
    def what(self) -> str:
        """same, changed, left or right"""
        if self.left is None:
            return "right"
        if self.right is None:
            return "left"
        return "changed" if self.differs else "same"

    @property
    def args_differ(self) -> bool:
        return "other arguments" in self.differs

    @property
    def turn(self) -> bool:
        either = self.left or self.right
        return either is not None and not either.ord


def lines(left: Sequence[Move], right: Sequence[Move]) -> list[Line]:
    """A tool call with other arguments is the same place, changed."""
    rows = align([move.key for move in left], [move.key for move in right], lambda key: key[:2])
    found = [(None if row.left is None else left[row.left], None if row.right is None else right[row.right]) for row in rows]
    return [Line(a, b, differences(a, b) if a and b else ()) for a, b in found]


def differences(a: Move, b: Move) -> tuple[str, ...]:
    said = (
        ("other model", a.ord == 0 and a.name != b.name),
        ("other arguments", a.args != b.args),
        (f"{spoken(a)} became {spoken(b)}", spoken(a) != spoken(b)),
    )
    return tuple(words for words, differs in said if differs)


def spoken(move: Move) -> str:
    return (move.error or move.state).replace("_", " ")


def tally(found: Sequence[Line]) -> list[tuple[str, int]]:
    """How many rows there are of each kind, in the order in which they are told."""
    return [(what, sum(line.what == what for line in found)) for what in ("same", "changed", "left", "right")]
