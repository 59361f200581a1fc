"""The imports page: servers, what waits for a person's word, what changed, and OpenAPI documents, by plain forms."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django_q.models import Schedule

from console import tasks
from tenants import controls
from tenants.models import EgressAllow, User
from tests.mcp_server import McpServer, running
from tests.runtime.waiting import make_world, person
from tools.imports import servers
from tools.models import McpServer as Server
from tools.models import Tool

from .past import browser

PAGE = "/tools/-/imports/"
OPENAPI = {
    "openapi": "3.0.3", "info": {"title": "Pets", "version": "1"}, "servers": [{"url": "https://pets.example.com"}],
    "paths": {"/pets": {"get": {"operationId": "list_pets", "responses": {"200": {"description": "ok"}}},
                        "post": {"operationId": "add_pet", "responses": {"200": {"description": "ok"}},
                                 "requestBody": {"required": True, "content": {"text/xml": {}}}}}},
}  # fmt: skip


@dataclass
class Desk:
    root: Client
    ada: Client
    stranger: Client
    server: McpServer

    def do(self, action: str, **fields: Any) -> Any:
        return self.root.post(PAGE, {"action": action, **fields})


@pytest.fixture
def desk(db: None) -> Iterator[Desk]:
    acme, other = make_world().tenant, make_world("globex", "other").tenant
    controls.ensure(acme)
    with running() as server:
        EgressAllow.objects.create(host_port=server.host_port)
        root = person(acme, "root", "admin", platform=True)
        yield Desk(browser(root), browser(person(acme, "ada", "admin")), browser(person(other, "grace", "admin")), server)


def text(client: Client, path: str = PAGE) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return str(answer.content.decode())


@pytest.mark.mission("P2.1")
def test_a_server_is_added_imported_classified_and_a_change_is_accepted(desk: Desk) -> None:
    assert desk.do("add-server", name="desk", url=desk.server.url, tenants="acme").status_code == 303
    assert "Not read yet" in text(desk.root)
    assert desk.do("import", server="desk").status_code == 303
    page = text(desk.root)
    assert "4 new tools wait to be classified." in page and "says that it changes nothing. Nobody checked that." in page
    assert "Imports <span" in text(desk.root, "/tools/")
    assert desk.do("classify", tool="desk.echo", effect="read", labels="untrusted, private", reason="read it").status_code == 303
    echo = Tool.objects.select_related("current").get(name="desk.echo")
    assert echo.current is not None
    assert (echo.enabled, echo.current.effect, echo.current.labels) == (True, "read", ["private", "untrusted"])
    desk.server.change("echo", description="<b>Says\u202e it</b> twice.")
    desk.do("read", server="desk")
    page = text(desk.root)
    assert "desk.echo</a> is described differently" in page and "/tool/description" in page
    assert "<b>Says" not in page and "\u202e" not in page
    pending = Tool.objects.get(name="desk.echo").pending
    assert pending is not None
    said = {"tool": "desk.echo", "sha256": pending["sha256"], "reason": "fine"}
    desk.do("decide", verdict="reject", **said)
    assert "Rejected, off" in text(desk.root)
    desk.do("decide", verdict="accept", **said)
    assert "is accepted as version 3" in text(desk.root) and Tool.objects.get(name="desk.echo").enabled


def test_a_server_is_switched_off_and_on_again(desk: Desk) -> None:
    servers.put(None, "desk", url=desk.server.url)
    desk.do("switch", server="desk", on="0")
    assert not Server.objects.get().enabled
    desk.do("switch", server="desk", on="1")
    assert Server.objects.get().enabled


def test_the_operations_of_a_document_are_shown_and_the_ticked_ones_imported(desk: Desk) -> None:
    fields = {"name": "pets", "document": json.dumps(OPENAPI)}
    shown = desk.do("openapi", **fields).content.decode()
    assert "pets.list_pets" in shown and "its body is not JSON" in shown and not Tool.objects.exists()
    assert desk.do("openapi", operation=["list_pets"], **fields).status_code == 303
    assert list(Tool.objects.values_list("name", flat=True)) == ["pets.list_pets"]


@pytest.mark.parametrize(
    ("action", "fields", "said"),
    [
        ("add-server", {"name": "A b", "url": "https://x.example.com"}, "a small letter"),
        ("add-server", {"name": "inside", "url": "http://10.0.0.1/mcp"}, "not a public address"),
        ("add-server", {"name": "inside", "url": "https://x.example.com", "tenants": "A!"}, "Tenants:"),
        ("classify", {"tool": "desk.echo", "effect": "", "reason": "x"}, "Say what the tool does"),
        ("openapi", {"name": "pets", "document": "nothing"}, "cannot be used"),
    ],
)
def test_a_refusal_is_told_and_what_was_typed_stays(desk: Desk, action: str, fields: dict[str, str], said: str) -> None:
    answer = desk.do(action, **fields)
    page = answer.content.decode()
    assert answer.status_code == 422 and said in page
    typed = fields.get("url") or fields.get("document") or ""
    assert typed in page


def test_a_server_that_cannot_be_read_says_why(desk: Desk) -> None:
    servers.put(None, "desk", url=desk.server.url)
    for method in ("server/discover", "initialize"):
        desk.server.meet(method, 500)
    desk.do("read", server="desk")
    assert "the server answered HTTP 500" in text(desk.root)


def test_others_look_and_do_nothing(desk: Desk) -> None:
    servers.put(None, "desk", url=desk.server.url, tenants=("acme",))
    servers.import_tools(None, "desk", None)
    page = text(desk.ada)
    assert "desk.echo" in page and "<form" not in page.partition("<main")[2].partition("</main>")[0]
    assert "desk.echo" not in text(desk.stranger) and desk.server.url not in text(desk.stranger)
    assert desk.ada.post(PAGE, {"action": "import", "server": "desk"}).status_code == 403


def test_the_tools_own_page_says_what_it_waits_for(desk: Desk) -> None:
    servers.put(None, "desk", url=desk.server.url)
    servers.import_tools(None, "desk", None)
    assert "It stays off until a person says what it does." in text(desk.root, "/tools/desk.echo/")
    desk.server.change("echo", description="Other words.")
    servers.refresh("desk")
    assert "It stays off until a person accepts the new definition." in text(desk.root, "/tools/desk.echo/")


def test_the_admin_classifies_and_never_switches_on_what_nobody_knows(desk: Desk) -> None:
    servers.put(None, "desk", url=desk.server.url)
    servers.import_tools(None, "desk", None)
    User.objects.update(is_staff=True)
    change = "/admin/tools/tool/"
    page = desk.root.post(change, {"action": "enable", "_selected_action": ["desk.echo"]}, follow=True).content.decode()
    assert "Nobody has said yet what desk.echo does." in page and not Tool.objects.get(name="desk.echo").enabled
    desk.root.post(change, {"action": "is_read", "_selected_action": ["desk.echo", "desk.peek"]})
    known = Tool.objects.filter(enabled=True, classified=True, current__effect="read")
    assert set(known.values_list("name", flat=True)) == {"desk.echo", "desk.peek"}
    assert desk.server.url in desk.root.get("/admin/tools/mcpserver/").content.decode()


def test_the_jobs_read_every_server_again_and_one_that_fails_stops_none(desk: Desk) -> None:
    for name in ("away", "desk", "odd"):
        servers.put(None, name, url=desk.server.url if name == "desk" else "https://mcp.example.com/mcp", credential="k" * (name == "odd"))
    Server.objects.filter(name="away").update(url="http://127.0.0.1:9/mcp")
    servers.import_tools(None, "desk", None)
    desk.server.change("echo", description="Other words.")
    assert tasks.refresh_imports() == 1
    assert Server.objects.get(name="away").last_error and Server.objects.get(name="odd").last_error
    assert Tool.objects.get(name="desk.echo").pending is not None
    tasks.ensure_schedules()
    assert Schedule.objects.get(func="console.tasks.refresh_imports").minutes == 5
