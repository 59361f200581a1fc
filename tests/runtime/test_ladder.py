"""What a run does when it meets a limit: the rungs of its release's ladder, each through a real engine."""

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import drafts, grants, signoff
from runs.models import Event, ModelDefinition, Run, RunInput
from tenants.errors import Refused
from tenants.models import EgressAllow
from tools import breakers
from tools.models import Breaker

from .world import TICKET, World, call

SEARCH = call("search_docs", query="refund policy")


async def rungs(run: Run) -> list[tuple[str, str, str]]:
    kinds = ("rung_entered", "rung_missed", "rung_left")
    rows = Event.objects.filter(run_id=run.id, kind__in=kinds).order_by("seq")
    return [(e.kind, e.payload["data"]["on"], e.payload["data"]["do"]) async for e in rows]


def simulated(*turns: dict[str, Any]) -> str:
    return "#sim " + json.dumps({"turns": list(turns)})


async def ends(world: World, run: Run) -> tuple[str, str]:
    done = await world.until(run)
    return done.state, done.outcome or ""


@pytest.mark.mission("P6.2", "P6.1")
async def test_a_tool_that_is_down_leaves_a_draft_and_an_answer_and_the_draft_is_carried_out_later(world: World) -> None:
    await world.agent(ladder=[{"on": "tool_unavailable", "do": "draft"}])
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "429", times=-1)
    run = await world.script(call("create_ticket", **TICKET), {"text": "A person will open the ticket for you."})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    assert await rungs(run) == [("rung_entered", "tool_unavailable", "draft"), ("rung_left", "tool_unavailable", "draft")]
    assert await world.ledger() == []
    ticket = next(c for c in await world.calls(run) if c.name == "create_ticket")
    assert ticket.error_class == "drafted" and ticket.result["error_type"] == "drafted"
    assert "call_drafted" in await world.kinds(run)

    await world.http("DELETE", "/faults")
    operator = world.people["operator"]
    waiting = await sync_to_async(lambda: list(drafts.drafts(operator)))()
    assert [(d.run_id, d.step, d.ord) for d in waiting] == [(run.id, ticket.step, ticket.ord)]
    made = await sync_to_async(drafts.carry_out)(operator, run.id, ticket.step, ticket.ord, "the desk is back")
    assert await ends(world, made) == ("succeeded", "completed")
    assert [e["tool"] for e in await world.ledger()] == ["create_ticket"]
    assert [c.name for c in await world.calls(made)] == ["create_ticket"]
    with pytest.raises(Refused) as caught:
        await sync_to_async(drafts.carry_out)(operator, run.id, ticket.step, ticket.ord)
    assert caught.value.code == "draft_decided"


@pytest.mark.mission("P6.1")
async def test_a_draft_that_is_carried_out_waits_for_another_person(world: World) -> None:
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Drafted."}, mode="draft")
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed")
    made = await sync_to_async(drafts.carry_out)(world.people["operator"], run.id, 1, 1)
    await world.until(made, "waiting_approval")
    approval = await Approval.objects.aget(run_id=made.id)
    with pytest.raises(Refused) as caught:
        await sync_to_async(signoff.decide)(world.people["operator"], approval.id, verdict="approve", digest=approval.digest)
    assert caught.value.code == "own_run"
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    assert await ends(world, made) == ("succeeded", "completed")
    assert len(await world.ledger()) == 1


@pytest.mark.mission("P6.1")
@pytest.mark.parametrize(
    ("on", "budget", "outcome", "calls"),
    [
        ("budget_exceeded", {"max_steps": 3}, "completed_degraded", 3),
        ("budget_exceeded", {"max_tool_calls": 1}, "completed_degraded", 3),
        ("loop", {"max_steps": 12}, "completed_degraded", 4),
    ],
)
async def test_a_single_turn_without_tools_answers_inside_the_limit(
    world: World, on: str, budget: dict[str, Any], outcome: str, calls: int
) -> None:
    await world.agent(budget=budget, ladder=[{"on": on, "do": "single_turn"}])
    run = await world.script(*[SEARCH | {"text": "I am still looking."}], {"repeat": True})
    await world.engine()
    assert await ends(world, run) == ("succeeded", outcome)
    done = await world.until(run)
    assert done.step == calls and await world.answer(done) == "I am still looking."
    assert done.rungs[0]["on"] == on and done.rungs[0]["do"] == "single_turn"


