"""Whatever is sent, the API answers with a typed refusal and never with a fault of its own."""

import asyncio
import copy
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import uvicorn
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.models import Delegation, StandingGrant
from console import errors, urls
from console.api import urls as api_urls
from console.asgi import application
from console.models import Bulk, Delivery, Incident
from runs.models import MemoryItem, Run, Switch, UnknownWrite
from tenants.actors import Actor
from tenants.ids import new_id
from tests.crash.figures import figure
from tests.runtime.waiting import DIGEST, World, add_call, make_world, person, waiting
from tools.models import Breaker, PolicyVersion

from .callers import Caller, caller, key_of, refusal
from .test_api_registry import DOCUMENT, RELEASE, TOOL

EXAMPLES = 120 if os.environ.get("CHAOS") else 12  # of bodies for each route
ORDER = {"agent": "support-triage", "input": "Please refund me"}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def api(world: World) -> Caller:
    return caller(world.starter)


# -- input that is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "code", "part"),
    [
        ({"agent": "nobody"}, 404, "not_found", "agent"),
        ({"agent": ""}, 422, "validation", "agent"),
        ({"agent": None}, 422, "validation", "agent"),
        ({"input": ""}, 422, "validation", "input"),
        ({"input": {"text": ""}}, 422, "validation", "input"),
        ({"input": {"text": "a", "more": 1}}, 422, "validation", "input"),
        ({"input": 7}, 422, "validation", "input"),
        ({"input": "x" * (256 * 1024 + 1)}, 413, "input_too_large", "bytes"),
        ({"user": "u1"}, 422, "validation", "user"),
        ({"session": "s" * 129}, 422, "validation", "session"),
        ({"metadata": {"a": "x" * 20_000}}, 413, "metadata_too_large", "metadata"),
        ({"metadata": []}, 422, "validation", "metadata"),
        ({"mode": "fast"}, 422, "validation", "mode"),
        ({"budget": {"max_steps": 0}}, 422, "validation", "max_steps"),
        ({"budget": {"max_cost_usd": "NaN"}}, 422, "validation", "max_cost_usd"),
        ({"budget": {"max_tokens": 1}}, 422, "validation", "max_tokens"),
        ({"release": "latest"}, 404, "not_found", "release"),
        ({"tenant": "globex"}, 422, "validation", "tenant"),
    ],
)
def test_an_order_that_is_wrong_is_refused_by_field(api: Caller, change: dict[str, Any], status: int, code: str, part: str) -> None:
    answer = api.post("/runs", ORDER | change)
    assert refusal(answer) == (status, code) and part in answer.json()["detail"]
    assert Run.objects.count() == 0


def order(text: str) -> bytes:
    return b'{"agent":"support-triage","input":' + text.encode() + b"}"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 422, "validation"),
        (b"{", 400, "malformed_json"),
        (b"null", 422, "validation"),
        (b"[]", 422, "validation"),
        (b'"x"', 422, "validation"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"[" * 100_000, 400, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "too_deep"),
        (order('{"text":"a","data":' + "[" * 63 + "]" * 63 + "}"), 400, "too_deep"),
        (order(r'"a\u0000b"'), 400, "unstorable_text"),
        (order(r'{"text":"a","data":{"k\u0000":1}}'), 400, "unstorable_text"),
        (order(r'"\ud800"'), 400, "unstorable_text"),
        (order(r'"\udc00\ud800"'), 400, "unstorable_text"),
        (order('{"text":"a","data":NaN}'), 400, "malformed_json"),
        (order('{"text":"a","data":-Infinity}'), 400, "malformed_json"),
        (order('{"text":"a","data":1e999}'), 400, "number_out_of_range"),
        (order('{"text":"a","data":' + "9" * 100_000 + "}"), 400, "number_out_of_range"),
        (order('{"text":"a","data":9223372036854775808}'), 400, "number_out_of_range"),
        (order('"a","input":"b"'), 400, "duplicate_key"),
        (order('{"text":"a","data":{' + ",".join(f'"k{n}":1' for n in range(10_001)) + "}}"), 422, "too_many_keys"),
    ],
)
def test_a_body_that_is_no_plain_json_has_a_class(api: Caller, raw: bytes, status: int, code: str) -> None:
    assert refusal(api("POST", "/runs", raw=raw)) == (status, code)
    assert Run.objects.count() == 0


