"""One exchange with a provider, whatever wire it speaks: sent once, and whatever goes wrong is a failure with a class."""

import base64
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from tools.canonical import clean, loads_limited
from tools.definitions import Credential, ErrorClass
from tools.egress import Egress, EgressFailure, Exchange, build_request

from . import tokens
from .types import ModelEndpoint, ModelFailure, ModelReply, ModelRequest

_BY_STATUS: Final = {
    401: ErrorClass.AUTHORIZATION,
    403: ErrorClass.AUTHORIZATION,
    408: ErrorClass.TRANSIENT_UPSTREAM,
    409: ErrorClass.TRANSIENT_UPSTREAM,
    425: ErrorClass.TRANSIENT_UPSTREAM,
    429: ErrorClass.RATE_LIMIT,
}
_BILLED_PERHAPS: Final = frozenset({408, 502, 504, 520, 522, 524})  # something in between gave up waiting for the model
_BY_REASON: Final = {
    "timeout": ErrorClass.TIMEOUT,
    "too_large": ErrorClass.INVALID_OUTPUT,
    "encoding": ErrorClass.INVALID_OUTPUT,
}


class Parse(Protocol):
    def __call__(
        self, raw: bytes, request: ModelRequest, *, sent_bytes: int, latency_ms: int, status: int
    ) -> ModelReply | ModelFailure: ...


@dataclass(frozen=True, slots=True)
class Wire:
    """What is a provider's own. `path` follows the base URL; `key`: the header of a bearer credential, and what stands before the
    secret there; `headers` go with every request. `body_of` may raise ValueError, TypeError, LookupError, AttributeError or
    RecursionError for what the wire cannot say; `parse` reads a 2xx answer and raises nothing."""

    path: str
    key: tuple[str, str]
    headers: Mapping[str, str]
    body_of: Callable[[ModelEndpoint, ModelRequest], bytes]
    parse: Parse


async def exchange(
    wire: Wire,
    endpoint: ModelEndpoint,
    request: ModelRequest,
    egress: Egress,
    *,
    allow: frozenset[str],
    timeout_s: float,
    traceparent: str | None,
) -> ModelReply | ModelFailure:
    """Send once and read the answer, within the lesser of `timeout_s` and the endpoint's timeout, in wall seconds.

    Raises nothing but CancelledError: whatever the network, the provider or the model does is a value.
    """
    started = time.monotonic()
    try:
        body = wire.body_of(endpoint, request)
        headers = _headers(wire, endpoint.credential, traceparent)
        sent = build_request("POST", endpoint.base_url.rstrip("/") + wire.path, headers=headers, json_bytes=body)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as fault:
        message = f"the request to {endpoint.name} cannot be built ({type(fault).__name__})"
        return ModelFailure(ErrorClass.VALIDATION, message, None, None, 0, 0, 0)
    try:
        answer = await egress.exchange(sent, allow=allow, timeout_s=min(timeout_s, endpoint.timeout_s))
    except EgressFailure as failure:
        return _of_egress(failure, request, _since(started))
    if not 200 <= answer.status < 300:
        return _of_status(answer, endpoint.credential, request, _since(started))
    return wire.parse(answer.body, request, sent_bytes=len(body), latency_ms=_since(started), status=answer.status)


def encoded(body: dict[str, Any]) -> bytes:
    """The JSON that is sent. Raises TypeError or RecursionError for what JSON cannot say."""
    try:
        return _json(body)
    except ValueError:  # a lone surrogate or NaN that came in with a result
        return _json(clean(body)[0])


def _json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _headers(wire: Wire, credential: Credential | None, traceparent: str | None) -> dict[str, str]:
    headers = {**wire.headers, **({"traceparent": traceparent} if traceparent else {})}
    if credential is None:
        return headers
    if credential.kind == "header":
        if not credential.header:
            raise ValueError("the credential names no header")
        return headers | {credential.header: credential.secret}
    if credential.kind == "basic":
        return headers | {"Authorization": f"Basic {base64.b64encode(credential.secret.encode()).decode()}"}
    name, before = wire.key
    return headers | {name: before + credential.secret}


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _of_egress(failure: EgressFailure, request: ModelRequest, latency_ms: int) -> ModelFailure:
    if failure.phase == "not_sent":
        error = ErrorClass.POLICY if failure.reason == "refused" else ErrorClass.NOT_SENT
        return ModelFailure(error, failure.message, None, None, latency_ms, 0, 0)
    status = failure.status
    if status is not None and not 200 <= status < 300:  # the refusal is known, only its text is not
        error = _class_of(status)
    else:
        error = _BY_REASON.get(failure.reason, ErrorClass.TRANSIENT_UPSTREAM)
    billed = _bound(request) if status is None or 200 <= status < 300 or status in _BILLED_PERHAPS else (0, 0)
    return ModelFailure(error, failure.message, status, None, latency_ms, *billed)


def _of_status(answer: Exchange, credential: Credential | None, request: ModelRequest, latency_ms: int) -> ModelFailure:
    said = _complaint(answer.body, credential)
    message = f"the provider answered {answer.status}" + (f": {said}" if said else "")
    billed = _bound(request) if answer.status in _BILLED_PERHAPS else (0, 0)
    wait = retry_after(answer.headers.get("retry-after"), datetime.now(UTC))
    return ModelFailure(_class_of(answer.status), message, answer.status, wait, latency_ms, *billed)


def _class_of(status: int) -> ErrorClass:
    return _BY_STATUS.get(status) or (ErrorClass.TRANSIENT_UPSTREAM if status >= 500 else ErrorClass.VALIDATION)


def _bound(request: ModelRequest) -> tuple[int, int]:
    return tokens.estimate(request), request.max_tokens


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; None when absent or neither. Never negative."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip()[:1].isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _complaint(body: bytes, credential: Credential | None) -> str:
    """What the provider says is wrong, in 300 characters, without the key that some of them quote."""
    try:
        value = loads_limited(body)
    except ValueError:
        return ""
    error = value.get("error") if isinstance(value, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    text = clean(said)[0] if isinstance(said, str) else ""
    if credential is not None and credential.secret:
        text = text.replace(credential.secret, "[credential]")
    return " ".join(text[:1000].split())[:300]
