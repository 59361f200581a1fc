"""Writes whose outcome is unknown: never sent again, settled by evidence, a probe or a person, and the run goes on with the truth."""

import asyncio
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from approvals.models import Approval
from runs import failpoints, lifecycle, reconcile, signoff
from runs.engine import tool_call
from runs.engine.engine import Engine
from runs.models import Call, Observation, Run, UnknownWrite
from tenants.errors import Refused
from tools import catalog
from tools.spec import ToolSpec

from .world import TEXT, TICKET, World, call, schema

MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}


async def lose_the_answer(world: World, fault: str = "drop_after", **verify: Any) -> Run:
    """A mail whose answer never came; with `verify`, the tool can be asked."""
    if verify:
        await put_mail(world, **verify)
    await world.agent()
    await world.permit("send_email", "allow", loosen=True)
    await world.fault("send_email", fault)
    run = await world.script(call("send_email", **MAIL), {"text": "Done."})
    await world.engine()
    return run


async def put_mail(world: World, path: str = "/desk/lookup", **verify: Any) -> None:
    spec = {
        "adapter": {"kind": "http", "url": f"{world.url}/desk/emails"}, "description": "Send mail", "effect": "write",
        "input_schema": schema(to=TEXT, subject=TEXT, body=TEXT), "timeout_s": 1,
        "verify": {
            "adapter": {"kind": "http", "url": world.url + path}, "args": {"idem_key": "idem_key"}, "delay_s": 0.1, "timeout_s": 0.5,
            "applied_when": "result.found", "not_applied_when": "!result.found", **verify,
        },
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "send_email", ToolSpec.model_validate(spec))


async def case_of(run: Run) -> UnknownWrite:
    """The case, which is opened a moment after the run is parked."""
    while (case := await UnknownWrite.objects.filter(run_id=run.id).afirst()) is None:
        await asyncio.sleep(0.02)
    return case


async def told(world: World, run: Run) -> dict[str, Any]:
    return dict((await world.calls(run))[1].result)


@pytest.mark.mission("X1")
async def test_the_verify_adapter_closes_a_write_that_was_applied(world: World) -> None:
    run = await lose_the_answer(world, probes=2)
    done = await world.until(run)
    case = await case_of(run)
    assert done.outcome == "completed" and (case.result, case.how) == ("applied", "verified")
    assert len(await world.ledger()) == 1 and (await told(world, run))["ok"] is True
    assert "tool_call_reconciled" in await world.kinds(run)


async def test_the_verify_adapter_needs_agreeing_probes_for_not_applied(world: World) -> None:
    run = await lose_the_answer(world, "drop_before", probes=3)
    done = await world.until(run)
    case = await case_of(run)
    assert done.outcome == "completed" and (case.result, case.how) == ("not_applied", "verified")
    assert [p["verdict"] for p in case.probes][-3:] == ["not_applied"] * 3
    assert await world.ledger() == [] and (await told(world, run))["error_type"] == "not_applied"


@pytest.mark.parametrize(
    "strange",
    [
        {"path": "/nowhere"},
        {"applied_when": "result.nope"},
        {"not_applied_when": "result.found"},
        {"applied_when": "true", "not_applied_when": "true"},
    ],
)
async def test_a_verify_adapter_that_lies_fails_or_says_nonsense_cannot_tell(world: World, strange: dict[str, str]) -> None:
    run = await lose_the_answer(world, **strange)
    await world.until(run, "needs_reconciliation")
    while len((await case_of(run)).probes) < 2:
        await world.until(run, "needs_reconciliation")
    case = await case_of(run)
    assert {p["verdict"] for p in case.probes} == {"cannot_tell"} and case.result == ""


async def test_a_person_settles_it_with_evidence_and_the_run_goes_on(world: World) -> None:
    run = await lose_the_answer(world)
    await world.until(run, "needs_reconciliation")
    case = await case_of(run)
    resolve = sync_to_async(reconcile.resolve)
    for bad in ({"result": "maybe", "evidence": "x"}, {"result": "applied", "evidence": " "}):
        with pytest.raises(Refused):
            await resolve(world.people["operator"], case.id, **bad)
    await resolve(world.people["operator"], case.id, result="applied", evidence="It is in the outbox of the mail system.")
    assert (await world.until(run)).outcome == "completed"
    with pytest.raises(Refused, match="settled already"):
        await resolve(world.people["second"], case.id, result="applied", evidence="me too")


