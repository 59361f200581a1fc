"""The one way out: httpx's Request over aiohttp's sockets, guarded where the socket is made.

* The guard sits in the connector's socket factory: every address about to be connected passes it, whether it came from
  a name, from a literal (aiohttp asks no resolver about those) or from happy eyeballs' second try. The resolver filters
  too, so that one bad address refuses the whole name.
* What a failure means is told by its phase (was a connection obtained?), never by an exception's name.
* Nothing here sends twice, follows a redirect, keeps a cookie or reads the environment.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx import URL, Headers, InvalidURL, Request
from yarl import URL as WireURL

from tools.addresses import is_public, reached
from tools.bodies import Unreadable, decoded

__all__ = ["Begun", "Egress", "EgressFailure", "Exchange", "Headers", "Request", "build_request"]

Reason = Literal["refused", "connect", "timeout", "reset", "too_large", "encoding"]  # the last two as in bodies
Phase = Literal["not_sent", "ambiguous"]
Lookup = Callable[[str, int], Iterable[str]]  # (host, port) -> addresses; runs in a thread, may raise OSError

MAX_BYTES: Final = 1 << 20
_BASE_HEADERS: Final = (("Accept", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "signalbox"))


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer read to its end; `body` is decoded (gzip, deflate) and within the limit."""

    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes


class EgressFailure(Exception):
    """No usable answer. `phase` `not_sent`: no connection was obtained, so nothing was applied; `ambiguous`: it may
    have been. `status` is set when the answer had begun, so only its body is missing."""

    def __init__(self, reason: Reason, phase: Phase, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.phase: Phase = phase
        self.message = message
        self.status = status


class _Refused(OSError):
    """The guard said no; an OSError so that aiohttp treats it as a failed connect."""


class _Progress:
    """How far one exchange got. Carried by a context variable, because pooled connectors know no request."""

    __slots__ = ("connected", "named", "refused", "status")

    def __init__(self) -> None:
        self.connected = False
        self.named: set[str] = set()  # addresses a listed name stood for, in this exchange only
        self.refused: str | None = None
        self.status: int | None = None


_progress: ContextVar[_Progress] = ContextVar("egress_progress")


class _Guard:
    """One allow list. A listed host:port may be anywhere; everything else must be public."""

    def __init__(self, allow: frozenset[str]) -> None:
        self._allow = frozenset(entry.strip().lower() for entry in allow)

    def names(self, host: str, port: int) -> bool:
        return f"{host.lower().rstrip('.')}:{port}" in self._allow

    def permits(self, address: str, port: int) -> bool:
        try:
            ip = reached(address)
        except ValueError:
            return False
        listed = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
        return listed in self._allow or is_public(ip)

    def make_socket(self, info: Any) -> socket.socket:
        """The connector's socket factory. `info`: (family, type, protocol, name, address)."""
        family, kind, protocol, _, (address, port, *_) = info
        progress = _progress.get()
        if address not in progress.named and not self.permits(address, port):
            progress.refused = f"{address}:{port} is not an allowed address"
            raise _Refused(progress.refused)
        return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """Names through an executor of our own (the loop's is shared with everything else) and through the guard."""

    def __init__(self, guard: _Guard, lookup: Lookup, threads: ThreadPoolExecutor) -> None:
        self._guard, self._lookup, self._threads = guard, lookup, threads

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        addresses = list(await loop.run_in_executor(self._threads, self._lookup, host, port))
        progress = _progress.get()
        if self._guard.names(host, port):
            progress.named.update(addresses)
        elif any(not self._guard.permits(address, port) for address in addresses):
            progress.refused = f"{host}:{port} resolves to an address that is not allowed"
            raise _Refused(progress.refused)
        if not addresses:
            raise OSError(f"{host} has no address")
        return [_resolved(host, port, address) for address in addresses]

    async def close(self) -> None:
        """The executor belongs to Egress."""


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Connector(aiohttp.TCPConnector):
    """Marks the moment from which a failure is ambiguous: a connection, new or pooled, is in hand."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        _progress.get().connected = True
        return connection


@lru_cache(maxsize=4096)
def _on_the_wire(url: URL) -> WireURL:
    """What httpx made of the URL, to the letter: nothing is decoded or quoted again."""
    return WireURL(str(url), encoded=True)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> URL:
    return URL(url)


def build_request(method: str, url: str, *, headers: Mapping[str, str] | None = None, json_bytes: bytes | None = None) -> Request:
    """A request with our base headers; `headers` are added. Raises ValueError for a URL or header that cannot be sent."""
    try:
        parsed = _parsed(url)
    except InvalidURL as fault:
        raise ValueError(f"the URL cannot be used: {fault}") from None
    pairs = list(_BASE_HEADERS)
    if json_bytes is not None:
        pairs.append(("Content-Type", "application/json"))
    if headers:
        pairs.extend(headers.items())
    return Request(method, parsed, headers=pairs, content=json_bytes)


class Egress:
    """The guarded client; one per process, made anywhere, used inside one event loop.

    One session per allow list (a pooled connection no longer passes the guard), and a second without pooling for
    `fresh` exchanges. `lookup` replaces the system's name resolution.
    """

    def __init__(self, *, lookup: Lookup | None = None, dns_threads: int = 8) -> None:
        self._lookup = lookup or _look_up
        self._threads = ThreadPoolExecutor(dns_threads, thread_name_prefix="dns")
        self._sessions: dict[tuple[frozenset[str], bool], aiohttp.ClientSession] = {}

    async def exchange(
        self,
        request: Request,
        *,
        allow: frozenset[str],
        timeout_s: float,
        max_bytes: int = MAX_BYTES,
        fresh: bool = False,
    ) -> Exchange:
        """Send once and read the whole answer within `timeout_s` wall seconds; at most `max_bytes` decoded.

        `allow`: host:port (`[::1]:80` for IPv6) that need not be public. `fresh`: a connection of its own.
        Raises EgressFailure; the caller's cancellation is passed on.
        """
        progress = _Progress()
        token = _progress.set(progress)
        limit = asyncio.timeout(max(timeout_s, 0))
        try:
            async with limit:
                response = await self._send(request, self._session(allow, fresh), progress)
                try:
                    body = b"".join([chunk async for chunk in decoded(response, max_bytes)])
                    return Exchange(response.status, response.headers, body)
                finally:
                    response.close()  # after the end of the body this does nothing: the connection is back in its pool
        except Unreadable as fault:
            raise EgressFailure(fault.reason, "ambiguous", str(fault), progress.status) from None
        except (aiohttp.ClientError, OSError, ValueError) as fault:  # TimeoutError is an OSError
            raise _failure(request, progress, fault, limit.expired()) from None
        finally:
            _progress.reset(token)

    async def begin(
        self,
        request: Request,
        *,
        allow: frozenset[str],
        deadline: float,
        max_bytes: int = MAX_BYTES,
        fresh: bool = False,
    ) -> "Begun":
        """Send once and read the head of the answer; its body is read piece by piece, all of it before `deadline` (the
        loop's clock). For answers that are streams. Raises EgressFailure."""
        progress = _Progress()
        token = _progress.set(progress)
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                response = await self._send(request, self._session(allow, fresh), progress)
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            raise _failure(request, progress, fault, limit.expired()) from None
        finally:
            _progress.reset(token)
        return Begun(request, response, progress, deadline, max_bytes)

    async def _send(self, request: Request, session: aiohttp.ClientSession, progress: _Progress) -> aiohttp.ClientResponse:
        if request.url.userinfo or request.url.scheme not in ("http", "https"):
            progress.refused = "only http and https without a user name are allowed"
            raise _Refused(progress.refused)
        response = await session.request(
            request.method,
            _on_the_wire(request.url),
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw
                if name.lower() != b"content-length"
            ],
            data=request.content or None,
            allow_redirects=False,
        )
        progress.status = response.status
        return response

    def _session(self, allow: frozenset[str], fresh: bool) -> aiohttp.ClientSession:
        if (session := self._sessions.get((allow, fresh))) is not None:
            return session
        guard = _Guard(allow)
        session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,
                force_close=fresh,
                use_dns_cache=False,
                resolver=_Resolver(guard, self._lookup, self._threads),
                socket_factory=guard.make_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # aiohttp sends GET, PUT and DELETE again by itself when a connection drops. Private, so a test counts at the
        # server: tests/rules/test_egress.py.
        session._retry_connection = False
        self._sessions[allow, fresh] = session
        return session

    async def aclose(self) -> None:
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Begun:
    """An answer whose body is still to be read. `close` when it is not read to its end."""

    def __init__(self, request: Request, response: aiohttp.ClientResponse, progress: _Progress, deadline: float, max_bytes: int) -> None:
        self._request, self._response, self._progress = request, response, progress
        self._deadline, self._max_bytes = deadline, max_bytes
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, decoded, within the deadline and the limit. Raises EgressFailure."""
        pieces = aiter(decoded(self._response, self._max_bytes))
        while True:
            limit = asyncio.timeout_at(self._deadline)
            try:
                async with limit:
                    chunk = await anext(pieces, None)
            except Unreadable as fault:
                raise EgressFailure(fault.reason, "ambiguous", str(fault), self.status) from None
            except (aiohttp.ClientError, OSError, ValueError) as fault:
                raise _failure(self._request, self._progress, fault, limit.expired()) from None
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        self._response.close()


def _failure(request: Request, progress: _Progress, fault: Exception, expired: bool) -> EgressFailure:
    """Messages hold the host and the kind of fault only: an exception's text may quote headers."""
    where = f"{request.url.host}:{request.url.port or request.url.scheme}"
    kind = type(fault).__name__
    if progress.connected:
        if expired:
            return EgressFailure("timeout", "ambiguous", f"no complete answer from {where} in time", progress.status)
        return EgressFailure("reset", "ambiguous", f"{where} broke the connection off ({kind})", progress.status)
    if progress.refused is not None:
        return EgressFailure("refused", "not_sent", progress.refused)
    if isinstance(fault, aiohttp.InvalidURL):
        return EgressFailure("refused", "not_sent", f"{where} is not an address we use")
    if expired:
        return EgressFailure("timeout", "not_sent", f"no connection to {where} in time")
    return EgressFailure("connect", "not_sent", f"no connection to {where} ({kind})")
