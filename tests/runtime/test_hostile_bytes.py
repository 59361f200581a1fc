"""Any byte that a model, a tool or a caller can send (T48): every run ends with an outcome, no event is lost, every record is readable."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async
from django.test import Client

from runs.models import Call, ModelDefinition, Run
from tenants import keys
from tenants.models import EgressAllow, Member
from tenants.roles import SCOPES
from tools import catalog
from tools.spec import ToolSpec

from .world import World

TEXTS = [  # as a JSON string's inside
    r"\u0000", r"\ud800", r"\udfff\ud800", r"\u202etxt.exe", r"\u200b\u200d\ufeff", r"\uffff\ufffe", r"\u2028\u2029", r"\u001b[31mred",
    r"=cmd|' /C calc'!A0", r"{{7*7}} {% debug %} ${jndi:x}", r"%s%n%x", r"a\r\nSet-Cookie: x=1", r"<script>alert(1)</script>",
    r"'; drop table run; --", r"\\", r"\"", "\U0001f469‍\U0001f469‍\U0001f467", "é́́" * 50, "א" * 100, "x" * 70_000,
    r"javascript:alert(1)", r"\u0085\u00a0", r"../../etc/passwd", r"\b\f\t", "ﷺ" * 300,
]  # fmt: skip
BODIES: list[bytes] = [
    b"", b" ", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[1,2,3]", b'{"a":', b'{"a":1}{"b":2}', b"{'a':1}", b"// x\n{}",
    b"<html></html>",    b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\xc0\xaf", b"\xed\xa0\x80", b"\x1f\x8b\x08\x00broken", b'{"a":NaN}',
    b'{"a":1e999}',
    b'{"a":' + b"9" * 5000 + b"}", b'{"a":-0.0,"b":1e-400}', b"[" * 20_000, b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"":1,"__proto__":{},"a":1,"a":2}',
    b"\x00" * 100, b'{"' + b"k" * 5000 + b'":1}', b"x" * (1 << 20) + b"y", b'{"ok":false,"error_type":"drafted"}', b"+ADw-script+AD4-",
]  # fmt: skip


class Hostile:
    """A model and a tool whose bodies the test sets."""

    def __init__(self) -> None:
        self.model: list[bytes] = []
        self.tool = b"{}"

    async def complete(self, request: web.Request) -> web.Response:
        turns = sum(m["role"] == "assistant" for m in (await request.json())["messages"])
        return web.Response(body=self.model[min(turns, len(self.model) - 1)], content_type="application/json")

    async def act(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=self.tool, content_type="application/json")


def raw(template: str, text: str) -> bytes:
    """`text` put in as it is, whatever it is."""
    return template.replace("@", text).encode("utf-8", "surrogatepass")


def said(content: str) -> bytes:
    return raw('{"choices":[{"message":{"role":"assistant","content":"@"},"finish_reason":"stop"}]}', content)


def asks(arguments: str) -> bytes:
    """`arguments`: the raw text of the arguments, as the inside of a JSON string."""
    call = '{"id":"1","type":"function","function":{"name":"act","arguments":"@"}}'
    return raw('{"choices":[{"message":{"role":"assistant","content":"","tool_calls":[' + call + ']},"finish_reason":"stop"}]}', arguments)


@pytest.fixture
async def hostile() -> AsyncIterator[tuple[Hostile, str]]:
    peer, app = Hostile(), web.Application(client_max_size=8 << 20)
    app.router.add_post("/v1/chat/completions", peer.complete)
    app.router.add_post("/act", peer.act)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield peer, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    await runner.cleanup()


def prepare(url: str) -> None:
    EgressAllow.objects.get_or_create(host_port=urlsplit(url).netloc)
    ModelDefinition.objects.filter(name="primary").update(base_url=f"{url}/v1", retry={"max_attempts": 1})
    open_schema = {"type": "object", "additionalProperties": True}
    spec = {"adapter": {"kind": "http", "url": f"{url}/act"}, "description": "act", "effect": "read", "input_schema": open_schema}
    catalog.put(None, "act", ToolSpec.model_validate(spec | {"retry": {"max_attempts": 1}}))


def client_of(world: World) -> tuple[Client, dict[str, str]]:
    member = Member.objects.get(user=world.people["admin"].user)
    _, text = keys.issue(member, "test", list(SCOPES))
    return Client(), {"HTTP_AUTHORIZATION": f"Bearer {text}"}


def readable(client: Client, headers: dict[str, Any], run: Run) -> None:
    for path in ("", "/steps", "/events"):
        answer = client.get(f"/api/v1/runs/{run.run_id}{path}", **headers)
        assert answer.status_code == 200
        json.loads(answer.content.decode("utf-8"))


@pytest.mark.mission("P2.1", "P8.3")
@pytest.mark.timeout(300)
async def test_every_run_ends_with_all_its_events_whatever_models_and_tools_send(world: World, hostile: tuple[Hostile, str]) -> None:
    peer, url = hostile
    await sync_to_async(prepare)(url)
    await world.agent(tools=("act",), budget={"max_steps": 3})
    client, headers = await sync_to_async(client_of)(world)
    await world.engine()
    plain = said("fine")
    cases: list[tuple[list[bytes], bytes]] = []
    for text in TEXTS:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        cases += [([said(text)], b"{}"), ([asks('{\\"a\\":\\"' + escaped.replace('\\"', "") + '\\"}'), plain], b"{}")]
        cases.append(([asks("{}"), plain], raw('{"ok":true,"text":"@"}', text)))
    for body in BODIES:
        cases += [([body], b"{}"), ([asks("{}"), plain], body)]
        cases.append(([asks(json.dumps(body.decode("latin-1"))[1:-1]), plain], b"{}"))
    ends: set[str] = set()
    for model, tool in cases:
        peer.model, peer.tool = model, tool
        run = await world.until(await world.submit("go"), seconds=30)
        ends.add(run.outcome or "")
        assert [e.seq for e in await world.events(run)] == list(range(1, run.seq + 1))
        assert not await Call.objects.filter(run_id=run.id, state="dispatched").aexists()
        await sync_to_async(readable)(client, headers, run)
    print(f"\n  {len(cases)} hostile exchanges, outcomes {sorted(ends)}")
    assert {"completed", "model_error", "invalid_output"} & ends and "" not in ends


@pytest.mark.mission("P13.1")
async def test_whatever_a_caller_sends_is_refused_with_a_type_or_accepted_and_never_an_error_of_ours(world: World) -> None:
    await world.agent(tools=())
    client, headers = await sync_to_async(client_of)(world)
    texts = [raw('{"agent":"helper","input":"@"}', text) for text in TEXTS]
    for body in [*BODIES, *texts]:
        answer = await sync_to_async(client.post)("/api/v1/runs", body, content_type="application/json", **headers)
        assert answer.status_code < 500, body[:80]
        told = json.loads(answer.content)
        assert answer.status_code == 202 or told["code"]
