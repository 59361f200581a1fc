"""A run from its acceptance to its end, through a real engine, the sandbox over HTTP, and PostgreSQL."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import lifecycle, signoff
from runs.models import Run

from .world import TICKET, World, call


async def decide(world: World, run: Run, verdict: str = "approve", by: str = "approver", reason: str = "") -> Approval:
    approval = await Approval.objects.aget(run_id=run.id, state="pending")
    return await sync_to_async(signoff.decide)(world.people[by], approval.id, verdict=verdict, digest=approval.digest, reason=reason)


@pytest.mark.mission("P1.2")
async def test_a_question_is_answered_after_a_read(world: World) -> None:
    await world.agent(tools=("search_docs",))
    run = await world.submit("What is the refund policy?")
    await world.engine()
    done = await world.until(run)
    assert (done.state, done.outcome, done.owner) == ("succeeded", "completed", None)
    assert (await world.answer(done)).strip()
    assert [c.name for c in await world.calls(run)] == ["primary", "search_docs", "primary"]
    kinds = await world.kinds(run)
    assert kinds[0] == "run_accepted" and kinds[1] == "run_started" and kinds[-1] == "run_completed"
    assert [e.seq for e in await world.events(run)] == list(range(1, done.seq + 1))
    assert done.cost_micro > 0 and not done.unpriced and done.reserved_micro == 0


@pytest.mark.mission("P10.4")
async def test_a_write_waits_for_a_person_and_is_sent_once_after_approval(world: World) -> None:
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    waiting = await world.until(run, "waiting_approval")
    assert waiting.owner is None and await world.ledger() == []
    await decide(world, run)
    done = await world.until(run)
    assert done.outcome == "completed"
    assert [e["tool"] for e in await world.ledger()] == ["create_ticket"]
    approval = await Approval.objects.aget(run_id=run.id)
    assert approval.state == "consumed"
    assert done.deadline_at > waiting.deadline_at


async def test_a_rejected_write_answers_the_model_with_the_reason(world: World) -> None:
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "It was not created."})
    await world.engine()
    await world.until(run, "waiting_approval")
    await decide(world, run, "reject", reason="not a complaint")
    done = await world.until(run)
    ticket = next(c for c in await world.calls(run) if c.name == "create_ticket")
    assert done.outcome == "completed" and ticket.state == "blocked"
    assert ticket.result["error_type"] == "approval_rejected" and "not a complaint" in ticket.result["message"]
    assert await world.ledger() == []


async def test_an_expired_approval_fails_closed_and_the_run_goes_on(world: World) -> None:
    await world.agent(deadlines={"run_s": 30, "approval_s": 0.3})
    run = await world.script(call("create_ticket", **TICKET), {"text": "Nobody answered."})
    await world.engine()
    done = await world.until(run)
    ticket = next(c for c in await world.calls(run) if c.name == "create_ticket")
    assert done.outcome == "completed" and ticket.result["error_type"] == "approval_expired"
    assert "approval_expired" in await world.kinds(run) and await world.ledger() == []


@pytest.mark.mission("P3.2")
async def test_a_rate_limit_is_retried_with_the_same_key(world: World) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "500")
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    keys = [r["key"] for r in await world.received() if r["target"] == "create_ticket"]
    assert len(keys) == 2 and len(set(keys)) == 1
    assert len(await world.ledger()) == 1 and "retry_scheduled" in await world.kinds(run)


@pytest.mark.mission("P3.5")
async def test_a_write_without_a_key_whose_answer_was_lost_is_unknown_and_never_sent_again(world: World) -> None:
    await world.agent()
    await world.permit("send_email", "allow", loosen=True)
    await world.fault("send_email", "drop_after")
    run = await world.script(call("send_email", to="a@example.com", subject="s", body="b"), {"text": "Done."})
    await world.engine()
    held = await world.until(run, "needs_reconciliation")
    assert held.owner is None
    assert len([r for r in await world.received() if r["target"] == "send_email"]) == 1
    assert "tool_call_unknown" in await world.kinds(run)


@pytest.mark.mission("P5.2")
async def test_the_budget_stops_a_run_and_the_record_says_which_limit(world: World) -> None:
    await world.agent(budget={"max_steps": 3})
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"repeat": True})
    await world.engine()
    done = await world.until(run)
    assert (done.state, done.outcome) == ("failed", "step_limit")
    assert done.stop["limit"] == "max_steps" and done.stop["value"] == 3
    assert "budget_exceeded" in await world.kinds(run)


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"max_cost_usd": "0.0001"}, "max_cost_usd"),
        ({"max_input_tokens": 5}, "max_input_tokens"),
    ],
)
async def test_each_limit_stops_the_run_that_meets_it(world: World, budget: dict[str, object], limit: str) -> None:
    await world.agent(budget=budget)
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"repeat": True})
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "budget_exceeded" and done.stop["limit"] == limit


@pytest.mark.mission("P4.1")
async def test_a_hung_tool_ends_at_its_deadline_and_the_run_at_its_own(world: World) -> None:
    await world.agent(deadlines={"tool_call_s": 0.4, "run_s": 1.2})
    await world.fault("search_docs", "hang", times=-1)
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"repeat": True})
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "deadline_exceeded" and done.stop["limit"] == "run_s"
    failed = [e for e in await world.events(run) if e.kind == "tool_call_failed"]
    assert failed and failed[0].payload["error_type"] == "timeout"


async def test_a_model_that_fails_falls_back_to_the_next(world: World) -> None:
    await world.agent(tools=(), models={"planner": {"model": "primary", "fallback": ["spare"]}})
    await world.fault("model", "500", times=2)
    run = await world.submit("hello")
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert "fallback_activated" in await world.kinds(run)
    assert (await world.calls(run))[0].name == "spare"


@pytest.mark.parametrize(
    ("turn", "outcome"),
    [
        ({"raw": "<html>"}, "invalid_output"),
        ({"empty": True}, "empty_answer"),
        ({"no_choices": True}, "invalid_output"),
        ({"finish_reason": "length", "text": "cut"}, "truncated"),
        ({"finish_reason": "content_filter", "text": "no"}, "content_filtered"),
        ({"refusal": "no"}, "refused"),
        ({"status": 400}, "model_error"),
    ],
)
async def test_every_bad_reply_has_its_own_outcome(world: World, turn: dict[str, object], outcome: str) -> None:
    await world.agent(tools=())
    run = await world.script(turn, {"repeat": True})
    await world.engine()
    done = await world.until(run)
    assert (done.state, done.outcome) == ("failed", outcome)


BAD_CALLS = [
    {"name": "nope", "arguments": {}},
    {"name": "search_docs", "arguments_raw": "not json"},
    {"name": "search_docs", "arguments_raw": "[1]"},
    {"name": "search_docs", "arguments": {"query": 1}},
]


@pytest.mark.parametrize("bad", BAD_CALLS)
async def test_a_call_that_cannot_be_made_is_answered_and_the_run_goes_on(world: World, bad: dict[str, object]) -> None:
    await world.agent()
    run = await world.script({"calls": [bad]}, {"text": "Sorry."})
    await world.engine()
    done = await world.until(run)
    refused = (await world.calls(run))[1]
    assert done.outcome == "completed" and refused.state == "blocked" and refused.result["ok"] is False
    assert not [r for r in await world.received() if r["target"] != "model"]


async def test_a_permission_that_changes_while_the_run_waits_blocks_what_was_approved(world: World) -> None:
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Understood."})
    await world.engine()
    await world.until(run, "waiting_approval")
    await world.permit("create_ticket", "deny")
    await decide(world, run)
    done = await world.until(run)
    assert done.outcome == "completed" and await world.ledger() == []
    assert (await Approval.objects.aget(run_id=run.id)).state == "void"


async def test_a_run_that_waits_is_cancelled_at_once_and_takes_its_request_with_it(world: World) -> None:
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    await sync_to_async(lifecycle.cancel)(world.people["operator"], run.id)
    done = await world.until(run)
    assert done.outcome == "cancelled" and (await Approval.objects.aget(run_id=run.id)).state == "void"


async def test_a_running_run_is_cancelled_within_one_call(world: World) -> None:
    await world.agent()
    await world.fault("search_docs", "latency", times=-1, ms=200)
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"repeat": True})
    await world.engine()
    await world.until(run, "running")
    await sync_to_async(lifecycle.cancel)(world.people["operator"], run.id)
    assert (await world.until(run)).outcome == "cancelled"


@pytest.mark.mission("P3.2")
async def test_a_lost_answer_is_not_taken_back_by_a_later_refusal(world: World) -> None:
    """The first send may be applied; that the second was not sent says nothing about the first."""
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "drop_after", times=1)
    await world.fault("create_ticket", "429", times=-1)
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    held = await world.until(run, "needs_reconciliation", "succeeded")
    assert held.state == "needs_reconciliation"


async def test_a_conditional_synthesis_writes_the_answer(world: World) -> None:
    models = {"planner": {"model": "primary"}, "synthesis": {"model": "spare", "when": "run.step > 1"}}
    await world.agent(models=models)
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"text": "Draft."}, {"text": "Final."})
    await world.engine()
    done = await world.until(run)
    assert (done.outcome, done.answer_step) == ("completed", 3)
    assert [c.name for c in await world.calls(run) if c.ord == 0] == ["primary", "primary", "spare"]


async def test_reads_of_a_turn_go_together_and_writes_one_at_a_time(world: World) -> None:
    await world.agent()
    for tool in ("create_ticket", "send_email"):
        await world.permit(tool, "allow", loosen=True)
    asks = [
        {"name": "send_email", "arguments": {"to": "a@example.com", "subject": "s", "body": "b"}},
        {"name": "search_docs", "arguments": {"query": "x"}},
        {"name": "create_ticket", "arguments": TICKET},
    ]
    run = await world.script({"calls": asks}, {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    started = [e.payload["tool"] for e in await world.events(run) if e.kind == "tool_call_started"]
    assert started == ["search_docs", "send_email", "create_ticket"]
    assert [e["tool"] for e in await world.ledger()] == ["send_email", "create_ticket"]


async def test_an_engine_that_is_told_to_stop_gives_its_runs_back(world: World) -> None:
    await world.agent()
    await world.fault("search_docs", "latency", times=1, ms=400)
    run = await world.script({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"text": "Done."})
    first = await world.engine()
    await world.until(run, "running")
    first.stop()
    await world.until(run, "queued")
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert len([r for r in await world.received() if r["target"] == "search_docs"]) == 1


async def test_a_run_that_cannot_be_driven_is_given_back_and_put_aside_while_its_engine_lives(world: World) -> None:
    """A release whose model row vanished is one thing; a release that cannot even be read must not be claimed for ever."""
    await world.agent(tools=("search_docs",))
    run = await world.submit("hello")
    broken = await Run.objects.select_related("release").aget(id=run.id)
    engine = await world.engine()

    async def unreadable(release_id: object) -> None:
        raise RuntimeError(f"{broken.release_id} cannot be read")

    engine.services.definitions.release = unreadable  # type: ignore[assignment,method-assign]
    put_aside = await world.until(run, "quarantined")
    assert put_aside.owner is None and (await world.kinds(run)).count("run_parked") == 3


async def test_an_engine_that_could_not_renew_its_lease_sends_nothing_and_lets_go(world: World) -> None:
    await world.agent()
    await world.fault("model", "latency", times=1, ms=500)
    run = await world.script(call("search_docs", query="x"), {"text": "Done."})
    engine = await world.engine()
    while not [r for r in await world.received() if r["target"] == "model"]:
        await asyncio.sleep(0.01)
    engine.services.lease.confirmed -= 3600
    given_back = await world.until(run, "queued")
    assert given_back.owner is None and not [r for r in await world.received() if r["target"] == "search_docs"]
    engine.services.lease.confirmed += 3600
    assert (await world.until(run)).outcome == "completed"
    assert len([r for r in await world.received() if r["target"] == "search_docs"]) == 1


async def test_an_approval_that_was_given_too_late_is_void_when_the_run_has_ended(world: World) -> None:
    await world.agent(deadlines={"run_s": 2, "approval_s": 60, "count_waiting": True})
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    await Run.objects.filter(id=run.id).aupdate(deadline_at="2020-01-01T00:00:00Z")
    await decide(world, run)
    done = await world.until(run)
    assert done.outcome == "deadline_exceeded" and await world.ledger() == []
    while (approval := await Approval.objects.aget(run_id=run.id)).state != "void":
        assert approval.state == "approved"  # voided right after the last entry, or by the next sweep
        await asyncio.sleep(0.05)


@pytest.mark.mission("P10.3")
async def test_a_condition_sees_what_the_run_already_did(world: World) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    await world.permit("send_email", "deny", when="run.tools['create_ticket'].count > 0")
    mail = call("send_email", to="a@example.com", subject="s", body="b")
    run = await world.script(call("create_ticket", **TICKET), mail, {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    refused = (await world.calls(run))[3]
    assert (refused.name, refused.state, refused.result["error_type"]) == ("send_email", "blocked", "denied")


@pytest.mark.mission("P5.2")
async def test_writes_that_were_approved_together_still_stay_within_the_limit(world: World) -> None:
    await world.agent(budget={"max_writes": 1})
    asks = [{"name": "create_ticket", "arguments": {**TICKET, "summary": f"ticket {n}"}} for n in range(2)]
    run = await world.script({"calls": asks}, {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    async for approval in Approval.objects.filter(run_id=run.id):
        await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    done = await world.until(run)
    assert (done.outcome, done.stop["limit"], done.writes) == ("budget_exceeded", "max_writes", 1)
    assert len(await world.ledger()) == 1
