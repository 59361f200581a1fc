"""Groups, delegations and standing grants over HTTP, on their pages, in the document and in the admin; and who may."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals import gate, groups
from approvals.models import Delegation, Group, StandingGrant
from console import apply
from console.document import load
from runs import standing_grants
from runs.engine.asking import fits
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, User
from tests.runtime.test_standing_grants import tool
from tests.runtime.waiting import DIGEST, World, ask, make_world, person, queued
from tools.models import Permission

from .callers import caller, refusal
from .past import browser


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    tool(made, "create_ticket", "write")
    return made


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


def later(days: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def words(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode()))


TERMS: dict[str, Any] = {"agent": "support-triage", "tool": "create_ticket", "most": 3, "reason": "routine"}

# groups -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_a_group_is_put_and_read_over_http(world: World, admin: Actor) -> None:
    call = caller(admin)
    made = call.put("/groups/finance", {"people": ["abe-acme", "amy-acme"], "reason": "money"})
    assert made.status_code == 201, made.content
    assert made.json() == {"name": "finance", "tenant": "acme", "people": ["abe-acme", "amy-acme"], "escalates_to": None}
    assert call.put("/groups/desk", {"people": ["otto-acme"], "escalates_to": "finance"}).json()["escalates_to"] == "finance"
    assert call.put("/groups/finance", {"people": []}).status_code == 200
    assert [one["name"] for one in call.get("/groups").json()["items"]] == ["desk", "finance"]
    assert caller(world.operator).get("/groups/desk").json()["people"] == ["otto-acme"]
    assert refusal(call("DELETE", "/groups/finance")) == (409, "group_in_use")
    assert call("DELETE", "/groups/desk").status_code == 204


def test_groups_are_admins_to_change_and_the_tenants_own(world: World, admin: Actor) -> None:
    assert refusal(caller(world.approver).put("/groups/x", {"people": []})) == (403, "scope_missing")
    assert refusal(caller(admin).put("/groups/x", {"people": ["nobody"]})) == (422, "unknown_person")
    assert refusal(caller(admin).put("/groups/x", {"people": "abe-acme"})) == (422, "validation")
    groups.put(admin, world.tenant, "x", [])
    stranger = person(make_world("globex", "other-agent").tenant, "gus", "admin")
    assert refusal(caller(stranger).get("/groups/x")) == (404, "not_found")
    assert caller(stranger).get("/groups").json()["items"] == []


def test_the_document_makes_groups_that_permissions_name(world: World) -> None:
    document = {
        "groups": [
            {"tenant": "acme", "name": "desk", "people": ["otto-acme"], "escalates_to": "heads"},
            {"tenant": "acme", "name": "heads", "people": ["abe-acme"]},
        ],
        "permissions": [{"tool": "create_ticket", "tenant": "acme", "decision": "ask", "group": "desk"}],
    }
    changes = apply.apply(None, load(document))
    assert [(one.kind, one.name, one.action) for one in changes if one.kind == "group"] == [
        ("group", "desk x acme", "create"), ("group", "heads x acme", "create"),
    ]  # fmt: skip
    assert Permission.objects.get().group == "desk"
    assert {one.action for one in apply.apply(None, load(document))} == {"unchanged"}
    document["permissions"][0] |= {"group": "heads"}
    (changed,) = [one for one in apply.apply(None, load(document)) if one.action == "update"]
    assert (changed.kind, changed.fields) == ("permission", ("group",))
    gone = apply.apply(None, load({"groups": [], "permissions": [], "tenants": [{"slug": "acme"}]}), prune=True)
    assert {(one.kind, one.action) for one in gone if one.action == "delete"} == {("permission", "delete"), ("group", "delete")}
    assert not Group.objects.exists()


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"permissions": [{"tool": "create_ticket", "tenant": "acme", "decision": "ask", "group": "desk"}]}, "unknown_group"),
        ({"permissions": [{"tool": "create_ticket", "decision": "ask", "group": "desk"}]}, "bad_permission"),
        ({"groups": [{"tenant": "acme", "name": "desk", "people": ["nobody"]}]}, "unknown_person"),
        ({"groups": [{"tenant": "acme", "name": "desk", "people": [], "escalates_to": "heads"}]}, "unknown_group"),
    ],
)
def test_a_document_that_names_who_is_not_there_changes_nothing(world: World, document: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        apply.apply(None, load(document))
    assert (refused.value.code, refused.value.status) == (code, 422)
    assert refused.value.fields["path"].endswith("[0]") and not Group.objects.exists() and not Permission.objects.exists()


def test_admins_edit_groups_in_the_admin(world: World, admin: Actor) -> None:
    User.objects.filter(username__in=["ada", "otto-acme"]).update(is_staff=True)
    make_world("globex", "other-agent")
    client = browser(admin)
    abe, foreign = (User.objects.get(username=name).pk for name in ("abe-acme", "abe-globex"))
    form = {"tenant": str(world.tenant.pk), "name": "desk", "people": [abe], "escalates_to": ""}
    page = client.get("/admin/approvals/group/add/").content.decode()
    assert "abe-acme" in page and "abe-globex" not in page
    assert client.post("/admin/approvals/group/add/", form).status_code == 302
    group = Group.objects.get()
    assert [one.username for one in group.people.all()] == ["abe-acme"]
    assert AuditEntry.objects.get(action="group.created").actor == "ada"
    url = f"/admin/approvals/group/{group.pk}/change/"
    assert b"no group heads" in client.post(url, form | {"escalates_to": "heads"}).content
    assert client.post(url, form | {"people": [foreign]}).status_code == 200
    assert client.post(url, form | {"people": []}).status_code == 302 and not group.people.exists()
    operator = browser(world.operator)
    assert operator.get("/admin/approvals/group/").status_code == 403
    assert operator.post("/admin/approvals/group/add/", form | {"name": "mine"}).status_code == 403


def test_a_permission_of_the_admin_names_a_group_that_is_there(world: World, admin: Actor) -> None:
    User.objects.filter(username="ada").update(is_staff=True)
    client, url = browser(admin), "/admin/tools/permission/add/"
    form = {"tool": "create_ticket", "tenant": str(world.tenant.pk), "decision": "ask", "approvers": "1", "group": "finance"}
    answer = client.post(url, form, follow=True)
    assert b"There is no such group of approvers" in answer.content and not Permission.objects.exists()
    groups.put(admin, world.tenant, "finance", [])
    assert client.post(url, form).status_code == 302
    row = Permission.objects.get()
    assert row.group == "finance"
    answer = client.post(f"/admin/tools/permission/{row.pk}/change/", form | {"decision": "deny"}, follow=True)
    row.refresh_from_db()
    assert b"A group belongs to a tenant" in answer.content and row.decision == "ask"


# delegations ------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X4")
def test_a_delegation_is_given_shown_and_taken_back_over_http(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", ["abe-acme"])
    call = caller(world.approver)
    made = call.post("/delegations", {"to": "amy-acme", "until": later(), "reason": "away"})
    assert made.status_code == 201 and (made.json()["of"], made.json()["to"]) == ("abe-acme", "amy-acme")
    approval = ask(queued(world), group="finance")
    gate.decide(world.second, approval, verdict="approve", digest=DIGEST)
    (said,) = call.get(f"/approvals/{approval.approval_id}").json()["decisions"]
    assert (said["user"], said["for_user"]) == ("amy-acme", "abe-acme")
    assert caller(world.operator).get("/delegations").json()["items"] == []
    back = call.post(f"/delegations/{made.json()['id']}/revoke", {"reason": "back"})
    assert back.status_code == 200 and back.json()["revoked_at"]
    assert call.get("/delegations").json()["items"] == [back.json()]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"to": "amy-acme", "until": "2026-01-01"}, (422, "validation")), ({"to": "amy-acme"}, (422, "validation")),
        ({"to": "amy-acme", "until": later(91)}, (422, "bad_delegation")), ({"to": "x", "until": later()}, (422, "unknown_person")),
        ({"to": "amy-acme", "of": "otto-acme", "until": later()}, (403, "not_yours")),
    ],
)  # fmt: skip
def test_a_delegation_that_cannot_be_is_refused_over_http(world: World, body: dict[str, str], answer: tuple[int, str]) -> None:
    assert refusal(caller(world.approver).post("/delegations", body)) == answer
    assert not Delegation.objects.exists()


@pytest.mark.parametrize("wrong", ["1", "0", "x", "-1", "9" * 40])
def test_a_delegation_that_is_not_there_or_not_theirs_is_not_found(world: World, wrong: str) -> None:
    other = make_world("globex", "other-agent")
    caller(other.approver).post("/delegations", {"to": "amy-globex", "until": later()})
    wrong = str(Delegation.objects.get().pk) if wrong == "1" else wrong
    assert refusal(caller(world.approver).post(f"/delegations/{wrong}/revoke", {})) == (404, "not_found")


def test_admins_take_delegations_back_in_the_admin(world: World, admin: Actor) -> None:
    User.objects.filter(username="ada").update(is_staff=True)
    caller(world.approver).post("/delegations", {"to": "amy-acme", "until": later()})
    one = Delegation.objects.get()
    browser(admin).post("/admin/approvals/delegation/", {"action": "take_back", "_selected_action": [one.pk]})
    one.refresh_from_db()
    assert one.revoked_at is not None
    assert browser(admin).get("/admin/approvals/delegation/add/").status_code == 403


# standing grants --------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X4")
def test_a_grant_is_given_used_and_taken_back_over_http(world: World) -> None:
    call = caller(world.approver)
    made = call.post("/grants", TERMS | {"expires_at": later(), "when": "args.amount < 20"})
    assert made.status_code == 201, made.content
    grant = made.json()
    assert (grant["state"], grant["most"], grant["used"], grant["by"]) == ("open", 3, 0, "abe-acme")
    approval = ask(queued(world), args=b'{"amount":1}')
    assert gate.use_grant(approval, fits)
    assert call.get(f"/approvals/{approval.approval_id}").json()["grant"] == grant["grant_id"]
    (use,) = call.get(f"/grants/{grant['grant_id']}").json()["uses"]
    assert use["approval_id"] == approval.approval_id and use["run_id"].startswith("agt_")
    assert refusal(call.post(f"/grants/{grant['grant_id']}/revoke", {})) == (422, "reason_missing")
    back = call.post(f"/grants/{grant['grant_id']}/revoke", {"reason": "misused"}).json()
    assert (back["state"], back["revoked_by"]) == ("revoked", "abe-acme")
    assert [one["grant_id"] for one in call.get("/grants").json()["items"]] == [grant["grant_id"]]


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"agent": "x"}, (422, "unknown_agent")), ({"tool": "x"}, (422, "unknown_tool")), ({"when": "run.x"}, (422, "bad_condition")),
        ({"most": 0}, (422, "bad_grant")), ({"tenant": "globex"}, (404, "not_found")), ({"expires_at": later(-1)}, (422, "bad_grant")),
        ({"expires_at": "tomorrow"}, (422, "validation")),
    ],
)  # fmt: skip
def test_a_grant_that_cannot_be_is_refused_over_http(world: World, wrong: dict[str, Any], answer: tuple[int, str]) -> None:
    make_world("globex", "other-agent")
    assert refusal(caller(world.approver).post("/grants", TERMS | {"expires_at": later()} | wrong)) == answer
    assert not StandingGrant.objects.exists()


def given(actor: Actor, **values: Any) -> StandingGrant:
    terms = TERMS | {"expires_at": datetime.now(UTC) + timedelta(days=1), "tenant": actor.tenant} | values
    return standing_grants.give(actor, **terms)


def test_grants_are_approvers_to_give_and_the_tenants_own(world: World) -> None:
    made = given(world.approver)
    assert refusal(caller(world.operator).post("/grants", TERMS | {"expires_at": later()})) == (403, "not_yours")
    assert refusal(caller(world.operator).post(f"/grants/{made}/revoke", {"reason": "x"})) == (403, "not_yours")
    stranger = make_world("globex", "other-agent").approver
    for one in (str(made), "grt_x", str(made.pk)):
        assert refusal(caller(stranger).get(f"/grants/{one}")) == (404, "not_found")
        assert refusal(caller(stranger).post(f"/grants/{one}/revoke", {"reason": "x"})) == (404, "not_found")
        assert browser(stranger).get(f"/grants/{one}/").status_code == 404
    assert caller(stranger).get("/grants").json()["items"] == []


def test_a_grant_is_given_on_the_page_and_shows_what_used_it(world: World) -> None:
    tool(world, "wipe", "irreversible")
    client = browser(world.approver)
    page = client.get("/grants/").content.decode()
    assert "Nothing is granted in advance" in page and '"create_ticket"' in page and '"wipe"' not in page
    typed = {**{key: TERMS[key] for key in ("agent", "tool", "most")}, "hours": "24", "reason": "routine <b>", "when": "args.amount < 20"}
    assert client.post("/grants/", typed).status_code == 302
    grant = StandingGrant.objects.get()
    approval = ask(queued(world), args=b'{"amount":1}')
    assert gate.use_grant(approval, fits)
    listed = words(client.get("/grants/").content)
    assert "1 of 3" in listed and "routine &lt;b&gt;" in listed and "args.amount &lt; 20" in listed
    shown = client.get(f"/grants/{grant}/").content.decode()
    assert f"/approvals/{approval.approval_id}/" in shown and "/runs/agt_" in shown and "2 left" in words(shown.encode())
    assert client.post(f"/grants/{grant}/", {"reason": ""}).status_code == 422
    answer = client.post(f"/grants/{grant}/", {"reason": "misused"}, follow=True)
    assert "Revoked" in words(answer.content) and "abe-acme took it back" in words(answer.content)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"when": "args.amount <"}, "The condition cannot be used"), ({"most": "0"}, "greater than or equal to 1"),
        ({"reason": ""}, "This field is required"), ({"tool": "wipe"}, "Select a valid choice"), ({"most": "99999999"}, "1 to 10000 uses"),
    ],
)  # fmt: skip
def test_a_form_that_is_wrong_says_where(world: World, wrong: dict[str, str], said: str) -> None:
    typed = {"agent": "support-triage", "tool": "create_ticket", "most": "3", "hours": "24", "reason": "routine"} | wrong
    answer = browser(world.approver).post("/grants/", typed)
    assert answer.status_code == 422 and said in words(answer.content) and not StandingGrant.objects.exists()


def test_operators_read_grants_and_give_none(world: World) -> None:
    made = given(world.approver)
    client = browser(world.operator)
    assert "Grant in advance" not in words(client.get("/grants/").content)
    assert "Take back" not in words(client.get(f"/grants/{made}/").content)
    assert client.post("/grants/", {}).status_code == 403
    assert client.post(f"/grants/{made}/", {"reason": "x"}).status_code == 403
    User.objects.filter(username="otto-acme").update(is_staff=True)
    assert client.get("/admin/approvals/standinggrant/").status_code == 200
    assert client.get("/admin/approvals/standinggrant/add/").status_code == 403
