"""The registry of tools and permissions: versions, refusals, who may change what, and the revision they bump."""

from typing import Any

import pytest
from django.db import InternalError, ProgrammingError, transaction

from tenants import controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import AuditEntry, Controls, EgressAllow, Member, Tenant, User
from tools import catalog, permissions
from tools.models import Permission, Tool, ToolVersion
from tools.spec import ToolSpec

pytestmark = pytest.mark.django_db


def spec(**change: Any) -> ToolSpec:
    block: dict[str, Any] = {
        "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"},
        "description": "Open a ticket.",
        "effect": "write",
        "idempotency": "key",
        "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
    }
    return ToolSpec.model_validate(block | change)


def tenant(slug: str) -> Tenant:
    made = Tenant.objects.create(slug=slug)
    controls.ensure(made)
    return made


def actor(role: str, where: Tenant, *, platform: bool = False) -> Actor:
    user = User.objects.create(username=f"{role}-{where.slug}-{platform}", is_platform_admin=platform)
    Member.objects.create(tenant=where, user=user, role=role)
    return Actor(user, where, role)


@pytest.fixture
def acme(db: None) -> Tenant:
    return tenant("acme")


@pytest.fixture
def globex(db: None) -> Tenant:
    return tenant("globex")


def revs() -> dict[str, int]:
    return dict(Controls.objects.values_list("tenant__slug", "rev"))


def refused(code: str, call: Any, *args: Any, **more: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*args, **more)
    assert caught.value.code == code
    return caught.value


@pytest.mark.mission("P12.1")
def test_a_changed_tool_gets_a_new_version_and_the_old_one_stays_as_it_was(acme: Tenant) -> None:
    first, changed = catalog.put(None, "create_ticket", spec())
    assert (changed, first.number) == (True, 1)
    second, changed = catalog.put(None, "create_ticket", spec(description="Open one ticket."))
    assert (changed, second.number, second.description) == (True, 2, "Open one ticket.")
    assert Tool.objects.get(name="create_ticket").current == second
    first.refresh_from_db()
    assert first.description == "Open a ticket."


def test_the_same_block_again_makes_no_version_no_entry_and_no_new_revision(acme: Tenant) -> None:
    first, _ = catalog.put(None, "create_ticket", spec())
    entries, rev = AuditEntry.objects.count(), revs()
    again, changed = catalog.put(None, "create_ticket", spec())
    assert (again, changed) == (first, False)
    assert (AuditEntry.objects.count(), revs()) == (entries, rev)
    assert ToolVersion.objects.count() == 1


def test_a_block_that_was_there_before_brings_its_version_back(acme: Tenant) -> None:
    first, _ = catalog.put(None, "create_ticket", spec())
    catalog.put(None, "create_ticket", spec(timeout_s=2))
    back, changed = catalog.put(None, "create_ticket", spec())
    assert (back, changed, ToolVersion.objects.count()) == (first, True, 2)


