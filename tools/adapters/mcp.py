"""Tools of MCP servers, over streamable HTTP with the official SDK: one conversation for each call, `tools/call` sent once.

Servers of both kinds are spoken to: those that keep a session (opened, used, closed) and those that keep none. The
protocol knows no idempotency key: ours goes in `_meta`, and a server that honours it is one that a person classified so.
Nothing that an answer points to (images, resources, links) is ever fetched.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from tools.adapters.http import call_headers, failed, refusal, retry_after
from tools.canonical import check_depth, loads_limited
from tools.definitions import NO_CONTENT, CallContext, ErrorClass, Reply, ToolDefinition, keyed
from tools.egress import Egress
from tools.egress_mcp import Sent, Wire

KEY_IN_META: Final = "signalbox/idempotency-key"
MAX_TOOLS: Final = 500  # of one server
_MAX_MESSAGE: Final = 500
_SLACK_S: Final = 0.05  # the wire's own deadline speaks first: it knows the phase
_WE: Final = Implementation(name="signalbox", version="1")
_RESULT: Final = TypeAdapter[CallToolResult | InputRequiredResult](CallToolResult | InputRequiredResult)
# Words of the server by which it says that it did not begin.
_NOT_BEGUN: Final = frozenset({INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, HEADER_MISMATCH, UNSUPPORTED_PROTOCOL_VERSION})

for noisy in ("mcp", "httpx2"):  # they would log bodies and every URL; what matters is in our events
    logging.getLogger(noisy).setLevel(logging.CRITICAL)


class McpFailure(Exception):
    """A server that cannot be spoken to or listed; the text is for people and free of secrets."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server says of itself. `tools`: each definition whole, as it came, in the words of the protocol."""

    server: str
    protocol_version: str
    tools: tuple[dict[str, Any], ...]


class McpAdapter:
    """`{"kind": "mcp", "server", "tool", "url"}`; the url is the server's when this version of the tool was made."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._modes: OrderedDict[str, str] = OrderedDict()  # url -> how it was last spoken to, so that nobody asks each time

    async def send(self, definition: ToolDefinition, args: bytes, parsed: Mapping[str, Any], context: CallContext) -> Reply:
        url, tool = definition.adapter.get("url"), definition.adapter.get("tool")
        if not isinstance(url, str) or not isinstance(tool, str):
            return Reply(ErrorClass.POLICY, message="the MCP adapter needs a server that is known and the name of its tool")
        try:
            wire = self._wire(url, definition, context)
        except ValueError as wrong:
            return Reply(ErrorClass.POLICY, message=str(wrong))
        answer, fault = await self._ask(wire, url, _request(tool, parsed, context), context.timeout_s)
        if answer is None:
            self._modes.pop(url, None)
            return _lost(definition, context, wire, fault)
        return _answered(definition, answer)

    def _wire(self, url: str, definition: ToolDefinition, context: CallContext) -> Wire:
        return Wire(
            self._egress,
            url,
            allow=context.allow,
            deadline=asyncio.get_running_loop().time() + max(context.timeout_s, 0),
            headers=call_headers(replace(context, idem_key=None)),
            fresh=definition.mutating and not keyed(definition, context),
        )

    async def _ask(
        self, wire: Wire, url: str, request: CallToolRequest, timeout_s: float
    ) -> tuple[CallToolResult | InputRequiredResult | None, Exception | None]:
        """An answer that arrived stays one, whatever goes wrong while the conversation is closed."""
        answer: CallToolResult | InputRequiredResult | None = None
        fault: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s + _SLACK_S), conversation(wire, url, self._modes.get(url, "auto")) as client:
                self._remember(url, client.protocol_version)
                answer = await client.session.send_request(request, _RESULT)
        except Exception as caught:
            fault = _leaf(caught)
        return answer, fault

    def _remember(self, url: str, version: str) -> None:
        self._modes[url] = version if version in MODERN_PROTOCOL_VERSIONS else "legacy"
        if len(self._modes) > 1024:
            self._modes.popitem(last=False)


@asynccontextmanager
async def conversation(wire: Wire, url: str, mode: str = "auto") -> AsyncIterator[Client]:
    async with wire.client() as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, cache=None, client_info=_WE) as client:
            yield client


def _request(tool: str, parsed: Mapping[str, Any], context: CallContext) -> CallToolRequest:
    meta: Any = {KEY_IN_META: context.idem_key} if context.idem_key is not None else None
    return CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(parsed), _meta=meta))


async def list_tools(egress: Egress, url: str, context: CallContext) -> Listing:
    """Everything the server offers, page by page. Raises McpFailure."""
    try:
        deadline = asyncio.get_running_loop().time() + context.timeout_s
        wire = Wire(egress, url, allow=context.allow, deadline=deadline, headers=call_headers(context))
    except ValueError as wrong:
        raise McpFailure(str(wrong)) from None
    listing: Listing | None = None
    fault: Exception | None = None
    try:
        async with asyncio.timeout(context.timeout_s + _SLACK_S), conversation(wire, url) as client:
            listing = await _listed(client)
    except Exception as caught:
        fault = _leaf(caught)
    if listing is None:
        raise fault if isinstance(fault, McpFailure) else McpFailure(_why(wire, fault))
    return listing


async def _listed(client: Client) -> Listing:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = PaginatedRequestParams(cursor=cursor) if cursor else None
        page = await client.session.list_tools(params=params)
        found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
        if len(found) > MAX_TOOLS:
            raise McpFailure(f"the server offers more than {MAX_TOOLS} tools")
        cursor = page.next_cursor
        if not cursor:
            break
    info = client.server_info
    return Listing(info.name if info else "", client.protocol_version, tuple(found))


def _why(wire: Wire, fault: Exception | None) -> str:
    last = _last(wire)
    if last is not None and last.failure is not None:
        return last.failure.message
    if last is not None and last.status is not None and not 200 <= last.status < 300:
        return f"the server answered HTTP {last.status}" + (", and redirects are not followed" if 300 <= last.status < 400 else "")
    return (
        f"the server does not speak a protocol that we know: {_said(fault)}" if _said(fault) else "the server gave no usable answer in time"
    )


def _last(wire: Wire) -> Sent | None:
    """The exchange that decided; reading on and saying goodbye decide nothing."""
    return next((sent for sent in reversed(wire.exchanges) if sent.method not in ("GET", "DELETE", "notifications/cancelled")), None)


def _lost(definition: ToolDefinition, context: CallContext, wire: Wire, fault: Exception | None) -> Reply:
    """No usable answer: what that means is told by how far the exchange that carried the call got."""
    call = wire.call
    if call is None:
        return _before(definition, context, wire, fault)
    if call.failure is not None:
        if call.headers.get("Content-Type", "").startswith("text/event-stream"):
            call.failure.status = None  # a stream begins before the tool does: its head says nothing
        return failed(definition, context, call.failure)
    if call.status is None:
        return Reply(ErrorClass.TIMEOUT, message="the conversation with the MCP server was cut off")
    if not 200 <= call.status < 300:
        error = refusal(definition, context, call.status, None)
        return Reply(error, None, f"HTTP {call.status}: {_said(fault)}", call.status, retry_after(call.headers.get("Retry-After")))
    return Reply(_spoken(call, fault), message=_clip(_said(fault)) or "no usable answer", status=call.status)


def _before(definition: ToolDefinition, context: CallContext, wire: Wire, fault: Exception | None) -> Reply:
    """The call itself never left."""
    last = _last(wire)
    why = _clip(_why(wire, fault))
    if last is not None and last.failure is not None and last.failure.reason == "refused":
        return Reply(ErrorClass.POLICY, message=why)
    status = last.status if last is not None and last.failure is None else None
    if status is None or 200 <= status < 300 or status >= 500 or status in (408, 425):
        spoke = status is not None and 200 <= status < 300
        return Reply(ErrorClass.VALIDATION if spoke else ErrorClass.NOT_SENT, message=why, status=status)
    assert last is not None
    return Reply(refusal(definition, context, status, None), None, why, status, retry_after(last.headers.get("Retry-After")))


def _spoken(call: Sent, fault: Exception | None) -> ErrorClass:
    """A 2xx without a result: an error in the protocol's words, or something that is no answer."""
    if isinstance(fault, MCPError) and call.status != 202:
        if fault.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
            return ErrorClass.TRANSIENT_UPSTREAM
        kind = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/json" and fault.code == PARSE_ERROR:  # it answered, with something that is no message
            return ErrorClass.INVALID_OUTPUT
        if kind in ("application/json", "text/event-stream") and fault.code in _NOT_BEGUN:
            return ErrorClass.VALIDATION
        return ErrorClass.TRANSIENT_UPSTREAM
    return ErrorClass.INVALID_OUTPUT if isinstance(fault, ValidationError) else ErrorClass.TRANSIENT_UPSTREAM


