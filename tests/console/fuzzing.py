"""Requests made from the API's own document, and what the document says of their answers. Schemathesis makes and judges them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import requests
import schemathesis
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, CheckFunction, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from .test_openapi import whole

ADDRESS = "http://testserver"
CHECKS: list[CheckFunction] = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# What parameters of addresses and queries are made of besides what a schema allows.
HOSTILE_TEXTS = (
    "", " ", "\0", "%00", "..", "../../etc/passwd", "\u202e\u200b", "\ufeff", "\U0001f643" * 40, "a" * 5000, "null", "[]", "{}", "-1",
    "0", "1e999", "NaN", "9" * 400, "9223372036854775808", "٣", "'; drop table runs; --", "${X}", "%s%n", "agt_" + "z" * 26,
    "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59", "2026-02-30", "a\r\nX-Injected: 1",
)  # fmt: skip
# Bodies that are no JSON, or JSON that nobody should send.
HOSTILE_BODIES = (
    b"", b"{", b"null", b"[]", b"{}", b'"x"', b"0", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 65 + b"1" + b"}" * 65,
    b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":1,"a":2}', rb'{"reason":"\u0000"}', rb'{"reason":"\ud800"}',
    b'{"__proto__":{}}', json.dumps({str(n): n for n in range(10_001)}).encode(), json.dumps({"reason": "x" * 100_000}).encode(),
)  # fmt: skip


@schemathesis.serializer("application/x-ndjson")
def lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@cache
def operations() -> dict[str, Any]:
    """Every operation of the document, by its name there."""
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_dict(whole(), config=config)
    return {one.definition.raw["operationId"]: one for one in map(certain, schema.get_all_operations())}


def certain(result: Any) -> Any:
    return result.ok()


@dataclass(frozen=True)
class Sending:
    """A request, and the case of the document that its answer is judged by."""

    case: Case[Any]
    request: requests.PreparedRequest


def prepared(case: Case[Any]) -> Sending:
    return Sending(case, requests.Request(**case.as_transport_kwargs(base_url=ADDRESS)).prepare())


def drawn(operation: Any, mode: GenerationMode, count: int, names: dict[str, str]) -> list[Sending]:
    """What the schema allows, or what it does not. Every other request names rows that exist."""
    found: list[Sending] = []

    @settings(max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(operation.as_strategy(mode))
    def draw(case: Case[Any]) -> None:
        if len(found) % 2 == 0:
            case.path_parameters = {key: names.get(key, "x") for key in case.path_parameters}
        found.append(prepared(case))

    with suppress(Unsatisfiable):  # nothing of it can be wrong
        draw()
    return found


def hostile(operation: Any, names: dict[str, str]) -> Iterator[Sending]:
    """Each hostile text at each parameter, and each hostile body."""
    path = {one.name: names.get(one.name, "x") for one in operation.path_parameters}
    for text in HOSTILE_TEXTS:
        for name in path:
            yield prepared(operation.Case(path_parameters=path | {name: text or " "}))
        for one in operation.query:
            yield prepared(operation.Case(path_parameters=path, query={one.name: text}))
    for body in HOSTILE_BODIES if operation.body else ():
        yield with_body(operation, path, body)


def with_body(operation: Any, path: dict[str, str], body: bytes, kind: str = "application/json") -> Sending:
    sending = prepared(operation.Case(path_parameters=path))
    sending.request.headers["Content-Type"] = kind
    sending.request.body = body
    return sending


def sent(key: str, sending: Sending) -> Response:
    """The answer, in process. Nothing stays of what was refused."""
    request = sending.request
    headers = {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in request.headers.items()}
    kind = headers.pop("Content-Type", "application/json")
    body = request.body or b""
    with transaction.atomic():
        told = Client(raise_request_exception=False).generic(
            str(request.method), request.path_url, body.encode() if isinstance(body, str) else body, content_type=kind,
            headers=headers | {"Authorization": f"Bearer {key}"},
        )  # fmt: skip
        content = whole_of(told)
        if told.status_code >= 400:
            transaction.set_rollback(True)
    return Response(told.status_code, {name: [value] for name, value in told.items()}, content, request, 0.0, verify=False)


def whole_of(told: Any) -> bytes:
    if not told.streaming:
        return bytes(told.content)

    async def read() -> bytes:
        return b"".join([part async for part in told])

    return async_to_sync(read)()


def judge(sending: Sending, answer: Response) -> str:
    """What is wrong with the answer by the document. Empty: nothing."""
    case = sending.case
    if answer.status_code < 400 and str(answer.status_code) not in case.operation.responses.status_codes:
        return f"{answer.status_code} is not among the answers"  # `default` stands for refusals
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as failures:
        return "; ".join(f"{failure.title}: {failure.message}" for failure in failures.exceptions)
    return ""
