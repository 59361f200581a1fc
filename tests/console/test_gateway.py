"""What every request passes first, seen from outside: ids, limits, strict JSON, who is asking, and problems as documents."""

import asyncio
import json
import re
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.gateway import MAX_BODY, BodyLimit, loads
from console.api.identity import actor_of
from console.api.problems import answer
from runs.spec import Budget, NotSupported
from tenants import keys
from tenants.errors import NotFound, Refused
from tenants.models import Member, Tenant, User

pytestmark = pytest.mark.urls(__name__)

FAULTS = {
    "refused": lambda: Refused("stale", "Somebody was first.", 409, winner="ada", title="mine"),
    "absent": lambda: NotFound("run"),
    "wait": lambda: Refused("quota", "Too many.", 429, retry_after_s=2.1),
    "throttled": lambda: Throttled(wait=7),
    "404": Http404,
    "denied": PermissionDenied,
    "fields": lambda: ValidationError({"agent": ["This field is required."]}),
    "away": lambda: OperationalError("connection to 10.1.2.3 refused"),
    "unstorable": lambda: DataError("invalid byte"),
    "fault": lambda: RuntimeError("the secret is hunter2"),
}


class Echo(APIView):
    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request) -> Response:
        return Response({"got": request.data})


class Fail(APIView):
    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request, kind: str) -> Response:
        if kind == "pydantic":
            Budget.model_validate({"max_steps": "hunter2", "speed": 1})
        if kind == "unbuilt":
            raise NotSupported("judge")
        raise FAULTS[kind]()


class Me(APIView):
    def get(self, request: Request) -> Response:
        actor = request.auth
        return Response({"user": actor.user.username, "tenant": actor.tenant.slug, "role": actor.role, "id": actor.request_id})

    post = get


@csrf_exempt
def plain_me(request: HttpRequest) -> HttpResponse:
    try:
        return JsonResponse({"user": actor_of(request).user.username})
    except Refused as refused:
        return answer(refused)


def ids(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"id": request.request_id, "trace": request.traceparent})


async def later(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": len(request.body)})


urlpatterns = [
    path("echo", Echo.as_view()),
    path("fail/<kind>", Fail.as_view()),
    path("me", Me.as_view()),
    path("plain", plain_me),
    path("ids", ids),
    path("later", csrf_exempt(later)),
]


def post(client: Client, body: bytes | str, **headers: str) -> Any:
    return client.post("/echo", body, content_type="application/json", headers=headers)


def code(response: Any) -> tuple[int, str]:
    assert response["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(document)
    assert document["status"] == response.status_code
    assert document["request_id"] == response["X-Request-Id"]
    return response.status_code, document["code"]


# --- ids --------------------------------------------------------------------------------------------------------------------


def test_a_sane_request_id_is_kept_and_returned(client: Client) -> None:
    response = client.get("/ids", headers={"X-Request-Id": "order-7.A:1"})
    assert response["X-Request-Id"] == response.json()["id"] == "order-7.A:1"


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "<script>", "a\tb", "é", "-x"])
def test_any_other_request_id_is_replaced_by_one_of_ours(client: Client, given: str) -> None:
    response = client.get("/ids", headers={"X-Request-Id": given} if given else {})
    assert re.fullmatch(r"req_[0-9A-Z]{26}", response["X-Request-Id"])
    assert response.json()["id"] == response["X-Request-Id"]


def test_a_valid_trace_context_is_kept_and_returned(client: Client) -> None:
    trace = f"00-{'4b' * 16}-{'a0' * 8}-01"
    response = client.get("/ids", headers={"traceparent": trace})
    assert response["traceparent"] == response.json()["trace"] == trace


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        f"ff-{'4b' * 16}-{'a0' * 8}-01",
        f"00-{'0' * 32}-{'a0' * 8}-01",
        f"00-{'4b' * 16}-{'0' * 16}-01",
        f"00-{'4B' * 16}-{'a0' * 8}-01",
    ],
)
def test_an_invalid_trace_context_starts_a_new_trace(client: Client, given: str) -> None:
    trace = client.get("/ids", headers={"traceparent": given})["traceparent"]
    assert trace != given
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)


