"""Rules over what a run did before, through a real engine: combinations, amounts, days, answers; and the policy's versions."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import signoff
from runs.models import Run
from tenants.errors import Refused
from tools import permissions, rules, versions
from tools.models import Permission, PolicyVersion, Rule, Tool, ToolVersion

from .world import TICKET, World, call

MAIL = {"to": "a@b.example", "subject": "s", "body": "b"}
EXFILTRATION = "'egress' in call.labels && 'untrusted' in run.labels && 'private' in run.labels"


def relabelled() -> None:
    """The test desk's tools with the labels of the demo's."""
    labels = {"search_docs": ["untrusted"], "fetch_account": ["private"], "send_email": ["egress"], "create_ticket": ["egress"]}
    for name, given in labels.items():
        tool = Tool.objects.get(name=name)
        version = ToolVersion.objects.get(pk=tool.current_id)
        version.pk, version.number, version.labels, version.sha256 = None, version.number + 1, given, f"{version.sha256[:-4]}beef"
        version.id = type(version)._meta.pk.get_default()
        version.save(force_insert=True)
        Tool.objects.filter(name=name).update(current=version)


async def rule(name: str, decision: str, when: str, **more: Any) -> None:
    await sync_to_async(rules.set_rule)(None, name, None, decision=decision, when=when, **more)


async def loosened(world: World, *tools: str) -> None:
    for tool in tools:
        await world.permit(tool, "allow", loosen=True)


@pytest.mark.mission("P10.3", "X6")
async def test_an_unsafe_combination_is_denied_and_names_the_steps_that_made_it_so(world: World) -> None:
    await sync_to_async(relabelled)()
    await loosened(world, "send_email")
    await rule("no-exfiltration", "deny", EXFILTRATION)
    await world.agent()
    read = {"calls": [*call("search_docs", query="x")["calls"], *call("fetch_account", account_id="acct_1001")["calls"]]}
    run = await world.script(call("send_email", **MAIL), read, call("send_email", **(MAIL | {"body": "data"})), {"text": "No."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert [e["tool"] for e in await world.ledger()] == ["send_email"]  # before the reads it was safe
    denied = [c for c in await world.calls(run) if c.state == "blocked"]
    assert len(denied) == 1 and denied[0].decision["by"] == "rule:no-exfiltration"
    assert [(s["step"], s["tool"], s["brought"]) for s in denied[0].decision["because"]] == [
        (2, "search_docs", "untrusted"), (2, "fetch_account", "private"),
    ]  # fmt: skip
    assert "step 2 (search_docs brought untrusted)" in denied[0].result["message"]
    violated = [e.payload["data"] for e in await world.events(run) if e.kind == "policy_violated"]
    assert violated[0]["because"] == denied[0].decision["because"]


@pytest.mark.mission("P10.3")
async def test_amounts_add_up_over_the_calls_of_a_run(world: World) -> None:
    await loosened(world, "create_ticket")
    await rule("two-tickets", "deny", "call.tool == 'create_ticket' && run.tools['create_ticket'].count + 1 > 2")
    await world.agent()
    turns = [call("create_ticket", **(TICKET | {"summary": f"s{n}"})) for n in range(3)]
    run = await world.script(*turns, {"text": "Two of three."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 2
    last = (await world.calls(run))[-2]
    assert [s["step"] for s in last.decision["because"]] == [1]


@pytest.mark.mission("P10.3")
async def test_amounts_add_up_over_the_runs_of_a_day(world: World) -> None:
    await loosened(world, "create_ticket")
    await rule("three-a-day", "deny", "call.tool == 'create_ticket' && day.tools['create_ticket'].count >= 3")
    await world.agent()
    await world.engine()
    for n in range(5):
        run = await world.script(call("create_ticket", **(TICKET | {"summary": f"s{n}"})), {"text": "ok"})
        await world.until(run)
    assert len(await world.ledger()) == 3


@pytest.mark.mission("P10.3")
async def test_a_rule_that_cannot_be_evaluated_denies(world: World) -> None:
    await loosened(world, "create_ticket")
    await rule("broken", "ask", "args.nothing_there > 3")
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "no"})
    await world.engine()
    await world.until(run)
    assert await world.ledger() == []
    assert (await world.calls(run))[1].decision["by"] == "error:broken"


@pytest.mark.mission("P10.3")
async def test_rules_only_tighten(world: World) -> None:
    await world.permit("send_email", "deny")
    await rule("ask-mail", "ask", "call.tool == 'send_email'")
    await world.agent()
    run = await world.script(call("send_email", **MAIL), {"text": "no"})
    await world.engine()
    await world.until(run)
    assert (await world.calls(run))[1].decision["decision"] == "deny"
    with pytest.raises(Refused):
        await rule("wide", "allow", "true")


@pytest.mark.mission("P10.3")
async def test_a_tainted_answer_can_be_withheld(world: World) -> None:
    await sync_to_async(relabelled)()
    await rule("no-private-answers", "deny", "'private' in run.labels && answer.text.contains('secret')", on="answer")
    await world.agent()
    read = call("fetch_account", account_id="acct_1001")
    run = await world.script(read, {"text": "the secret"})
    fine = await world.script(read, {"text": "nothing"})
    await world.engine()
    done = await world.until(run)
    assert (done.state, done.outcome, done.answer_step) == ("failed", "policy_denied", None)
    assert "step 1 (fetch_account brought private)" in done.last_error["message"]
    assert (await world.until(fine)).outcome == "completed"


@pytest.mark.mission("P10.3", "P10.4")
@pytest.mark.parametrize(("verdict", "outcome"), [("approve", "completed"), ("reject", "approval_rejected")])
async def test_a_person_may_be_asked_before_an_answer_goes_out(world: World, verdict: str, outcome: str) -> None:
    await rule("see-answers", "ask", "answer.length > 3", on="answer")
    await world.agent()
    run = await world.script({"text": "A long answer."})
    await world.engine()
    await world.until(run, "waiting_approval")
    approval: Approval = await Approval.objects.aget(run_id=run.id)
    assert approval.kind == "answer" and b"A long answer." in bytes(approval.args)
    decide = sync_to_async(signoff.decide)
    await decide(world.people["approver"], approval.id, verdict=verdict, digest=approval.digest, reason="seen")
    done: Run = await world.until(run)
    assert done.outcome == outcome and (done.answer_step is not None) == (verdict == "approve")


@pytest.mark.mission("P12.1")
@pytest.mark.django_db
def test_permissions_and_rules_have_one_version_that_can_be_rolled_back(db: Any) -> None:
    from .waiting import make_world, person

    world = make_world()
    admin = person(world.tenant, "root", "admin", platform=True)
    Tool.objects.create(name="mail")
    permissions.set_permission(None, "mail", world.tenant, decision="ask")
    rules.set_rule(None, "r1", world.tenant, decision="deny", when="call.tool == 'mail'")
    with versions.together(None, "many"):
        permissions.set_permission(None, "mail", world.tenant, decision="deny")
        rules.set_rule(None, "r2", world.tenant, decision="ask", when="true")
    assert versions.current(world.tenant) == 3 and versions.current(None) == 0
    with pytest.raises(Refused) as caught:
        versions.roll_back(admin, world.tenant, 2, " ")
    assert caught.value.code == "reason_missing"
    made = versions.roll_back(admin, world.tenant, 2, "too strict")
    assert made.number == 4 and made.document == PolicyVersion.objects.get(tenant=world.tenant, number=2).document
    assert Permission.objects.get(tool_id="mail").decision == "ask" and not Rule.objects.filter(name="r2").exists()
    with pytest.raises(Refused) as caught:
        versions.roll_back(world.operator, world.tenant, 1, "mine")
    assert caught.value.code == "not_yours"


@pytest.mark.mission("P10.4")
async def test_a_no_to_an_answer_stands_when_the_rule_that_asked_is_gone(world: World) -> None:
    await rule("see-answers", "ask", "answer.length > 3", on="answer")
    await world.agent()
    run = await world.script({"text": "A long answer."})
    engine = await world.engine()
    await world.until(run, "waiting_approval")
    engine.stop()
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="reject", digest=approval.digest, reason="no")
    await sync_to_async(lambda: rules.delete(None, Rule.objects.get(name="see-answers")))()
    await world.engine()
    done = await world.until(run)
    assert (done.outcome, done.answer_step) == ("approval_rejected", None)