@pytest.mark.parametrize("change", ["update tools_toolversion set description = 'x'", "delete from tools_toolversion"])
def test_a_version_cannot_be_changed_behind_the_registrys_back(acme: Tenant, change: str) -> None:
    from django.db import connection

    catalog.put(None, "create_ticket", spec())
    with pytest.raises((ProgrammingError, InternalError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change)


def test_a_version_gives_the_definition_that_calls_are_made_by(acme: Tenant) -> None:
    version, _ = catalog.put(None, "t", spec(labels=["money", "egress"], retry={"max_attempts": 3}, duplicate_when="status == 410"))
    made = catalog.definition(version)
    assert (made.version_id, made.name, made.effect, made.idempotency) == (version.id, "t", "write", "key")
    assert (made.labels, made.retry.max_attempts, made.duplicate_when) == ({"money", "egress"}, 3, "status == 410")
    assert made.mutating


def test_every_change_is_audited_on_the_platforms_chain_and_bumps_every_tenant(acme: Tenant, globex: Tenant) -> None:
    admin = actor("admin", acme, platform=True)
    before = revs()
    catalog.put(admin, "create_ticket", spec())
    catalog.set_enabled(admin, "create_ticket", False, "it floods the desk")
    entries = list(AuditEntry.objects.filter(object_id="create_ticket").order_by("id"))
    assert [(e.action, e.tenant, e.actor) for e in entries] == [
        ("tool.created", None, admin.user.username),
        ("tool.disabled", None, admin.user.username),
    ]
    assert (entries[1].before, entries[1].after, entries[1].reason) == (
        {"enabled": True},
        {"enabled": False},
        "it floods the desk",
    )
    assert revs() == {slug: rev + 2 for slug, rev in before.items()}


def test_switching_a_tool_twice_the_same_way_is_one_change(acme: Tenant) -> None:
    catalog.put(None, "create_ticket", spec())
    assert catalog.set_enabled(None, "create_ticket", False)
    assert not catalog.set_enabled(None, "create_ticket", False)
    with pytest.raises(NotFound):
        catalog.set_enabled(None, "nothing", False)


def test_a_switched_off_tool_stays_off_when_its_block_is_applied_again(acme: Tenant) -> None:
    catalog.put(None, "create_ticket", spec())
    catalog.set_enabled(None, "create_ticket", False)
    catalog.put(None, "create_ticket", spec(timeout_s=3))
    assert not Tool.objects.get(name="create_ticket").enabled


@pytest.mark.parametrize("role", ["viewer", "operator", "approver", "admin"])
def test_only_platform_admins_change_what_belongs_to_the_installation(acme: Tenant, role: str) -> None:
    someone = actor(role, acme)
    for call in (
        lambda: catalog.put(someone, "t", spec()),
        lambda: catalog.set_enabled(someone, "t", False),
        lambda: catalog.allow_egress(someone, "127.0.0.1:1"),
        lambda: catalog.refuse_egress(someone, "127.0.0.1:1"),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.status == 403
    assert not Tool.objects.exists()
    assert not EgressAllow.objects.exists()


def test_a_key_without_the_scope_does_not_reach_its_platform_admins_rights(acme: Tenant) -> None:
    admin = actor("admin", acme, platform=True)
    narrow = Actor(admin.user, acme, "admin", frozenset({"runs:read"}))
    refused("scope_missing", catalog.put, narrow, "t", spec())


def test_a_schema_that_cannot_be_used_is_refused_with_the_findings(acme: Tenant) -> None:
    error = refused("bad_schema", catalog.put, None, "t", spec(input_schema={"type": "array"}))
    assert error.fields["findings"][0]["path"] == "/input_schema/type"
    broken = {"type": "object", "properties": {"a": {"type": "intejer"}}}
    error = refused("bad_schema", catalog.put, None, "t", spec(input_schema=broken))
    assert "does_not_compile" in [f["code"] for f in error.fields["findings"]]
    error = refused("bad_schema", catalog.put, None, "t", spec(output_schema={"type": "nothing"}))
    assert error.fields["findings"][0]["path"].startswith("/output_schema")
    refused("bad_schema", catalog.put, None, "t", spec(input_schema={"type": "object", "$ref": "https://schemas.example.com/a"}))
    assert not Tool.objects.exists()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_a_name_that_a_model_cannot_be_offered_is_refused(acme: Tenant, name: str) -> None:
    refused("bad_name", catalog.put, None, name, spec())


def test_a_condition_on_duplicates_is_checked_when_it_is_saved(acme: Tenant) -> None:
    refused("bad_condition", catalog.put, None, "t", spec(duplicate_when="args.a == 1"))


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("url", ["http://127.0.0.1:9009/x", "http://2130706433:9009/x", "http://[::ffff:127.0.0.1]:9009/x"])
def test_a_private_address_is_refused_by_name_with_the_cure_until_it_is_listed(acme: Tenant, url: str) -> None:
    adapter = {"kind": "http", "url": url}
    error = refused("egress_refused", catalog.put, None, "t", spec(adapter=adapter))
    assert error.fields["host_port"] in error.message
    assert "egress" in error.message
    assert catalog.allow_egress(None, error.fields["host_port"])
    assert catalog.put(None, "t", spec(adapter=adapter))[1]


def test_listing_an_address_again_changes_nothing_and_taking_it_off_is_a_change(acme: Tenant) -> None:
    assert catalog.allow_egress(None, "Localhost:9009")
    rev = revs()
    assert not catalog.allow_egress(None, "localhost:9009")
    assert revs() == rev
    assert catalog.refuse_egress(None, "localhost:9009")
    assert not catalog.refuse_egress(None, "localhost:9009")
    assert revs() == {"acme": rev["acme"] + 1}


def test_a_tenant_sees_the_tools_that_are_on_and_meant_for_it(acme: Tenant) -> None:
    catalog.put(None, "for_all", spec())
    catalog.put(None, "for_globex", spec(tenants=["globex"]))
    catalog.put(None, "off", spec())
    catalog.set_enabled(None, "off", False)
    assert catalog.enabled_tools("acme") == {"for_all"}
    assert catalog.enabled_tools("globex") == {"for_all", "for_globex"}


# -- permissions ----------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.1")
def test_runs_of_a_tenant_are_judged_by_its_rows_and_those_of_every_tenant(acme: Tenant, globex: Tenant) -> None:
    catalog.put(None, "t", spec())
    permissions.set_permission(None, "t", None, decision="ask", approvers=2)
    permissions.set_permission(None, "t", acme, decision="deny", agent="support", when="args.a > 1")
    permissions.set_permission(None, "t", globex, decision="draft", user_role="guest", loosen=True)
    assert [(r.tenant, r.decision, r.approvers) for r in catalog.load_permissions("acme")] == [
        (None, "ask", 2),
        ("acme", "deny", 1),
    ]
    assert [(r.tenant, r.decision, r.loosen) for r in catalog.load_permissions("globex")] == [
        (None, "ask", False),
        ("globex", "draft", True),
    ]
    row = catalog.load_permissions("acme")[1]
    assert (row.agent, row.when, row.user_role) == ("support", "args.a > 1", "")


def test_a_permission_is_one_row_per_place_and_setting_it_again_is_no_change(acme: Tenant) -> None:
    catalog.put(None, "t", spec())
    first, changed = permissions.set_permission(None, "t", acme, decision="deny")
    assert changed
    rev, entries = revs(), AuditEntry.objects.count()
    again, changed = permissions.set_permission(None, "t", acme, decision="deny")
    assert (again, changed, revs(), AuditEntry.objects.count()) == (first, False, rev, entries)
    _, changed = permissions.set_permission(None, "t", acme, decision="ask")
    assert changed
    assert Permission.objects.count() == 1
    entry = AuditEntry.objects.latest("id")
    assert (entry.action, entry.tenant, entry.before["decision"], entry.after["decision"]) == (
        "permission.updated",
        acme,
        "deny",
        "ask",
    )


def test_a_permission_bumps_the_tenants_it_concerns_and_no_other(acme: Tenant, globex: Tenant) -> None:
    catalog.put(None, "t", spec())
    before = revs()
    row, _ = permissions.set_permission(None, "t", acme, decision="deny")
    assert revs() == {"acme": before["acme"] + 1, "globex": before["globex"]}
    permissions.delete(None, row)
    assert revs() == {"acme": before["acme"] + 2, "globex": before["globex"]}
    permissions.set_permission(None, "t", None, decision="deny")
    assert revs() == {"acme": before["acme"] + 3, "globex": before["globex"] + 1}


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize(
    ("who", "own", "loosening", "of_globex", "of_all"),
    [
        ("viewer", False, False, False, False),
        ("operator", True, False, False, False),
        ("approver", True, False, False, False),
        ("admin", True, True, False, False),
        ("platform", True, True, True, True),
    ],
)
def test_who_may_edit_which_rows(acme: Tenant, globex: Tenant, who: str, own: bool, loosening: bool, of_globex: bool, of_all: bool) -> None:
    catalog.put(None, "t", spec())
    person = actor("admin", acme, platform=True) if who == "platform" else actor(who, acme)
    wanted = [
        ({"tenant": acme}, own),
        ({"tenant": acme, "loosen": True, "user_role": "vip"}, loosening),
        ({"tenant": globex}, of_globex),
        ({"tenant": None}, of_all),
    ]
    for change, allowed in wanted:
        if allowed:
            permissions.set_permission(person, "t", decision="deny", **change)
        else:
            refused("not_yours", permissions.set_permission, person, "t", decision="deny", **change)
    assert Permission.objects.count() == sum(allowed for _, allowed in wanted)


def test_an_operator_cannot_change_or_remove_a_row_that_loosens(acme: Tenant) -> None:
    catalog.put(None, "t", spec())
    row, _ = permissions.set_permission(None, "t", acme, decision="allow", loosen=True)
    operator = actor("operator", acme)
    refused("not_yours", permissions.delete, operator, row)
    refused("not_yours", permissions.set_permission, operator, "t", acme, decision="deny", loosen=False)
    row.refresh_from_db()
    assert (row.decision, row.loosen) == ("allow", True)


def test_a_permission_that_cannot_be_evaluated_is_refused(acme: Tenant) -> None:
    catalog.put(None, "t", spec())
    refused("bad_condition", permissions.set_permission, None, "t", acme, decision="deny", when="arg.a == 1")
    refused("bad_permission", permissions.set_permission, None, "t", acme, decision="perhaps")
    refused("bad_permission", permissions.set_permission, None, "t", acme, decision="ask", approvers=0)
    refused("unknown_tool", permissions.set_permission, None, "nothing", acme, decision="deny")
    assert not Permission.objects.exists()
