"""The chain of the audit trail without a database: the canonical line, and each way in which a chain can fail to hold."""

import hashlib
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenants.chain import FIRST, PLATFORM, Linked, Place, digest, ending, line, walk

pytestmark = pytest.mark.mission("P13.5", "X12")
TENANT = str(UUID(int=7))
ROW = Linked(
    1,
    FIRST,
    b"",
    41,
    TENANT,
    "2026-01-01T00:00:00.000001Z",
    "ada",
    "tool.disabled",
    "tool",
    "x",
    '{"a": 1.0}',
    None,
    'it\n"fails"\x7f é',
    "r",
)


def made(count: int) -> list[Linked]:
    rows, prev = [], FIRST
    for seq in range(1, count + 1):
        row = ROW._replace(seq=seq, id=40 + seq, prev=prev, object_id=f"thing-{seq}")
        rows.append(row._replace(hash=digest(prev, line(row))))
        prev = rows[-1].hash
    return rows


def verdict(rows: list[Linked], marks: dict[int, bytes] | None = None) -> str:
    reached, broken = walk(PLATFORM, rows, Place(), marks or {})
    return broken.code if broken else f"holds up to {reached.seq}"


def test_the_line_is_json_without_spaces_and_the_hash_is_over_the_one_before_and_the_line() -> None:
    text = line(ROW).decode()
    assert json.loads(text) == [1, 41, *ROW[4:]]
    assert text.startswith(f'[1,41,"{TENANT}","2026-01-01T00:00:00.000001Z","ada","tool.disabled","tool","x","{{\\"a\\": 1.0}}",null,')
    assert digest(b"p" * 32, b"line") == hashlib.sha256(b"p" * 32 + b"line").digest()


def test_a_chain_that_nobody_touched_holds() -> None:
    rows = made(5)
    assert verdict(rows) == "holds up to 5"
    assert verdict(rows, {3: rows[2].hash}) == "holds up to 5"
    assert walk(PLATFORM, rows[2:], Place(2, rows[1].hash), {}) == (Place(5, rows[4].hash), None)


CHANGED: dict[str, Any] = {
    "id": 99, "tenant": None, "at": "2026-01-01T00:00:00.000002Z", "actor": "bob", "action": "x", "object_kind": "x", "object_id": "x",
    "before": '{"a": 1}', "after": "null", "reason": "", "request_id": "",
}  # fmt: skip


@pytest.mark.parametrize("column", CHANGED)
def test_an_edit_of_any_column_is_found(column: str) -> None:
    rows = made(3)
    rows[1] = rows[1]._replace(**{column: CHANGED[column]})
    assert verdict(rows) == "content"


def without(rows: list[Linked]) -> list[Linked]:
    return [rows[0], rows[2]]


def gone(rows: list[Linked]) -> list[Linked]:
    return [rows[0], rows[1]._replace(id=None), rows[2]]


def twice(rows: list[Linked]) -> list[Linked]:
    return [rows[0], rows[0], *rows[1:]]


def swapped(rows: list[Linked]) -> list[Linked]:
    a, b = rows[0], rows[1]
    return [b._replace(seq=1, prev=a.prev, hash=a.hash), a._replace(seq=2, prev=b.prev, hash=b.hash), rows[2]]


def unhooked(rows: list[Linked]) -> list[Linked]:
    row = rows[1]._replace(prev=b"x" * 32)
    return [rows[0], row._replace(hash=digest(row.prev, line(row))), rows[2]]


def sewn(rows: list[Linked]) -> list[Linked]:
    """An edit with the hash put right, and the later ones left."""
    row = rows[1]._replace(actor="bob")
    return [rows[0], row._replace(hash=digest(row.prev, line(row))), rows[2]]


@pytest.mark.parametrize(
    ("change", "code", "seq"),
    [(without, "gap", 2), (gone, "entry_gone", 2), (twice, "gap", 2), (swapped, "content", 1), (unhooked, "order", 2), (sewn, "order", 3)],
)
def test_what_was_taken_out_put_in_or_moved_is_found_where_it_happened(change: Any, code: str, seq: int) -> None:
    _, broken = walk(PLATFORM, change(made(3)), Place(), {})
    assert broken is not None and (broken.code, broken.seq) == (code, seq)
    assert broken.what and broken.cure


def test_a_chain_written_anew_from_its_beginning_is_found_by_a_checkpoint() -> None:
    signed = made(4)[2].hash
    rows, prev = [], FIRST
    for row in made(4):
        row = row._replace(actor="bob", prev=prev)
        rows.append(row._replace(hash=digest(prev, line(row))))
        prev = rows[-1].hash
    assert verdict(rows) == "holds up to 4"
    assert verdict(rows, {3: signed}) == "checkpoint"


HASH, OTHER = b"h" * 32, b"o" * 32


@pytest.mark.parametrize(
    ("before", "now", "marks", "code"),
    [
        (Place(3, HASH), Place(3, HASH), {}, ""),
        (Place(2, OTHER), Place(3, HASH), {}, ""),  # one more since
        (Place(2, OTHER), Place(5, OTHER), {3: HASH}, ""),  # and two more since the walk
        (None, Place(3, HASH), {}, ""),
        (Place(4, OTHER), Place(4, OTHER), {}, "head"),  # the newest is gone
        (Place(4, OTHER), Place(3, HASH), {}, "head"),
        (Place(3, HASH), Place(3, OTHER), {}, "head"),
        (Place(2, OTHER), Place(2, OTHER), {}, "head"),  # one too many
        (None, None, {}, "head"),
        (Place(3, HASH), Place(3, HASH), {4: OTHER}, "truncated"),  # head and all
    ],
)
def test_a_chain_ends_where_its_head_and_its_checkpoints_say(before: Any, now: Any, marks: dict[int, bytes], code: str) -> None:
    assert ending(Place(3, HASH), before, now, marks) == code


def test_an_empty_chain_needs_no_head() -> None:
    assert ending(Place(), None, None, {}) == ""
    assert ending(Place(), None, None, {1: HASH}) == "truncated"


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.data())
def test_no_place_of_an_edit_escapes(count: int, data: st.DataObject) -> None:
    rows = made(count)
    at, column = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(sorted(CHANGED)))
    rows[at] = rows[at]._replace(**{column: CHANGED[column]})
    _, broken = walk(PLATFORM, rows, Place(), {})
    assert broken is not None and broken.seq == at + 1