@pytest.mark.mission("P6.1")
async def test_fewer_steps_ends_with_a_turn_without_tools(world: World) -> None:
    await world.agent(budget={"max_steps": 10}, ladder=[{"on": "budget", "at": 0.2, "do": "fewer_steps", "max": 2}])
    searches = [call("search_docs", query=f"policy {n}") | {"text": f"turn {n}"} for n in range(9)]
    run = await world.script(*searches)
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    done = await world.until(run)
    assert done.step == 4 and await world.answer(done) == "turn 3"


@pytest.mark.mission("P5.2")
async def test_without_a_rung_the_record_says_which_limit_stopped_the_run(world: World) -> None:
    await world.agent(budget={"max_tool_calls": 1})
    run = await world.script(SEARCH, call("search_docs", query="more"), {"text": "x"})
    await world.engine()
    assert await ends(world, run) == ("failed", "budget_exceeded")
    done = await world.until(run)
    assert done.stop == {"limit": "max_tool_calls", "value": 1, "used": 2, "by": "search_docs", "step": 2}


async def test_calls_that_circle_are_stopped_with_a_hint_and_then_the_run_ends(world: World) -> None:
    await world.agent(budget={"max_steps": 30, "max_tool_calls": 100})
    other = call("search_docs", query="  Refund   POLICY ")
    run = await world.script(SEARCH, other, SEARCH, other, {"repeat": True})
    await world.engine()
    assert await ends(world, run) == ("failed", "loop_detected")
    calls = [c for c in await world.calls(run) if c.ord]
    assert [c.state for c in calls] == ["done", "done", "blocked", "blocked"]
    assert calls[2].result["error_type"] == "loop_detected" and calls[2].result["step"] == 2
    assert (await world.kinds(run)).count("loop_detected") == 2


@pytest.mark.mission("P6.1")
async def test_the_same_question_is_answered_from_before_when_the_provider_is_down(world: World) -> None:
    await world.agent(tools=("search_docs",), ladder=[{"on": "provider_degraded", "do": "cached"}])
    await world.engine()
    first = await world.submit("What is the refund policy?")
    answered = await world.until(first)
    await world.fault("model", "500", times=-1)
    again = await world.submit("what is the  REFUND policy?")
    assert await ends(world, again) == ("succeeded", "completed_degraded")
    done = await world.until(again)
    assert await world.answer(done) == await world.answer(answered)
    assert done.rungs[0]["from"] == first.run_id and done.rungs[0]["exact"] is False and done.rungs[0]["age_s"] >= 0
    other = await world.submit("What is the weather?")
    assert await ends(world, other) == ("failed", "model_error")
    assert await rungs(other) == [("rung_missed", "provider_degraded", "cached")]
    others = await world.submit("What is the refund policy?", user={"id": "u2", "attributes": {}})
    assert await ends(world, others) == ("failed", "model_error")


@pytest.mark.mission("P6.1")
async def test_what_the_reads_found_is_the_answer_when_no_model_can_write_one(world: World) -> None:
    await world.agent(ladder=[{"on": "provider_degraded", "do": "cached"}, {"on": "provider_degraded", "do": "retrieval_only"}])
    run = await world.script(SEARCH, {"status": 500}, {"repeat": True})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    done = await world.until(run)
    assert "search_docs (step 1)" in await world.answer(done)
    assert [r[0] for r in await rungs(run)] == ["rung_missed", "rung_entered", "rung_left"]


@pytest.mark.mission("P6.1", "P10.1")
async def test_a_denied_write_can_take_all_writes_off(world: World) -> None:
    await world.agent(ladder=[{"on": "policy_denied", "do": "read_only"}])
    await world.permit("send_email", "deny")
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.script(call("send_email", to="a@b.example", subject="s", body="b"), call("create_ticket", **TICKET), {"text": "No."})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    assert await world.ledger() == []
    plans = [e.payload["data"]["offered"] for e in await world.events(run) if e.kind == "plan_decided"]
    assert "create_ticket" in plans[0] and "create_ticket" not in plans[1]


