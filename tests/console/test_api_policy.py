"""Rules, permissions, versions, previews and back-tests over the API: what they answer, who may, and what is refused."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from console import backtests
from runs.models import Release
from tenants import controls
from tenants.models import AuditEntry, Tenant
from tests.runtime.waiting import SPEC, World, make_world, person
from tools import catalog, rules, versions
from tools.models import Permission, Rule, Tool
from tools.spec import ToolSpec

from .callers import Caller, caller, refusal
from .past import called, ended

BLOCK: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/refunds"}, "description": "d", "effect": "write", "labels": ["money"],
    "input_schema": {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"], "additionalProperties": False},
}  # fmt: skip
CAP = {"decision": "deny", "when": "call.tool == 'issue_refund' && run.tools['issue_refund'].sum('amount') + args.amount > 200"}


@dataclass
class Desk:
    world: World
    platform: Caller
    admin: Caller
    operator: Caller
    viewer: Caller
    stranger: Caller


@pytest.fixture
def desk(db: None) -> Desk:
    world = make_world()
    controls.ensure(world.tenant)
    catalog.put(None, "issue_refund", ToolSpec.model_validate(BLOCK))
    pinned = {"issue_refund": str(Tool.objects.get().current_id)}
    spec = SPEC | {"tools": ["issue_refund"]}
    world.agent.live = Release.objects.create(agent=world.agent, number=2, spec=spec, tools=pinned, sha256="1" * 64)
    world.agent.save()
    globex = Tenant.objects.create(slug="globex")
    return Desk(
        world,
        platform=caller(person(world.tenant, "root", "admin", platform=True)),
        admin=caller(person(world.tenant, "ada", "admin")),
        operator=caller(world.operator),
        viewer=caller(person(world.tenant, "vera", "viewer")),
        stranger=caller(person(globex, "grace", "admin")),
    )


@pytest.mark.mission("P10.3")
def test_a_rule_is_put_read_listed_and_deleted(desk: Desk) -> None:
    made = desk.admin.put("/rules/refund-cap?tenant=acme", CAP | {"reason": "money"})
    assert made.status_code == 201
    told = {"name": "refund-cap", "tenant": "acme", "on": "call", "approvers": 1, "enabled": True, "changed": True} | CAP
    assert made.json() | told == made.json()
    assert desk.admin.put("/rules/refund-cap?tenant=acme", CAP).json()["changed"] is False
    assert desk.admin.put("/rules/refund-cap?tenant=acme", CAP | {"decision": "ask"}).status_code == 200
    assert desk.viewer.get("/rules/refund-cap?tenant=acme").json()["decision"] == "ask"
    assert [each["name"] for each in desk.viewer.get("/rules").json()["items"]] == ["refund-cap"]
    assert desk.admin("DELETE", "/rules/refund-cap?tenant=acme&reason=gone").status_code == 204
    assert not Rule.objects.exists()
    assert list(AuditEntry.objects.filter(object_kind="rule").order_by("id").values_list("actor", "reason")) == [
        ("ada", "money"), ("ada", ""), ("ada", "gone"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "address", "status", "code"),
    [
        ("viewer", "/rules/r?tenant=acme", 403, "scope_missing"),
        ("operator", "/rules/r?tenant=acme", 403, "scope_missing"),
        ("admin", "/rules/r", 403, "not_yours"),
        ("admin", "/rules/r?tenant=globex", 404, "not_found"),
        ("stranger", "/rules/r?tenant=acme", 404, "not_found"),
    ],
)
def test_rules_are_changed_by_those_whose_they_are(desk: Desk, who: str, address: str, status: int, code: str) -> None:
    assert refusal(getattr(desk, who).put(address, CAP)) == (status, code)
    assert not Rule.objects.exists()


def test_other_tenants_rules_are_not_seen(desk: Desk) -> None:
    rules.set_rule(None, "mine", desk.world.tenant, decision="ask", when="true")
    rules.set_rule(None, "everyones", None, decision="ask", when="true")
    assert [each["name"] for each in desk.stranger.get("/rules").json()["items"]] == ["everyones"]
    assert refusal(desk.stranger.get("/rules/mine?tenant=acme")) == (404, "not_found")
    assert desk.platform.put("/rules/everyones", CAP).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (CAP | {"when": "nothing.at.all"}, "bad_condition"),
        (CAP | {"decision": "allow"}, "validation"),
        (CAP | {"on": "answer", "decision": "draft", "when": "true"}, "bad_rule"),
        (CAP | {"more": 1}, "validation"),
        ({"decision": "deny"}, "validation"),
    ],
)
def test_what_no_rule_can_be_is_refused(desk: Desk, body: dict[str, Any], code: str) -> None:
    assert refusal(desk.admin.put("/rules/r?tenant=acme", body)) == (422, code)


@pytest.mark.mission("P10.1")
def test_permissions_are_put_listed_and_deleted(desk: Desk) -> None:
    row = {"tool": "issue_refund", "tenant": "acme", "agent": "support-triage", "decision": "deny"}
    made = desk.operator.put("/permissions", row | {"reason": "stop"})
    assert made.status_code == 201 and made.json() | row == made.json()
    assert desk.operator.put("/permissions", row | {"decision": "ask"}).status_code == 200
    assert [each["decision"] for each in desk.viewer.get("/permissions").json()["items"]] == ["ask"]
    assert desk.stranger.get("/permissions").json()["items"] == []
    assert refusal(desk.viewer.put("/permissions", row)) == (403, "not_yours")
    assert refusal(desk.operator.put("/permissions", row | {"tenant": None})) == (403, "not_yours")
    assert refusal(desk.operator.put("/permissions", row | {"decision": "allow", "loosen": True})) == (403, "not_yours")
    assert refusal(caller(desk.world.operator, "config:read").put("/permissions", row)) == (403, "scope_missing")
    assert refusal(desk.operator.put("/permissions", row | {"tool": "nothing"})) == (422, "unknown_tool")
    number = Permission.objects.get().pk
    assert refusal(desk.stranger("DELETE", f"/permissions?id={number}")) == (404, "not_found")
    assert refusal(desk.operator("DELETE", "/permissions?id=x")) == (400, "bad_id")
    assert desk.operator("DELETE", f"/permissions?id={number}&reason=gone").status_code == 204
    assert not Permission.objects.exists()


@pytest.mark.mission("P12.1")
def test_versions_are_listed_with_their_changes_and_restored(desk: Desk) -> None:
    desk.admin.put("/permissions", {"tool": "issue_refund", "tenant": "acme", "decision": "ask", "reason": "first"})
    desk.admin.put("/rules/cap?tenant=acme", CAP)
    items = desk.viewer.get("/policy/versions?tenant=acme").json()["items"]
    assert [(each["number"], each["permissions"], each["rules"], each["changed_by"]) for each in items] == [
        (2, 1, 1, "ada"),
        (1, 1, 0, "ada"),
    ]
    assert [(c["kind"], c["name"], c["action"]) for c in items[0]["changes"]] == [("rule", "cap", "added")]
    assert items[1]["reason"] == "first"
    back = "/policy/versions/1/restore"
    assert refusal(desk.admin.post(back, {"reason": " ", "tenant": "acme"})) == (422, "reason_missing")
    assert refusal(desk.admin.post(back, {"reason": "x"})) == (403, "not_yours")
    assert refusal(desk.operator.post(back, {"reason": "x", "tenant": "acme"})) == (403, "scope_missing")
    assert refusal(desk.admin.post("/policy/versions/9/restore", {"reason": "x", "tenant": "acme"})) == (404, "not_found")
    assert refusal(desk.admin.post("/policy/versions/x/restore", {"reason": "x", "tenant": "acme"})) == (404, "not_found")
    made = desk.admin.post(back, {"reason": "too strict", "tenant": "acme"})
    assert made.json()["number"] == 3 and made.json()["changes"][0]["action"] == "removed"
    assert not Rule.objects.exists() and versions.current(desk.world.tenant) == 3
    assert refusal(desk.stranger.get("/policy/versions?tenant=acme")) == (404, "not_found")


def test_a_preview_says_what_would_be_decided_and_by_what(desk: Desk) -> None:
    call = {"tool": "issue_refund", "agent": "support-triage", "args": {"amount": 150}}
    told = desk.viewer.post("/policy/preview", call).json()
    assert (told["decision"], told["approvers"], told["by"], told["source"]) == ("ask", 1, "effect:write", None)
    rules.set_rule(None, "cap", None, **CAP)
    before = {"tools": {"issue_refund": {"count": 1, "sums": {"amount": 100}}}}
    denied = desk.viewer.post("/policy/preview", call | before).json()
    assert (denied["decision"], denied["source"]["kind"], denied["source"]["name"]) == ("deny", "rule", "cap")
    wrong = desk.viewer.post("/policy/preview", call | {"args": {"amount": "much"}}).json()
    assert wrong["schema_errors"]
    proposal = {"kind": "permission", "tool": "issue_refund", "tenant": "acme", "decision": "draft"}
    tried = desk.operator.post("/policy/preview", call | {"proposal": proposal}).json()
    assert (tried["decision"], tried["proposed"]["decision"]) == ("ask", "draft")
    assert refusal(desk.viewer.post("/policy/preview", call | {"proposal": proposal})) == (403, "not_yours")
    assert refusal(desk.viewer.post("/policy/preview", call | {"tool": "nothing"})) == (404, "not_found")
    assert refusal(desk.viewer.post("/policy/preview", call | {"tenant": "globex"})) == (404, "not_found")
    assert refusal(desk.viewer.post("/policy/preview", call | {"labels": 3}))[0] == 422
    assert refusal(desk.viewer.post("/policy/preview", call | {"user": {"attributes": 3}})) == (422, "bad_user")
    assert not Permission.objects.exists()


@pytest.mark.mission("X5")
def test_a_back_test_is_started_read_and_cancelled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ended(desk.world, timedelta(hours=2))
    version = Tool.objects.get().current_id
    kept = {"decision": {"decision": "ask", "by": "effect:write"}, "tool_version_id": version, "args": b'{"amount": 150}'}
    called(run, name="issue_refund", effect="write", **kept)
    proposal = {"kind": "rule", "name": "cap", "tenant": "acme", "decision": "deny", "when": "args.amount > 100"}
    made = desk.admin.post("/policy/backtests", {"proposal": proposal, "days": 3})
    assert made.status_code == 200
    body = made.json()
    assert (body["state"], body["result"]["would_deny"], body["result"]["unchanged"]) == ("done", 1, 0)
    assert body["result"]["differing"][0]["run_id"] == run.run_id
    assert desk.viewer.get(f"/policy/backtests/{body['backtest_id']}").json()["result"] == body["result"]
    assert refusal(desk.stranger.get(f"/policy/backtests/{body['backtest_id']}")) == (404, "not_found")
    assert refusal(desk.admin.post(f"/policy/backtests/{body['backtest_id']}/cancel")) == (409, "already_over")
    assert refusal(desk.viewer.post("/policy/backtests", {"proposal": proposal})) == (403, "not_yours")
    assert refusal(desk.admin.post("/policy/backtests", {"proposal": proposal | {"when": "x"}})) == (422, "bad_condition")
    assert refusal(desk.admin.post("/policy/backtests", {"proposal": proposal, "days": 31})) == (422, "validation")
    answers = proposal | {"on": "answer", "when": "true"}
    assert refusal(desk.admin.post("/policy/backtests", {"proposal": answers})) == (422, "not_supported")
    monkeypatch.setattr(backtests, "INLINE", 0)
    queued = [desk.admin.post("/policy/backtests", {"proposal": proposal}) for _ in range(3)]
    assert {each.status_code for each in queued} == {202} and "No jobs process" in queued[0].json()["note"]
    assert refusal(desk.admin.post("/policy/backtests", {"proposal": proposal})) == (409, "too_many")
    gone = desk.admin.post(f"/policy/backtests/{queued[0].json()['backtest_id']}/cancel")
    assert gone.json()["state"] == "cancelled"
