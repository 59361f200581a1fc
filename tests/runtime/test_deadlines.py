"""run > step > call: nothing gets more time than what is above it has left. Read from rows, so that no clock of the test matters."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models import F
from django.db.models.functions import Now

from approvals.models import Approval
from runs.models import Call, Run
from tools import catalog
from tools.spec import ToolSpec

from .test_engine import decide
from .world import TICKET, TOOLS, World, call

ASKS = ({"calls": [{"name": "search_docs", "arguments": {"query": "x"}}]}, {"repeat": True})
MARGIN = timedelta(milliseconds=50)  # between two readings of the database's clock in one statement


def longest(run: Run) -> timedelta:
    """The most time that any send of the run was given."""
    given = Call.objects.filter(run_id=run.id).values_list("dispatched_at", "send_deadline")
    return max(until - at for at, until in given if at and until)


async def retrying(world: World, **retry: Any) -> None:
    """`search_docs` answers 500 for ever and is retried as `retry` says."""
    tool = TOOLS["search_docs"]
    spec = {
        "adapter": {"kind": "http", "url": world.url + tool["path"]}, "description": "search", "effect": "read",
        "input_schema": tool["input"], "timeout_s": 2, "retry": retry,
    }  # fmt: skip
    await sync_to_async(catalog.put)(None, "search_docs", ToolSpec.model_validate(spec))
    await world.fault("search_docs", "500", times=-1)


@pytest.mark.mission("P4.1")
@pytest.mark.parametrize(
    ("deadlines", "target", "most"),
    [
        ({"tool_call_s": 9, "model_call_s": 9, "step_s": 0.6, "run_s": 1.5}, "search_docs", 0.6),
        ({"tool_call_s": 9, "model_call_s": 9, "step_s": 0.6, "run_s": 1.5}, "model", 0.6),
        ({"tool_call_s": 9, "model_call_s": 9, "step_s": 60, "run_s": 0.7}, "search_docs", 0.7),
        ({"tool_call_s": 9, "model_call_s": 9, "step_s": 60, "run_s": 0.7}, "model", 0.7),
        ({"tool_call_s": 0.3, "model_call_s": 0.4, "step_s": 60, "run_s": 1.2}, "search_docs", 0.4),
    ],
)
async def test_a_call_gets_no_more_than_its_step_and_its_run_have_left(
    world: World, deadlines: dict[str, float], target: str, most: float
) -> None:
    await world.agent(deadlines=deadlines)
    await world.fault(target, "hang", times=-1)
    run = await world.script(*ASKS)
    await world.engine()
    done = await world.until(run)
    assert await sync_to_async(longest)(run) <= timedelta(seconds=most) + MARGIN
    late = Call.objects.filter(run_id=run.id, send_deadline__gt=done.deadline_at + MARGIN)
    assert not await late.aexists(), "no send was given time after the run's deadline"
    assert done.ended_at is not None and done.ended_at <= done.deadline_at + timedelta(seconds=5)


async def test_a_step_that_has_used_its_time_sends_nothing_more_and_the_run_goes_on(world: World) -> None:
    await world.agent(deadlines={"tool_call_s": 9, "step_s": 0.5, "run_s": 60})
    await world.fault("search_docs", "hang")
    run = await world.script(ASKS[0], {"text": "Without it."})
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "completed"
    failed = next(c for c in await world.calls(run) if c.name == "search_docs")
    assert failed.error_class == "timeout" and (failed.result or {})["ok"] is False


@pytest.mark.mission("P4.1")
async def test_back_off_that_parks_the_run_counts_in_the_time_of_its_step(world: World) -> None:
    """Retries more than 2 s apart let go of the run in between; five of them do not fit into a step of 5 s."""
    await retrying(world, max_attempts=5, backoff_ms=[4100])
    await world.agent(deadlines={"tool_call_s": 2, "step_s": 5, "run_s": 60})
    run = await world.script(ASKS[0], {"text": "Without it."})
    engine = await world.engine()
    engine.services.rnd = lambda: 0.5
    done = await world.until(run)
    assert done.outcome == "completed"
    sends = [e.at for e in await world.events(run) if e.kind == "tool_call_started"]
    began = next(e.at for e in await world.events(run) if e.kind == "model_call_started")
    assert "run_parked" in await world.kinds(run), "vacuous"
    assert sends[-1] - began <= timedelta(seconds=5) + MARGIN and 2 <= len(sends) < 5


@pytest.mark.mission("P4.1")
async def test_time_in_the_queue_counts(world: World) -> None:
    await world.agent(deadlines={"run_s": 30})
    run = await world.script(*ASKS)
    await Run.objects.filter(id=run.id).aupdate(deadline_at=F("deadline_at") - timedelta(seconds=31))  # as if nobody had been there
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "deadline_exceeded" and await world.calls(run) == []


@pytest.mark.mission("P4.1")
@pytest.mark.parametrize("counted", [False, True])
async def test_an_hour_with_people_counts_only_where_the_release_says_so(world: World, counted: bool) -> None:
    await world.agent(deadlines={"run_s": 60, "step_s": 50, "count_waiting": counted})
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    waiting = await world.until(run, "waiting_approval")
    approval = await Approval.objects.aget(run_id=run.id)
    left = approval.expires_at - approval.created_at
    assert (left <= timedelta(seconds=60)) is counted, "people have no longer than the run, where their time counts"
    hour = timedelta(hours=1)
    moved = {"waiting_since": F("waiting_since") - hour, "deadline_at": F("deadline_at") - hour}
    await Run.objects.filter(id=run.id).aupdate(**moved)  # as if it had been asked an hour ago
    await decide(world, run)
    done = await world.until(run)
    assert done.outcome == ("deadline_exceeded" if counted else "completed")
    assert (len(await world.ledger()) == 1) is not counted
    if not counted:
        assert waiting.deadline_at <= done.deadline_at < waiting.deadline_at + timedelta(minutes=5)


async def test_the_engine_has_the_deadline_of_the_database_however_long_it_took_to_load_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.agent(deadlines={"tool_call_s": 9, "model_call_s": 9, "run_s": 1.5})
    await world.fault("model", "hang", times=-1)
    engine = await world.engine()
    release = engine.services.definitions.release

    async def slowly(release_id: Any) -> Any:
        await asyncio.sleep(0.5)
        return await release(release_id)

    monkeypatch.setattr(engine.services.definitions, "release", slowly)
    run = await world.script(*ASKS)
    done = await world.until(run)
    (ask, *_) = await world.calls(run)
    assert ask.send_deadline is not None and ask.send_deadline <= done.deadline_at + MARGIN


@pytest.mark.forged("no engine parked these runs")
@pytest.mark.parametrize("state", ["waiting_approval", "needs_reconciliation", "waiting_budget", "paused"])
async def test_a_run_that_waits_for_people_is_not_ended_by_its_old_deadline(world: World, state: str) -> None:
    """Its clock stands still, so no engine may take it however long ago the deadline was."""
    await world.agent()
    run = await world.script(*ASKS)
    await Run.objects.filter(id=run.id).aupdate(state="running", owner="00000000-0000-0000-0000-000000000001")
    long_ago = Now() - timedelta(days=2)
    await Run.objects.filter(id=run.id).aupdate(state=state, owner=None, waiting_since=Now() - timedelta(days=3), deadline_at=long_ago)
    other = await world.script({"text": "Done."})
    await world.engine()
    await world.until(other)
    assert (await Run.objects.aget(id=run.id)).state == state
