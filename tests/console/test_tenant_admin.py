"""The admin of people, tenants, keys, egress and credentials: who sees what, what is audited, what is never shown."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import path

from tenants import audit, credentials, keys
from tenants.models import ApiKey, AuditEntry, Controls, Credential, EgressAllow, Member, Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [path("admin/", admin.site.urls)]
CANARY = "sk-canary-77aa"


class World:
    def __init__(self) -> None:
        self.acme, self.globex = Tenant.objects.create(slug="acme"), Tenant.objects.create(slug="globex")
        self.root = User.objects.create_user("root", is_staff=True, is_platform_admin=True)
        self.ada, self.ada_in_acme = self.person("ada", self.acme, "admin")
        self.oli, self.oli_in_acme = self.person("oli", self.acme, "operator")
        self.eve, self.eve_in_globex = self.person("eve", self.globex, "admin")

    def person(self, name: str, tenant: Tenant, role: str) -> tuple[User, Member]:
        user = User.objects.create_user(name, is_staff=True)
        return user, Member.objects.create(tenant=tenant, user=user, role=role)


@pytest.fixture
def world(db: None) -> World:
    return World()


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def listed(by: User, /, model: str) -> str:
    return as_(by).get(f"/admin/tenants/{model}/").content.decode()


def add(by: User, /, model: str, **fields: Any) -> Any:
    return as_(by).post(f"/admin/tenants/{model}/add/", fields, follow=True)


def change(by: User, /, model: str, pk: object, **fields: Any) -> Any:
    return as_(by).post(f"/admin/tenants/{model}/{pk}/change/", fields, follow=True)


def act(by: User, /, model: str, action: str, *pks: object) -> Any:
    data = {"action": action, "_selected_action": [str(pk) for pk in pks], "post": "yes"}
    return as_(by).post(f"/admin/tenants/{model}/", data, follow=True)


def last() -> AuditEntry:
    entry = AuditEntry.objects.last()
    assert entry is not None
    return entry


# --- who sees what ----------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("model", ["member", "user", "apikey", "credential", "tenant", "auditentry"])
def test_a_tenants_admin_sees_nothing_of_another_tenant(world: World, model: str) -> None:
    for tenant, member in ((world.acme, world.ada_in_acme), (world.globex, world.eve_in_globex)):
        keys.issue(member, f"key-of-{tenant.slug}", ["runs:read"])
        credentials.store(tenant, f"credential-of-{tenant.slug}", "bearer", "x")
        audit.append(member.user, "did.something", "thing", f"thing-of-{tenant.slug}", tenant=tenant)
    page = listed(world.ada, model)
    assert "acme" in page or "oli" in page
    assert "globex" not in page
    assert "eve" not in re.sub("[a-z]*event[a-z]*|prevent|level", "", page)


@pytest.mark.parametrize("model", ["member", "user", "apikey", "credential", "tenant", "auditentry", "egressallow"])
def test_a_foreign_row_is_as_absent_by_its_address(world: World, model: str) -> None:
    key, _ = keys.issue(world.eve_in_globex, "k", ["runs:read"])
    foreign = {
        "member": world.eve_in_globex.pk,
        "user": world.eve.pk,
        "apikey": key.pk,
        "credential": credentials.store(world.globex, "c", "bearer", "x").pk,
        "tenant": world.globex.pk,
        "auditentry": audit.append(world.eve, "a", "b", "c", tenant=world.globex).pk,
        "egressallow": EgressAllow.objects.create(host_port="127.0.0.1:1").pk,
    }[model]
    response = as_(world.ada).get(f"/admin/tenants/{model}/{foreign}/change/")
    assert response.status_code in (302, 403)
    assert as_(world.root).get(f"/admin/tenants/{model}/{foreign}/change/").status_code == 200


@pytest.mark.parametrize("model", ["member", "user", "credential", "tenant", "auditentry", "egressallow"])
def test_an_operator_has_no_business_here(world: World, model: str) -> None:
    assert as_(world.oli).get(f"/admin/tenants/{model}/").status_code == 403


def test_somebody_who_is_not_staff_does_not_come_in(world: World) -> None:
    User.objects.update(is_staff=False)
    assert as_(world.ada).get("/admin/tenants/member/").status_code == 302


@pytest.mark.parametrize("model", ["member", "user", "apikey", "credential", "tenant", "auditentry", "egressallow"])
def test_a_platform_admin_opens_every_page(world: World, model: str) -> None:
    assert as_(world.root).get(f"/admin/tenants/{model}/").status_code == 200
    assert as_(world.root).get(f"/admin/tenants/{model}/add/").status_code == (403 if model == "auditentry" else 200)


# --- people and tenants -----------------------------------------------------------------------------------------------------


def test_a_changed_role_is_audited_on_the_tenants_chain_with_before_and_after(world: World) -> None:
    change(world.ada, "member", world.oli_in_acme.pk, role="approver")
    world.oli_in_acme.refresh_from_db()
    entry = last()
    assert world.oli_in_acme.role == "approver"
    assert (entry.actor, entry.action, entry.tenant) == ("ada", "member.changed", world.acme)
    assert (entry.before["role"], entry.after["role"]) == ("operator", "approver")
    assert entry.request_id.startswith("req_")


def test_a_membership_cannot_be_moved_to_another_tenant_or_person(world: World) -> None:
    change(world.ada, "member", world.oli_in_acme.pk, role="viewer", tenant=world.globex.pk, user=world.root.pk)
    world.oli_in_acme.refresh_from_db()
    assert (world.oli_in_acme.tenant, world.oli_in_acme.user) == (world.acme, world.oli)


def test_nobody_is_added_to_a_tenant_by_an_admin_of_another(world: World) -> None:
    add(world.ada, "member", tenant=world.globex.pk, user=world.ada.pk, role="admin")
    add(world.ada, "member", tenant=world.acme.pk, user=world.eve.pk, role="viewer")
    assert not Member.objects.filter(tenant=world.globex, user=world.ada).exists()
    assert not Member.objects.filter(tenant=world.acme, user=world.eve).exists()


def test_removing_a_member_ends_their_keys_and_is_audited(world: World) -> None:
    keys.issue(world.oli_in_acme, "k", ["runs:read"])
    act(world.ada, "member", "remove", world.oli_in_acme.pk)
    assert not Member.objects.filter(pk=world.oli_in_acme.pk).exists()
    assert not ApiKey.objects.exists()
    assert (last().action, last().before["role"]) == ("member.deleted", "operator")


def test_only_a_platform_admin_makes_platform_admins_and_changes_people(world: World) -> None:
    fields = {"username": "ada", "is_active": "on", "is_staff": "on", "is_platform_admin": "on"}
    assert change(world.ada, "user", world.ada.pk, **fields).status_code == 403
    assert as_(world.ada).get(f"/admin/tenants/user/{world.oli.pk}/password/").status_code == 403
    world.ada.refresh_from_db()
    assert not world.ada.is_platform_admin
    change(world.root, "user", world.ada.pk, **fields)
    world.ada.refresh_from_db()
    assert world.ada.is_platform_admin
    assert (last().action, last().tenant, last().after["is_platform_admin"]) == ("user.changed", None, True)


def test_who_may_only_look_at_a_person_sees_nothing_of_the_password(world: World) -> None:
    world.oli.set_password("correct horse battery")
    world.oli.save()
    page = as_(world.ada).get(f"/admin/tenants/user/{world.oli.pk}/change/").content.decode()
    assert "oli" in page
    assert "password" not in page.lower().replace("password_change", "").replace("change password", "")


def test_a_new_password_is_audited_without_being_told(world: World) -> None:
    fields = {"password1": "correct horse battery", "password2": "correct horse battery", "usable_password": "true"}
    as_(world.root).post(f"/admin/tenants/user/{world.oli.pk}/password/", fields)
    assert (last().action, last().object_id, last().before, last().after) == (
        "user.password_changed",
        str(world.oli.pk),
        None,
        None,
    )


def test_a_new_person_is_made_and_audited(world: World) -> None:
    fields = {
        "username": "kim",
        "password1": "correct horse battery",
        "password2": "correct horse battery",
        "usable_password": "true",
    }
    add(world.root, "user", **fields)
    assert User.objects.get(username="kim").check_password("correct horse battery")
    assert (last().action, last().after["username"]) == ("user.created", "kim")


def test_a_new_tenant_has_controls_and_its_slug_stays(world: World) -> None:
    add(world.root, "tenant", slug="initech", name="Initech", active="on")
    tenant = Tenant.objects.get(slug="initech")
    assert Controls.objects.filter(tenant=tenant).exists()
    change(world.root, "tenant", tenant.pk, slug="other", name="Initech Inc", active="on")
    tenant.refresh_from_db()
    assert (tenant.slug, tenant.name) == ("initech", "Initech Inc")
    assert [e.action for e in AuditEntry.objects.filter(tenant=None).order_by("id")] == ["tenant.created", "tenant.changed"]


# --- keys -------------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_shown_once_and_works(world: World) -> None:
    client = as_(world.oli)
    fields = {"member": world.oli_in_acme.pk, "name": "ci", "scopes": ["runs:read", "runs:write"]}
    page = client.post("/admin/tenants/apikey/add/", fields, follow=True).content.decode()
    text = re.search(r"sbx_[0-9A-Z]{12}_[A-Za-z0-9_-]{43}", page)[0]
    assert keys.verify(text).can("runs:write")
    again = client.get("/admin/tenants/apikey/").content.decode()
    detail = client.get(f"/admin/tenants/apikey/{text[4:16]}/change/").content.decode()
    for shown in (again, detail):
        assert text[:16] in shown
        assert text[17:] not in shown
    assert (last().action, last().tenant) == ("apikey.created", world.acme)
    assert text[17:] not in str(list(AuditEntry.objects.values()))


def test_nobody_makes_a_key_that_acts_as_somebody_else(world: World) -> None:
    root_in_acme = Member.objects.create(tenant=world.acme, user=world.root, role="viewer")
    for member in (world.oli_in_acme, root_in_acme, world.eve_in_globex):
        add(world.ada, "apikey", member=member.pk, name="ci", scopes=["runs:read"])
    assert not ApiKey.objects.exists()
    add(world.root, "apikey", member=world.oli_in_acme.pk, name="ci", scopes=["runs:read"])
    assert ApiKey.objects.get().member == world.oli_in_acme


@pytest.mark.parametrize("fields", [{"scopes": []}, {"scopes": ["runs:fly"]}, {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}])
def test_a_key_that_could_never_work_is_not_made(world: World, fields: dict[str, Any]) -> None:
    add(world.ada, "apikey", **({"member": world.ada_in_acme.pk, "name": "ci", "scopes": ["runs:read"]} | fields))
    assert not ApiKey.objects.exists()


def test_an_admin_revokes_a_key_of_their_tenant_and_not_of_another(world: World) -> None:
    mine, _ = keys.issue(world.oli_in_acme, "mine", ["runs:read"])
    foreign, _ = keys.issue(world.eve_in_globex, "foreign", ["runs:read"])
    act(world.ada, "apikey", "revoke", mine.pk, foreign.pk)
    assert set(ApiKey.objects.exclude(revoked_at=None)) == {mine}
    assert (last().action, last().object_id) == ("apikey.revoked", mine.pk)
    assert AuditEntry.objects.count() == 1


def test_an_operator_sees_their_own_keys_only(world: World) -> None:
    keys.issue(world.oli_in_acme, "mine-1", ["runs:read"])
    keys.issue(world.ada_in_acme, "hers-1", ["runs:read"])
    page = listed(world.oli, "apikey")
    assert "mine-1" in page
    assert "hers-1" not in page


def test_a_key_is_never_changed_or_deleted_here(world: World) -> None:
    key, _ = keys.issue(world.ada_in_acme, "mine", ["runs:read"])
    assert change(world.root, "apikey", key.pk, name="other", scopes=["config:write"]).status_code == 403
    assert as_(world.root).post(f"/admin/tenants/apikey/{key.pk}/delete/", {"post": "yes"}).status_code == 403
    key.refresh_from_db()
    assert (key.name, key.scopes) == ("mine", ["runs:read"])


# --- the trail, egress, credentials -----------------------------------------------------------------------------------------


def test_the_audit_trail_can_only_be_read(world: World) -> None:
    entry = audit.append(world.ada, "a", "b", "c", tenant=world.acme)
    assert change(world.root, "auditentry", entry.pk, actor="nobody").status_code == 403
    assert as_(world.root).post(f"/admin/tenants/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert as_(world.root).get("/admin/tenants/auditentry/add/").status_code == 403
    act(world.root, "auditentry", "delete_selected", entry.pk)
    assert AuditEntry.objects.filter(actor="ada").count() == 1


def test_the_platforms_chain_is_for_platform_admins(world: World) -> None:
    audit.append(world.root, "egress.secretly", "b", "c", tenant=None)
    assert "egress.secretly" not in listed(world.ada, "auditentry")
    assert "egress.secretly" in listed(world.root, "auditentry")


def test_only_a_platform_admin_opens_the_way_out_and_every_tenant_decides_again(world: World) -> None:
    assert add(world.ada, "egressallow", host_port="127.0.0.1:9009").status_code == 403
    assert not EgressAllow.objects.exists()
    before = {tenant.pk: Controls.objects.get_or_create(tenant=tenant)[0].rev for tenant in Tenant.objects.all()}
    add(world.root, "egressallow", host_port="LOCALHOST:9009")
    assert EgressAllow.objects.get().host_port == "localhost:9009"
    assert (last().action, last().tenant) == ("egressallow.created", None)
    assert all(row.rev > before[row.tenant_id] for row in Controls.objects.all())
    act(world.root, "egressallow", "delete_selected", EgressAllow.objects.get().pk)
    assert not EgressAllow.objects.exists()
    assert (last().action, last().before) == ("egressallow.deleted", {"host_port": "localhost:9009"})


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        ":80",
        "http://a:80",
        "a:80/x",
        "u@a:80",
        "*:80",
        "*.a.b:80",
        "::1:80",
        "a b:80",
    ],
)
def test_a_way_out_is_one_host_and_one_port(world: World, text: str) -> None:
    add(world.root, "egressallow", host_port=text)
    assert not EgressAllow.objects.exists()


def test_a_credential_is_sealed_and_never_shown_again(world: World) -> None:
    page = add(world.ada, "credential", tenant=world.acme.pk, name="desk", kind="bearer", secret=CANARY).content.decode()
    row = Credential.objects.get()
    assert credentials.open(world.acme.id, "desk", row.sealed) == CANARY
    detail = as_(world.ada).get(f"/admin/tenants/credential/{row.pk}/change/").content.decode()
    for shown in (page, detail, str(list(AuditEntry.objects.values()))):
        assert CANARY not in shown
        assert bytes(row.sealed).decode() not in shown
    assert (last().action, last().tenant, last().after["version"]) == ("credential.created", world.acme, 1)


def test_an_empty_secret_keeps_the_present_one_and_every_change_raises_the_version(world: World) -> None:
    row = credentials.store(world.acme, "desk", "bearer", CANARY)
    change(world.ada, "credential", row.pk, kind="header", header="X-Token", secret="")
    row.refresh_from_db()
    assert (row.kind, row.version, credentials.open(world.acme.id, "desk", row.sealed)) == ("header", 2, CANARY)
    rev = Controls.objects.get(tenant=world.acme).rev
    change(world.ada, "credential", row.pk, kind="bearer", header="", secret="newer")
    row.refresh_from_db()
    assert (row.version, credentials.open(world.acme.id, "desk", row.sealed)) == (3, "newer")
    assert Controls.objects.get(tenant=world.acme).rev == rev + 1


def test_a_credential_keeps_its_tenant_and_name(world: World) -> None:
    row = credentials.store(world.acme, "desk", "bearer", CANARY)
    change(world.root, "credential", row.pk, tenant=world.globex.pk, name="other", kind="bearer", secret="")
    row.refresh_from_db()
    assert (row.tenant, row.name) == (world.acme, "desk")


@pytest.mark.parametrize(
    "fields",
    [{"secret": ""}, {"kind": "header"}, {"header": "X-Token"}, {"kind": "header", "header": "X: y"}, {"secret": "a\tb"}],
)
def test_a_credential_that_could_not_be_used_is_not_stored(world: World, fields: dict[str, str]) -> None:
    add(world.ada, "credential", **({"tenant": world.acme.pk, "name": "desk", "kind": "bearer", "secret": CANARY} | fields))
    assert not Credential.objects.exists()


def test_a_credential_for_another_tenant_is_not_stored(world: World) -> None:
    add(world.ada, "credential", tenant=world.globex.pk, name="desk", kind="bearer", secret=CANARY)
    assert not Credential.objects.exists()