async def test_asynchronous_views_get_the_same(async_client: AsyncClient) -> None:
    response = await async_client.post("/later", b"12345", content_type="text/plain", headers={"X-Request-Id": "abc"})
    assert response.json() == {"size": 5}
    assert response["X-Request-Id"] == "abc"
    assert "traceparent" in response


# --- limits -----------------------------------------------------------------------------------------------------------------


def test_a_body_of_exactly_one_mebibyte_is_read_and_one_byte_more_is_refused(client: Client) -> None:
    fits = json.dumps("x" * (MAX_BODY - 2))
    assert len(fits) == MAX_BODY
    assert post(client, fits).status_code == 200
    assert code(post(client, fits + " ")) == (413, "body_too_large")


@pytest.mark.parametrize("declared", ["-1", "1e3", "ten", "٣", "+5", "0x10"])
def test_a_length_that_is_no_number_is_refused(client: Client, declared: str) -> None:
    response = client.generic("POST", "/echo", b"{}", content_type="application/json", CONTENT_LENGTH=declared)
    assert code(response) == (400, "bad_content_length")


def test_a_length_beyond_all_bounds_is_refused_without_a_body(client: Client) -> None:
    response = client.generic("POST", "/echo", b"", content_type="application/json", CONTENT_LENGTH="9" * 5000)
    assert code(response) == (413, "body_too_large")


@pytest.mark.parametrize("address", ["/ids?q=%00", "/ids%00"])
def test_a_nul_in_the_address_is_refused(client: Client, address: str) -> None:
    assert code(client.get(address)) == (400, "unstorable_text")


class Wire:
    """One ASGI exchange. `chunks` are given to the application one by one; `taken` counts how many it asked for."""

    def __init__(self, chunks: list[bytes], headers: dict[str, str]) -> None:
        self.chunks, self.taken, self.sent = chunks, 0, []
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/echo",
            "raw_path": b"/echo",
            "query_string": b"", "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *pairs],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http", "root_path": "",
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if self.taken >= len(self.chunks):
            await asyncio.Event().wait()
        self.taken += 1
        more = self.taken < len(self.chunks)
        return {"type": "http.request", "body": self.chunks[self.taken - 1], "more_body": more}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def ask(self) -> tuple[int, dict[str, Any], dict[str, str]]:
        await BodyLimit(get_asgi_application())(self.scope, self.receive, self.send)
        headers = {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}
        return self.sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in self.sent[1:])), headers


MEGABYTES = [b'"' + b"x" * 65_535] * 1000


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}, {"Content-Length": "10"}])
async def test_a_body_that_goes_on_and_on_is_cut_off_whatever_its_header_says(headers: dict[str, str]) -> None:
    wire = Wire(MEGABYTES, {"X-Request-Id": "big", **headers})
    status, document, answered = await wire.ask()
    assert (status, document["code"], document["request_id"], answered["x-request-id"]) == (413, "body_too_large", "big", "big")
    assert wire.taken == 17, "sixteen chunks fit, the seventeenth ends it, the other 983 are never read"
    assert answered["connection"] == "close"
    assert answered["x-content-type-options"] == "nosniff"


async def test_a_declared_length_that_is_too_large_is_refused_before_one_byte_is_read() -> None:
    wire = Wire(MEGABYTES, {"Content-Length": str(65_536 * 1000)})
    status, document, _ = await wire.ask()
    assert (status, document["code"], wire.taken) == (413, "body_too_large", 0)


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}, {"Content-Length": "9"}])
async def test_a_body_in_chunks_is_read_as_any_other(headers: dict[str, str]) -> None:
    status, document, _ = await Wire([b'{"a"', b":[1]", b"}"], headers).ask()
    assert (status, document) == (200, {"got": {"a": [1]}})


async def test_without_the_outer_limit_the_gateway_still_refuses_a_large_body(async_client: AsyncClient) -> None:
    response = await async_client.post("/echo", b"x" * (MAX_BODY + 1), content_type="application/json")
    assert code(response) == (413, "body_too_large")


