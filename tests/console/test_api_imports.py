"""Importing over the API: who may, what is refused, and this project's own OpenAPI document turned into tools that work."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from drf_spectacular.generators import SchemaGenerator

from tenants import controls
from tenants.ids import encode, new_id
from tenants.models import AuditEntry, EgressAllow
from tests.mcp_server import McpServer, running
from tests.runtime.waiting import make_world, person
from tools import catalog
from tools.definitions import CallContext, Credential, ToolDefinition
from tools.invoke import Tools
from tools.models import Tool, ToolVersion

from .callers import Caller, caller, key_of, refusal
from .test_wait_and_stream import served

CLASSIFY = {"effect": "read", "labels": ["untrusted"], "reason": "read its code"}


@dataclass
class Desk:
    platform: Caller
    admin: Caller
    server: McpServer


@pytest.fixture
def desk(db: None) -> Iterator[Desk]:
    acme = make_world().tenant
    controls.ensure(acme)
    with running() as server:
        EgressAllow.objects.create(host_port=server.host_port)
        platform = caller(person(acme, "root", "admin", platform=True))
        made = platform.post("/config/apply", {"mcp_servers": [{"name": "desk", "url": server.url, "tenants": ["acme"]}]})
        assert made.json()["changes"][0]["action"] == "create"
        yield Desk(platform, caller(person(acme, "ada", "admin")), server)


@pytest.mark.mission("P2.1")
def test_a_server_of_the_document_is_imported_classified_changed_and_accepted(desk: Desk) -> None:
    shown = desk.platform.post("/imports/mcp", {"server": "desk", "dry_run": True}).json()
    first = shown["items"][0]
    assert (first["name"], first["imported"]) == ("desk.echo", True) and not Tool.objects.exists()
    done = desk.platform.post("/imports/mcp", {"server": "desk", "tools": ["echo"]}).json()
    assert [one["name"] for one in done["items"]] == ["desk.echo"] and Tool.objects.count() == 1
    tool = desk.platform.get("/tools/desk.echo").json()
    assert (tool["enabled"], tool["classified"], tool["effect"], tool["tenants"]) == (False, False, "write", ["acme"])
    now = desk.platform.post("/tools/desk.echo/classify", CLASSIFY).json()
    assert (now["enabled"], now["classified"], now["effect"], now["labels"]) == (True, True, "read", ["untrusted"])

    desk.server.change("echo", description="Says it twice.")
    desk.platform.post("/imports/mcp", {"server": "desk", "dry_run": True})
    changed = desk.platform.get("/tools/desk.echo").json()
    assert changed["enabled"] is False and [line["path"] for line in changed["pending"]["diff"]] == ["/tool/description"]
    word = {"sha256": changed["pending"]["sha256"], "reason": "the new words are fine"}
    assert refusal(desk.platform.post("/tools/desk.echo/classify", CLASSIFY)) == (409, "definition_changed")
    assert refusal(desk.platform.post("/tools/desk.echo/accept", word | {"sha256": "0" * 64})) == (409, "stale_definition")
    rejected = desk.platform.post("/tools/desk.echo/reject", word).json()
    assert (rejected["enabled"], rejected["pending"]["rejected"]) == (False, True)
    taken = desk.platform.post("/tools/desk.echo/accept", word).json()
    assert (taken["enabled"], taken["pending"], taken["effect"], taken["description"]) == (True, None, "read", "Says it twice.")
    assert refusal(desk.platform.post("/tools/desk.echo/accept", word)) == (409, "nothing_pending")
    actions = list(AuditEntry.objects.filter(object_id="desk.echo").order_by("id").values_list("action", flat=True))
    assert actions == [
        "tool.imported", "tool.classified", "tool.definition_changed", "tool.definition_rejected", "tool.definition_accepted"
    ]  # fmt: skip


def test_a_tool_that_nobody_knows_cannot_be_switched_on(desk: Desk) -> None:
    desk.platform.post("/imports/mcp", {"server": "desk"})
    with pytest.raises(Exception, match="Classify it first"):
        catalog.set_enabled(None, "desk.order", True)
    assert not Tool.objects.filter(enabled=True).exists()


def test_accepting_what_nobody_classified_leaves_it_off(desk: Desk) -> None:
    desk.platform.post("/imports/mcp", {"server": "desk", "tools": ["order"]})
    desk.server.change("order", description="Orders two things.")
    desk.platform.post("/imports/mcp", {"server": "desk", "dry_run": True})
    sha256 = desk.platform.get("/tools/desk.order").json()["pending"]["sha256"]
    taken = desk.platform.post("/tools/desk.order/accept", {"sha256": sha256, "reason": "fine"}).json()
    assert (taken["description"], taken["enabled"], taken["classified"]) == ("Orders two things.", False, False)


def test_a_tool_that_is_gone_can_be_rejected_and_not_accepted(desk: Desk) -> None:
    desk.platform.post("/imports/mcp", {"server": "desk", "tools": ["echo"]})
    del desk.server.offered["echo"]
    desk.platform.post("/imports/mcp", {"server": "desk", "dry_run": True})
    assert desk.platform.get("/tools/desk.echo").json()["pending"]["gone"] is True
    assert refusal(desk.platform.post("/tools/desk.echo/accept", {"sha256": "", "reason": "x"})) == (409, "tool_gone")
    assert desk.platform.post("/tools/desk.echo/reject", {"sha256": "", "reason": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/imports/mcp", {"server": "desk"}),
        ("/imports/openapi", {"name": "api", "document": "{}"}),
        ("/tools/desk.echo/classify", CLASSIFY),
        ("/tools/desk.echo/accept", {"sha256": "", "reason": "x"}),
        ("/tools/desk.echo/reject", {"sha256": "", "reason": "x"}),
    ],
)
def test_only_platform_admins_decide_about_imports(desk: Desk, path: str, body: Any) -> None:
    assert refusal(desk.admin.post(path, body)) == (403, "platform_admin_needed")
    assert desk.server.seen == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/imports/mcp", {"server": "none"}, 404, "not_found"),
        ("/imports/mcp", {"server": "desk", "tools": ["none"]}, 422, "unknown_tool"),
        ("/tools/none/classify", CLASSIFY, 404, "not_found"),
        ("/tools/none/classify", CLASSIFY | {"reason": ""}, 422, "validation"),
        ("/imports/openapi", {"name": "api", "document": "swagger: '2.0'"}, 422, "not_supported"),
        ("/imports/openapi", {"name": "api", "document": "[1"}, 422, "bad_openapi"),
        ("/config/apply", {"mcp_servers": [{"name": "a", "url": "http://10.0.0.1/mcp"}]}, 422, "egress_refused"),
        ("/config/apply", {"mcp_servers": [{"name": "a", "url": "file:///etc/passwd"}]}, 422, "bad_url"),
        ("/config/apply", {"mcp_servers": [{"name": "a", "url": "npx server", "transport": "stdio"}]}, 422, "not_supported"),
    ],
)
def test_what_is_refused_has_its_code(desk: Desk, path: str, body: Any, status: int, code: str) -> None:
    assert refusal(desk.platform.post(path, body)) == (status, code)


def test_a_server_that_does_not_answer_is_said_so(desk: Desk) -> None:
    desk.server.meet("server/discover", 500)
    desk.server.meet("initialize", 500)
    answer = desk.platform.post("/imports/mcp", {"server": "desk"})
    assert refusal(answer) == (502, "server_unreachable") and "HTTP 500" in answer.json()["detail"]


def whole() -> str:
    return json.dumps(SchemaGenerator().get_schema(request=None, public=True))  # type: ignore[no-untyped-call]


@pytest.mark.mission("P2.1")
def test_our_own_document_can_be_imported_and_nothing_unlisted_is(desk: Desk) -> None:
    base = {"name": "signalbox", "document": whole(), "base_url": "https://signalbox.example.com"}
    shown = desk.platform.post("/imports/openapi", base).json()
    effects = {one["remote"]: one["effect"] for one in shown["items"]}
    assert shown["dry_run"] is True and len(effects) > 15 and not Tool.objects.exists()
    assert (effects["list_runs"], effects["cancel_run"]) == ("read", "write")
    done = desk.platform.post("/imports/openapi", base | {"operations": ["list_runs"], "credential": "api"})
    assert [one["name"] for one in done.json()["items"]] == ["signalbox.list_runs"]
    assert list(Tool.objects.values_list("name", "enabled", "classified")) == [("signalbox.list_runs", True, True)]
    again = desk.platform.post("/imports/openapi", base | {"operations": ["list_runs"], "credential": "api"}).json()
    assert again["items"][0]["imported"] is False and ToolVersion.objects.count() == 1


def taken_in(url: str) -> tuple[dict[str, ToolDefinition], str]:
    """Two operations of our own API as tools, and a key to call them with."""
    actor = person(make_world().tenant, "root", "admin", platform=True)
    platform = caller(actor)
    assert platform.post("/config/apply", {"egress": {"allow": [url.removeprefix("http://")]}}).status_code == 200
    body = {"name": "signalbox", "document": whole(), "base_url": url, "operations": ["list_runs", "get_run"], "credential": "api"}
    assert platform.post("/imports/openapi", body).status_code == 200
    versions = ToolVersion.objects.filter(tool__name__startswith="signalbox.")
    return {version.tool_id: catalog.definition(version) for version in versions}, key_of(actor)


@pytest.mark.mission("P2.1")
async def test_a_call_of_an_imported_operation_reaches_the_live_server(committed_db: None) -> None:
    async with served() as api:
        url = api.removesuffix("/api/v1")
        found, key = await sync_to_async(taken_in)(url)
        context = CallContext("agt_1", 1, None, 10.0, frozenset({url.removeprefix("http://")}), Credential("api", "bearer", key))
        tools = Tools()
        listed = await tools.invoke(found["signalbox.list_runs"], b'{"limit": "5"}', context)
        missing = await tools.invoke(found["signalbox.get_run"], json.dumps({"run_id": encode("agt", new_id())}).encode(), context)
        climbing = await tools.invoke(found["signalbox.get_run"], b'{"run_id": "../config"}', context)
        await tools.aclose()
    assert listed.ok and listed.data["items"] == [], listed
    assert (missing.ok, missing.status) == (False, 404) and climbing.data["error_type"] == "validation"
