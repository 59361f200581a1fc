"""HTTP tools: what is on the wire, and the table that says what an answer means."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any
from uuid import uuid4

import pytest

from tests.rules.dropping_server import Behaviour, DroppingServer, answer, dropping_server, gzip_bomb, kind
from tools.canonical import dumps
from tools.definitions import CallContext, Credential, Effect, ErrorClass, RetryPolicy, ToolDefinition, ToolResult
from tools.invoke import Tools

KEY = "0123456789abcdef0123456789abcdef"
READ = (Effect.READ, "none")
KEYED = (Effect.WRITE, "key")
UNKEYED = (Effect.WRITE, "none")
IRREVERSIBLE = (Effect.IRREVERSIBLE, "none")


class Desk:
    """One tool behind the server, called as an engine would."""

    def __init__(self, tools: Tools, server: DroppingServer) -> None:
        self.tools, self.server = tools, server

    def define(self, what: tuple[Effect, Any] = KEYED, **changes: Any) -> ToolDefinition:
        effect, idempotency = what
        made = ToolDefinition(
            version_id=uuid4(),
            name="create_ticket",
            description="",
            effect=effect,
            idempotency=idempotency,
            adapter={"kind": "http", "method": "POST", "url": f"{self.server.origin}/desk/tickets"},
            input_schema={"type": "object"},
            output_schema=None,
            timeout_s=5.0,
            retry=RetryPolicy(),
            labels=frozenset(),
        )
        return replace(made, **changes)

    def context(self, **changes: Any) -> CallContext:
        return replace(CallContext("agt_01J", 4, KEY, 5.0, self.server.allow), **changes)

    async def call(
        self,
        what: tuple[Effect, Any] = KEYED,
        args: object = None,
        *,
        context: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> ToolResult:
        definition = self.define(what, **changes)
        return await self.tools.invoke(definition, dumps({} if args is None else args), self.context(**(context or {})))


@pytest.fixture
async def server() -> AsyncIterator[DroppingServer]:
    async with dropping_server() as running:
        yield running


@pytest.fixture
async def desk(server: DroppingServer) -> AsyncIterator[Desk]:
    tools = Tools()
    yield Desk(tools, server)
    await tools.aclose()


# --- the wire


@pytest.mark.mission("P3.4")
async def test_the_body_is_the_approved_bytes_and_the_headers_name_the_call(desk: Desk, server: DroppingServer) -> None:
    raw = dumps({"b": "é", "a": 1.0})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await desk.tools.invoke(desk.define(), raw, desk.context(traceparent=trace))
    seen = server.requests[0]
    assert (seen.method, seen.target, seen.body) == ("POST", "/desk/tickets", raw)
    assert seen.headers["idempotency-key"] == KEY
    assert seen.headers["x-signalbox-run"] == "agt_01J"
    assert seen.headers["x-signalbox-step"] == "4"
    assert seen.headers["traceparent"] == trace
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert "authorization" not in seen.headers


@pytest.mark.mission("P10.2")
@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (Credential("a", "bearer", "s3cr3t-token"), "authorization", "Bearer s3cr3t-token"),
        (Credential("a", "basic", "me:pass"), "authorization", "Basic " + base64.b64encode(b"me:pass").decode()),
        (Credential("a", "header", "s3cr3t-token", "X-Api-Key"), "x-api-key", "s3cr3t-token"),
    ],
)
async def test_the_credential_goes_into_its_header(
    desk: Desk, server: DroppingServer, credential: Credential, header: str, value: str
) -> None:
    await desk.call(context={"credential": credential})
    assert server.requests[0].headers[header] == value


async def test_a_credential_echoed_by_the_other_side_is_not_passed_on(desk: Desk, server: DroppingServer) -> None:
    credential = {"credential": Credential("a", "bearer", "s3cr3t-token")}
    server.behave(answer({"seen": "Bearer s3cr3t-token"}), answer({"message": "bad s3cr3t-token"}, 401))
    results = [await desk.call(context=credential), await desk.call(context=credential)]
    assert "s3cr3t" not in json.dumps([result.data for result in results])
    assert "s3cr3t" not in repr(credential)


@pytest.mark.parametrize(
    "credential",
    [
        Credential("a", "bearer", "two\r\nX-Evil: lines"),
        Credential("a", "bearer", "schlüssel"),
        Credential("a", "header", "no header named"),
    ],
)
async def test_a_credential_that_cannot_be_sent_sends_nothing(desk: Desk, server: DroppingServer, credential: Credential) -> None:
    result = await desk.call(context={"credential": credential})
    assert (result.error_class, result.applied) == (ErrorClass.POLICY, False)
    assert credential.secret not in result.data["message"]
    assert server.connections == 0


async def test_a_get_carries_its_arguments_in_the_query(desk: Desk, server: DroppingServer) -> None:
    adapter = {"kind": "http", "method": "GET", "url": f"{server.origin}/find?v=1"}
    args = {"q": "a b&c=d", "n": 2.0, "flag": True, "tags": ["x", "y"], "none": None, "deep": {"z": 1}}
    await desk.call(READ, args, adapter=adapter)
    seen = server.requests[0]
    assert seen.target == "/find?v=1&deep=%7B%22z%22%3A1%7D&flag=true&n=2&q=a+b%26c%3Dd&tags=x&tags=y"
    assert seen.body == b""


async def test_a_write_without_a_key_has_a_connection_of_its_own(desk: Desk, server: DroppingServer) -> None:
    for what in (KEYED, READ, KEYED):
        await desk.call(what)
    assert server.connections == 1
    for _ in range(2):
        await desk.call(UNKEYED)
    assert server.connections == 3


# --- the table

R, K, U = READ, KEYED, UNKEYED
E = ErrorClass
DUPLICATE = answer({"already_applied": True, "id": 7}, 409)

TABLE: list[tuple[Behaviour, tuple[Effect, str], ErrorClass, bool | None]] = [
    (answer({}, 429), R, E.RATE_LIMIT, None),
    (answer({}, 429), K, E.RATE_LIMIT, False),
    (answer({}, 429), U, E.RATE_LIMIT, False),
    (answer({}, 401), U, E.AUTHORIZATION, False),
    (answer({}, 403), K, E.AUTHORIZATION, False),
    *[(answer({}, status), U, E.VALIDATION, False) for status in (301, 302, 307, 400, 404, 405, 410, 413, 418, 422)],
    (answer({}, 400), R, E.VALIDATION, None),
    (answer({}, 409), R, E.CONFLICT, None),
    (answer({}, 412), R, E.CONFLICT, None),
    (DUPLICATE, R, E.CONFLICT, None),
    (answer({}, 409), K, E.CONFLICT, False),
    (answer({}, 412), U, E.CONFLICT, False),
    (answer({"already_applied": "yes"}, 409), K, E.CONFLICT, False),
    (answer({"already_applied": True}, 412), K, E.CONFLICT, False),
    (answer({}, 408), R, E.TIMEOUT, None),
    (answer({}, 408), K, E.TIMEOUT, None),
    (answer({}, 408), U, E.UNKNOWN, None),
    (answer({}, 425), K, E.TRANSIENT_UPSTREAM, None),
    (answer({}, 425), U, E.UNKNOWN, None),
    *[(answer({}, status), R, E.TRANSIENT_UPSTREAM, None) for status in (500, 502, 503, 504)],
    *[(answer({}, status), K, E.TRANSIENT_UPSTREAM, None) for status in (500, 502, 503, 504)],
    *[(answer({}, status), U, E.UNKNOWN, None) for status in (500, 502, 503, 504, 599)],
    (answer({}, 500), IRREVERSIBLE, E.UNKNOWN, None),
    *[(kind(drop), R, E.TRANSIENT_UPSTREAM, None) for drop in ("drop_before", "drop_after", "reset_after")],
    *[(kind(drop), K, E.TRANSIENT_UPSTREAM, None) for drop in ("drop_before", "drop_after", "reset_after")],
    *[(kind(drop), U, E.UNKNOWN, None) for drop in ("drop_before", "drop_after", "reset_after")],
    *[
        (answer(body=raw), what, E.INVALID_OUTPUT, applied)
        for raw in (b"", b"<html>", b'{"a": ', b"[" * 80 + b"]" * 80, b"\xff\xff")
        for what, applied in ((R, None), (K, True), (U, True))
    ],
    (kind("cut"), R, E.INVALID_OUTPUT, None),
    (kind("cut"), U, E.INVALID_OUTPUT, True),
    (gzip_bomb(16), U, E.INVALID_OUTPUT, True),
    (kind("endless"), K, E.INVALID_OUTPUT, True),
    (kind("cut", 500), U, E.UNKNOWN, None),
    (kind("cut", 422), U, E.VALIDATION, False),
]


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(("behaviour", "what", "error", "applied"), TABLE)
async def test_an_answer_means_what_the_table_says(
    desk: Desk,
    server: DroppingServer,
    behaviour: Behaviour,
    what: tuple[Effect, str],
    error: ErrorClass,
    applied: bool | None,
) -> None:
    server.behave(behaviour)
    result = await desk.call(what)
    assert (result.ok, result.error_class, result.applied) == (False, error, applied)
    assert result.data["ok"] is False
    assert result.data["error_type"] == error.value
    assert isinstance(result.data["message"], str)
    assert len(server.requests) <= 1


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize("name", ["hang", "drip_headers"])
@pytest.mark.parametrize(("what", "error"), [(R, E.TIMEOUT), (K, E.TIMEOUT), (U, E.UNKNOWN)])
async def test_a_call_that_is_not_answered_in_time(
    desk: Desk, server: DroppingServer, name: str, what: tuple[Effect, str], error: ErrorClass
) -> None:
    server.behave(kind(name))
    result = await desk.call(what, context={"timeout_s": 0.15})
    assert (result.error_class, result.applied) == (error, None)
    assert server.hits == {"POST": 1}


@pytest.mark.parametrize(("what", "error", "applied"), [(R, E.TIMEOUT, None), (K, E.INVALID_OUTPUT, True), (U, E.INVALID_OUTPUT, True)])
async def test_a_write_that_was_acknowledged_is_applied_even_if_its_body_drips_for_ever(
    desk: Desk, server: DroppingServer, what: tuple[Effect, str], error: ErrorClass, applied: bool | None
) -> None:
    server.behave(kind("drip_body"))
    result = await desk.call(what, context={"timeout_s": 0.15})
    assert (result.error_class, result.applied) == (error, applied)


@pytest.mark.parametrize(("what", "applied"), [(R, None), (K, False), (U, False)])
async def test_what_certainly_did_not_leave_was_not_sent(desk: Desk, what: tuple[Effect, str], applied: bool | None) -> None:
    nobody = {"kind": "http", "url": "http://127.0.0.1:9/"}
    result = await desk.call(what, adapter=nobody, context={"allow": frozenset({"127.0.0.1:9"})})
    assert (result.error_class, result.applied) == (ErrorClass.NOT_SENT, applied)
    late = await desk.call(what, context={"timeout_s": 0.0})
    assert (late.error_class, late.applied) == (ErrorClass.NOT_SENT, applied)
    assert desk.server.connections == 0


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("allow", [frozenset[str](), frozenset({"127.0.0.1:1", "desk.example:443"})])
async def test_an_address_that_is_not_listed_is_policy(desk: Desk, allow: frozenset[str]) -> None:
    result = await desk.call(UNKEYED, context={"allow": allow})
    assert (result.error_class, result.applied) == (ErrorClass.POLICY, False)
    assert desk.server.connections == 0


@pytest.mark.parametrize(
    "adapter",
    [
        {},
        {"kind": "smoke", "url": "x"},
        {"kind": "mcp", "server": "s", "tool": "t"},
        {"kind": ["http"]},
        {"kind": "http"},
        {"kind": "http", "url": "http://[::1"},
        {"kind": "http", "url": "file:///etc/passwd"},
        {"kind": "http", "url": "http://127.0.0.1/", "method": "CONNECT"},
        {"kind": "python"},
    ],
)
async def test_an_adapter_that_is_not_known_or_not_complete_is_policy(desk: Desk, adapter: dict[str, Any]) -> None:
    result = await desk.call(UNKEYED, adapter=adapter)
    assert (result.ok, result.error_class, result.applied) == (False, ErrorClass.POLICY, False)


@pytest.mark.mission("P3.4")
@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("what", [KEYED, UNKEYED])
async def test_already_applied_counts_as_applied_on_any_send(
    desk: Desk, server: DroppingServer, what: tuple[Effect, str], attempt: int
) -> None:
    server.behave(DUPLICATE)
    result = await desk.call(what, context={"attempt": attempt})
    assert (result.ok, result.error_class, result.applied) == (True, ErrorClass.DUPLICATE_REQUEST, True)
    assert result.data == {"ok": True, "already_applied": True, "id": 7}


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize("status", [409, 412])
async def test_a_bare_conflict_on_a_later_send_is_unknown(desk: Desk, server: DroppingServer, status: int) -> None:
    server.behave(answer({}, status), answer({}, status))
    first = await desk.call(KEYED)
    later = await desk.call(KEYED, context={"attempt": 2})
    assert (first.error_class, first.applied) == (ErrorClass.CONFLICT, False)
    assert (later.error_class, later.applied) == (ErrorClass.UNKNOWN, None)


@pytest.mark.parametrize(
    ("expression", "behaviour", "error"),
    [
        ("body.code == 'exists'", answer({"code": "exists"}, 409), E.DUPLICATE_REQUEST),
        ("status == 422 && body.code == 'exists'", answer({"code": "exists"}, 422), E.DUPLICATE_REQUEST),
        ("body.code == 'exists'", answer({"code": "other"}, 409), E.CONFLICT),
        ("body.code == 'exists'", answer({}, 409), E.CONFLICT),  # no such field: an error is false
        ("body.code == 'exists'", answer(body=b"<html>", status=409), E.CONFLICT),
        ("status", answer({}, 409), E.CONFLICT),  # not a truth value
        ("body.", answer({}, 409), E.CONFLICT),  # not an expression
        ("unknown_name", answer({}, 409), E.CONFLICT),
        ("true", answer({}, 401), E.AUTHORIZATION),
        ("true", answer({}, 429), E.RATE_LIMIT),
        ("true", answer({}, 503), E.TRANSIENT_UPSTREAM),
    ],
)
async def test_the_tools_own_sign_of_a_duplicate(
    desk: Desk, server: DroppingServer, expression: str, behaviour: Behaviour, error: ErrorClass
) -> None:
    server.behave(behaviour)
    assert (await desk.call(KEYED, duplicate_when=expression)).error_class is error


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("3", 3, 3),
        (" 0.5 ", 0.5, 0.5),
        (formatdate(4_102_444_800, usegmt=True), 60, 1e10),
        (formatdate(0, usegmt=True), 0, 0),
    ],
)
async def test_retry_after_is_read_in_seconds_and_as_a_date(
    desk: Desk, server: DroppingServer, value: str, low: float, high: float
) -> None:
    server.behave(answer({}, 429, Retry_After=value))
    result = await desk.call()
    assert result.retry_after_s is not None
    assert low <= result.retry_after_s <= high


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 400, "NaN", "1e9"])
async def test_a_retry_after_that_cannot_be_read_is_absent(desk: Desk, server: DroppingServer, value: str) -> None:
    server.behave(answer({}, 429, Retry_After=value))
    assert (await desk.call()).retry_after_s is None