def _answered(definition: ToolDefinition, answer: CallToolResult | InputRequiredResult) -> Reply:
    if isinstance(answer, InputRequiredResult):
        error = ErrorClass.UNKNOWN if definition.mutating else ErrorClass.VALIDATION
        return Reply(error, message="the tool asks for more input in the middle of a call, which is not supported", status=200)
    text = "\n".join(_words(answer.content))
    if answer.is_error:
        return Reply(ErrorClass.VALIDATION, message=_clip(text) or "the tool reported a failure", status=200)
    value = answer.structured_content if answer.structured_content is not None else _from_text(definition, text)
    try:
        check_depth(value)
    except ValueError:
        return Reply(ErrorClass.INVALID_OUTPUT, message="the answer is nested too deeply", status=200)
    return Reply(value=value, status=200)


def _words(content: Iterable[Any]) -> list[str]:
    """Texts as they are; of everything else a note that it was there."""
    return [block.text if block.type == "text" else f"[{block.type.replace('_', ' ')}: left out]" for block in content]


def _from_text(definition: ToolDefinition, text: str) -> Any:
    """Where a schema is expected and the text is JSON, that; else the text under a name."""
    if not text:
        return NO_CONTENT
    if definition.output_schema is not None:
        try:
            found = loads_limited(text.encode("utf-8", "replace"))
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
    return {"text": text}


def _said(fault: Exception | None) -> str:
    """The server's own words, where it used the protocol's. The SDK's words for what it could not read quote the body."""
    if not isinstance(fault, MCPError):
        return ""
    return "it could not be read" if fault.code == PARSE_ERROR else f"{fault.message} ({fault.code})"


def _leaf(fault: Exception) -> Exception:
    """The SDK's tasks fall together: the first fault inside the group."""
    while isinstance(fault, ExceptionGroup):
        fault = fault.exceptions[0]
    return fault


def _clip(text: str) -> str:
    return text[:_MAX_MESSAGE]
