"""What every request passes first: who it is (ids), how large it may be, and a JSON reader that trusts nothing."""

import json
import math
import os
import re
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import IO, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from rest_framework.parsers import BaseParser

from console.csp import HEADERS
from tenants.errors import Refused
from tenants.ids import encode, new_id

from .problems import REQUEST_ID, problem

MAX_BODY = 1 << 20  # bytes
MAX_DEPTH = 64
MAX_KEYS = 10_000  # over all objects of a document
INT64 = range(-(1 << 63), 1 << 63)

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", re.ASCII)
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

Answer = HttpResponseBase | Awaitable[HttpResponseBase]
GetResponse = Callable[[HttpRequest], Answer]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def request_id_from(given: str | None) -> str:
    """The caller's id when it is harmless in logs and headers, else one of ours (`req_` and a ULID)."""
    return given if given and SANE_ID.fullmatch(given) else encode("req", new_id())


def traceparent_from(given: str | None) -> str:
    """The caller's W3C trace context when it is valid, else a new trace, as the standard asks."""
    if given and TRACEPARENT.fullmatch(given):
        return given
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


class RequestIdentity:
    """Sets `request.request_id` and `request.traceparent`; returns both on every answer, and what `console.rates` noted on the
    request. Works in both colours."""

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        return self._later(request) if self.is_async else self._now(request)

    def _now(self, request: HttpRequest) -> HttpResponseBase:
        token = REQUEST_ID.set(self._identify(request))
        try:
            return self._stamp(request, self.get_response(request))  # type: ignore[arg-type]
        finally:
            REQUEST_ID.reset(token)

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        token = REQUEST_ID.set(self._identify(request))
        try:
            return self._stamp(request, await self.get_response(request))  # type: ignore[misc]
        finally:
            REQUEST_ID.reset(token)

    @staticmethod
    def _identify(request: HttpRequest) -> str:
        request_id = request_id_from(request.headers.get("X-Request-Id"))
        request.request_id = request_id  # type: ignore[attr-defined]
        request.traceparent = traceparent_from(request.headers.get("traceparent"))  # type: ignore[attr-defined]
        return request_id

    @staticmethod
    def _stamp(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        response["traceparent"] = request.traceparent  # type: ignore[attr-defined]
        for name, value in getattr(request, "rate_limit", {}).items():
            response[name] = value
        return response


def too_large() -> Refused:
    return Refused("body_too_large", "A request body may be 1 MiB at most.", 413, limit_bytes=MAX_BODY)


class RequestLimits:
    """Refuses what is too large or cannot be stored before a view sees it. Works in both colours.

    Under ASGI Django has spooled the body by now: `BodyLimit` around the application stops it before that.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        return self._later(request) if self.is_async else self._now(request)

    def _now(self, request: HttpRequest) -> HttpResponseBase:
        refused = self._refusal(request)
        return problem(refused) if refused else self.get_response(request)  # type: ignore[return-value]

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        refused = self._refusal(request)
        return problem(refused) if refused else await self.get_response(request)  # type: ignore[misc]

    @staticmethod
    def _refusal(request: HttpRequest) -> Refused | None:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return Refused("unstorable_text", "The address holds a NUL character.", 400)
        declared = str(request.META.get("CONTENT_LENGTH") or "")
        if not declared:
            return _measure(request)
        if not (declared.isascii() and declared.isdigit()):
            return Refused("bad_content_length", "Content-Length must be a number of bytes.", 400)
        return too_large() if len(declared) > 9 or int(declared) > MAX_BODY else None


def _measure(request: HttpRequest) -> Refused | None:
    """A body sent in chunks has no declared length, and REST framework takes that for no body: measure it and say so."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return None
    size = len(request.body)
    request.META["CONTENT_LENGTH"] = str(size)
    return too_large() if size > MAX_BODY else None


class BodyLimit:
    """ASGI: counts what really arrives, whatever Content-Length says, and answers 413 without reading the rest."""

    class _Exceeded(Exception):
        pass

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        declared = headers.get("content-length", "0")
        try:
            if declared.isascii() and declared.isdigit() and (len(declared) > 9 or int(declared) > MAX_BODY):
                raise self._Exceeded
            await self.app(scope, self._counting(receive), send)
        except self._Exceeded:
            await _refuse_unread(headers, send)

    def _counting(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY:
                raise self._Exceeded
            return message

        return counted


async def _refuse_unread(headers: dict[str, str], send: Send) -> None:
    request_id = request_id_from(headers.get("x-request-id"))
    token = REQUEST_ID.set(request_id)
    # Closing is the only way to be rid of a body that is still on its way.
    response = problem(too_large(), HEADERS | {"X-Request-Id": request_id, "Connection": "close"})
    response["traceparent"] = traceparent_from(headers.get("traceparent"))
    response["Content-Length"] = str(len(response.content))
    REQUEST_ID.reset(token)
    pairs = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": pairs})
    await send({"type": "http.response.body", "body": response.content})


# --- JSON -------------------------------------------------------------------------------------------------------------------

# Always matches once it stands on a quote (an unfinished string runs to the end), and never backtracks: linear on any input.
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
NESTING = {"[": 1, "{": 1, "]": -1, "}": -1}
MAYBE_UNSTORABLE = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        """Raises Refused 413 or what `loads` raises."""
        raw = stream.read(MAX_BODY + 1)
        if len(raw) > MAX_BODY:
            raise too_large()
        return loads(raw)


def loads(raw: bytes) -> Any:
    """Strict JSON, safe to store and to walk. Work is linear in the length of `raw`.

    Raises Refused 400 (`malformed_json`, `too_deep`, `unstorable_text`, `number_out_of_range`, `duplicate_key`)
    or 422 (`too_many_keys`).
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"not UTF-8 at byte {error.start}") from None
    brackets = NOT_BRACKETS.sub("", STRING.sub("", text))
    if max(accumulate(map(NESTING.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise Refused("too_deep", f"JSON may be nested {MAX_DEPTH} deep at most.", 400, limit=MAX_DEPTH)
    value = _decode(text)
    if MAYBE_UNSTORABLE.search(text) and _unstorable(value):
        raise Refused("unstorable_text", "Text may not hold NUL or half of a surrogate pair.", 400)
    return value


def _decode(text: str) -> Any:
    keys = 0

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            raise Refused("too_many_keys", f"A document may have {MAX_KEYS} keys at most.", 422, limit=MAX_KEYS)
        collected = dict(pairs)
        if len(collected) != len(pairs):
            raise Refused("duplicate_key", "A key occurs twice in one object.", 400)
        return collected

    try:
        return json.loads(text, object_pairs_hook=collect, parse_int=_integer, parse_float=_number, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from None


def _malformed(why: str) -> Refused:
    return Refused("malformed_json", f"The body is not JSON: {why}.", 400)


def _out_of_range() -> Refused:
    return Refused("number_out_of_range", "Numbers must fit 64 bits.", 400)


def _integer(text: str) -> int:
    if len(text) > 20 or int(text) not in INT64:  # the length first: converting a megabyte of digits is quadratic
        raise _out_of_range()
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _out_of_range()
    return value


def _constant(name: str) -> Any:
    raise _malformed(f"{name} is not a JSON number")


def _unstorable(value: Any) -> bool:
    if isinstance(value, str):
        return UNSTORABLE.search(value) is not None
    if isinstance(value, dict):
        return any(_unstorable(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_unstorable(part) for part in value)
