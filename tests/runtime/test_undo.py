"""Undoing an applied write: a run of its own with the one call that undoes it, decided like every other call, once."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models.functions import Now

from approvals.models import Approval
from runs import drafts, lifecycle, signoff, undo
from runs.models import Call, Run, RunInput, Undo
from tenants.errors import Refused
from tenants.models import AuditEntry
from tools import catalog
from tools.spec import ToolSpec

from .waiting import at_once
from .world import OPEN, TEXT, TICKET, World, call, schema

UNDO = {"tool": "close_ticket", "args": {"ticket_id": "result.ticket_id"}}


async def put_tools(world: World, compensate: dict[str, Any] | None = None, **more: Any) -> None:
    def put(name: str, path: str, properties: dict[str, Any], **fields: Any) -> None:
        spec = {
            "adapter": {"kind": "http", "url": f"{world.url}{path}"}, "description": name, "effect": "write", "idempotency": "key",
            "input_schema": schema(**properties), "timeout_s": 2, "retry": {"max_attempts": 1},
        }  # fmt: skip
        catalog.put(None, name, ToolSpec.model_validate(spec | fields))

    ticket = {"account_id": TEXT, "priority": {"enum": ["low", "normal", "urgent"]}, "summary": TEXT}
    await sync_to_async(put)("close_ticket", "/desk/tickets/close", {"ticket_id": TEXT}, compensate={"tool": "create_ticket"})
    await sync_to_async(put)("create_ticket", "/desk/tickets", ticket, compensate=compensate or UNDO, **more)
    await world.agent(tools=("create_ticket", "search_docs"))
    await world.permit("create_ticket", "allow", loosen=True)


async def applied(world: World, **tools: Any) -> Run:
    """A run that opened a ticket."""
    await put_tools(world, **tools)
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run)
    return run


async def undone(world: World, run: Run, by: str = "operator", reason: str = "opened by mistake", ord: int = 1) -> Run:
    made: Run = await sync_to_async(undo.undo)(world.people[by], run.id, 1, ord, reason)
    return made


async def refusal(world: World, run: Run, **how: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        await undone(world, run, **how)
    return caught.value.status, caught.value.code


async def decide(world: World, run: Run, by: str = "approver", verdict: str = "approve") -> None:
    await world.until(run, "waiting_approval")
    approval = await Approval.objects.aget(run_id=run.id, state="pending")
    await sync_to_async(signoff.decide)(world.people[by], approval.id, verdict=verdict, digest=approval.digest, reason="so it is")


async def tools_of(world: World) -> list[str]:
    return [effect["tool"] for effect in await world.ledger()]


async def standing(run: Run) -> undo.Undoing:
    def read() -> undo.Undoing:
        asked, calls = RunInput.objects.get(pk=run.pk), Call.objects.filter(run_id=run.id, ord=1)
        now = Run.objects.annotate(now=Now()).get(pk=run.pk).now
        (only,) = undo.of(calls, now, of_undo=undo.is_undo(asked)).values()
        return only

    return await sync_to_async(read)()


@pytest.mark.mission("X8")
async def test_an_undo_is_one_call_of_a_run_of_its_own_that_another_person_approves(world: World) -> None:
    run = await applied(world)
    ticket = (await world.calls(run))[1].result["ticket_id"]
    assert (await standing(run)).available
    made = await undone(world, run)
    await world.until(made, "waiting_approval")
    assert await tools_of(world) == ["create_ticket"]
    with pytest.raises(Refused) as caught:
        await decide(world, made, by="operator")
    assert caught.value.code == "own_run"
    assert (await standing(run)).code == "undo_under_way"
    await decide(world, made)
    assert (await world.until(made)).outcome == "completed"
    assert await tools_of(world) == ["create_ticket", "close_ticket"]
    (only,) = await world.calls(made)
    assert (only.name, only.result["status"], only.result["ticket_id"]) == ("close_ticket", "closed", ticket)
    action = (await RunInput.objects.aget(pk=made.pk)).action
    assert (action["kind"], action["of"], action["args"]) == ("undo", f"{run.run_id}.1.1", {"ticket_id": ticket})
    row = await Undo.objects.aget(run_id=run.id)
    assert (row.action_run, row.reason) == (made.id, "opened by mistake")
    assert await AuditEntry.objects.filter(action="call.undo_started", reason="opened by mistake").acount() == 1


@pytest.mark.mission("X8")
async def test_a_write_is_undone_once(world: World) -> None:
    run = await applied(world)
    made = await undone(world, run)
    assert await refusal(world, run) == (409, "undo_under_way")
    await decide(world, made)
    await world.until(made)
    assert await refusal(world, run) == (409, "already_undone")
    assert await tools_of(world) == ["create_ticket", "close_ticket"]


@pytest.mark.mission("X8")
async def test_two_people_who_undo_at_once_make_one_run(world: World) -> None:
    run = await applied(world)
    people = [world.people[name] for name in ("operator", "approver", "admin", "second")]
    moves = [partial(undo.undo, actor, run.id, 1, 1, "opened by mistake") for actor in people]
    came = await sync_to_async(at_once)(*moves)
    assert sum(isinstance(one, Run) for one in came) == 1
    assert {one.code for one in came if isinstance(one, Refused)} == {"undo_under_way"}
    assert await Run.objects.acount() == 2


@pytest.mark.mission("X8")
async def test_an_undo_that_was_not_made_may_be_asked_for_again_and_only_from_the_first_run(world: World) -> None:
    run = await applied(world)
    first = await undone(world, run)
    await decide(world, first, verdict="reject")
    assert (await world.until(first)).outcome == "approval_rejected"
    assert (await standing(run)).available
    with pytest.raises(Refused) as caught:
        await sync_to_async(lifecycle.retry)(world.people["operator"], first.id)
    assert caught.value.code == "run_not_retryable"
    second = await undone(world, run, reason="now really")
    assert (await Undo.objects.aget(run_id=run.id)).action_run == second.id
    await decide(world, second)
    assert (await world.until(second)).outcome == "completed"
    assert await tools_of(world) == ["create_ticket", "close_ticket"]


@pytest.mark.mission("X8")
async def test_an_undo_is_not_undone(world: World) -> None:
    run = await applied(world)
    made = await undone(world, run)
    await decide(world, made)
    await world.until(made)
    assert (await standing(made)).code == "undo_of_undo"
    assert await refusal(world, made) == (409, "undo_of_undo")


@pytest.mark.mission("X8")
async def test_a_write_whose_outcome_is_unknown_is_not_undone(world: World) -> None:
    await put_tools(world, idempotency="none")
    await world.fault("create_ticket", "drop_after")
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "needs_reconciliation")
    assert await refusal(world, run) == (409, "outcome_unknown")
    assert await Undo.objects.acount() == 0


@pytest.mark.mission("X8")
@pytest.mark.parametrize(
    ("tools", "refused"),
    [
        ({"compensate": UNDO | {"args": {"ticket_id": "result.nope"}}}, (409, "undo_unavailable")),
        ({"compensate": UNDO | {"tool": "nothing"}}, (409, "undo_unavailable")),
        ({"compensate": UNDO | {"tool": "search_docs"}}, (409, "undo_unavailable")),
        ({"compensate": UNDO | {"within_s": 0.001}}, (409, "undo_too_late")),
    ],
)
async def test_what_cannot_be_undone_says_why(world: World, tools: dict[str, Any], refused: tuple[int, str]) -> None:
    run = await applied(world, **tools)
    assert await refusal(world, run) == refused
    assert await Run.objects.acount() == 1


@pytest.mark.mission("X8")
async def test_a_tool_that_is_off_undoes_nothing(world: World) -> None:
    run = await applied(world)
    await sync_to_async(catalog.set_enabled)(None, "close_ticket", False)
    assert await refusal(world, run) == (409, "undo_unavailable")
    await sync_to_async(catalog.set_enabled)(None, "close_ticket", True)
    made = await undone(world, run)
    await world.until(made, "waiting_approval")
    await sync_to_async(catalog.set_enabled)(None, "close_ticket", False)
    await decide(world, made)
    await world.until(made)
    assert await tools_of(world) == ["create_ticket"]


async def test_an_undo_is_under_the_permissions_of_its_own_tool(world: World) -> None:
    run = await applied(world)
    await world.permit("close_ticket", "deny")
    made = await undone(world, run)
    assert (await world.until(made)).outcome == "policy_denied"
    await world.permit("close_ticket", "allow", loosen=True)
    again = await undone(world, run)
    assert (await world.until(again)).outcome == "completed"
    assert await tools_of(world) == ["create_ticket", "close_ticket"]


async def test_the_release_itself_does_not_get_the_tool_that_undoes(world: World) -> None:
    run = await applied(world)
    made = await undone(world, run)
    await decide(world, made)
    await world.until(made)
    other = await world.script(call("close_ticket", ticket_id="tkt_00000000"), {"text": "Done."})
    assert (await world.until(other)).outcome == "completed"
    denied = (await world.calls(other))[1]
    assert denied.state == "blocked" and denied.result["error_type"] == "denied"


async def test_an_undo_is_the_version_that_was_current_when_it_was_asked_for(world: World) -> None:
    run = await applied(world)
    made = await undone(world, run)
    await world.until(made, "waiting_approval")
    pinned = (await RunInput.objects.aget(pk=made.pk)).action["version"]
    other = {"adapter": {"kind": "http", "url": f"{world.url}/nowhere"}, "description": "x", "effect": "write", "input_schema": OPEN}
    await sync_to_async(catalog.put)(None, "close_ticket", ToolSpec.model_validate(other))
    await decide(world, made)
    assert (await world.until(made)).outcome == "completed"
    (only,) = await world.calls(made)
    assert str(only.tool_version_id) == pinned and await tools_of(world) == ["create_ticket", "close_ticket"]


@pytest.mark.mission("X8", "P3.4")
async def test_an_effect_that_was_undone_can_be_made_again(world: World) -> None:
    run = await applied(world, effect_key="ticket:{account_id}")
    made = await undone(world, run)
    await decide(world, made)
    await world.until(made)
    again = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    assert (await world.until(again)).outcome == "completed"
    assert await tools_of(world) == ["create_ticket", "close_ticket", "create_ticket"]
    third = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.until(third)
    assert (await world.calls(third))[1].result["status"] == "already_applied"


async def test_a_retry_makes_a_write_anew_that_was_undone_meanwhile(world: World) -> None:
    await put_tools(world)
    await world.agent(tools=("create_ticket", "search_docs"), budget={"max_steps": 1})
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    assert (await world.until(run)).outcome == "step_limit"
    made = await undone(world, run)
    await decide(world, made)
    await world.until(made)
    again = await sync_to_async(lifecycle.retry)(world.people["operator"], run.id)
    await world.until(again)
    assert await tools_of(world) == ["create_ticket", "close_ticket", "create_ticket"]


async def test_a_draft_that_was_carried_out_can_be_undone(world: World) -> None:
    await put_tools(world)
    run = await world.script(call("create_ticket", **TICKET), {"text": "Drafted."}, mode="draft")
    await world.engine()
    await world.until(run)
    assert await refusal(world, run) == (409, "not_undoable")
    carried = await sync_to_async(drafts.carry_out)(world.people["operator"], run.id, 1, 1)
    await world.until(carried)
    made = await undone(world, carried)
    await decide(world, made)
    assert (await world.until(made)).outcome == "completed"
    assert await tools_of(world) == ["create_ticket", "close_ticket"]


@pytest.mark.mission("X8")
async def test_who_may_ask_for_an_undo_and_of_what(world: World) -> None:
    run = await applied(world)
    assert await refusal(world, run, by="viewer") == (403, "scope_missing")
    assert await refusal(world, run, reason="  ") == (422, "reason_missing")
    for none in (0, 7):
        assert await refusal(world, run, ord=none) == (404, "not_found")
    await Call.objects.filter(run_id=run.id, ord=1).aupdate(ended_at=Now() - timedelta(days=2))
    assert await refusal(world, run) == (409, "undo_too_late")
    assert await Undo.objects.acount() == 0