# --- JSON -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 100_000, (400, "too_deep")),
        (b"[" * 100_000 + b"]" * 100_000, (400, "too_deep")),
        (b'{"a":' * 65 + b"1" + b"}" * 65, (400, "too_deep")),
        (b"{", (400, "malformed_json")),
        (b"{'a':1}", (400, "malformed_json")),
        (b'{"a":1} x', (400, "malformed_json")),
        (b" ", (400, "malformed_json")),
        (b'"\xff"', (400, "malformed_json")),
        (b'"\xed\xa0\x80"', (400, "malformed_json")),
        (b'\xef\xbb\xbf{"a":1}', (400, "malformed_json")),
        ('{"a":1}'.encode("utf-16"), (400, "malformed_json")),
        (b'"a\x00b"', (400, "malformed_json")),
        (b"NaN", (400, "malformed_json")),
        (b"[-Infinity]", (400, "malformed_json")),
        (b'{"a": Infinity}', (400, "malformed_json")),
        (b"1e999", (400, "number_out_of_range")),
        (b"-1e999", (400, "number_out_of_range")),
        (b"9223372036854775808", (400, "number_out_of_range")),
        (b"-9223372036854775809", (400, "number_out_of_range")),
        (b"9" * 500_000, (400, "number_out_of_range")),
        (b'"\\u0000"', (400, "unstorable_text")),
        (b'{"\\u0000": 1}', (400, "unstorable_text")),
        (b'[{"a": "x\\uD800"}]', (400, "unstorable_text")),
        (b'"\\udc00\\ud800"', (400, "unstorable_text")),
        (b'{"a":1,"a":2}', (400, "duplicate_key")),
        (b'{"a":1,"\\u0061":2}', (400, "duplicate_key")),
        (json.dumps({str(n): n for n in range(10_001)}).encode(), (422, "too_many_keys")),
        (b"[" + b",".join([b'{"a":1}'] * 10_001) + b"]", (422, "too_many_keys")),
        (b'"\\' * 300_000, (400, "malformed_json")),
        (b'"' + b'\\"' * 500_000, (400, "malformed_json")),
        (b"[]" * 500_000, (400, "malformed_json")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_that_is_not_plain_has_a_class_and_never_fails_us(client: Client, body: bytes, expected: tuple[int, str]) -> None:
    assert code(post(client, body)) == expected


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":' * 64 + b"1" + b"}" * 64, None),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b'"\\"[[[{{{\\\\"', '"[[[{{{\\'),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\\\u0000 \\\\ud800"', "\\u0000 \\ud800"),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1.5e300", 1.5e300),
        (b" null\n", None),
        ('"é"'.encode(), "é"),
        (json.dumps({str(n): n for n in range(10_000)}).encode(), None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_json_within_the_limits_is_read_as_it_is(body: bytes, value: Any) -> None:
    assert loads(body) == (json.loads(body) if value is None else value)


def test_another_media_type_is_unsupported(client: Client) -> None:
    assert code(client.post("/echo", {"a": "b"})) == (415, "unsupported_media_type")
    assert code(client.post("/echo", "<a/>", content_type="application/xml")) == (415, "unsupported_media_type")


# --- problems ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("refused", (409, "stale")),
        ("absent", (404, "not_found")),
        ("404", (404, "not_found")),
        ("denied", (403, "forbidden")),
        ("fields", (422, "validation")),
        ("pydantic", (422, "validation")),
        ("unbuilt", (422, "not_supported")),
        ("wait", (429, "quota")),
        ("throttled", (429, "rate_limited")),
        ("away", (503, "database_unavailable")),
        ("unstorable", (400, "value_out_of_range")),
        ("fault", (500, "internal")),
    ],
)
def test_every_failure_is_a_problem_document_with_a_stable_code(client: Client, kind: str, expected: tuple[int, str]) -> None:
    assert code(client.get(f"/fail/{kind}")) == expected


def test_a_refusals_fields_are_members_but_never_replace_the_standard_ones(client: Client) -> None:
    document = client.get("/fail/refused").json()
    assert (document["winner"], document["title"], document["detail"]) == ("ada", "Conflict", "Somebody was first.")


@pytest.mark.parametrize(("kind", "seconds"), [("wait", "3"), ("throttled", "7"), ("away", "2")])
def test_who_must_wait_is_told_how_long(client: Client, kind: str, seconds: str) -> None:
    assert client.get(f"/fail/{kind}")["Retry-After"] == seconds