@pytest.mark.mission("X7")
async def test_a_run_asks_for_more_and_a_person_grants_it_once(world: World) -> None:
    ladder = [{"on": "budget_exceeded", "do": "ask"}, {"on": "budget_exceeded", "do": "stop"}]
    await world.agent(budget={"max_tool_calls": 1}, ladder=ladder)
    run = await world.script(SEARCH, call("search_docs", query="more"), {"text": "done"}, by="operator")
    await world.engine()
    waiting = await world.until(run, "waiting_budget")
    assert waiting.owner is None
    approval = await Approval.objects.aget(run_id=run.id)
    assert (approval.kind, approval.state, approval.tool) == ("budget", "pending", "")
    with pytest.raises(Refused) as caught:
        await sync_to_async(signoff.decide)(world.people["operator"], approval.id, verdict="approve", digest=approval.digest)
    assert caught.value.code == "own_run"
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    done = await world.until(run)
    assert (done.state, done.outcome) == ("succeeded", "completed_degraded")
    assert (await RunInput.objects.aget(pk=run.id)).limits["max_tool_calls"] == 2
    assert "budget_granted" in await world.kinds(run) and done.deadline_at > waiting.deadline_at


@pytest.mark.mission("X7")
@pytest.mark.parametrize("verdict", ["reject", "expire"])
async def test_a_run_that_is_granted_nothing_ends_with_its_limit(world: World, verdict: str) -> None:
    await world.agent(budget={"max_tool_calls": 1}, ladder=[{"on": "budget_exceeded", "do": "ask"}], deadlines={"approval_s": 300})
    run = await world.script(SEARCH, call("search_docs", query="more"), call("search_docs", query="again"))
    await world.engine()
    await world.until(run, "waiting_budget")
    approval = await Approval.objects.aget(run_id=run.id)
    if verdict == "expire":
        from django.db.models.functions import Now

        await Approval.objects.filter(id=approval.id).aupdate(expires_at=Now())
    else:
        await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="reject", digest=approval.digest, reason="no")
    assert await ends(world, run) == ("failed", "budget_exceeded")


@pytest.mark.mission("X7")
async def test_a_person_may_grant_other_amounts_than_the_run_asked_for(world: World) -> None:
    await world.agent(budget={"max_steps": 2}, ladder=[{"on": "budget_exceeded", "do": "ask"}])
    run = await world.script(SEARCH, call("search_docs", query="more"), call("search_docs", query="and more"), {"text": "done"})
    await world.engine()
    await world.until(run, "waiting_budget")
    more = grants.More(max_steps=5)
    await sync_to_async(signoff.extend)(world.people["approver"], run.id, more, "go on")
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    with pytest.raises(Refused) as caught:
        await sync_to_async(signoff.extend)(world.people["approver"], run.id, more, "again")
    assert caught.value.code == "run_not_waiting"


@pytest.mark.mission("P5.3")
async def test_a_fallback_that_still_fits_takes_the_call_that_the_dear_model_cannot(world: World) -> None:
    await ModelDefinition.objects.filter(name="spare").aupdate(price_input="0.001", price_output="0.002")
    await world.agent(models={"planner": {"model": "primary", "fallback": ["spare"]}}, budget={"max_cost_usd": "0.0001"})
    run = await world.script({"text": "cheap"})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed")
    assert [c.name for c in await world.calls(run)] == ["spare"]


@pytest.mark.mission("P4.1")
async def test_a_run_whose_time_is_nearly_over_answers_with_what_it_has(world: World) -> None:
    deadlines = {"model_call_s": 4, "step_s": 6, "run_s": 6, "tool_call_s": 3}
    await world.agent(deadlines=deadlines, ladder=[{"on": "deadline_near", "at": 0.2, "do": "single_turn"}])
    slow = SEARCH | {"latency_ms": 1500}
    run = await world.script(slow, {"text": "in time"} | {"calls": SEARCH["calls"]}, {"repeat": True})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    assert (await world.until(run)).step == 2


CRITIC = {"planner": {"model": "primary"}, "critique": {"model": "spare", "checks": ["answer", "writes"]}}


@pytest.mark.mission("P5.3")
async def test_a_critique_checks_writes_and_answers_with_a_model_of_its_own(world: World) -> None:
    await world.agent(models=CRITIC)
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed")
    calls = [(c.step, c.name) for c in await world.calls(run)]
    assert calls == [(1, "primary"), (1, "create_ticket"), (2, "spare"), (3, "primary"), (4, "spare")]
    said = [e.payload["data"] for e in await world.events(run) if e.kind == "critique_decided"]
    assert [(s["of"], s["checks"], s["verdict"]) for s in said] == [(1, "writes", "pass"), (3, "answer", "pass")]
    assert await world.answer(await world.until(run)) == "Done."


