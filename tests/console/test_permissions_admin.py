"""The admin of permissions, tools, models and releases: who sees what, who changes what, and what the trail keeps."""

from typing import Any

import pytest
from django.test import Client

from runs import catalog as runs_catalog
from runs import releases
from runs.catalog import ModelSpec
from runs.models import Agent, ModelDefinition
from tenants import controls
from tenants.models import AuditEntry, Controls, Member, Tenant, User
from tools import catalog, permissions
from tools.models import Permission, Tool
from tools.spec import ToolSpec

pytestmark = pytest.mark.django_db
LIST = "/admin/tools/permission/"


class World:
    def __init__(self) -> None:
        self.acme, self.globex = (Tenant.objects.create(slug=slug) for slug in ("acme", "globex"))
        for tenant in (self.acme, self.globex):
            controls.ensure(tenant)
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        block = {"adapter": {"kind": "http", "url": "https://desk.example.com/"}, "description": "d", "input_schema": schema}
        catalog.put(None, "create_ticket", ToolSpec.model_validate({**block, "effect": "write"}))
        catalog.put(None, "hidden", ToolSpec.model_validate({**block, "effect": "read", "tenants": ["globex"]}))
        self.ours = self.row(self.acme, agent="ours")
        self.theirs = self.row(self.globex, agent="theirs")
        self.everyones = self.row(None, agent="everyones")
        self.loosened = self.row(self.acme, agent="loosened", loosen=True)

    def row(self, tenant: Tenant | None, **more: Any) -> Permission:
        return permissions.set_permission(None, "create_ticket", tenant, decision="ask", **more)[0]

    def person(self, role: str, *, staff: bool = True, platform: bool = False, tenants: tuple[Tenant, ...] = ()) -> Client:
        user = User.objects.create(username=f"{role}-{User.objects.count()}", is_staff=staff, is_platform_admin=platform)
        for tenant in tenants or (self.acme,):
            Member.objects.create(tenant=tenant, user=user, role=role)
        client = Client()
        client.force_login(user)
        return client

    def rev(self, tenant: Tenant) -> int:
        return Controls.objects.get(tenant=tenant).rev


@pytest.fixture
def world(db: None) -> World:
    return World()


def form(world: World, **change: Any) -> dict[str, Any]:
    values = {
        "tool": "create_ticket",
        "tenant": str(world.acme.id),
        "agent": "",
        "user_role": "",
        "decision": "deny",
        "approvers": "1",
        "when": "",
    }
    return {key: value for key, value in (values | change).items() if value is not None}


def shown(client: Client) -> set[str]:
    response = client.get(LIST)
    return {row.agent for row in response.context["cl"].result_list} if response.status_code == 200 else set()


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("role", ["operator", "approver", "admin"])
def test_people_see_the_rows_of_their_own_tenants_only(world: World, role: str) -> None:
    assert shown(world.person(role)) == {"ours", "loosened"}
    assert shown(world.person(role, tenants=(world.acme, world.globex))) == {"ours", "loosened", "theirs"}


def test_a_platform_admin_sees_every_row(world: World) -> None:
    assert shown(world.person("viewer", platform=True)) == {"ours", "theirs", "everyones", "loosened"}


@pytest.mark.parametrize(("role", "staff"), [("viewer", True), ("operator", False)])
def test_viewers_and_people_who_are_not_staff_see_nothing(world: World, role: str, staff: bool) -> None:
    client = world.person(role, staff=staff)
    assert client.get(LIST).status_code in (302, 403)
    assert client.get(f"{LIST}{world.ours.pk}/change/").status_code in (302, 403)


@pytest.mark.mission("P10.1")
def test_an_operator_edits_a_row_of_their_tenant_and_the_trail_keeps_before_and_after(world: World) -> None:
    client, rev, other = world.person("operator"), world.rev(world.acme), world.rev(world.globex)
    fields = form(world, agent="ours", when="args.amount > 10", tool=None, tenant=None)
    assert client.post(f"{LIST}{world.ours.pk}/change/", fields).status_code == 302
    world.ours.refresh_from_db()
    assert (world.ours.decision, world.ours.when, world.ours.tenant) == ("deny", "args.amount > 10", world.acme)
    entry = AuditEntry.objects.latest("id")
    assert (entry.action, entry.tenant, entry.object_id) == ("permission.updated", world.acme, str(world.ours.pk))
    assert entry.actor.startswith("operator")
    assert (entry.before["decision"], entry.after["decision"]) == ("ask", "deny")
    assert (world.rev(world.acme), world.rev(world.globex)) == (rev + 1, other)