def test_invalid_fields_are_named_without_repeating_what_was_sent(client: Client) -> None:
    response = client.get("/fail/pydantic")
    assert {field["field"] for field in response.json()["fields"]} == {"max_steps", "speed"}
    assert b"hunter2" not in response.content


def test_a_fault_is_logged_under_the_request_id_and_its_inside_stays_here(client: Client, caplog) -> None:
    response = client.get("/fail/fault", headers={"X-Request-Id": "find-me"})
    assert b"hunter2" not in response.content
    assert b"RuntimeError" not in response.content
    assert "find-me" in caplog.text
    assert "hunter2" in caplog.text


def test_a_lost_database_is_told_without_its_address(client: Client) -> None:
    assert b"10.1.2.3" not in client.get("/fail/away").content


def test_another_method_is_answered_with_the_allowed_ones(client: Client) -> None:
    response = client.delete("/echo")
    assert code(response) == (405, "method_not_allowed")
    assert "POST" in response["Allow"]


# --- who is asking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def member(db: None) -> Member:
    tenant = Tenant.objects.create(slug="acme")
    return Member.objects.create(tenant=tenant, user=User.objects.create_user("ada"), role="operator")


@pytest.fixture
def bearer(member: Member) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.issue(member, 'ci', ['runs:read'])[1]}"}


@pytest.mark.parametrize("place", ["/me", "/plain"])
@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Bearer nonsense", "Bearer sbx_0_0"])
def test_nobody_is_unauthorized_and_told_how_to_come_in(client: Client, db: None, place: str, authorization: str | None) -> None:
    response = client.get(place, headers={"Authorization": authorization} if authorization else {})
    assert code(response) == (401, "unauthorized")
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_key_comes_in_and_needs_no_csrf_token(member: Member, bearer: dict[str, str]) -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.post("/me", headers=bearer | {"X-Request-Id": "r-1"})
    assert response.json() == {"user": "ada", "tenant": "acme", "role": "operator", "id": "r-1"}
    assert client.post("/plain", headers=bearer).json() == {"user": "ada"}


def test_a_bad_key_is_refused_though_the_session_is_good(client: Client, member: Member) -> None:
    client.force_login(member.user)
    assert code(client.get("/me", headers={"Authorization": "Bearer nonsense"})) == (401, "unauthorized")


@pytest.mark.parametrize("place", ["/me", "/plain"])
def test_a_session_reads_freely_and_writes_with_a_csrf_token_only(member: Member, place: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(member.user)
    assert client.get(place).json()["user"] == "ada"
    assert code(client.post(place)) == (403, "csrf_failed")
    client.cookies["csrftoken"] = token = "a" * 32
    assert client.post(place, headers={"X-CSRFToken": token}).json()["user"] == "ada"
    assert code(client.post(place, headers={"X-CSRFToken": "b" * 32})) == (403, "csrf_failed")


def test_a_person_acts_in_the_tenant_they_chose_as_long_as_they_belong_to_it(client: Client, member: Member) -> None:
    other = Member.objects.create(tenant=Tenant.objects.create(slug="globex"), user=member.user, role="viewer")
    Tenant.objects.create(slug="initech")
    client.force_login(member.user)

    def looks_at(slug: str) -> tuple[str, str]:
        session = client.session
        session["tenant"] = slug
        session.save()
        seen = client.get("/me").json()
        return seen["tenant"], seen["role"]

    assert looks_at("globex") == ("globex", "viewer")
    assert looks_at("initech") == ("acme", "operator"), "never a member there"
    other.delete()
    assert looks_at("globex") == ("acme", "operator"), "no longer a member"


def test_who_belongs_to_no_active_tenant_is_told_so(client: Client, member: Member) -> None:
    Tenant.objects.update(active=False)
    client.force_login(member.user)
    assert code(client.get("/me")) == (403, "no_tenant")


def test_a_platform_admin_needs_no_membership(client: Client, member: Member) -> None:
    root = User.objects.create_user("root", is_platform_admin=True)
    client.force_login(root)
    assert client.get("/me").json()["tenant"] == "acme"


def test_a_person_switched_off_is_out_at_once(client: Client, member: Member) -> None:
    client.force_login(member.user)
    User.objects.update(is_active=False)
    assert code(client.get("/me")) == (401, "unauthorized")
