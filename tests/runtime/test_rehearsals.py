"""Runs that change nothing: forks, replays, shadows, cases. Whatever the model asks for, no write leaves the house."""

import hashlib
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from approvals.models import Approval
from console import doctor, rebuild, records
from runs import forks, rehearsals, rehearsing
from runs.forks import Changes
from runs.models import Call, Release, Run, RunInput
from runs.rehearsals import Rehearsal
from tenants.errors import Refused

from .world import TICKET, World, call

pytestmark = pytest.mark.mission("X9")
ASK = call("search_docs", query="refund")
MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}


async def forked(world: World, run: Run, step: int, **changes: Any) -> Run:
    return await sync_to_async(forks.fork)(world.people["operator"], run.id, step, Changes.model_validate(changes))


async def played(world: World, *turns: Any) -> Run:
    """A real run to its end; writes are allowed."""
    for tool in ("create_ticket", "send_email"):
        await world.permit(tool, "allow", loosen=True)
    return await world.until(await world.script(*turns, {"text": "Done."}), "succeeded")


async def of_tools(world: World) -> list[Any]:
    return [request for request in await world.received() if request["target"] != "model"]


def books(run: Run) -> dict[str, Any]:
    """Field -> (rebuilt, recorded) where a run's history does not account for its row."""
    row = Run.objects.select_related("asked", "release", "tenant").get(id=run.id)
    events = [records.event_record(event) for event in row.events.order_by("seq")]
    calls = [records.call_record(row.run_id, one, []) for one in Call.objects.filter(run_id=run.id)]
    return rebuild.differences(rebuild.rebuild(events, calls), records.run_records([row])[0])


async def test_a_replay_sends_no_write_and_answers_each_from_what_it_came_to(world: World) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, ASK, call("create_ticket", **TICKET), call("send_email", **MAIL))
    sent = len(await of_tools(world))
    replay = await world.until(await forked(world, run, 1, reads="recorded"), "succeeded")
    assert len(await of_tools(world)) == sent == 3 and len(await world.ledger()) == 2
    first = {(c.step, c.ord): c.result for c in await world.calls(run) if c.ord}
    again = {(c.step, c.ord): c.result for c in await world.calls(replay) if c.ord}
    assert again == first
    assert {c.error_class for c in await world.calls(replay) if c.ord} == {rehearsals.REHEARSED}
    assert (replay.mode, replay.tool_calls, replay.writes) == ("fork", 3, 2)
    assert (await world.kinds(replay)).count("call_rehearsed") == 3
    assert await sync_to_async(books)(replay) == {}
    assert not [found for found in await sync_to_async(doctor.examine)(connection) if not found.warning]


async def test_a_fork_keeps_the_steps_before_and_takes_the_rest_anew_with_another_result(world: World) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, call("fetch_account", account_id="acct_1001"), ASK, call("create_ticket", **TICKET))
    said = {"ok": True, "account": {"id": "acct_1001", "status": "closed"}}
    fork = await world.until(await forked(world, run, 2, result={"step": 1, "ord": 1, "result": said}), "succeeded")
    calls = {(c.step, c.ord): c for c in await world.calls(fork)}
    assert calls[1, 1].result == said and calls[1, 1].error_class == rehearsals.COPIED and calls[1, 1].attempt == 0
    assert [(await world.calls(run))[0].result] == [calls[1, 0].result]
    assert fork.step == run.step and fork.cost_micro < run.cost_micro  # what was kept is not paid again
    assert len(await world.ledger()) == 1
    kept = await RunInput.objects.aget(run_id=fork.id)
    assert kept.fork["step"] == 2 and kept.fork["of"] == str(run.id)
    assert await sync_to_async(books)(fork) == {}
    assert not [found for found in await sync_to_async(doctor.examine)(connection) if not found.warning]


async def test_a_fork_of_a_fork_answers_from_what_its_first_run_holds(world: World) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, ASK, call("create_ticket", **TICKET))
    fork = await world.until(await forked(world, run, 2), "succeeded")
    again = await world.until(await forked(world, fork, 2), "succeeded")
    ticket = next(c for c in await world.calls(again) if c.name == "create_ticket")
    assert ticket.result == next(c.result for c in await world.calls(run) if c.name == "create_ticket")
    assert len(await world.ledger()) == 1


async def test_a_live_fork_makes_no_write_twice_and_asks_for_new_ones(world: World) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, ASK, call("create_ticket", **TICKET))
    await world.permit("create_ticket", "ask")
    fork = await world.until(await forked(world, run, 2, writes="live"), "succeeded")
    ticket = next(c for c in await world.calls(fork) if c.name == "create_ticket")
    assert ticket.result["already_applied"] is True and len(await world.ledger()) == 1 and fork.mode == "normal"
    text = '#sim {"turns": [{"text": "x"}]}'
    other = await forked(world, run, 1, writes="live", input=text)
    assert (await world.until(other, "succeeded")).mode == "normal"