@pytest.mark.mission("P5.3", "P6.1")
@pytest.mark.parametrize("verdict", ["fail", "nonsense"])
async def test_a_write_that_does_not_pass_is_not_sent(world: World, verdict: str) -> None:
    await world.agent(models=CRITIC)
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.submit(f"#critic {verdict}\n" + simulated(call("create_ticket", **TICKET), {"text": "Not done."}))
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed")
    ticket = next(c for c in await world.calls(run) if c.name == "create_ticket")
    assert (ticket.state, ticket.result["error_type"]) == ("blocked", "critique_failed")
    assert await world.ledger() == []


@pytest.mark.mission("P6.1", "P10.4")
async def test_a_failed_check_can_bring_a_person_in(world: World) -> None:
    await world.agent(models=CRITIC, ladder=[{"on": "critique_failed", "do": "ask"}])
    await world.permit("create_ticket", "allow", loosen=True)
    run = await world.submit("#critic fail\n" + simulated(call("create_ticket", **TICKET), {"text": "Done."}))
    await world.engine()
    await world.until(run, "waiting_approval")
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    assert len(await world.ledger()) == 1


@pytest.mark.mission("P6.1")
async def test_an_answer_that_does_not_pass_is_written_again_once(world: World) -> None:
    await world.agent(models=CRITIC, ladder=[{"on": "critique_failed", "do": "single_turn"}])
    run = await world.submit("please\n" + simulated({"text": "I guarantee it."}, {"text": "A person will look."}))
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    done = await world.until(run)
    assert await world.answer(done) == "I guarantee it."  # the script counts assistant messages, and a draft answer is none


@pytest.mark.mission("P5.3")
async def test_a_critique_that_cannot_be_had_is_no_pass_and_does_not_end_the_run(world: World) -> None:
    await ModelDefinition.objects.filter(name="spare").aupdate(base_url=f"{world.url}/nowhere")
    await world.agent(models=CRITIC)
    run = await world.script({"text": "An answer."})
    await world.engine()
    assert await ends(world, run) == ("succeeded", "completed")
    said = [e.payload["data"]["verdict"] for e in await world.events(run) if e.kind == "critique_decided"]
    assert said == ["unavailable"]


async def cut_off(world: World, host: str) -> None:
    """A person holds the way to this host open."""

    def force() -> None:
        row, _ = Breaker.objects.get_or_create(tenant=world.tenant, host_port=host)
        breakers.force(world.people["admin"], row.id, "open", "down for the night")

    await sync_to_async(force)()


@pytest.mark.mission("P6.1", "P6.2")
@pytest.mark.parametrize("asked", [False, True])
async def test_a_write_to_a_host_that_is_cut_off_is_drafted_at_once(world: World, asked: bool) -> None:
    """With an approval: also the call that people allowed before."""
    await world.agent(tools=("create_ticket",), ladder=[{"on": "breaker_open", "do": "draft"}])
    await ModelDefinition.objects.filter(name="primary").aupdate(base_url=f"{world.url.replace('127.0.0.1', 'localhost')}/v1")
    await sync_to_async(EgressAllow.objects.get_or_create)(host_port=world.url.removeprefix("http://").replace("127.0.0.1", "localhost"))
    if not asked:
        await world.permit("create_ticket", "allow", loosen=True)
        await cut_off(world, world.url.removeprefix("http://"))
    run = await world.script(call("create_ticket", **TICKET), {"text": "Kept for a person."})
    await world.engine()
    if asked:
        await world.until(run, "waiting_approval")
        await cut_off(world, world.url.removeprefix("http://"))
        approval = await Approval.objects.aget(run_id=run.id)
        await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    assert await ends(world, run) == ("succeeded", "completed_degraded")
    ticket = next(c for c in await world.calls(run) if c.name == "create_ticket")
    assert (ticket.state, ticket.error_class, ticket.attempt) == ("blocked", "drafted", 0)
    assert await world.ledger() == []


@pytest.mark.mission("P6.1")
async def test_a_model_that_is_cut_off_can_be_answered_around(world: World) -> None:
    await world.agent(ladder=[{"on": "provider_degraded", "do": "cached"}])
    await world.engine()
    await world.until(first := await world.submit("What is the refund policy?"))
    await cut_off(world, world.url.removeprefix("http://"))
    again = await world.submit("What is the refund policy?")
    assert await ends(world, again) == ("succeeded", "completed_degraded")
    assert await world.answer(await world.until(again)) == await world.answer(await world.until(first))
