"""Tools behind HTTP: the wire of the contract, section 5, and the one table that says what an answer means."""

import base64
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

import cel

from tools import places
from tools.canonical import dumps, loads_limited
from tools.definitions import NO_CONTENT, CallContext, Credential, ErrorClass, Reply, ToolDefinition, keyed
from tools.egress import Egress, EgressFailure, Exchange, Request, build_request

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
_MAX_MESSAGE: Final = 500
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,3})?")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
# Refusals that say nothing about this request's effect; `duplicate_when` is not asked about them.
_NOT_DUPLICATE: Final = frozenset({401, 403, 408, 425, 429})


class HttpAdapter:
    """`{"kind": "http", "url": …, "method": "POST", "place": {…}}`; `tools.places` says where arguments go."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def send(self, definition: ToolDefinition, args: bytes, parsed: Mapping[str, Any], context: CallContext) -> Reply:
        try:
            request = _request(definition, args, parsed, context)
        except places.Unplaceable as fault:
            return Reply(ErrorClass.VALIDATION, message=str(fault))
        except ValueError as fault:
            return Reply(ErrorClass.POLICY, message=str(fault))
        try:
            exchange = await self._egress.exchange(
                request,
                allow=context.allow,
                timeout_s=context.timeout_s,
                fresh=definition.mutating and not keyed(definition, context),
            )
        except EgressFailure as failure:
            return failed(definition, context, failure)
        return classify(definition, context, exchange)


def _request(definition: ToolDefinition, args: bytes, parsed: Mapping[str, Any], context: CallContext) -> Request:
    """Raises ValueError, with a text free of secrets, when the tool's configuration cannot be sent."""
    url, method = definition.adapter.get("url"), definition.adapter.get("method", "POST")
    if not isinstance(url, str) or method not in _METHODS:
        raise ValueError("the HTTP adapter needs a url and a known method")
    placed = places.put(url, method, definition.adapter.get("place") or {}, args, parsed)
    try:
        return build_request(method, placed.url, headers={**placed.headers, **call_headers(context)}, json_bytes=placed.body)
    except UnicodeError:
        raise ValueError("a header of this call cannot be sent") from None


def call_headers(context: CallContext) -> dict[str, str]:
    headers = _credential(context.credential) if context.credential is not None else {}
    headers["X-Signalbox-Run"] = context.run_id
    headers["X-Signalbox-Step"] = str(context.step)
    if context.idem_key is not None:
        headers["Idempotency-Key"] = context.idem_key
    if context.traceparent is not None:
        headers["traceparent"] = context.traceparent
    return headers


def _credential(credential: Credential) -> dict[str, str]:
    if not _PRINTABLE.fullmatch(credential.secret):
        raise ValueError(f"the credential {credential.name} cannot be sent in a header")
    if credential.kind == "bearer":
        return {"Authorization": f"Bearer {credential.secret}"}
    if credential.kind == "basic":
        return {"Authorization": "Basic " + base64.b64encode(credential.secret.encode()).decode()}
    if not credential.header:
        raise ValueError(f"the credential {credential.name} names no header")
    return {credential.header: credential.secret}


def classify(definition: ToolDefinition, context: CallContext, exchange: Exchange) -> Reply:
    """The table: status, body and effect -> a class. Ambiguous classes are narrowed by `definitions.settle`."""
    status, raw = exchange.status, exchange.body
    if status == 204 or (200 <= status < 300 and definition.adapter.get("method") == "HEAD"):
        return Reply(value=NO_CONTENT, status=status)
    try:
        body = loads_limited(raw) if raw else None
    except ValueError:
        body = None
    if 200 <= status < 300:
        return _answered(raw, body, status)
    error = refusal(definition, context, status, body)
    wait = retry_after(exchange.headers.get("retry-after")) if status in (429, 503) else None
    return Reply(error, body, _said(status, raw, body), status, wait)


def _answered(raw: bytes, body: Any, status: int) -> Reply:
    if body is None and raw.strip() != b"null":
        return Reply(ErrorClass.INVALID_OUTPUT, message="the answer is not JSON of limited depth", status=status)
    return Reply(value=body, status=status)


def refusal(definition: ToolDefinition, context: CallContext, status: int, body: Any) -> ErrorClass:
    if status in (408, 425) or status >= 500:
        return ErrorClass.TIMEOUT if status == 408 else ErrorClass.TRANSIENT_UPSTREAM
    if status == 429:
        return ErrorClass.RATE_LIMIT
    if status in (401, 403):
        return ErrorClass.AUTHORIZATION
    if definition.mutating and _is_duplicate(definition, status, body):
        return ErrorClass.DUPLICATE_REQUEST
    if status in (409, 412):
        # After a send that may have been applied, a bare "conflict" may be about that very send.
        return ErrorClass.UNKNOWN if definition.mutating and context.attempt > 1 else ErrorClass.CONFLICT
    return ErrorClass.VALIDATION


def _is_duplicate(definition: ToolDefinition, status: int, body: Any) -> bool:
    if status == 409 and isinstance(body, dict) and body.get("already_applied") is True:
        return True
    if definition.duplicate_when is None or status in _NOT_DUPLICATE or not 400 <= status < 500:
        return False
    return holds(definition.duplicate_when, {"status": status, "body": body})


@lru_cache(maxsize=1024)
def _program(expression: str) -> cel.Program:
    return cel.compile(expression)


def holds(expression: str, facts: dict[str, Any]) -> bool:
    """Whether a CEL expression is exactly true of the facts; any error is false."""
    try:
        return _program(expression).execute(facts) is True
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in the evaluator derives from BaseException
        return False


def failed(definition: ToolDefinition, context: CallContext, failure: EgressFailure) -> Reply:
    """By phase: before a connection nothing was sent; after it only a status already received says more."""
    if failure.reason == "refused":
        return Reply(ErrorClass.POLICY, message=failure.message)
    if failure.phase == "not_sent":
        return Reply(ErrorClass.NOT_SENT, message=failure.message)
    timed_out = failure.reason == "timeout"
    if failure.status is None:
        error = ErrorClass.TIMEOUT if timed_out else ErrorClass.TRANSIENT_UPSTREAM
    elif 200 <= failure.status < 300:  # it said "done" before the body broke
        error = ErrorClass.TIMEOUT if timed_out and not definition.mutating else ErrorClass.INVALID_OUTPUT
    else:
        error = refusal(definition, context, failure.status, None)
    return Reply(error, message=failure.message, status=failure.status)


def _said(status: int, raw: bytes, body: Any) -> str:
    """The other side's own words, for the model and the console; clipped."""
    words: Any = None
    if isinstance(body, dict):
        words = next((body[key] for key in ("message", "detail", "error", "title") if body.get(key)), None)
    if words is None:
        words = raw.decode("utf-8", "replace") if body is None else dumps_or_empty(body)
    text = words if isinstance(words, str) else dumps_or_empty(words)
    return f"HTTP {status}: {text[:_MAX_MESSAGE]}" if text.strip() else f"HTTP {status}"


def dumps_or_empty(value: Any) -> str:
    """Canonical JSON as text, or nothing when the value cannot be said in JSON."""
    try:
        return dumps(value).decode()
    except ValueError:
        return ""


def retry_after(value: str | None) -> float | None:
    """Seconds from now; None when absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
