"""Every failure of the API as `application/problem+json` (RFC 9457) with a stable code and the id of the request."""

import logging
import math
from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import psycopg
import pydantic
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404, JsonResponse
from rest_framework import exceptions as drf

from runs.spec import NotSupported
from tenants.errors import Refused

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")  # set by the gateway for the time of one request
REFUSED_BY_DRF = {  # status -> (code, sentence that names the cure)
    400: ("bad_request", "The request is not well formed."),
    401: ("unauthorized", "Sign in, or send an API key: Authorization: Bearer sbx_…"),
    403: ("forbidden", "You may not do this."),
    404: ("not_found", "There is nothing here."),
    405: ("method_not_allowed", "Use one of the methods in the Allow header."),
    406: ("not_acceptable", "Only application/json can be given."),
    415: ("unsupported_media_type", "Send the body as application/json."),
    422: ("validation", "Some fields are not valid."),
    429: ("rate_limited", "Too many requests. Wait as long as Retry-After says."),
}


def problem(refused: Refused, headers: dict[str, str] | None = None) -> JsonResponse:
    """For plain Django views, in either colour. `retry_after_s` among the refusal's fields also becomes `Retry-After`."""
    body = refused.fields | {
        "type": f"urn:signalbox:problem:{refused.code}",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.message,
        "code": refused.code,
        "request_id": REQUEST_ID.get(),
    }
    response = JsonResponse(body, status=refused.status, content_type=CONTENT_TYPE)
    if refused.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if wait := retry_after(refused):
        response["Retry-After"] = wait
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def retry_after(refused: Refused) -> str:
    """Whole seconds for the header of that name. Empty: waiting is of no use."""
    wait = refused.fields.get("retry_after_s")
    return "" if wait is None else str(max(1, math.ceil(wait)))


def answer(exc: Exception) -> JsonResponse:
    """Any exception as an answer. What nobody expected is logged with the request id and told without its inside."""
    refused = refusal_of(exc)
    if refused is None:
        log.error("request %s failed", REQUEST_ID.get(), exc_info=exc)
        refused = Refused("internal", "Something failed here. It was logged under this request id.", 500)
    elif refused.status >= 500:
        log.warning("request %s: %s: %s", REQUEST_ID.get(), refused.code, type(exc).__name__)
    return problem(refused)


def handler(exc: Exception, context: dict[str, Any]) -> JsonResponse:
    """The exception handler of all REST framework views."""
    return answer(exc)


def refusal_of(exc: Exception) -> Refused | None:
    """None: a fault, not a refusal."""
    if isinstance(exc, Refused):
        return exc
    return next((translate(exc) for kind, translate in TRANSLATIONS if isinstance(exc, kind)), None)


def _pydantic(exc: pydantic.ValidationError) -> Refused:
    # Without the input: it may hold a secret, and it is in the caller's hands anyway.
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    fields = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"], "kind": e["type"]} for e in errors[:50]]
    return Refused("validation", _sentence(fields), 422, fields=fields)


def _drf(exc: drf.APIException) -> Refused:
    if isinstance(exc, drf.ValidationError):
        fields = [{"field": name, "message": text, "kind": "invalid"} for name, text in _flat(exc.detail)]
        return Refused("validation", _sentence(fields), 422, fields=fields)
    code, message = REFUSED_BY_DRF.get(exc.status_code, ("refused", "The request was refused."))
    if isinstance(exc, drf.PermissionDenied) and str(exc.detail).startswith("CSRF"):
        code, message = "csrf_failed", "The CSRF token is missing or wrong: load the page again."
    extra = {"retry_after_s": wait} if (wait := getattr(exc, "wait", None)) is not None else {}
    return Refused(code, message, exc.status_code, **extra)


def _flat(detail: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(detail, dict):
        return [pair for key, value in detail.items() for pair in _flat(value, f"{path}.{key}".strip("."))]
    if isinstance(detail, list):
        return [pair for value in detail for pair in _flat(value, path)]
    return [(path, str(detail))]


def _sentence(fields: list[dict[str, str]]) -> str:
    first = fields[0] if fields else {"field": "", "message": "The request is not valid."}
    return f"{first['field']}: {first['message']}" if first["field"] else first["message"]


def _always(code: str, message: str, status: int, **fields: Any) -> Callable[[Any], Refused]:
    return lambda _: Refused(code, message, status, **fields)


def _internal(exc: InternalError) -> Refused | None:
    return _database_away(exc) if getattr(exc.__cause__, "sqlstate", None) in CUT_OFF else None


# PostgreSQL ends the connection with these (idle in a transaction, or too long a transaction) and counts them as internal errors.
CUT_OFF = ("25P03", "25P04")
_database_away = _always("database_unavailable", "The database does not answer just now. Try again.", 503, retry_after_s=2)
TRANSLATIONS: tuple[tuple[type[Exception], Callable[[Any], Refused | None]], ...] = (  # the first that fits; children before parents
    (pydantic.ValidationError, _pydantic),
    (NotSupported, lambda exc: Refused("not_supported", f"{exc}.", 422, key=exc.key)),
    (drf.APIException, _drf),
    (Http404, _always("not_found", "There is nothing here.", 404)),
    (PermissionDenied, _always("forbidden", "You may not do this.", 403)),
    (RequestDataTooBig, _always("body_too_large", "A request body may be 1 MiB at most.", 413)),
    (SuspiciousOperation, _always("bad_request", "The request is not well formed.", 400)),
    (DataError, _always("value_out_of_range", "A value is of a size or form that cannot be stored.", 400)),
    (OperationalError, _database_away),
    (InterfaceError, _database_away),
    (InternalError, _internal),
    (psycopg.OperationalError, _database_away),  # past Django: from the pool
)
