"""What an answer over HTTP becomes, and what keeps a call from being sent."""

from typing import Any

import pytest

from tests.rules.dropping_server import Behaviour, DroppingServer, answer
from tools.canonical import dumps
from tools.definitions import Effect, ErrorClass, RetryPolicy

from .test_http_adapter import KEYED, READ, UNKEYED, Desk, E, desk, server

__all__ = ["desk", "server"]


# --- normalising

TICKET = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
CLOSED = {**TICKET, "additionalProperties": False}


@pytest.mark.parametrize(
    ("behaviour", "schema", "data"),
    [
        (answer({"id": 1}), TICKET, {"ok": True, "id": 1}),
        (answer({"id": 1}, 201), CLOSED, {"ok": True, "id": 1}),
        (answer({"ok": True, "id": 1}), CLOSED, {"ok": True, "id": 1}),
        (answer({"data": {"id": 1}}), TICKET, {"ok": True, "id": 1}),
        (answer({"result": {"id": 1}, "took": 2}), TICKET, {"ok": True, "id": 1}),
        (answer({"data": {"id": 1}}), None, {"ok": True, "data": {"id": 1}}),
        (answer([1, 2]), None, {"ok": True, "value": [1, 2]}),
        (answer([1, 2]), {"type": "array"}, {"ok": True, "value": [1, 2]}),
        (answer("text"), None, {"ok": True, "value": "text"}),
        (answer(body=b"null"), None, {"ok": True, "value": None}),
        (answer(body=b'\xef\xbb\xbf{"id": 1}'), TICKET, {"ok": True, "id": 1}),
        (answer(status=204), TICKET, {"ok": True}),
    ],
)
async def test_an_answer_is_unwrapped_onto_the_output_schema(
    desk: Desk, server: DroppingServer, behaviour: Behaviour, schema: dict[str, Any] | None, data: dict[str, Any]
) -> None:
    server.behave(behaviour)
    result = await desk.call(KEYED, output_schema=schema)
    assert (result.ok, result.error_class, result.applied, result.data) == (True, None, True, data)


@pytest.mark.parametrize(("what", "applied"), [(READ, None), (KEYED, True), (UNKEYED, True)])
async def test_an_answer_that_does_not_fit_the_schema_is_invalid_and_a_write_was_applied(
    desk: Desk, server: DroppingServer, what: tuple[Effect, str], applied: bool | None
) -> None:
    server.behave(answer({"id": "one"}))
    result = await desk.call(what, output_schema=TICKET)
    assert (result.ok, result.error_class, result.applied) == (False, ErrorClass.INVALID_OUTPUT, applied)
    assert "/id" in result.data["message"]


@pytest.mark.parametrize(
    ("said", "what", "error", "applied"),
    [
        ("no_such_account", UNKEYED, E.VALIDATION, False),
        ("authorization", UNKEYED, E.AUTHORIZATION, False),
        ("timeout", KEYED, E.TIMEOUT, None),
        ("timeout", UNKEYED, E.UNKNOWN, None),
        ("unknown", READ, E.TRANSIENT_UPSTREAM, None),
        ("not_sent", UNKEYED, E.VALIDATION, False),
        ("policy", UNKEYED, E.VALIDATION, False),
    ],
)
async def test_a_failure_in_the_other_sides_own_words_stays_a_failure(
    desk: Desk, server: DroppingServer, said: str, what: tuple[Effect, str], error: ErrorClass, applied: bool | None
) -> None:
    server.behave(answer({"ok": False, "error_type": said, "message": "no"}))
    result = await desk.call(what, output_schema={"type": "object"})
    assert (result.ok, result.error_class, result.applied) == (False, error, applied)
    assert result.data == {"ok": False, "error_type": said, "message": "no"}


async def test_the_words_of_a_refusal_reach_the_model_and_are_clipped(desk: Desk, server: DroppingServer) -> None:
    server.behave(answer({"message": "title is missing"}, 422), answer(body=b"x" * 100_000, status=400))
    assert (await desk.call()).data["message"] == "HTTP 422: title is missing"
    assert len((await desk.call()).data["message"]) < 600