def test_saving_without_a_change_leaves_no_entry_and_the_revision_as_it_was(world: World) -> None:
    rev, entries = world.rev(world.acme), AuditEntry.objects.count()
    fields = form(world, agent="ours", decision="ask", tool=None, tenant=None)
    assert world.person("operator").post(f"{LIST}{world.ours.pk}/change/", fields).status_code == 302
    assert (world.rev(world.acme), AuditEntry.objects.count()) == (rev, entries)


def test_an_operator_adds_and_removes_rows_of_their_tenant(world: World) -> None:
    client, rev = world.person("operator"), world.rev(world.acme)
    assert client.post(f"{LIST}add/", form(world, agent="new")).status_code == 302
    row = Permission.objects.get(agent="new")
    assert (row.tenant, row.decision) == (world.acme, "deny")
    assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Permission.objects.filter(agent="new").exists()
    assert [e.action for e in AuditEntry.objects.order_by("-id")[:2]] == ["permission.deleted", "permission.created"]
    assert world.rev(world.acme) == rev + 2


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("change", [{"tenant": "globex"}, {"tenant": ""}, {"loosen": "on"}, {"tool": "hidden"}])
def test_an_operator_cannot_reach_beyond_by_posting_more(world: World, change: dict[str, str]) -> None:
    if change.get("tenant") == "globex":
        change = {"tenant": str(world.globex.id)}
    response = world.person("operator").post(f"{LIST}add/", form(world, agent="new", **change))
    assert response.status_code == 200
    assert response.context["errors"]
    assert not Permission.objects.filter(agent="new").exists()


def test_the_tenant_and_tool_of_a_row_stay_whatever_is_posted(world: World) -> None:
    client = world.person("operator", tenants=(world.acme, world.globex))
    client.post(f"{LIST}{world.ours.pk}/change/", form(world, agent="ours", tenant=str(world.globex.id), tool="hidden"))
    world.ours.refresh_from_db()
    assert (world.ours.tenant, world.ours.tool_id, world.ours.decision) == (world.acme, "create_ticket", "deny")


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("which", ["theirs", "everyones", "loosened"])
def test_an_operator_can_neither_change_nor_delete_what_is_not_theirs(world: World, which: str) -> None:
    row, client = getattr(world, which), world.person("operator")
    for loosen in ({}, {"loosen": "on"}):
        fields = form(world, agent=which, tool=None, tenant=None, **loosen)
        assert client.post(f"{LIST}{row.pk}/change/", fields).status_code in (302, 403)
    assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code in (302, 403)
    fields = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    client.post(LIST, fields)
    row.refresh_from_db()
    assert row.decision == "ask"


def test_a_tenants_admin_loosens_in_their_tenant_but_not_for_everyone(world: World) -> None:
    client = world.person("admin")
    assert client.post(f"{LIST}add/", form(world, agent="new", decision="allow", loosen="on")).status_code == 302
    assert Permission.objects.get(agent="new").loosen
    assert client.post(f"{LIST}add/", form(world, agent="all", tenant="")).status_code == 200
    assert not Permission.objects.filter(agent="all").exists()


def test_a_platform_admin_edits_rows_of_every_tenant_and_bumps_them_all(world: World) -> None:
    client, revs = world.person("viewer", platform=True), (world.rev(world.acme), world.rev(world.globex))
    fields = form(world, agent="everyones", tool=None, tenant=None)
    assert client.post(f"{LIST}{world.everyones.pk}/change/", fields).status_code == 302
    assert (world.rev(world.acme), world.rev(world.globex)) == (revs[0] + 1, revs[1] + 1)
    assert AuditEntry.objects.latest("id").tenant is None


@pytest.mark.parametrize("when", ["arg.amount > 10", "args.amount >", "lower(args.a) == 'b'"])
def test_a_condition_that_cannot_hold_is_an_error_on_its_field(world: World, when: str) -> None:
    response = world.person("operator").post(f"{LIST}add/", form(world, agent="new", when=when))
    assert response.status_code == 200
    assert "when" in response.context["adminform"].form.errors
    assert not Permission.objects.filter(agent="new").exists()


