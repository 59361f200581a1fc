"""The registry of tools and permissions: versions, refusals, who may change what, and the revision they bump."""

from typing import Any

import pytest
from django.db import DatabaseError, InternalError, ProgrammingError, connections, transaction

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


CHANGES: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/other"},
    "description": "Open one ticket.",
    "effect": "irreversible",
    "idempotency": "none",
    "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}, "additionalProperties": False},
    "output_schema": {"type": "object"},
    "timeout_s": 2,
    "retry": {"max_attempts": 1},
    "labels": ["egress"],
    "duplicate_when": "status == 410",
    "credential": "desk-token",
    "verify": {"adapter": {"kind": "http", "url": "https://desk.example.com/find"}, "applied_when": "result.found"},
    "preview": {"adapter": {"kind": "http", "url": "https://desk.example.com/find"}, "before": {"status": "result.status"}},
    "compensate": {"tool": "close_ticket"},
    "effect_key": "ticket:{a}",
    "effect_window_s": 60,
    "idempotency_window_s": 60,
}


@pytest.mark.mission("P12.1")
@pytest.mark.parametrize("field", CHANGES)
def test_every_field_that_decides_what_a_call_does_makes_a_new_version(acme: Tenant, field: str) -> None:
    first, _ = catalog.put(None, "create_ticket", spec())
    second, _ = catalog.put(None, "create_ticket", spec(**{field: CHANGES[field]}))
    assert (second.number, second.sha256 != first.sha256) == (2, True)
    first.refresh_from_db()
    assert first.sha256 == spec().sha256("create_ticket") != spec().sha256("create_tickets")


@pytest.mark.mission("P12.1")
def test_who_sees_a_tool_and_the_order_in_which_things_are_written_make_no_new_version(acme: Tenant) -> None:
    assert set(CHANGES) == set(ToolSpec.model_fields) - {"tenants"}
    first, _ = catalog.put(None, "create_ticket", spec(labels=["money", "egress"]))
    schema = dict(reversed(spec().input_schema.items()))
    same, changed = catalog.put(None, "create_ticket", spec(labels=["egress", "money", "egress"], tenants=["acme"], input_schema=schema))
    assert (same, changed) == (first, True)
    catalog.set_enabled(None, "create_ticket", False)
    assert Tool.objects.get(name="create_ticket").current == first and ToolVersion.objects.count() == 1


@pytest.mark.mission("P12.1")
@pytest.mark.django_db(databases=["default", "owner"])
@pytest.mark.parametrize("change", ["update tools_toolversion set description = 'x'", "delete from tools_toolversion"])
def test_not_even_the_owner_of_the_tables_changes_a_version(change: str) -> None:
    with transaction.atomic(using="owner"):
        tool = Tool.objects.using("owner").create(name="pinned")
        fields = {"description": "d", "effect": "read", "adapter": {}, "input_schema": {}, "timeout_s": 1, "sha256": "0" * 64}
        ToolVersion.objects.using("owner").create(tool=tool, number=1, **fields)
        with pytest.raises(DatabaseError, match="tools_toolversion is append only"), transaction.atomic(using="owner"):
            connections["owner"].cursor().execute(change)
        transaction.set_rollback(True, using="owner")


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


OPEN: dict[str, Any] = {"input_schema": {"type": "object", "properties": {"note": {"type": "string"}}}}


@pytest.mark.mission("P2.2")
def test_looseness_is_told_and_does_not_keep_a_write_out_but_what_cannot_be_undone_must_be_tight(acme: Tenant) -> None:
    version, _ = catalog.put(None, "loose", spec(**OPEN))
    assert {f.code for f in catalog.findings(version)} == {"open_object", "nothing_required", "unbounded_text", "no_output_schema"}
    error = refused("bad_schema", catalog.put, None, "final", spec(**OPEN, effect="irreversible"))
    assert [f["code"] for f in error.fields["findings"]] == ["irreversible_open_object", "irreversible_unbounded_text"]
    assert "/input_schema/properties/note: " in error.message and error.status == 422
    assert list(Tool.objects.values_list("name", flat=True)) == ["loose"]


@pytest.mark.mission("P2.2")
def test_a_version_from_before_the_lint_stays_usable_and_its_next_one_is_held_to_it(acme: Tenant) -> None:
    block = spec(**OPEN, effect="irreversible")
    tool = Tool.objects.create(name="final")
    old = catalog.add_version(tool, block, block.sha256("final"))
    assert catalog.put(None, "final", block) == (old, True)
    assert catalog.put(None, "final", block) == (old, False)
    refused("bad_schema", catalog.put, None, "final", spec(**OPEN, effect="irreversible", timeout_s=2))


@pytest.mark.mission("P2.2")
@pytest.mark.parametrize("name", ["Create_Ticket", "create-ticket", "create_t1cket"])
def test_a_new_tool_whose_name_only_looks_like_another_is_refused(acme: Tenant, name: str) -> None:
    catalog.put(None, "create_ticket", spec())
    assert "create_ticket" in refused("bad_name", catalog.put, None, name, spec()).message
    assert catalog.put(None, "create_ticket", spec(timeout_s=2))[1]
    Tool.objects.create(name=name)  # as registered before there was a lint
    assert catalog.put(None, name, spec())[1]


def test_a_schema_that_is_too_deep_for_a_digest_is_refused_like_any_other(acme: Tenant) -> None:
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"items": deep}
    Tool.objects.create(name="t")
    refused("bad_schema", catalog.put, None, "t", spec(input_schema=deep))


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
