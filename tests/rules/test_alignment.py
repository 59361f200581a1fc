"""Two sequences side by side."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.alignment import Row, align, common


def words(left: str, right: str) -> list[str]:
    """a: in both, a-: left alone, -a: right alone, a/A: changed."""
    out = []
    for row in align(left, right, str.lower):
        here, there = (left[row.left] if row.left is not None else "-"), (right[row.right] if row.right is not None else "-")
        out.append(here if row.same else f"{here}/{there}" if row.changed else f"{here}{there}")
    return out


@pytest.mark.parametrize(
    ("left", "right", "rows"),
    [
        ("", "", []),
        ("abc", "abc", ["a", "b", "c"]),
        ("abc", "", ["a-", "b-", "c-"]),
        ("abd", "abcd", ["a", "b", "-c", "d"]),
        ("abcd", "acd", ["a", "b-", "c", "d"]),
        ("axd", "ayd", ["a", "x-", "-y", "d"]),
        ("abd", "aBd", ["a", "b/B", "d"]),
        ("abxd", "aBd", ["a", "b/B", "x-", "d"]),
        ("aab", "ab", ["a", "a-", "b"]),
    ],
)
def test_what_both_have_in_the_same_order_stands_in_one_row(left: str, right: str, rows: list[str]) -> None:
    assert words(left, right) == rows


def test_without_a_coarser_key_nothing_counts_as_changed() -> None:
    assert align("b", "B") == [Row(0, None, same=False), Row(None, 0, same=False)]


@given(st.text("abcAB", max_size=12), st.text("abcAB", max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_place_is_in_one_row_and_in_its_order(left: str, right: str) -> None:
    rows = align(left, right, str.lower)
    assert [row.left for row in rows if row.left is not None] == list(range(len(left)))
    assert [row.right for row in rows if row.right is not None] == list(range(len(right)))
    same = [(row.left, row.right) for row in rows if row.same]
    assert all(a is not None and b is not None and left[a] == right[b] for a, b in same)


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
@settings(max_examples=100, deadline=None)
def test_no_longer_common_subsequence_exists(left: str, right: str) -> None:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert len(common(left, right)) == table[-1][-1]