async def test_send_again_is_asked_for_anew_and_sent_with_a_new_authorisation(world: World) -> None:
    run = await lose_the_answer(world, "drop_before")
    await world.until(run, "needs_reconciliation")
    case = await case_of(run)
    await world.permit("send_email", "ask")
    await Call.objects.filter(run_id=run.id, ord=1).aupdate(send_deadline=None)
    await sync_to_async(reconcile.resolve)(
        world.people["operator"], case.id, result="not_applied", evidence="The outbox is empty.", resend=True
    )
    await world.until(run, "waiting_approval")
    assert await world.ledger() == []
    approval = await Approval.objects.aget(run_id=run.id, state="pending")
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1


async def test_late_evidence_of_a_superseded_engine_closes_the_case(world: World) -> None:
    run = await lose_the_answer(world)
    held = await world.until(run, "needs_reconciliation")
    seen = {"step": 1, "ord": 1, "attempt": 1, "applied": True, "result": {"ok": True, "message_id": "m1"}, "error_class": ""}
    await sync_to_async(reconcile.observe)(held.tenant_id, run.id, held.fence, [seen])
    done = await world.until(run)
    case = await case_of(run)
    assert done.outcome == "completed" and case.how == "late_evidence"
    assert (await told(world, run))["message_id"] == "m1"


async def test_a_zombie_leaves_what_it_saw_as_evidence(world: World) -> None:
    """The run is taken away while the answer is on its way: the answer is not committed, and not lost."""
    await world.agent()
    await world.permit("send_email", "allow", loosen=True)
    await world.fault("send_email", "latency", ms=400)
    run = await world.script(call("send_email", **MAIL), {"text": "Done."})
    await world.engine()
    while not [r for r in await world.received() if r["target"] == "send_email"]:
        await asyncio.sleep(0.01)
    await Run.objects.filter(id=run.id).aupdate(owner="00000000-0000-0000-0000-00000000dead", fence=99, entry=0, hold_until=None)
    done = await world.until(run)
    assert done.outcome == "completed" and len(await world.ledger()) == 1
    assert await Observation.objects.filter(run_id=run.id, applied=True).acount() == 1
    assert (await case_of(run)).how == "late_evidence"


def lapse_at(point: str, engine: Engine, world: World) -> None:
    """At this point the engine's lease is over for a moment, and its run somebody else's."""

    def lose() -> None:
        engine.services.lease.confirmed -= 100
        with psycopg.connect(world.dsn, autocommit=True) as connection:
            connection.execute("update run set owner = gen_random_uuid(), fence = fence + 1, entry = 0, hold_until = null")

    failpoints.put(point, lose)


