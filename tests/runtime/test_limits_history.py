"""A run that met its limits is accounted for by its events: rungs, drafts, critiques, what people granted and carried out."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from console import records
from console.rebuild import differences, rebuild
from runs import drafts, signoff
from runs.models import Event, Run

from .doctor import healthy
from .world import TICKET, World, call

SEARCHES = [call("search_docs", query=word) for word in ("a", "b")]


def not_told(run: Run) -> dict[str, Any]:
    """What of the run's record does not follow from its events."""
    fresh = records.RUN_ROWS.get(id=run.id)
    events = [records.event_record(one) for one in Event.objects.filter(run_id=run.id).order_by("seq")]
    calls = [one for step in records.step_records(fresh) for one in step["calls"]]
    return differences(rebuild(events, calls), records.run_records([fresh])[0])


@pytest.mark.mission("P6.2", "P1.5")
async def test_the_record_of_a_run_that_met_limits_follows_from_its_events(world: World) -> None:
    ladder = [{"on": "tool_unavailable", "do": "draft"}, {"on": "budget_exceeded", "do": "ask"}]
    ladder += [{"on": "provider_degraded", "do": do} for do in ("cached", "retrieval_only")]
    critique = {"model": "spare", "checks": ["answer"]}
    await world.agent(budget={"max_tool_calls": 1}, ladder=ladder, models={"planner": {"model": "primary"}})
    await world.agent("checked", models={"planner": {"model": "primary"}, "critique": critique})
    await world.permit("create_ticket", "allow", loosen=True)
    await world.fault("create_ticket", "429", times=-1)
    await world.engine()
    runs = {
        "drafted": await world.script(call("create_ticket", **TICKET), {"text": "A person will do it."}),
        "asking": await world.script(*SEARCHES, {"text": "done"}),
        "granted": await world.script(*SEARCHES, {"text": "done"}),
        "found": await world.script(SEARCHES[0], {"status": 500}, {"repeat": True}),
        "checked": await world.script({"text": "An answer."}, agent="checked"),
    }
    for name in ("asking", "granted"):
        await world.until(runs[name], "waiting_budget")
    asked = await Approval.objects.aget(run_id=runs["granted"].id)
    await sync_to_async(signoff.decide)(world.people["approver"], asked.id, verdict="approve", digest=asked.digest)
    for name in ("drafted", "granted", "found", "checked"):
        await world.until(runs[name], "succeeded")
    await world.http("DELETE", "/faults")
    kept = next(one for one in await world.calls(runs["drafted"]) if one.error_class == "drafted")
    runs["acted"] = await sync_to_async(drafts.carry_out)(world.people["operator"], kept.run_id, kept.step, kept.ord)
    await world.until(runs["acted"], "succeeded")
    assert {name: await sync_to_async(not_told)(run) for name, run in runs.items()} == {name: {} for name in runs}
    await healthy()
