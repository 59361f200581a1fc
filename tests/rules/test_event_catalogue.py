"""What the catalogue says of events, as a machine reads it."""

from typing import Any

import jsonschema_rs
import pytest

from runs.event_catalogue import schema, schema_of
from runs.events import VERSION, Kind

pytestmark = pytest.mark.mission("P8.1")
RUN = "agt_01M84NVW2ARRGAAF26N9XW52ZZ"
NOTHING = dict.fromkeys(
    (
        "step_id", "call_id", "model", "tool", "latency_ms", "input_tokens", "output_tokens", "cost_usd", "result", "error_type",
        "retryable", "data",
    )
)  # fmt: skip


def told(kind: str, **fields: Any) -> dict[str, Any]:
    base = {"seq": 1, "run_id": RUN, "event": kind, "at": "2026-01-31T12:00:00.000Z", "v": VERSION}
    return base | NOTHING | fields


FAILED = told(
    "tool_call_failed", step_id=3, call_id=f"{RUN}.3.1", tool="fetch_account", latency_ms=412, result="error", error_type="timeout",
    retryable=True, data={"attempt": 1, "status": None, "result_sha256": "0" * 64},
)  # fmt: skip


def fits(event: dict[str, Any], **strict: bool) -> bool:
    return bool(jsonschema_rs.Draft202012Validator(schema_of(Kind(event["event"]), **strict)).is_valid(event))


def test_every_kind_has_a_schema_and_the_document_is_one() -> None:
    document = schema()

    jsonschema_rs.meta.validate(document)
    assert set(document["$defs"]) == {kind.value for kind in Kind}
    assert document["version"] == VERSION


@pytest.mark.parametrize(
    ("change", "loose", "strict"),
    [
        ({}, True, True),
        ({"tool": None}, False, False),
        ({"result": "fine"}, False, False),
        ({"data": {"attempt": "first"}}, False, False),
        ({"call_id": "3.1"}, False, False),
        ({"v": VERSION + 1}, True, False),  # written by a later version
        ({"note": "of a later version"}, True, False),
        ({"data": FAILED["data"] | {"region": "eu"}}, True, False),
        ({"model": "primary"}, True, False),  # a field of the contract that this kind does not have yet
    ],
)
def test_a_reader_takes_what_is_new_and_a_writer_keeps_to_the_catalogue(change: dict[str, Any], loose: bool, strict: bool) -> None:
    event = FAILED | change

    assert (fits(event), fits(event, strict=True)) == (loose, strict)


def test_the_whole_takes_a_kind_that_nobody_knows_and_holds_a_known_one() -> None:
    whole = jsonschema_rs.Draft202012Validator(schema())

    assert whole.is_valid(told("call_teleported", v=7, data={"to": "elsewhere"}))
    assert whole.is_valid(FAILED)
    assert not whole.is_valid(FAILED | {"tool": 7})