@pytest.mark.mission("P3.5")
async def test_a_send_that_was_never_made_is_told_by_the_engine_that_lost_the_run_and_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is over between the commit of the intent and the socket, and the database does not take the testimony at once."""
    observe, refused = reconcile.observe, list[int]()

    def troubled(*said: Any) -> None:
        if not refused:
            refused.append(1)
            raise OperationalError("no space left on device")
        observe(*said)

    monkeypatch.setattr(reconcile, "observe", troubled)
    await world.agent()
    await world.permit("send_email", "allow", loosen=True)
    lapse_at("after_dispatch_commit", await world.engine(), world)
    run = await world.script(call("send_email", **MAIL), {"text": "Done."})
    assert (await world.until(run)).outcome == "completed" and refused
    case = await case_of(run)
    assert (case.result, case.how) == ("not_applied", "late_evidence") and "never made" in case.evidence
    assert len(await world.ledger()) == 1 and (await world.kinds(run)).count("tool_call_started") == 2


async def test_an_approved_send_that_was_never_made_is_asked_for_anew(world: World) -> None:
    await world.agent()
    await world.permit("send_email", "ask")
    lapse_at("after_consume", await world.engine(), world)
    run = await world.script(call("send_email", **MAIL), {"text": "Done."})
    for first in (True, False):
        await world.until(run, "waiting_approval")
        approval = await Approval.objects.aget(run_id=run.id, state="pending")
        await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
        if first:
            await world.until(run, "running", "needs_reconciliation")
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1 and (await case_of(run)).how == "late_evidence"


@pytest.mark.parametrize(("attempt", "applied", "settled"), [(2, False, False), (1, None, False), (1, False, True), (2, True, True)])
async def test_that_one_send_was_not_applied_says_nothing_of_another(
    world: World, attempt: int, applied: bool | None, settled: bool
) -> None:
    run = await lose_the_answer(world)
    held = await world.until(run, "needs_reconciliation")
    await Call.objects.filter(run_id=run.id, ord=1).aupdate(error_class=reconcile.LOST)
    case = await case_of(run)
    answer = {"ok": applied, "message": "seen"}
    seen = {"step": 1, "ord": 1, "attempt": attempt, "applied": applied, "result": answer, "error_class": "validation"}
    await sync_to_async(reconcile.observe)(held.tenant_id, run.id, held.fence, [seen])
    await sync_to_async(reconcile.use_late_evidence)()
    await case.arefresh_from_db()
    assert bool(case.result) is settled
    if settled:
        assert (await world.until(run)).outcome == "completed" and await told(world, run) == answer


async def test_what_is_unknown_is_settled_when_its_run_waits_and_not_while_it_is_at_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine would park it for a call that nobody will settle any more."""
    await world.agent()
    await world.permit("send_email", "allow", loosen=True)
    await world.fault("send_email", "drop_after")
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "500")
    again = ("create_ticket", 1)
    monkeypatch.setattr(tool_call, "retry_after", lambda f, e, turn, call, *_: 1.9 if (call.name, call.attempt) == again else None)
    both = [*call("send_email", **MAIL)["calls"], *call("create_ticket", **TICKET)["calls"]]
    run = await world.script({"calls": both}, {"text": "Done."})
    await world.engine()
    case = await case_of(run)
    assert (await Run.objects.aget(id=run.id)).state == "running"
    person, said = world.people["operator"], {"result": "applied", "evidence": "It is in the outbox."}
    with pytest.raises(Refused, match="at work"):
        await sync_to_async(reconcile.resolve)(person, case.id, **said)
    await world.until(run, "needs_reconciliation")
    await sync_to_async(reconcile.resolve)(person, case.id, **said)
    assert (await world.until(run)).outcome == "completed"


@pytest.mark.mission("P3.4")
async def test_the_same_effect_twice_is_answered_already_applied(world: World) -> None:
    spec = {
        "adapter": {"kind": "http", "url": f"{world.url}/desk/tickets"}, "description": "Open a ticket", "effect": "write",
        "idempotency": "key", "effect_key": "ticket:{account_id}",
        "input_schema": schema(account_id=TEXT, priority={"enum": ["low", "normal", "urgent"]}, summary=TEXT),
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "create_ticket", ToolSpec.model_validate(spec))
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    again = [call("create_ticket", **{**TICKET, "summary": f"said {n} times"}) for n in range(3)]
    run = await world.script(*again, {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert len(await world.ledger()) == 1
    answers = [c.result for c in await world.calls(run) if c.ord == 1]
    assert [a.get("status") for a in answers[1:]] == ["already_applied"] * 2
    assert answers[1]["result"]["ticket_id"] == answers[0]["ticket_id"]


async def test_the_same_write_twice_in_a_run_without_a_name_is_a_persons_to_decide(world: World) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.script(call("create_ticket", **TICKET), call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    assert len(await world.ledger()) == 1


async def test_a_retried_run_answers_applied_writes_from_their_records(world: World) -> None:
    await world.agent(budget={"max_steps": 2})
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.script(call("create_ticket", **TICKET), call("search_docs", query="x"), {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "step_limit"
    second = await sync_to_async(lifecycle.retry)(world.people["operator"], run.id)
    await world.until(second)
    assert len(await world.ledger()) == 1
    answer = (await world.calls(second))[1]
    assert answer.result["already_applied"] is True and answer.result["ticket_id"]
