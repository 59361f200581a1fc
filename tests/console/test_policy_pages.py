"""The pages of the policy: the matrix and its form, rules, versions, back-tests, and what would happen to a call."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from console import backtests, matrix
from console.models import PolicyBacktest
from runs.models import Release, Run
from tenants import controls
from tenants.models import AuditEntry, Tenant
from tests.runtime.waiting import SPEC, World, make_world, person
from tools import catalog, permissions, rules, versions
from tools.models import Permission, PolicyVersion, Rule, Tool
from tools.proposals import PermissionProposal
from tools.spec import ToolSpec

from .past import HTMX, browser, called, ended

MATRIX, RULES, VERSIONS = "/tools/-/matrix/", "/tools/-/rules/", "/tools/-/versions/"
SCHEMA = {
    "type": "object", "properties": {"account_id": {"type": "string"}, "amount": {"type": "number"}}, "required": ["account_id"],
    "additionalProperties": False,
}  # fmt: skip
BLOCK: dict[str, Any] = {
    "adapter": {"kind": "http", "url": "https://desk.example.com/tickets"}, "description": "d", "effect": "write", "input_schema": SCHEMA,
    "labels": ["egress"],
}  # fmt: skip
CELL = {"tenant": "acme", "tool": "create_ticket", "agent": "support-triage", "decision": "deny", "approvers": "1", "when": "", "days": "7"}
H = timedelta(hours=1)


@pytest.fixture
def world(db: None) -> World:
    made = make_world()
    controls.ensure(made.tenant)
    catalog.put(None, "create_ticket", ToolSpec.model_validate(BLOCK))
    catalog.put(None, "search_docs", ToolSpec.model_validate(BLOCK | {"effect": "read", "labels": ["untrusted"]}))
    catalog.put(None, "theirs", ToolSpec.model_validate(BLOCK | {"tenants": ["globex"]}))
    tools = {"create_ticket": str(Tool.objects.get(name="create_ticket").current_id)}
    spec = SPEC | {"tools": ["create_ticket"]}
    made.agent.live = Release.objects.create(agent=made.agent, number=2, spec=spec, tools=tools, sha256="1" * 64)
    made.agent.save()
    return made


@pytest.fixture
def admin(world: World) -> Client:
    return browser(person(world.tenant, "ada", "admin"))


def ticket(world: World, args: bytes = b'{"account_id": "a", "amount": 3}', **values: Any) -> Run:
    """A ticket that was sent in the past after people were asked."""
    run = ended(world, H)
    version = Tool.objects.get(name="create_ticket").current_id
    kept = {"decision": {"decision": "ask", "approvers": 1, "by": "effect:write"}}
    called(run, name="create_ticket", effect="write", args=args, tool_version_id=version, **(kept | values))
    return run


def cells(client: Client, query: str = "") -> dict[tuple[str, str], Any]:
    rows = client.get(MATRIX + query).context["rows"]
    return {(row["tool"].name, each["agent"]): each for row in rows for each in row["cells"]}


def hidden(html: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"no {name}"
    return found[1]


def confirmed(client: Client, address: str, said: dict[str, str], reason: str = "Too many of them.") -> Any:
    """Both steps: what changes, then the reason and the change."""
    first = client.post(address, said | {"act": "show"})
    assert first.status_code == 200, first.content.decode()
    html = first.content.decode()
    carried = {"shown": hidden(html, "shown")} | ({"gone": "1"} if said.get("act") == "remove" else {})
    return client.post(address, said | carried | {"act": "save", "reason": reason})


@pytest.mark.mission("P10.1")
def test_a_cell_says_what_is_decided_and_where_that_comes_from(world: World, admin: Client) -> None:
    permissions.set_permission(None, "create_ticket", None, decision="ask", approvers=2)
    permissions.set_permission(None, "create_ticket", world.tenant, decision="deny", agent="support-triage")
    permissions.set_permission(None, "create_ticket", world.tenant, decision="deny", agent="support-triage", when="args.amount > 1")
    found = cells(admin)
    assert {tool for tool, _ in found} == {"create_ticket", "search_docs"}
    own = found["create_ticket", "support-triage"]
    assert (own["word"], own["cell"].inherited, own["cell"].conditions) == ("Deny", False, 1)
    assert own["cell"].lines == (
        "Default of write: ask 1 person.", "Row of every tenant, every agent: ask 2 people.", "Row of acme, support-triage: deny.",
        "1 more row with a condition or a user role.",
    )  # fmt: skip
    wide = found["create_ticket", ""]
    assert (wide["word"], wide["cell"].inherited) == ("Ask 2", True)
    assert found["search_docs", "support-triage"]["word"] == "Not listed"
    every = cells(admin, "?tenant=-")
    assert (every["create_ticket", ""]["word"], every["create_ticket", ""]["cell"].inherited) == ("Ask 2", False)
    assert every["create_ticket", "support-triage"]["word"] == "Ask 2"


@pytest.mark.mission("X5")
def test_a_change_of_a_cell_is_shown_in_words_and_numbers_before_it_is_saved_with_its_reason(world: World, admin: Client) -> None:
    for _ in range(3):
        ticket(world)
    shown = admin.post(MATRIX, CELL | {"act": "show"})
    html = shown.content.decode()
    assert "Changes create_ticket for support-triage in acme from ask 1 person (inherited) to deny." in html
    assert "3 calls in the last 7 days would have been decided differently" in html
    assert not Permission.objects.exists()
    without = admin.post(MATRIX, CELL | {"act": "save", "shown": hidden(html, "shown"), "reason": " "})
    assert without.status_code == 422 and "Say why" in without.content.decode() and not Permission.objects.exists()
    blind = admin.post(MATRIX, CELL | {"act": "save", "reason": "quick"})
    assert blind.status_code == 200 and not Permission.objects.exists(), "what was not shown is shown first"
    assert confirmed(admin, MATRIX, CELL).status_code == 303
    row = Permission.objects.get()
    assert (row.tool_id, row.agent, row.tenant, row.decision) == ("create_ticket", "support-triage", world.tenant, "deny")
    entry = AuditEntry.objects.get(object_kind="permission")
    assert (entry.actor, entry.reason, entry.action) == ("ada", "Too many of them.", "permission.created")
    assert PolicyVersion.objects.get(tenant=world.tenant).reason == "Too many of them."


def test_what_was_shown_is_what_is_saved(world: World, admin: Client) -> None:
    seal = hidden(admin.post(MATRIX, CELL | {"act": "show"}).content.decode(), "shown")
    other = admin.post(MATRIX, CELL | {"decision": "allow", "loosen": "on", "act": "save", "shown": seal, "reason": "sly"})
    assert other.status_code == 200 and not Permission.objects.exists()


def test_a_broken_condition_is_told_at_its_field(world: World, admin: Client) -> None:
    for address, said in ((MATRIX, CELL | {"when": "arg.x == 1"}), (f"{RULES}new/", RULE | {"when": "arg.x == 1"})):
        answer = admin.post(address, said | {"act": "show"})
        assert answer.status_code == 422
        assert answer.context["form"].errors["when"][0].startswith("The condition cannot be used: unknown name arg")


RULE = {"name": "no-mail", "tenant": "acme", "on": "call", "decision": "deny", "approvers": "1", "enabled": "on", "days": "7",
        "when": "call.tool == 'create_ticket'"}  # fmt: skip


@pytest.mark.parametrize(("role", "tenant", "may"), [("operator", "acme", True), ("viewer", "acme", False), ("admin", "-", False)])
def test_people_change_only_what_is_theirs(world: World, role: str, tenant: str, may: bool) -> None:
    client = browser(person(world.tenant, f"p-{role}", role))
    answer = client.post(MATRIX, CELL | {"tenant": tenant, "act": "show"})
    assert (answer.status_code == 200) == may
    assert (confirmed(client, MATRIX, CELL).status_code == 303) if may else not Permission.objects.exists()
    assert client.get(f"{MATRIX}?tenant=globex").status_code == 404
    assert client.get(f"{MATRIX}?tool=theirs").status_code == 404
    assert client.get(f"{MATRIX}?tool=create_ticket&agent=nobody").status_code == 404


def test_only_admins_loosen(world: World, admin: Client) -> None:
    loose = CELL | {"decision": "allow", "loosen": "on"}
    refused = browser(world.operator).post(MATRIX, loose | {"act": "show"})
    assert refused.status_code == 422 and "loosening needs an admin" in refused.content.decode()
    assert confirmed(admin, MATRIX, loose).status_code == 303
    assert cells(admin)["create_ticket", "support-triage"]["word"] == "Allow"


@pytest.mark.mission("P12.1")
def test_the_history_of_a_cell_names_each_change_and_takes_it_back(world: World, admin: Client) -> None:
    confirmed(admin, MATRIX, CELL | {"decision": "ask", "approvers": "2"}, "two of us")
    row = Permission.objects.get()
    confirmed(admin, MATRIX, CELL | {"row": str(row.pk)}, "stop it")
    query = "?tenant=acme&tool=create_ticket&agent=support-triage"
    history = admin.get(MATRIX + query).context["history"]
    assert [(each["verb"], each["entry"].reason) for each in history] == [("updated", "stop it"), ("created", "two of us")]
    assert ("decision", "ask", "deny") in history[0]["fields"]
    back = admin.get(f"{MATRIX}{query}&revert={history[0]['entry'].pk}")
    assert (back.context["form"].initial["decision"], back.context["form"].initial["approvers"]) == ("ask", 2)
    removed = admin.get(f"{MATRIX}{query}&revert={history[1]['entry'].pk}")
    assert removed.context["gone"] and 'name="gone" value="1"' in removed.content.decode()
    gone = CELL | {"row": str(row.pk), "act": "remove"}
    step = admin.post(MATRIX, gone)
    assert "Removes the row of create_ticket for support-triage in acme: deny." in step.content.decode()
    carried = {"shown": hidden(step.content.decode(), "shown"), "gone": "1", "act": "save", "reason": "back to the default"}
    assert admin.post(MATRIX, gone | carried).status_code == 303
    assert not Permission.objects.exists()


def test_the_form_of_a_cell_is_a_part_of_its_own(world: World, admin: Client) -> None:
    whole = admin.get(f"{MATRIX}?tenant=acme&tool=create_ticket&agent=&row=new").content.decode()
    part = admin.get(f"{MATRIX}?tenant=acme&tool=create_ticket&agent=&row=new&part=form").content.decode()
    assert "<html" not in part and 'id="cell-edit"' in part and 'role="grid"' in whole and 'id="cell-edit"' in whole


def test_a_rule_is_made_changed_and_deleted_with_reasons(world: World, admin: Client) -> None:
    ticket(world)
    assert confirmed(admin, f"{RULES}new/", RULE, "mails leak").status_code == 302
    made = Rule.objects.get()
    assert (made.name, made.tenant, made.decision, made.when) == ("no-mail", world.tenant, "deny", RULE["when"])
    listed = admin.get(RULES)
    assert [each["rule"].name for each in listed.context["rules"]] == ["no-mail"] and "ada" in listed.content.decode()
    again = admin.post(f"{RULES}new/", RULE | {"act": "show"})
    assert again.status_code == 422 and "already" in again.context["form"].errors["name"][0]
    scoped = RULE | {"scope": "acme", "enabled": ""}
    off = admin.post(f"{RULES}of/no-mail/", scoped | {"act": "show"}).content.decode()
    assert "Switches rule no-mail in acme off" in off and "1 call in the last 7 days would have been decided differently" in off
    assert confirmed(admin, f"{RULES}of/no-mail/", scoped, "too strict").status_code == 302
    assert not Rule.objects.get().enabled
    gone = RULE | {"scope": "acme", "act": "remove"}
    first = admin.post(f"{RULES}of/no-mail/", gone).content.decode()
    carried = {"shown": hidden(first, "shown"), "gone": "1", "act": "save", "reason": "no use"}
    assert admin.post(f"{RULES}of/no-mail/", gone | carried).status_code == 302
    assert not Rule.objects.exists()
    entries = AuditEntry.objects.filter(object_kind="rule").order_by("id").values_list("action", "reason")
    assert list(entries) == [("rule.created", "mails leak"), ("rule.updated", "too strict"), ("rule.deleted", "no use")]


def test_rules_of_every_tenant_are_read_by_all_and_changed_by_platform_admins(world: World, admin: Client) -> None:
    rules.set_rule(None, "everyones", None, decision="ask", when="call.tool == 'create_ticket'")
    rules.set_rule(None, "theirs", Tenant.objects.create(slug="globex"), decision="ask", when="true")
    assert [each["rule"].name for each in admin.get(RULES).context["rules"]] == ["everyones"]
    page = admin.get(f"{RULES}of/everyones/?tenant=-")
    assert page.status_code == 200 and not page.context["may"]
    assert admin.get(f"{RULES}of/theirs/?tenant=globex").status_code == 404
    refused = admin.post(f"{RULES}of/everyones/", RULE | {"scope": "-", "act": "show"})
    assert refused.status_code == 403 and "platform admin" in refused.content.decode()
    root = browser(person(world.tenant, "root", "admin", platform=True))
    assert confirmed(root, f"{RULES}of/everyones/", RULE | {"scope": "-", "decision": "deny"}).status_code == 302
    assert Rule.objects.get(name="everyones").decision == "deny"
    assert browser(world.operator).get(f"{RULES}new/").status_code == 403


def test_rules_show_how_often_they_held(world: World, admin: Client) -> None:
    rules.set_rule(None, "no-mail", world.tenant, decision="deny", when="true")
    ticket(world, decision={"decision": "deny", "by": "rule:no-mail"})
    old = ticket(world, decision={"decision": "deny", "by": "rule:no-mail"})
    assert old
    [each] = admin.get(RULES).context["rules"]
    assert (each["day"], each["week"]) == (2, 2)


@pytest.mark.mission("P12.1")
def test_versions_are_listed_compared_and_restored_with_a_reason(world: World, admin: Client) -> None:
    permissions.set_permission(None, "create_ticket", world.tenant, decision="ask")
    permissions.set_permission(None, "create_ticket", world.tenant, decision="deny")
    rules.set_rule(None, "r", world.tenant, decision="deny", when="true")
    page = admin.get(f"{VERSIONS}?tenant=acme&from=1&to=3")
    assert [each["changes"] for each in page.context["versions"]] == ["1 added", "1 changed", "1 added"]
    assert [(c["word"], c["change"].name) for c in page.context["changes"]] == [("Changed", "create_ticket"), ("Added", "r")]
    alone = admin.get(f"{VERSIONS}?to=2")
    assert alone.context["changes"][0]["change"].fields == (("decision", "ask", "deny"),)
    assert admin.post(VERSIONS, {"tenant": "acme", "number": "1", "reason": ""}).status_code == 422
    assert browser(world.operator).post(VERSIONS, {"tenant": "acme", "number": "1", "reason": "x"}).status_code in (403, 422)
    assert versions.current(world.tenant) == 3
    assert admin.post(VERSIONS, {"tenant": "acme", "number": "1", "reason": "too strict"}).status_code == 303
    assert Permission.objects.get().decision == "ask" and not Rule.objects.exists()
    assert versions.current(world.tenant) == 4
    assert admin.get(f"{VERSIONS}?to=99").status_code == 404


def test_a_back_test_that_waits_shows_its_progress_and_can_be_cancelled(
    world: World, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket(world)
    monkeypatch.setattr(backtests, "INLINE", 0)
    html = admin.post(MATRIX, CELL | {"act": "show"}).content.decode()
    assert 'hx-trigger="every 1s"' in html and "No jobs process" in html
    made = PolicyBacktest.objects.get()
    address = f"/tools/-/backtests/{made}/"
    assert "hx-trigger" in admin.get(f"{address}?part=1").content.decode()
    again = admin.post(MATRIX, CELL | {"act": "show", "backtest": str(made)})
    assert again.status_code == 200 and PolicyBacktest.objects.count() == 1, "the same change is counted once"
    assert browser(person(Tenant.objects.create(slug="globex"), "gus", "admin")).get(address).status_code == 404
    assert admin.post(address).status_code == 302
    assert "cancelled" in admin.get(address).content.decode() and "hx-trigger" not in admin.get(address).content.decode()


def test_a_finished_back_test_names_the_calls_and_the_waiting(world: World) -> None:
    run = ticket(world)
    actor = person(world.tenant, "ada", "admin")
    rule = PermissionProposal(tool="create_ticket", tenant="acme", decision="ask", approvers=2)
    made = backtests.start(actor, rule, 7)
    html = browser(actor).get(f"/tools/-/backtests/{made}/").content.decode()
    assert f"/runs/{run.run_id}/#step-1" in html and "1 call in the last 7 days" in html and '<b class="num">1</b> would ask' in html


def test_a_sample_call_is_decided_as_the_engine_would(world: World, admin: Client) -> None:
    ticket(world)
    rules.set_rule(None, "cap", None, decision="deny", when="'private' in run.labels && args.amount > 5")
    page = admin.get("/tools/create_ticket/")
    assert page.context["what_if"]["args"] == '{\n  "account_id": "a",\n  "amount": 3\n}' and page.context["what_if"]["args_source"]
    base = {"agent": "support-triage", "tenant": "acme", "labels": "", "user": "", "tools": "", "day": "", "mode": "normal"}
    address = "/tools/create_ticket/what-if/"

    def told(**said: str) -> Any:
        return admin.post(address, base | said, headers=HTMX)

    asked = told(args='{"account_id": "a", "amount": 9}')
    assert "<html" not in asked.content.decode() and asked.context["answer"]["now"]["decision"] == "Ask 1 person"
    denied = told(args='{"account_id": "a", "amount": 9}', labels="private, untrusted").context["answer"]
    assert (denied["now"]["by"], denied["now"]["url"]) == ("rule:cap", "/tools/-/rules/of/cap/?tenant=-")
    bad = told(args='{"amount": "x"}')
    assert "It would not be sent" in bad.content.decode()
    assert told(args="[1]").status_code == 422 and told(args="{").status_code == 422
    assert "Draft only" in told(args='{"account_id": "a", "amount": 1}', mode="draft").content.decode()
    row, _ = permissions.set_permission(None, "create_ticket", world.tenant, decision="deny")
    linked = told(args='{"account_id": "a"}').context["answer"]["now"]
    assert linked["by"] == f"permission:{row.pk}" and f"row={row.pk}" in linked["url"]
    proposal = PermissionProposal(id=row.pk, tool="create_ticket", tenant="acme", decision="ask", approvers=3).model_dump_json()
    tried = told(args='{"account_id": "a", "amount": 1}', proposal=proposal).context["answer"]
    assert (tried["now"]["decision"], tried["proposed"]["decision"]) == ("Deny", "Ask 3 people")
    assert "<html" in admin.post(address, base | {"args": "{}"}).content.decode()


def test_labels_of_a_tool_are_told_in_plain_words(world: World, admin: Client) -> None:
    assert "What is sent with it leaves the building." in admin.get("/tools/create_ticket/").content.decode()


def test_the_words_of_a_cell() -> None:
    assert [matrix.words("ask", 2), matrix.words("draft", 0), matrix.short("ask", 1)] == ["ask 2 people", "draft only", "Ask 1"]