async def test_nobody_is_asked_and_what_would_have_been_asked_is_kept(world: World) -> None:
    await world.agent()
    await world.engine()
    first = await world.until(await world.script(ASK, {"text": "Done."}), "succeeded")
    turns = '{"turns": [{"calls": [{"name": "delete_account", "arguments": {"account_id": "acct_1"}}]}, {"text": "Done."}]}'
    fork = await world.until(await forked(world, first, 1, input=f"#sim {turns}"), "succeeded")
    gone = next(c for c in await world.calls(fork) if c.name == "delete_account")
    assert (gone.decision["decision"], gone.decision["from"]) == ("ask", "would_have") and gone.result == rehearsals.KEPT
    assert await Approval.objects.acount() == 0 and await world.ledger() == []


async def test_what_policy_denies_is_denied_in_a_rehearsal_too(world: World) -> None:
    await world.agent()
    await world.engine()
    first = await played(world, call("send_email", **MAIL))
    await world.permit("send_email", "deny")
    replay = await world.until(await forked(world, first, 1))
    mail = next(c for c in await world.calls(replay) if c.name == "send_email")
    assert (mail.state, mail.error_class) == ("blocked", "policy")


async def test_a_case_is_answered_by_what_it_says_and_a_read_without_an_answer_is_sent(world: World) -> None:
    await world.agent()
    await world.engine()
    wanted = [call("search_docs", query="fees"), ASK, call("create_ticket", **TICKET), {"text": "Done."}]
    script = "#sim " + json.dumps({"turns": wanted})
    results = [{"tool": "search_docs", "args": {"query": "fees"}, "result": {"ok": True, "hits": ["none"]}}]
    run = await sync_to_async(case)(world, script, results)
    await world.until(run, "succeeded")
    fees, refund, ticket = [c for c in await world.calls(run) if c.ord]
    assert fees.result["hits"] == ["none"] and fees.decision["from"] == "simulated" and fees.attempt == 0
    assert refund.attempt == 1 and refund.state == "done"
    assert ticket.decision["from"] == "would_have" and await world.ledger() == []


def case(world: World, text: str, results: list[dict[str, Any]]) -> Run:
    actor = world.people["operator"]
    release = Release.objects.get(agent_id="helper")
    asked = RunInput(text=text, metadata={})
    return rehearsing.accept(asked, kind="eval", tenant=world.tenant, release=release, starter=actor.user, results=results, evaluation="x")


async def test_a_fork_starts_as_tainted_as_the_run_was_there(world: World) -> None:
    await world.agent()
    await world.engine()
    await sync_to_async(label)("search_docs", ["untrusted"])
    await world.agent()
    run = await played(world, ASK)
    fork = await forked(world, run, 2)
    assert (await RunInput.objects.aget(run_id=fork.id)).fork["labels"] == ["untrusted"]
    replay = await forked(world, run, 1)
    assert (await RunInput.objects.aget(run_id=replay.id)).fork["labels"] == []


def label(tool: str, labels: list[str]) -> None:
    from tools import catalog
    from tools.models import Tool
    from tools.spec import ToolSpec

    version = Tool.objects.get(name=tool).current
    assert version is not None
    block = {
        "adapter": version.adapter, "description": version.description, "effect": version.effect, "labels": labels,
        "input_schema": version.input_schema, "timeout_s": 2,
    }  # fmt: skip
    catalog.put(None, tool, ToolSpec.model_validate(block))


@pytest.mark.parametrize(
    ("step", "changes", "code"),
    [
        (9, {}, "fork_step_missing"),
        (2, {"result": {"step": 1, "ord": 7, "result": {}}}, "call_missing"),
        (1, {"release": "rel_01J9M7R2AAAAAAAAAAAAAAAAAA"}, "not_found"),
    ],
)
async def test_what_cannot_be_forked_is_refused_by_name(world: World, step: int, changes: dict[str, Any], code: str) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, ASK)
    before = await Run.objects.acount()
    with pytest.raises(Refused) as refused:
        await forked(world, run, step, **changes)
    assert refused.value.code == code and await Run.objects.acount() == before


async def test_a_run_whose_input_was_deleted_cannot_be_forked(world: World) -> None:
    await world.agent()
    await world.engine()
    run = await played(world, ASK)
    asked = await RunInput.objects.aget(run_id=run.id)
    await RunInput.objects.filter(run_id=run.id).adelete()
    with pytest.raises(Refused) as refused:
        await forked(world, run, 1)
    await asked.asave(force_insert=True)
    assert refused.value.code == "history_deleted"


@pytest.mark.parametrize(
    ("reads", "mutating", "source"),
    [("live", False, None), ("live", True, "would_have"), ("recorded", False, "recorded"), ("both", False, None)],
)
def test_what_the_book_does_not_hold(reads: Any, mutating: bool, source: str | None) -> None:
    told = Rehearsal("fork", reads).answer("tool", b"{}", mutating=mutating, before=0)
    assert (told and told.source) == source


def test_the_nth_time_is_answered_with_the_nth_result() -> None:
    key = ("t", hashlib.sha256(b"{}").hexdigest())
    book = Rehearsal("fork", "both", recorded={key: [{"n": 1}, {"n": 2}]})
    told = [book.answer("t", b"{}", mutating=False, before=n) for n in range(4)]
    assert [one and one.result for one in told] == [{"n": 1}, {"n": 2}, {"n": 2}, {"n": 2}]