HOSTILE = b'{"id": 1, "t": "a\\u0000b\\ud800", "n": NaN, "big": 99999999999999999999999}'


async def test_hostile_values_are_made_storable_and_counted(desk: Desk, server: DroppingServer) -> None:
    server.behave(answer(body=HOSTILE), answer(body=b'{"message": "a\\u0000\\ud800"}', status=422))
    result = await desk.call(output_schema=TICKET)
    assert result.data == {"ok": True, "id": 1, "t": "a�b�", "n": "NaN", "big": "99999999999999999999999"}
    assert result.sanitized == 4
    refused = await desk.call()
    assert refused.data["message"] == "HTTP 422: a��"
    dumps(refused.data)


# --- before anything is sent


@pytest.mark.parametrize("args", [b"", b"[]", b'"x"', b"{", b'{"title": 1}', b'{"title": "\\u0000"}', b'{"a":' * 70 + b"1" + b"}" * 70])
async def test_wrong_arguments_are_never_sent(desk: Desk, server: DroppingServer, args: bytes) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    result = await desk.tools.invoke(desk.define(UNKEYED, input_schema=schema), args, desk.context())
    assert (result.error_class, result.applied) == (ErrorClass.VALIDATION, False)
    assert server.connections == 0


@pytest.mark.parametrize("broken", [{"input_schema": {"type": "nonsense"}}, {"output_schema": {"$ref": "#/none"}}])
async def test_a_broken_schema_sends_nothing(desk: Desk, server: DroppingServer, broken: dict[str, Any]) -> None:
    result = await desk.call(UNKEYED, **broken)
    assert (result.error_class, result.applied) == (ErrorClass.POLICY, False)
    assert server.connections == 0


# --- policy as data


@pytest.mark.mission("P3.3")
def test_the_retry_policy_of_the_mission_can_be_pasted_as_it_stands() -> None:
    policy = RetryPolicy.from_json(
        {
            "max_attempts": 2,
            "backoff_ms": [200, 800],
            "retry_on": ["timeout", "rate_limit", "transient_upstream"],
            "do_not_retry_on": ["validation", "authorization", "duplicate_request"],
        }
    )
    assert (policy.max_attempts, policy.backoff_ms) == (2, (200, 800))
    assert policy.retry_on == {"timeout", "rate_limit", "transient_upstream", "not_sent"}
    assert RetryPolicy.from_json(None) == RetryPolicy.from_json({}) == RetryPolicy()


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_attempts": "2"}, "max_attempts"),
        ({"backoff_ms": []}, "backoff_ms"),
        ({"backoff_ms": [-1]}, "backoff_ms"),
        ({"backoff_ms": 200}, "backoff_ms"),
        ({"retry_on": ["timeouts"]}, "retry_on"),
        ({"retry_on": "timeout"}, "retry_on"),
        ({"retry_on": ["unknown"]}, "retry_on"),
        ({"retry_on": [["timeout"]]}, "retry_on"),
        ({"do_not_retry_on": ["not_sent"]}, "do_not_retry_on"),
        ({"retry_on": ["timeout"], "do_not_retry_on": ["timeout"]}, "do_not_retry_on"),
        ({"jitter": 1}, "jitter"),
        ([], "retry"),
    ],
)
def test_a_retry_policy_names_the_field_at_fault(value: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        RetryPolicy.from_json(value)


async def test_a_head_is_done_when_it_is_answered(desk: Desk, server: DroppingServer) -> None:
    server.behave(answer(body=b"", Content_Length=str(5 << 20)))
    adapter = {"kind": "http", "method": "HEAD", "url": f"{server.origin}/things/{{id}}", "place": {"id": "path"}}
    result = await desk.call(READ, {"id": "a b", "deep": True}, adapter=adapter)
    assert (result.ok, result.data) == (True, {"ok": True})
    assert (server.requests[0].method, server.requests[0].target) == ("HEAD", "/things/a%20b?deep=true")
