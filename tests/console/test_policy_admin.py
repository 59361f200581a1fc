"""The admin of rules and of versions of the policy: who changes what, errors at their field, and the way back."""

from typing import Any

import pytest
from django.test import Client

from tenants import controls
from tenants.models import AuditEntry, Controls, Tenant
from tests.runtime.waiting import World, make_world, person
from tools import rules, versions
from tools.models import PolicyVersion, Rule

from .past import browser

LIST, VERSIONS = "/admin/tools/rule/", "/admin/tools/policyversion/"


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    controls.ensure(made.tenant)
    return made


def staff(world: World, role: str, *, platform: bool = False) -> Client:
    actor = person(world.tenant, f"{role}-{platform}", role, platform=platform)
    type(actor.user).objects.filter(pk=actor.user.pk).update(is_staff=True)
    return browser(actor)


def form(world: World, **change: Any) -> dict[str, Any]:
    values = {"name": "cap", "tenant": str(world.tenant.id), "on": "call", "decision": "deny", "approvers": "1", "when": "args.amount > 5",
              "enabled": "on", "reason": "money"}  # fmt: skip
    return values | change


@pytest.mark.mission("X6")
def test_an_admin_makes_changes_and_deletes_a_rule_and_each_is_audited(world: World) -> None:
    client = staff(world, "admin")
    assert client.post(f"{LIST}add/", form(world)).status_code == 302
    made = Rule.objects.get()
    rev = Controls.objects.get(tenant=world.tenant).rev
    assert client.post(f"{LIST}{made.pk}/change/", form(world, decision="ask", approvers="2", reason="softer")).status_code == 302
    made.refresh_from_db()
    assert (made.decision, made.approvers) == ("ask", 2) and Controls.objects.get(tenant=world.tenant).rev > rev
    assert client.post(f"{LIST}{made.pk}/delete/", {"post": "yes"}).status_code == 302
    entries = AuditEntry.objects.filter(object_kind="rule", tenant=world.tenant).order_by("id")
    assert [(each.action, each.reason) for each in entries] == [("rule.created", "money"), ("rule.updated", "softer"), ("rule.deleted", "")]
    assert versions.current(world.tenant) == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"when": "arg.amount > 5"}, "when"),
        ({"when": "args.amount >"}, "when"),
        ({"when": "answer.length > 1"}, "when"),
        ({"when": ""}, "when"),
        ({"approvers": "0"}, "__all__"),
        ({"name": "no spaces"}, "__all__"),
        ({"on": "answer", "when": "answer.length > 1", "decision": "draft"}, "__all__"),
        ({"tenant": ""}, "__all__"),
    ],
)
def test_what_no_rule_can_be_is_told_at_its_field(world: World, change: dict[str, Any], field: str) -> None:
    answer = staff(world, "admin").post(f"{LIST}add/", form(world, **change))
    assert answer.status_code == 200 and list(answer.context["adminform"].form.errors) == [field]
    assert not Rule.objects.exists()


def test_rules_of_others_are_not_seen_and_those_of_every_tenant_are_a_platform_admins(world: World) -> None:
    everyones, _ = rules.set_rule(None, "everyones", None, decision="ask", when="true")
    theirs, _ = rules.set_rule(None, "theirs", Tenant.objects.create(slug="globex"), decision="ask", when="true")
    admin, root = staff(world, "admin"), staff(world, "admin", platform=True)
    assert list(admin.get(LIST).context["cl"].result_list) == []
    assert {each.name for each in root.get(LIST).context["cl"].result_list} == {"everyones", "theirs"}
    for rule in (everyones, theirs):
        assert admin.get(f"{LIST}{rule.pk}/change/").status_code in (302, 403)
    assert root.post(f"{LIST}{everyones.pk}/change/", form(world, decision="deny")).status_code == 302
    assert Rule.objects.get(name="everyones").decision == "deny"
    assert staff(world, "operator").get(LIST).status_code in (302, 403)


@pytest.mark.mission("P12.1")
def test_a_version_is_restored_with_a_reason_and_never_edited(world: World) -> None:
    rules.set_rule(None, "one", world.tenant, decision="deny", when="true")
    rules.set_rule(None, "two", world.tenant, decision="deny", when="true")
    client, first = staff(world, "admin"), PolicyVersion.objects.get(number=1)
    assert client.get(f"{VERSIONS}{first.pk}/change/").status_code == 200
    assert client.post(f"{VERSIONS}{first.pk}/change/", {"number": 9}).status_code == 403
    assert client.get(f"{VERSIONS}add/").status_code == 403
    asked = {"action": "restore", "_selected_action": str(first.pk)}
    assert "Say why" in client.post(VERSIONS, asked | {"reason": ""}, follow=True).content.decode()
    assert Rule.objects.count() == 2
    client.post(VERSIONS, asked | {"reason": "two was too much"})
    assert [rule.name for rule in Rule.objects.all()] == ["one"]
    assert AuditEntry.objects.get(action="policy.rolled_back").reason == "two was too much"
