"""Tools of MCP servers: what is on the wire, what an answer means, and what is never sent or followed."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from tests.mcp_server import McpServer, running
from tools.adapters.mcp import KEY_IN_META, McpFailure, list_tools
from tools.canonical import dumps
from tools.definitions import CallContext, Credential, Effect, ErrorClass, RetryPolicy, ToolDefinition, ToolResult
from tools.egress import Egress
from tools.invoke import Tools

KEY = "0123456789abcdef0123456789abcdef"
READ, KEYED, UNKEYED = (Effect.READ, "none"), (Effect.WRITE, "key"), (Effect.WRITE, "none")


class Desk:
    def __init__(self, tools: Tools, server: McpServer) -> None:
        self.tools, self.server = tools, server

    def define(self, tool: str, what: tuple[Effect, Any], **changes: Any) -> ToolDefinition:
        made = ToolDefinition(
            version_id=uuid4(),
            name=f"desk.{tool}",
            description="",
            effect=what[0],
            idempotency=what[1],
            adapter={"kind": "mcp", "server": "desk", "tool": tool, "url": self.server.url},
            input_schema={"type": "object"},
            output_schema=None,
            timeout_s=5.0,
            retry=RetryPolicy(),
            labels=frozenset(),
        )
        return replace(made, **changes)

    def context(self, **changes: Any) -> CallContext:
        return replace(CallContext("agt_01J", 4, KEY, 10.0, frozenset({self.server.host_port})), **changes)

    async def call(
        self, tool: str, args: object, what: tuple[Effect, Any] = READ, context: Mapping[str, Any] | None = None, **changes: Any
    ) -> ToolResult:
        return await self.tools.invoke(self.define(tool, what, **changes), dumps(args), self.context(**(context or {})))


@pytest.fixture(params=["stateless", "session"])
def server(request: pytest.FixtureRequest) -> Iterator[McpServer]:
    with running(kind=request.param) as made:
        yield made


@pytest.fixture
async def desk(server: McpServer) -> AsyncIterator[Desk]:
    tools = Tools()
    yield Desk(tools, server)
    await tools.aclose()


@pytest.mark.mission("P2.1")
async def test_a_tool_is_called_and_its_structured_content_is_the_result(desk: Desk, server: McpServer) -> None:
    result = await desk.call("echo", {"text": "hello", "none": None})
    assert (result.ok, result.data, result.status) == (True, {"ok": True, "text": "hello"}, 200)
    assert [seen.message["params"]["arguments"] for seen in server.messages("tools/call")] == [{"text": "hello", "none": None}]


async def test_a_session_is_closed_again_and_no_stream_of_the_servers_own_is_opened(desk: Desk, server: McpServer) -> None:
    for _ in range(2):
        assert (await desk.call("echo", {"text": "hello"})).ok
    methods = [seen.method for seen in server.seen]
    assert "GET" not in methods
    assert methods.count("DELETE") == (2 if server.kind == "session" else 0)
    assert len(server.messages("server/discover")) == 1  # how it is spoken to is remembered


@pytest.mark.mission("P3.4")
async def test_our_key_travels_in_meta_and_only_with_writes(desk: Desk, server: McpServer) -> None:
    assert (await desk.call("order", {"item": "ink"}, KEYED)).data == {"ok": True, "text": "order done"}
    (sent,) = server.messages("tools/call")
    assert sent.message["params"]["_meta"][KEY_IN_META] == KEY and "idempotency-key" not in sent.headers


async def test_what_an_answer_points_to_is_left_out(desk: Desk) -> None:
    assert (await desk.call("peek", {"text": "picture"})).data == {"ok": True, "text": "see\n[image: left out]"}


@pytest.mark.mission("P2.2")
async def test_an_answer_that_does_not_fit_the_schema_is_invalid_and_text_that_is_json_may_fit(desk: Desk) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    result = await desk.call("echo", {"text": "hello"}, output_schema=schema)
    assert (result.ok, result.error_class) == (False, ErrorClass.INVALID_OUTPUT)


@pytest.mark.parametrize("what", [READ, KEYED, UNKEYED])
async def test_an_error_of_the_tool_is_not_applied_and_told_to_the_model(desk: Desk, what: tuple[Effect, Any]) -> None:
    result = await desk.call("echo", {"text": "fail"}, what)
    assert (result.error_class, result.data["message"]) == (ErrorClass.VALIDATION, "the desk is closed")
    assert result.applied is (None if what is READ else False)


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize("how", ["abort", "hang", 500])
@pytest.mark.parametrize(
    ("what", "allowed", "applied"),
    [
        (READ, {ErrorClass.TRANSIENT_UPSTREAM, ErrorClass.TIMEOUT}, None),
        (KEYED, {ErrorClass.TRANSIENT_UPSTREAM, ErrorClass.TIMEOUT}, None),
        (UNKEYED, {ErrorClass.UNKNOWN}, None),
    ],
)
async def test_a_lost_answer_of_a_write_without_a_key_is_unknown_and_sent_once(
    desk: Desk, server: McpServer, how: Any, what: tuple[Effect, Any], allowed: set[ErrorClass], applied: bool | None
) -> None:
    server.meet("tools/call", how)
    result = await desk.call("order", {"item": "ink"}, what, {"timeout_s": 1.0} if how == "hang" else {})
    assert not result.ok and result.error_class in allowed and result.applied is applied
    assert len(server.messages("tools/call")) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ErrorClass.AUTHORIZATION),
        (403, ErrorClass.AUTHORIZATION),
        (429, ErrorClass.RATE_LIMIT),
        (400, ErrorClass.VALIDATION),
        (404, ErrorClass.VALIDATION),
    ],
)
async def test_a_status_says_that_a_write_was_not_applied(desk: Desk, server: McpServer, status: int, error: ErrorClass) -> None:
    server.meet("tools/call", status)
    result = await desk.call("order", {"item": "ink"}, UNKEYED)
    assert (result.error_class, result.applied, server.effects) == (error, False, [])


@pytest.mark.parametrize(("how", "error"), [(401, ErrorClass.AUTHORIZATION), (500, ErrorClass.NOT_SENT), ("hang", ErrorClass.NOT_SENT)])
async def test_before_the_call_left_nothing_was_applied(desk: Desk, server: McpServer, how: Any, error: ErrorClass) -> None:
    for method in ("server/discover", "initialize"):
        server.meet(method, how)
    result = await desk.call("order", {"item": "ink"}, UNKEYED, {"timeout_s": 1.0})
    assert (result.error_class, result.applied, server.messages("tools/call")) == (error, False, [])


async def test_a_server_that_is_away_was_not_sent_anything(desk: Desk, server: McpServer) -> None:
    gone = f"http://127.0.0.1:{server.port + 1 if server.port < 65000 else 1}/mcp"
    adapter = {"kind": "mcp", "server": "desk", "tool": "echo", "url": gone.replace(str(server.port + 1), "9")}
    result = await desk.call("echo", {"text": "x"}, UNKEYED, {"allow": frozenset({"127.0.0.1:9"})}, adapter=adapter)
    assert (result.error_class, result.applied) == (ErrorClass.NOT_SENT, False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/elsewhere", "http://169.254.169.254/latest"])
async def test_a_redirect_is_not_followed(desk: Desk, server: McpServer, status: int, where: str) -> None:
    server.meet("tools/call", (status, {"location": where}, b""))
    result = await desk.call("order", {"item": "ink"}, UNKEYED)
    assert (result.error_class, result.applied) == (ErrorClass.VALIDATION, False)
    assert len(server.messages("tools/call")) == 1


async def test_an_answer_that_is_too_large_is_cut(desk: Desk, server: McpServer) -> None:
    server.meet("tools/call", (200, {"content-type": "application/json"}, b'"' + b"x" * (1 << 20) + b'"'))
    result = await desk.call("echo", {"text": "x"})
    assert not result.ok and "larger than" in result.data["message"]


async def test_words_that_are_no_message_count_as_applied(desk: Desk, server: McpServer) -> None:
    server.meet("tools/call", (200, {"content-type": "application/json"}, b"{}"))
    result = await desk.call("order", {"item": "ink"}, UNKEYED)
    assert (result.error_class, result.applied) == (ErrorClass.INVALID_OUTPUT, True)


async def test_a_call_that_the_server_refuses_in_its_own_words_is_not_applied(desk: Desk, server: McpServer) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such tool"}}
    for _ in range(1):
        server.meet("tools/call", (404, {"content-type": "application/json"}, json.dumps(body).encode()))
    result = await desk.call("order", {"item": "ink"}, UNKEYED)
    assert (result.error_class, result.applied) == (ErrorClass.VALIDATION, False) and "no such tool" in result.data["message"]


# --- where it may go, and what it carries


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"])
async def test_a_refused_address_is_refused_before_a_socket(desk: Desk, server: McpServer, host: str) -> None:
    adapter = {"kind": "mcp", "server": "desk", "tool": "echo", "url": f"http://{host}:{server.port}/mcp"}
    result = await desk.call("order", {"item": "ink"}, UNKEYED, {"allow": frozenset()}, adapter=adapter)
    assert (result.error_class, result.applied, server.seen) == (ErrorClass.POLICY, False, [])


async def test_a_name_that_leads_inside_is_refused_before_a_socket(server: McpServer) -> None:
    egress = Egress(lookup=lambda host, port: ["93.184.216.34", "127.0.0.1"])
    tools = Tools(egress)
    desk = Desk(tools, server)
    adapter = {"kind": "mcp", "server": "desk", "tool": "echo", "url": f"http://mcp.example.com:{server.port}/mcp"}
    result = await desk.call("echo", {"text": "x"}, READ, {"allow": frozenset()}, adapter=adapter)
    assert (result.error_class, server.seen) == (ErrorClass.POLICY, [])
    with pytest.raises(McpFailure, match="not allowed"):
        await list_tools(egress, adapter["url"], desk.context(allow=frozenset()))
    await tools.aclose()


async def test_the_servers_own_credential_is_all_it_gets(desk: Desk, server: McpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://user:canary-proxy@127.0.0.1:1")
    given = {"credential": Credential("desk", "bearer", "token-of-the-desk"), "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    assert (await desk.call("echo", {"text": "token-of-the-desk"}, READ, given)).data["text"] == "[credential desk]"
    known = {"accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "mcp-method", "mcp-name",
             "mcp-protocol-version", "mcp-session-id", "traceparent", "transfer-encoding", "user-agent", "x-signalbox-run",
             "x-signalbox-step"}  # fmt: skip
    for seen in server.seen:
        assert seen.headers["authorization"] == "Bearer token-of-the-desk" and set(seen.headers) <= known
        assert "canary" not in json.dumps(seen.headers)


async def test_a_listing_is_read_to_its_end(desk: Desk, server: McpServer) -> None:
    listing = await list_tools(desk.tools.egress, server.url, desk.context())
    assert [tool["name"] for tool in listing.tools] == ["echo", "order", "peek", "helpful"]
    assert listing.server == "desk" and listing.protocol_version
