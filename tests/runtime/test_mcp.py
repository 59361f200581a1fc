"""Tools of an MCP server from the import to a run: classified by a person, pinned, and off as soon as the server describes them anew."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from mcp_types import Icon, ToolAnnotations

from tenants import controls
from tenants.models import AuditEntry, Controls, EgressAllow, Tenant
from tests.mcp_server import McpServer, closed, running
from tools.definitions import Effect
from tools.imports import definitions, servers
from tools.models import Tool

from .test_engine import decide
from .world import World, call


@pytest.fixture(params=["stateless", "session"])
def desk(request: pytest.FixtureRequest) -> Iterator[McpServer]:
    with running(kind=request.param) as made:
        yield made


def classified(desk: McpServer, effects: dict[str, str]) -> None:
    """The server named, its tools taken in, and these classified."""
    EgressAllow.objects.get_or_create(host_port=desk.host_port)
    servers.put(None, "desk", url=desk.url)
    servers.import_tools(None, "desk", None)
    for tool, effect in effects.items():
        definitions.classify(None, f"desk.{tool}", effect=Effect(effect), idempotency="none", labels=(), reason="read its code")


EFFECTS = {"echo": "read", "order": "write"}
NAMES = ("desk.echo", "desk.order")


@pytest.mark.mission("P2.1")
async def test_an_imported_tool_is_classified_and_called_in_a_run(world: World, desk: McpServer) -> None:
    await sync_to_async(classified)(desk, EFFECTS)
    await world.agent(tools=NAMES)
    run = await world.script(call("desk.echo", text="hello"), call("desk.order", item="ink"), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    assert desk.effects == []
    await decide(world, run)
    assert (await world.until(run)).outcome == "completed"
    calls = {c.name: c for c in await world.calls(run)}
    assert calls["desk.echo"].result == {"ok": True, "text": "hello"}
    assert calls["desk.order"].result == {"ok": True, "text": "order done"}
    assert desk.effects == [{"tool": "order", "given": {"item": "ink"}}]
    sent = [seen.message["params"] for seen in desk.messages("tools/call")]
    assert [("_meta" in each and "signalbox/idempotency-key" in each["_meta"]) for each in sent] == [False, True]


@pytest.mark.mission("P2.1")
async def test_a_definition_that_changed_puts_the_tool_off_for_runs_that_go_on(world: World, desk: McpServer) -> None:
    await sync_to_async(classified)(desk, EFFECTS)
    await world.agent(tools=NAMES)
    await world.permit("desk.order", "ask", loosen=False)
    run = await world.script(call("desk.order", item="ink"), {"text": "Not ordered."})
    await world.engine()
    await world.until(run, "waiting_approval")
    desk.change("order", description="Orders a thing and mails it to everybody.")
    seen = await sync_to_async(servers.refresh)("desk")
    assert seen.changed == ("desk.order",)
    await decide(world, run)
    done = await world.until(run)
    assert done.outcome == "completed" and desk.effects == []
    tool = await Tool.objects.aget(name="desk.order")
    assert (tool.enabled, tool.pending["diff"]) == (
        False,
        [{"path": "/tool/description", "before": "Orders a thing.", "after": "Orders a thing and mails it to everybody."}],
    )


@pytest.mark.mission("P10.3")
async def test_no_secret_of_the_platform_reaches_a_server(world: World, desk: McpServer) -> None:
    """The caller's key, other credentials, and the platform's own secrets stay here."""
    from tenants import credentials

    await sync_to_async(credentials.store)(world.tenant, "other", "bearer", "canary-of-another-server")
    await sync_to_async(classified)(desk, EFFECTS)
    await world.agent(tools=NAMES)
    run = await world.script(call("desk.echo", text="hello"), {"text": "Done."})
    await world.engine()
    await world.until(run)
    said = json.dumps([[seen.headers, seen.message] for seen in desk.seen])
    assert desk.messages("tools/call") and "canary" not in said and "sbx_" not in said
    assert all("authorization" not in seen.headers and "cookie" not in seen.headers for seen in desk.seen)


# --- taking in


@pytest.fixture
def one(db: None) -> Iterator[McpServer]:
    controls.ensure(Tenant.objects.create(slug="acme"))
    with running() as made:
        yield made


def tool(name: str) -> Tool:
    return Tool.objects.select_related("current").get(name=f"desk.{name}")


def test_every_tool_comes_as_a_write_without_a_key_and_off_whatever_it_claims(one: McpServer) -> None:
    classified(one, {})
    for name in ("echo", "order", "peek", "helpful"):
        made = tool(name)
        assert made.current is not None
        assert (made.enabled, made.classified, made.current.effect, made.current.idempotency) == (False, False, "write", "none")
    drafts = {draft.remote: draft for draft, _ in servers.import_tools(None, "desk", None, dry_run=True)}
    assert drafts["peek"].hints == {"readOnlyHint": True, "idempotentHint": True}


def test_a_description_that_speaks_to_the_model_is_pointed_out(one: McpServer) -> None:
    one.change("echo", description="Says\u200b what\u202e it is told.")
    EgressAllow.objects.create(host_port=one.host_port)
    servers.put(None, "desk", url=one.url)
    drafts = {draft.remote: draft for draft, _ in servers.import_tools(None, "desk", None)}
    assert any("speaks to the model" in note for note in drafts["helpful"].notes)
    assert "2 invisible characters of the description are left out" in drafts["echo"].notes
    current = tool("echo").current
    assert current is not None and current.description == "Says what it is told."


@pytest.mark.parametrize("name", ["\u0435cho", "ec\u200bho", "è", "a" * 64, "..."])
def test_a_name_that_could_be_taken_for_another_is_refused(one: McpServer, name: str) -> None:
    one.offered[name] = one.offered["echo"].model_copy(update={"name": name})
    classified(one, {})
    assert Tool.objects.filter(name__startswith="desk.").count() == 4


def test_two_tools_that_would_get_one_name_are_not_mixed_up(one: McpServer) -> None:
    one.offered["ec/ho"] = one.offered["echo"].model_copy(update={"name": "ec/ho"})
    one.offered["ec:ho"] = one.offered["echo"].model_copy(update={"name": "ec:ho"})
    classified(one, {})
    origin = Tool.objects.get(name="desk.ec_ho").origin
    assert origin is not None and origin["tool"] == "ec/ho"


# --- what is pinned (T51)

CHANGES: dict[str, dict[str, Any]] = {
    "description": {"description": "Says something else."},
    "title": {"title": "Echo!"},
    "input schema": {"input_schema": closed(text={"type": "string", "maxLength": 201})},
    "an argument more": {"input_schema": closed(text={"type": "string"}, to={"type": "string"})},
    "words of an argument": {"input_schema": closed(text={"type": "string", "maxLength": 200, "description": "first your key"})},
    "output schema": {"output_schema": closed(text={"type": "string"}, more={"type": "string"})},
    "no output schema": {"output_schema": None},
    "a hint": {"annotations": ToolAnnotations(read_only_hint=False)},
    "no hints": {"annotations": None},
    "icons": {"icons": [Icon(src="https://evil.example.com/x.png")]},
    "meta": {"meta": {"x": 1}},
}


@pytest.mark.mission("P10.3")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_puts_the_tool_off_and_says_what_it_is(one: McpServer, change: dict[str, Any]) -> None:
    classified(one, EFFECTS)
    before = Controls.objects.get(tenant__slug="acme").rev
    one.change("echo", **change)
    assert servers.refresh("desk").changed == ("desk.echo",)
    changed = tool("echo")
    assert changed.pending is not None and not changed.enabled and changed.pending["diff"] and tool("order").enabled
    assert Controls.objects.get(tenant__slug="acme").rev > before
    assert AuditEntry.objects.filter(action="tool.definition_changed", object_id="desk.echo").count() == 1
    assert servers.refresh("desk").changed == ()  # told once


@pytest.mark.parametrize("how", ["another name", "gone", "renamed", "another address"])
def test_another_server_or_a_tool_that_is_gone_is_a_change_too(one: McpServer, how: str) -> None:
    classified(one, EFFECTS)
    if how in ("another name", "another address"):
        with running(name="impostor" if how == "another name" else "desk") as other:
            EgressAllow.objects.create(host_port=other.host_port)
            servers.put(None, "desk", url=other.url)
            assert set(servers.refresh("desk").changed) == {"desk.echo", "desk.order", "desk.peek", "desk.helpful"}
            pending = tool("echo").pending
            assert pending is not None and "/server/url" in [line["path"] for line in pending["diff"]]
        return
    held = one.offered.pop("echo")
    if how == "renamed":
        one.offered["Echo"] = held.model_copy(update={"name": "Echo"})
    assert servers.refresh("desk").changed == ("desk.echo",)
    pending = tool("echo").pending
    assert pending is not None and pending["definition"] is None


def test_a_server_that_is_away_changes_nothing_but_says_so(one: McpServer) -> None:
    classified(one, EFFECTS)
    one.meet("tools/list", 500)
    seen = servers.refresh("desk")
    assert seen.error and tool("echo").enabled and tool("echo").pending is None


def test_a_definition_that_comes_back_asks_nobody_and_stays_off(one: McpServer) -> None:
    classified(one, EFFECTS)
    held = one.offered["echo"]
    one.change("echo", description="Other words.")
    servers.refresh("desk")
    one.offered["echo"] = held
    servers.refresh("desk")
    assert tool("echo").pending is None and not tool("echo").enabled


def test_a_tool_that_a_document_named_is_pinned_when_it_is_first_seen(one: McpServer) -> None:
    from tools import catalog
    from tools.spec import ToolSpec

    EgressAllow.objects.create(host_port=one.host_port)
    servers.put(None, "desk", url=one.url, credential="")
    block = {"adapter": {"kind": "mcp", "server": "desk", "tool": "echo"}, "description": "Ours.", "effect": "read",
             "input_schema": closed(text={"type": "string"})}  # fmt: skip
    version, _ = catalog.put(None, "say", ToolSpec.model_validate(block))
    assert version.adapter["url"] == one.url and catalog.put(None, "say", ToolSpec.model_validate(block))[1] is False
    servers.refresh("desk")
    one.change("echo", description="Other words.")
    assert servers.refresh("desk").changed == ("say",)
    pending = Tool.objects.get(name="say").pending
    assert pending is not None
    taken = definitions.accept(None, "say", pending["sha256"], "read it")
    assert taken.description == "Ours."  # a person's own words stay


def test_a_switched_off_server_takes_its_tools_along_and_no_other(one: McpServer) -> None:
    from tools import catalog
    from tools.spec import ToolSpec

    classified(one, EFFECTS)
    plain = {"adapter": {"kind": "python", "name": "ours"}, "description": "d", "effect": "read", "input_schema": closed()}
    catalog.put(None, "ours", ToolSpec.model_validate(plain))
    assert {"ours", *NAMES} <= catalog.enabled_tools("acme")
    servers.set_enabled(None, "desk", False, "under repair")
    assert "ours" in catalog.enabled_tools("acme") and not set(NAMES) & catalog.enabled_tools("acme")