@pytest.mark.parametrize("text", [r'"\ud83d\ude42"', '{"text":"a","data":9223372036854775807}', '{"text":"a","data":1e-400}', r'"\\u0000"'])
def test_odd_input_within_the_limits_is_accepted(api: Caller, text: str) -> None:
    answer = api("POST", "/runs", raw=order(text))
    assert answer.status_code == 202, answer.content
    sent = json.loads(text)
    assert answer.json()["input"] == (sent if isinstance(sent, dict) else {"text": sent, "data": None})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "nonsense"])
def test_another_content_type_is_refused(api: Caller, kind: str) -> None:
    answer = api("POST", "/runs", raw=order('"a"'), content_type=kind)
    assert refusal(answer) == (415, "unsupported_media_type")


def test_json_with_a_charset_is_json(api: Caller) -> None:
    assert api("POST", "/runs", ORDER, content_type="application/json; charset=utf-8").status_code == 202


@pytest.mark.parametrize(
    ("method", "route"),
    [("DELETE", "/runs"), ("PUT", "/runs"), ("PATCH", "/runs/agt_x"), ("POST", "/runs/agt_x/events"), ("GET", "/runs/agt_x/cancel"),
     ("GET", "/approvals/x/decision"), ("DELETE", "/tools/x"), ("GET", "/config/apply"), ("TRACE", "/runs"), ("BREW", "/runs")],
)  # fmt: skip
def test_another_method_is_refused_with_those_that_are_allowed(api: Caller, method: str, route: str) -> None:
    for accept in ("application/json", "*/*"):
        answer = api(method, route, Accept=accept)
        assert refusal(answer) == (405, "method_not_allowed") and answer["Allow"]


def test_the_stream_is_read_with_get_only(api: Caller) -> None:
    assert api("POST", "/runs/agt_x/events", Accept="text/event-stream").status_code in (405, 406)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Bearer sbx_000000000000_" + "a" * 43, "Basic YTpi", "Bearer \xff"])
@pytest.mark.parametrize(("method", "route"), [("GET", "/runs"), ("POST", "/runs"), ("GET", "/runs/x/events"), ("POST", "/config/apply")])
def test_nobody_is_told_nothing(db: None, method: str, route: str, authorization: str) -> None:
    answer = Client().generic(method, f"/api/v1{route}", headers={"Authorization": authorization})
    assert refusal(answer) == (401, "unauthorized") and answer["WWW-Authenticate"] == "Bearer"


# -- addresses that are none ------------------------------------------------------------------------------------------------


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("hunter2")


