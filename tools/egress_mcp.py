"""The MCP SDK's way out: its httpx2 client over our guarded egress, so the same address check stands before its sockets.

The SDK speaks JSON-RPC over several HTTP exchanges; what a failure means for a call is told by the exchange that carried
`tools/call`, so this transport remembers it: was it sent, did a connection exist, what was the status. It sends that
message once at most, follows nothing, and raises nothing into the SDK's own tasks: a failure becomes an answer with
status 599 and is kept in `failure`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx2

from tools.egress import Begun, Egress, EgressFailure, Request

CALL: Final = "tools/call"
MAX_EXCHANGES: Final = 40  # of one conversation: handshake, pages of a listing, the call, the goodbye
GOODBYE_S: Final = 1.0
NO_ANSWER: Final = 599
_OURS: Final = frozenset({"accept-encoding", "connection", "content-length", "cookie", "host", "user-agent"})


@dataclass(slots=True)
class Sent:
    """One exchange as it went. `failure` says in which phase it ended, if not by an answer."""

    method: str  # of JSON-RPC; the HTTP method where there is no message
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: EgressFailure | None = None


class Wire(httpx2.AsyncBaseTransport):
    """One conversation with one server. `deadline`: the loop's clock; nothing goes on after it."""

    def __init__(
        self,
        egress: Egress,
        url: str,
        *,
        allow: frozenset[str],
        deadline: float,
        headers: Mapping[str, str],
        fresh: bool = False,
    ) -> None:
        self._egress, self._url, self._allow = egress, httpx2.URL(url), allow
        self._deadline, self._headers, self._fresh = deadline, dict(headers), fresh
        self.exchanges: list[Sent] = []
        self.call: Sent | None = None

    def client(self) -> httpx2.AsyncClient:
        """What the SDK is handed. Redirects: none, whatever the SDK would follow by itself."""
        return httpx2.AsyncClient(transport=self, trust_env=False, max_redirects=0, follow_redirects=False, timeout=None)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        sent = Sent(_message(body) or request.method)
        refusal = self._refusal(request, sent)
        self.exchanges.append(sent)
        if sent.method == CALL and self.call is None:
            self.call = sent
        if refusal is not None:
            sent.failure = EgressFailure("refused", "not_sent", refusal)
            return httpx2.Response(NO_ANSWER, request=request)
        try:
            begun = await self._begin(request, body)
        except EgressFailure as failure:
            sent.failure, sent.status = failure, failure.status
            return httpx2.Response(NO_ANSWER, request=request)
        sent.status, sent.headers = begun.status, begun.headers
        headers = [(name, value) for name, value in begun.headers.items() if name.lower() not in ("content-encoding", "content-length")]
        return httpx2.Response(begun.status, headers=headers, stream=_Stream(begun, sent), request=request)

    def _refusal(self, request: httpx2.Request, sent: Sent) -> str | None:
        if request.url != self._url:
            return "an MCP server may not lead us to another address"
        if request.method == "GET" and "last-event-id" not in request.headers:
            return "no stream of the server's own messages is opened"  # the rest of a broken answer may be read
        if sent.method == CALL and self.call is not None:
            return "a call is sent once"
        return "too many exchanges for one call" if len(self.exchanges) >= MAX_EXCHANGES else None

    async def _begin(self, request: httpx2.Request, body: bytes) -> Begun:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS} | self._headers
        now = asyncio.get_running_loop().time()
        deadline = min(self._deadline, now + GOODBYE_S) if request.method == "DELETE" else self._deadline
        pairs = [("Accept-Encoding", "identity"), ("User-Agent", "signalbox"), *headers.items()]
        ours = Request(request.method, str(request.url), headers=pairs, content=body or None)
        return await self._egress.begin(ours, allow=self._allow, deadline=deadline, fresh=self._fresh)


class _Stream(httpx2.AsyncByteStream):
    """A broken body ends as one, for the SDK to see what came; `Sent.failure` knows that it broke."""

    def __init__(self, begun: Begun, sent: Sent) -> None:
        self._begun, self._sent = begun, sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._begun.chunks():
                yield chunk
        except EgressFailure as failure:
            self._sent.failure = failure

    async def aclose(self) -> None:
        self._begun.close()


def _message(body: bytes) -> str:
    """The method of the JSON-RPC message, written by the SDK itself."""
    try:
        value = json.loads(body) if body else None
    except ValueError:
        return ""
    method = value.get("method") if isinstance(value, dict) else None
    return method if isinstance(method, str) else ""
