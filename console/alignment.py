"""Two sequences side by side: what both have in the same order stands in one row. Pure, and of any keys that can be compared.

The rows are a longest common subsequence. What lies between two of its rows is aligned once more by a coarser key, where one is
given: such a pair is the same place with something changed. Whatever is left stands alone, the left before the right.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """Places in the two sequences, None where one of them has nothing. `same`: both keys are equal."""

    left: int | None
    right: int | None
    same: bool

    @property
    def changed(self) -> bool:
        """Both have it, and not the same."""
        return not self.same and self.left is not None and self.right is not None


def align(left: Sequence[K], right: Sequence[K], coarser: Callable[[K], Hashable] | None = None) -> list[Row]:
    """Every place of both sequences is in exactly one row, and the rows keep the order of both."""
    rows: list[Row] = []
    for gap_left, gap_right, same in _stretches(common(left, right), len(left), len(right)):
        rows += _between(left, right, gap_left, gap_right, coarser)
        if same is not None:
            rows.append(Row(*same, same=True))
    return rows


def common(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Pair]:
    """The places of a longest common subsequence. What both begin and end with is never searched."""
    head = 0
    while head < min(len(left), len(right)) and left[head] == right[head]:
        head += 1
    tail = 0
    while tail < min(len(left), len(right)) - head and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    middle = _longest(left[head : len(left) - tail], right[head : len(right) - tail])
    begin = [(n, n) for n in range(head)]
    end = [(len(left) - n, len(right) - n) for n in range(tail, 0, -1)]
    return [*begin, *((a + head, b + head) for a, b in middle), *end]


def _longest(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Pair]:
    """`best[i][j]`: how much is common from `i` and `j` on."""
    best = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        row, below = best[i], best[i + 1]
        for j in range(len(right) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if left[i] == right[j] else max(below[j], row[j + 1])
    found: list[Pair] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _stretches(pairs: list[Pair], left: int, right: int) -> Iterator[tuple[range, range, Pair | None]]:
    """(left places, right places, the pair that follows them); the last has no pair."""
    a = b = 0
    for pair in pairs:
        yield range(a, pair[0]), range(b, pair[1]), pair
        a, b = pair[0] + 1, pair[1] + 1
    yield range(a, left), range(b, right), None


def _between(left: Sequence[K], right: Sequence[K], here: range, there: range, coarser: Callable[[K], Hashable] | None) -> list[Row]:
    pairs = common([coarser(left[n]) for n in here], [coarser(right[n]) for n in there]) if coarser else []
    rows: list[Row] = []
    for alone_left, alone_right, pair in _stretches(pairs, len(here), len(there)):
        rows += [Row(here[n], None, same=False) for n in alone_left]
        rows += [Row(None, there[n], same=False) for n in alone_right]
        if pair is not None:
            rows.append(Row(here[pair[0]], there[pair[1]], same=False))
    return rows