urlpatterns = [*urls.urlpatterns, path("api/v1/fail", fail)]
handler400, handler403, handler404, handler500 = errors.bad_request, errors.permission_denied, errors.not_found, errors.server_error


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("address", ["/api/", "/api/v1/", "/api/v1/nothing", "/api/v2/runs", "/api/v1/runs/", "/api/v1/runs/a/b/c"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_of_the_api_that_is_none_is_a_problem_document(client: Client, method: str, address: str) -> None:
    assert refusal(client.generic(method, address)) == (404, "not_found")


@pytest.mark.urls(__name__)
def test_any_other_address_that_is_none_is_a_page(client: Client) -> None:
    answer = client.get("/nothing")
    assert answer.status_code == 404 and answer["Content-Type"].startswith("text/html")


@pytest.mark.urls(__name__)
def test_a_foreign_host_and_a_fault_are_problem_documents_too() -> None:
    client = Client(raise_request_exception=False)
    assert refusal(client.get("/api/v1/runs", headers={"Host": "evil.example"})) == (400, "bad_request")
    answer = client.get("/api/v1/fail")
    assert refusal(answer) == (500, "internal") and b"hunter2" not in answer.content


# -- through the server that `make run` starts ------------------------------------------------------------------------------


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """uvicorn in this loop -> its address."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_level="warning", ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/api/v1"
    finally:
        server.should_exit = True
        await task


async def test_a_body_over_a_mebibyte_is_refused_by_the_real_server(committed_db: None) -> None:
    def prepare() -> str:
        return key_of(make_world().starter)

    key = await sync_to_async(prepare)()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    large = json.dumps(ORDER | {"metadata": {"a": "x" * (1 << 20)}}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    async with served() as url, aiohttp.ClientSession(headers=headers) as session:
        for data in (large, chunks()):
            async with session.post(f"{url}/runs", data=data) as answer:
                assert (answer.status, (await answer.json())["code"]) == (413, "body_too_large")
        async with session.post(f"{url}/runs", data=b"[" * 1_000_000) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "too_deep")
        async with session.post(f"{url}/runs", json=ORDER) as answer:
            assert answer.status == 202
        async with session.get(f"{url}/runs") as answer:
            assert len((await answer.json())["items"]) == 1


# -- anything at all --------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=12) | st.sampled_from(["", "acme", "support-triage", "primary", "rel_x", "\0", "\ud800", "1e999", "${X}", "null"])
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.integers(-2, 3)
ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SEEDS: dict[str, list[Any]] = {
    "runs": [ORDER | {"user": {"id": "u"}, "budget": {"max_steps": 1, "max_cost_usd": 1}, "metadata": {"a": [1]}, "session": "s"}],
    "approvals/<str:approval_id>/decision": [{"verdict": "approve", "digest": DIGEST, "reason": "r", "args": {"a": 1}}],
    "unknowns/<str:unknown_id>/resolve": [{"result": "applied", "evidence": "seen", "resend": False}],
    "switches": [{"scope": "tenant", "tenant": "acme", "then": "pause", "reason": "r", "drill": True}],
    "switches/<str:switch_id>/lift": [{"reason": "r", "per_second": 1}],
    "incidents": [{"title": "t", "severity": "minor", "subject": {"tool": "create_ticket"}, "chart": "tool_errors", "text": "x"}],
    "incidents/<str:incident_id>/assign": [{"to": "ann-acme"}],
    "incidents/<str:incident_id>/severity": [{"severity": "minor"}],
    "detectors/<str:name>": [{"kind": "tool_errors", "parameters": {"threshold": 0.5, "minimum": 3}, "tenants": ["acme"], "reason": "r"}],
    "detectors/<str:name>/backtest": [{"days": 3, "parameters": {"threshold": 0.5}}],
    "tools/<str:name>": [TOOL | {"retry": {"max_attempts": 2, "backoff_ms": [1]}, "output_schema": {"type": "object"}, "labels": ["a"]}],
    "agents/<str:name>": [{"tenants": ["acme"]}],
    "agents/<str:name>/releases": [RELEASE | {"budget": {"max_cost_usd": "0.1"}, "deadlines": {"run_s": 1}}],
    "memory/<str:memory_id>": [{"value": {"a": 1}, "reason": "r"}],
    "memory/forget": [{"subject": "u", "dry_run": True, "reason": "r"}],
    "config/apply": [
        DOCUMENT
        | {
            "egress": {"allow": ["127.0.0.1:1"]},
            "credentials": [{"name": "t", "tenant": "acme", "kind": "header", "header": "X", "value": "v"}],
        }
    ],
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


@st.composite
def bodies(draw: st.DrawFn, seeds: list[Any]) -> Any:
    """Anything, or something valid with one or two of its parts replaced by anything."""
    if not seeds or draw(st.integers(0, 4)) == 0:
        return draw(ANY)
    body = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 2))):
        where = draw(st.sampled_from(list(places(body))))
        holder: Any = body
        for key in where[:-1]:
            holder = holder[key]
        if not where:
            return draw(ANY)
        holder[where[-1]] = draw(ANY)
    return body


ROUTES = [str(p.pattern) for p in api_urls.urlpatterns if isinstance(p, URLPattern)]


@pytest.fixture
def ground(world: World) -> tuple[Caller, dict[str, str]]:
    return furnished(world)


def furnished(world: World) -> tuple[Caller, dict[str, str]]:
    """(a platform admin, what the parameters of addresses may be)"""
    connection.cursor().execute("set local idle_in_transaction_session_timeout = 0")  # one transaction lasts as long as all the bodies
    run, approval = waiting(world)
    kept = {"state": "blocked", "args": b"{}", "error_class": "drafted", "result": {"ok": False, "message": "kept"}}
    add_call(run, 2, **kept)
    case = UnknownWrite.objects.create(tenant_id=run.tenant_id, run_id=run.id, step=1, ord=1, tool="create_ticket")
    names = {
        "run_id": run.run_id, "approval_id": approval.approval_id, "release_id": run.release.release_id, "name": "support-triage",
        "verb": "promote", "unknown_id": case.unknown_id, "draft_id": f"{run.run_id}.1.2",
    }  # fmt: skip
    root = person(world.tenant, "root", "admin", platform=True)
    return caller(root), names | others(world, root)


def others(world: World, root: Actor) -> dict[str, str]:
    """A row of each kind that an address can name, beside those of a run."""
    later = timezone.now() + timedelta(days=1)
    credential = {"url": "http://127.0.0.1:1/", "secret_name": "s", "body": {}}
    delivery = Delivery.objects.create(tenant=world.tenant, kind="callback", event="run.succeeded", **credential)
    delegation = Delegation.objects.create(tenant=world.tenant, of=world.approver.user, to=world.operator.user, until=later)
    place = {"agent": "support-triage", "tool": "create_ticket", "most": 1, "expires_at": later, "reason": "r"}
    grant = StandingGrant.objects.create(tenant=world.tenant, created_by=root.user, **place)
    switch = Switch.objects.create(scope="tenant", tenant=world.tenant, drill=True, reason="r", by=root.user)
    breaker = Breaker.objects.create(tenant=world.tenant, host_port="127.0.0.1:1")
    incident = Incident.objects.create(tenant=world.tenant, title="t", severity="minor")
    place = {"run_id": new_id(), "step": 1, "ord": 1, "expires_at": later, "agent": "a", "owner": "u"}
    item = MemoryItem.objects.create(tenant=world.tenant, kind="session", session="s", key="k", value=1, **place)
    bulk = Bulk.objects.create(tenant=world.tenant, act="cancel", by=root.user, state="done", reason="r")
    version = PolicyVersion.objects.create(tenant=None, number=1, document={"permissions": [], "rules": []}, changed_by="root")
    return {
        "delivery_id": str(delivery), "delegation_id": str(delegation.pk), "grant_id": str(grant), "switch_id": str(switch),
        "breaker_id": str(breaker.pk), "incident_id": str(incident), "memory_id": str(item),
        "number": str(version.number), "bulk_id": str(bulk), "backtest_id": "bkt_x", "step": "1", "ord": "2",
        "evaluation_id": "evl_x", "key": "x", "other_id": "rel_x", "rollout_id": "rol_x",
    }  # fmt: skip


ANSWERED: Counter[int] = Counter()  # hundreds of the status -> answers


@pytest.fixture(scope="module")
def told() -> Iterator[None]:
    """T47, in the long form: how many requests there were, and what they came to."""
    began = time.monotonic()
    yield
    if EXAMPLES > 12 and ANSWERED.total() > 1000:
        of = {f"of_{hundred}00": ANSWERED[hundred] for hundred in (2, 4, 5)}
        seconds = time.monotonic() - began
        figure("T47", f"requests with any body whatever, to all {len(ROUTES)} routes of the API", n=ANSWERED.total(), seconds=seconds, **of)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_whatever_makes_the_api_fail(ground: tuple[Caller, dict[str, str]], route: str, data: st.DataObject) -> None:
    api, names = ground
    address = re.sub(r"<\w+:(\w+)>", lambda found: names.get(found[1], "x"), route)
    body = data.draw(bodies(SEEDS.get(route, [])))
    method = data.draw(st.sampled_from(["POST", "PUT"]))
    kind = data.draw(st.sampled_from(["application/json", "application/json", "application/yaml"]))
    answer = api(method, f"/{address}", raw=json.dumps(body).encode(), content_type=kind)
    ANSWERED[answer.status_code // 100] += 1
    assert answer.status_code < 500, (method, address, body, answer.content)
    if answer.status_code >= 400:
        refusal(answer)