def test_a_second_row_for_the_same_place_is_an_error_of_the_form(world: World) -> None:
    response = world.person("operator").post(f"{LIST}add/", form(world, agent="ours"))
    assert response.status_code == 200
    assert response.context["errors"]


# -- tools, models, releases ----------------------------------------------------------------------------------------------


def test_only_a_platform_admin_switches_tools_and_nobody_edits_them_here(world: World) -> None:
    fields = {"action": "disable", "_selected_action": ["create_ticket"]}
    world.person("admin").post("/admin/tools/tool/", fields)
    assert Tool.objects.get(name="create_ticket").enabled
    client = world.person("admin", platform=True)
    page = client.get("/admin/tools/tool/create_ticket/change/")
    assert page.status_code == 200
    assert client.post("/admin/tools/tool/create_ticket/change/", {"enabled": ""}).status_code == 403
    client.post("/admin/tools/tool/", fields)
    assert not Tool.objects.get(name="create_ticket").enabled
    assert AuditEntry.objects.latest("id").action == "tool.disabled"


@pytest.mark.mission("P2.2")
def test_a_tools_page_in_the_admin_shows_what_the_lint_says(world: World) -> None:
    schema = {"type": "object", "properties": {"note": {"type": "string", "description": "<i>You must</i>"}}, "additionalProperties": False}
    block = {"adapter": {"kind": "http", "url": "https://desk.example.com/"}, "effect": "write", "input_schema": schema}
    catalog.put(None, "create_ticket", ToolSpec.model_validate(block | {"description": "Open \u202eit."}))
    page = world.person("admin", platform=True).get("/admin/tools/tool/create_ticket/change/").content.decode()
    for part in ("<strong>Error</strong>", "“You must”", "/input_schema/properties/note/description", "(unbounded_text)"):
        assert part in page
    assert "2 error, 3 warning" in page and "<i>You" not in page and "Open \\u202eit." in page and "\u202e" not in page


def test_models_are_edited_by_platform_admins_and_checked_like_the_document(world: World) -> None:
    row, _ = runs_catalog.put_model(None, "primary", ModelSpec(provider="openai", base_url="https://models.example.com/v1", model="m"))
    url = f"/admin/runs/modeldefinition/{row.pk}/change/"
    fields = {"provider": "openai", "base_url": row.base_url, "model": "n", "timeout_s": "9", "retry": "{}"}
    assert world.person("admin").post(url, fields).status_code == 403
    client, rev = world.person("admin", platform=True), world.rev(world.acme)
    assert client.post(url, fields | {"base_url": "http://127.0.0.1:1/v1"}).status_code == 200
    assert client.post(url, fields | {"retry": '{"max_attempts": 0}'}).status_code == 200
    assert client.post(url, fields | {"price_input": "1"}).status_code == 200, "half a price is no price"
    assert client.post(url, fields).status_code == 302
    assert ModelDefinition.objects.get().model == "n"
    entry = AuditEntry.objects.latest("id")
    assert (entry.tenant, entry.before["model"], entry.after["model"]) == (None, "m", "n")
    assert world.rev(world.acme) == rev + 1


def test_releases_are_promoted_and_rolled_back_from_their_lists(world: World) -> None:
    runs_catalog.put_model(None, "primary", ModelSpec(provider="openai", base_url="https://models.example.com/v1", model="m"))
    agent, _ = runs_catalog.put_agent(None, "support")
    block = {"models": {"planner": {"model": "primary"}}}
    one, two = (releases.create(None, agent, {"instructions": text, **block}) for text in ("one", "two"))
    releases.promote(None, one)
    promote = {"action": "promote", "_selected_action": [str(two.pk)]}
    world.person("admin").post("/admin/runs/release/", promote)
    assert Agent.objects.get().live == one
    client = world.person("admin", platform=True)
    client.post("/admin/runs/release/", promote)
    assert Agent.objects.get().live == two
    client.post("/admin/runs/agent/", {"action": "roll_back", "_selected_action": ["support"]})
    assert Agent.objects.get().live == one
    assert client.get("/admin/runs/release/").status_code == client.get(f"/admin/runs/release/{one.pk}/change/").status_code == 200
    assert client.get("/admin/runs/run/").status_code == 200
