"""Kill switches end to end: engines stop at the next dispatch, keep what came back, and go on when the switch is lifted."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.db.models.functions import Now

from approvals.models import Approval
from runs import impact, intake, lifecycle, signoff, switches
from runs.engine import people
from runs.models import Run, Switch
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import encode
from tenants.models import AuditEntry, Controls, Tenant, User

from .doctor import healthy
from .world import TICKET, World, call

SEARCH = call("search_docs", query="refund")
WRITE = call("create_ticket", **TICKET)
DONE = {"text": "Done."}


def platform(world: World) -> Actor:
    user, _ = User.objects.get_or_create(username="root", is_platform_admin=True)
    return Actor(user, world.tenant, "admin")


async def throw(world: World, scope: str, then: str = "pause", by: Actor | None = None, **more: Any) -> Switch:
    """By a platform admin; `tenant` is the world's unless it is said."""
    given: dict[str, Any] = {"reason": "the desk is on fire"} | more
    order = switches.Order(scope, then, **given)
    return await sync_to_async(lambda: switches.engage(by or platform(world), order))()


async def lift(world: World, switch: Switch, **more: Any) -> Switch:
    return await sync_to_async(lambda: switches.lift(platform(world), switch.id, "the fire is out", **more))()


async def within_a_call(world: World, *turns: Any, target: str = "search_docs") -> Run:
    """A run whose call of `target` is on its way when this returns, and slow enough to see what comes after it."""
    await world.fault(target, "latency", ms=1500)
    run = await world.script(*turns)
    await world.engine()
    async with asyncio.timeout(30):
        while not any(r["target"] == target for r in await world.received()):
            await asyncio.sleep(0.02)
    return run


async def unsent(world: World, run: Run) -> bool:
    return all(c.dispatched_at is None and c.attempt == 0 for c in await world.calls(run) if c.name == "create_ticket")


def aim(scope: str, world: World) -> dict[str, Any]:
    """What a switch of this scope names."""
    names: dict[str, dict[str, Any]] = {"tenant": {"tenant": world.tenant}, "agent": {"agent": "helper"}, "tool": {"tool": "create_ticket"}}
    return names.get(scope, {})


# the last dispatch ------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
@pytest.mark.parametrize("scope", ["all", "tenant", "agent", "tool", "writes"])
async def test_a_call_in_flight_ends_its_result_is_kept_and_nothing_more_is_sent_until_the_lift(world: World, scope: str) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    run = await within_a_call(world, SEARCH, WRITE, DONE)
    switch = await throw(world, scope, **aim(scope, world))
    paused = await world.until(run, "paused")
    assert paused.paused_by == switch.id and paused.owner is None and paused.waiting_since is not None
    search = next(c for c in await world.calls(run) if c.name == "search_docs")
    assert search.state == "done" and search.result and search.result["ok"]
    assert await world.ledger() == [] and await unsent(world, run)
    parked = (await world.events(run))[-1]
    data = {"state": "paused", "reason": "switch", "switch": encode("swi", switch.id)}
    assert (parked.kind, parked.payload["data"]) == ("run_parked", data)
    await healthy()
    await lift(world, switch)
    done = await world.until(run)
    assert (done.outcome, done.paused_by) == ("completed", None)
    assert [e["tool"] for e in await world.ledger()] == ["create_ticket"]
    assert "run_resumed" in await world.kinds(run)


@pytest.mark.mission("X10")
@pytest.mark.parametrize("scope", ["all", "tenant", "agent", "tool", "writes"])
async def test_a_switch_that_stops_ends_the_run_and_says_which_one_it_was(world: World, scope: str) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    run = await within_a_call(world, SEARCH, WRITE, DONE)
    switch = await throw(world, scope, "stop", **aim(scope, world))
    ended = await world.until(run)
    assert (ended.state, ended.outcome) == ("failed", "stopped_by_switch")
    assert ended.stop and ended.stop["limit"] == "switch" and ended.stop["by"] == str(switch)
    assert next(c for c in await world.calls(run) if c.name == "search_docs").state == "done"
    assert await world.ledger() == [] and "budget_exceeded" not in await world.kinds(run)
    await healthy()


@pytest.mark.mission("X10")
@pytest.mark.parametrize("scope", ["tool", "writes"])
async def test_a_run_that_wants_no_such_call_goes_on_untouched(world: World, scope: str) -> None:
    await world.agent()
    await throw(world, scope, "stop", **aim(scope, world))
    run = await world.script(SEARCH, DONE)
    await world.engine()
    assert (await world.until(run)).outcome == "completed"


@pytest.mark.mission("X10")
@pytest.mark.parametrize("scope", ["tool", "writes"])
async def test_the_reads_beside_a_held_write_are_sent_and_nobody_is_asked_about_it(world: World, scope: str) -> None:
    await world.agent()
    switch = await throw(world, scope, **aim(scope, world))
    both = {"calls": SEARCH["calls"] + WRITE["calls"]}
    run = await world.script(both, DONE)
    await world.engine()
    await world.until(run, "paused")
    assert [(c.name, c.state) for c in await world.calls(run)][1:] == [("search_docs", "done"), ("create_ticket", "ready")]
    assert await unsent(world, run) and not await Approval.objects.filter(run_id=run.id).aexists()
    await lift(world, switch)
    await world.until(run, "waiting_approval")
    assert await Approval.objects.filter(run_id=run.id, state="pending").aexists()


@pytest.mark.mission("X10")
@pytest.mark.parametrize("then", ["pause", "stop"])
async def test_a_queued_run_meets_the_switch_before_its_first_model_call(world: World, then: str) -> None:
    await world.agent()
    run = await world.script(DONE)
    await throw(world, "agent", then, agent="helper", tenant=world.tenant)
    await world.engine()
    await world.until(run, "paused" if then == "pause" else "failed")
    assert await world.calls(run) == [] and not any(r["target"] == "model" for r in await world.received())


async def test_another_tenant_or_agent_is_not_concerned(world: World) -> None:
    await world.agent()
    await world.agent("other")
    elsewhere = await Tenant.objects.acreate(slug="beta")
    await Controls.objects.acreate(tenant=elsewhere)
    rev = (await Controls.objects.aget(tenant=world.tenant)).rev
    await throw(world, "tenant", "stop", tenant=elsewhere)
    await throw(world, "agent", "stop", agent="other")
    assert (await Controls.objects.aget(tenant=world.tenant)).rev == rev + 1  # the agent's is of every tenant
    run = await world.script(DONE)
    await world.engine()
    assert (await world.until(run)).outcome == "completed"


@pytest.mark.mission("X10")
@pytest.mark.parametrize(("scope", "then", "ends"), [("all", "pause", "paused"), ("writes", "pause", "paused"), ("tool", "stop", "failed")])
async def test_an_approved_call_is_not_sent_after_the_switch(
    world: World, scope: str, then: str, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thrown in the last moment: the call was looked at under the old revision, and its transaction is the one that refuses."""
    await world.agent()
    run = await world.script(WRITE, DONE)
    await world.engine()
    await world.until(run, "waiting_approval")
    consume, thrown = people.consume, list[Switch]()

    def thrown_just_before(*args: Any) -> str:
        if not thrown:
            thrown.append(switches.engage(platform(world), switches.Order(scope, then, "stop", **aim(scope, world))))
        return consume(*args)

    monkeypatch.setattr(people, "consume", thrown_just_before)
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    await world.until(run, ends)
    assert await world.ledger() == []
    if ends == "paused":
        await approval.arefresh_from_db()
        assert approval.state == "approved"
        await lift(world, thrown[0])
        await world.until(run)
        assert [e["tool"] for e in await world.ledger()] == ["create_ticket"]
    await healthy()


async def test_a_run_that_waits_for_a_person_stays_and_pauses_when_its_turn_comes(world: World) -> None:
    await world.agent()
    run = await world.script(WRITE, DONE)
    await world.engine()
    await world.until(run, "waiting_approval")
    switch = await throw(world, "all")
    await asyncio.sleep(0)
    assert (await Run.objects.aget(id=run.id)).state == "waiting_approval"
    approval = await Approval.objects.aget(run_id=run.id)
    await sync_to_async(signoff.decide)(world.people["approver"], approval.id, verdict="approve", digest=approval.digest)
    await world.until(run, "paused")
    assert await world.ledger() == []
    await lift(world, switch)
    assert (await world.until(run)).outcome == "completed"


# while it is on ---------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
@pytest.mark.parametrize(("scope", "refused"), [("all", True), ("tenant", True), ("agent", True), ("tool", False), ("writes", False)])
async def test_new_runs_are_refused_with_the_reason_while_whole_runs_are_stopped(world: World, scope: str, refused: bool) -> None:
    await world.agent()
    switch = await throw(world, scope, **aim(scope, world))
    if not refused:
        await world.script(DONE)
        return
    with pytest.raises(Refused) as caught:
        await world.script(DONE)
    said = caught.value
    assert (said.code, said.status) == ("stopped_by_switch", 423)
    assert said.fields["scope"] == scope and said.fields["reason"] == "the desk is on fire" and said.fields["switch"] == str(switch)
    assert await Run.objects.acount() == 0
    await lift(world, switch)
    await world.script(DONE)


async def test_a_retry_is_refused_as_a_new_run_is(world: World) -> None:
    await world.agent()
    run = await world.script({"empty": True})
    await world.engine()
    await world.until(run)
    await throw(world, "all")
    with pytest.raises(Refused, match="operator's switch"):
        await sync_to_async(lifecycle.retry)(world.people["operator"], run.id)


async def test_an_answer_to_an_idempotency_key_is_given_again_also_while_stopped(world: World) -> None:
    await world.agent()
    order = intake.Order(agent="helper", input="hello")
    first = await sync_to_async(intake.submit)(world.people["operator"], order, idempotency_key="k")
    await throw(world, "all")
    again = await sync_to_async(intake.submit)(world.people["operator"], order, idempotency_key="k")
    assert again.replayed and again.run.id == first.run.id


async def test_a_paused_run_can_be_cancelled(world: World) -> None:
    await world.agent()
    run = await world.script(DONE)
    await throw(world, "all")
    await world.engine()
    await world.until(run, "paused")
    await sync_to_async(lifecycle.cancel)(world.people["operator"], run.id)
    ended = await Run.objects.aget(id=run.id)
    assert (ended.state, ended.paused_by) == ("cancelled", None)
    await healthy()


async def paused_by_all(world: World, count: int = 1) -> tuple[Switch, list[Run]]:
    """Runs paused at their claim, and no engine that runs any more."""
    await world.agent()
    runs = [await world.script(DONE) for _ in range(count)]
    switch = await throw(world, "all")
    engine = await world.engine()
    for run in runs:
        await world.until(run, "paused")
    engine.stop()
    await world.engines[-1][1]
    return switch, [await Run.objects.aget(id=run.id) for run in runs]


async def test_the_deadline_stands_still_while_a_switch_holds_the_run(world: World) -> None:
    switch, (run,) = await paused_by_all(world)
    await Run.objects.filter(id=run.id).aupdate(waiting_since=Now() - timedelta(hours=1))
    await lift(world, switch)
    after = await Run.objects.aget(id=run.id)
    assert (after.state, after.waiting_since) == ("queued", None)
    assert timedelta(hours=1) <= after.deadline_at - run.deadline_at < timedelta(hours=1, minutes=5)


async def test_the_deadline_goes_on_where_the_release_counts_waiting(world: World) -> None:
    switch, (run,) = await paused_by_all(world)
    asked = await sync_to_async(lambda: run.asked)()
    asked.limits["count_waiting"] = True
    await asked.asave()
    await Run.objects.filter(id=run.id).aupdate(waiting_since=Now() - timedelta(minutes=1))
    await lift(world, switch)
    assert (await Run.objects.aget(id=run.id)).deadline_at == run.deadline_at


# lifting ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
async def test_a_staged_lift_spreads_the_runs_in_order_and_their_deadlines_with_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "AT_ONCE", 2)
    switch, runs = await paused_by_all(world, 5)
    await lift(world, switch, per_second=0.5)
    after = [await Run.objects.aget(id=run.id) for run in runs]
    assert {run.state for run in after} == {"queued"}
    gaps = [(b.available_at - a.available_at).total_seconds() for a, b in pairwise(after)]
    assert all(1.5 < gap < 3 for gap in gaps), gaps
    moved = [(now.deadline_at - then.deadline_at).total_seconds() for now, then in zip(after, runs, strict=True)]
    assert moved == sorted(moved) and moved[-1] - moved[0] > 7
    await healthy()


async def test_what_another_switch_pauses_too_stays_and_is_its_from_then_on(world: World) -> None:
    first, runs = await paused_by_all(world, 2)
    second = await throw(world, "tenant", tenant=world.tenant)
    await lift(world, first)
    after = await Run.objects.aget(id=runs[0].id)
    assert (after.state, after.paused_by) == ("paused", second.id)
    assert (await world.events(runs[0]))[-1].payload["data"]["switch"] == str(second)
    await lift(world, second)
    assert {r.state async for r in Run.objects.all()} == {"queued"}
    await world.engine()
    for run in runs:
        assert (await world.until(run)).outcome == "completed"


async def test_a_second_switch_that_stops_ends_what_the_first_had_paused(world: World) -> None:
    first, (run,) = await paused_by_all(world)
    second = await throw(world, "agent", "stop", agent="helper")
    await lift(world, first)
    await world.engine()
    ended = await world.until(run)
    assert (ended.outcome, (ended.stop or {})["by"]) == ("stopped_by_switch", str(second))


@pytest.mark.mission("X10")
async def test_a_run_parked_while_its_switch_was_being_lifted_is_not_stranded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    switch, (run,) = await paused_by_all(world)
    monkeypatch.setattr(switches, "release", lambda *_: 0)
    await lift(world, switch)  # as if it had been parked a moment after
    monkeypatch.undo()
    assert await sync_to_async(switches.release_stranded)() == 0  # the lift itself has the first word
    await Switch.objects.filter(id=switch.id).aupdate(lifted_at=Now() - timedelta(seconds=switches.GRACE_S + 1))
    await world.engine()  # its sweep, once a second
    assert (await world.until(run)).outcome == "completed"


async def test_two_people_lift_and_one_of_them_is_told_so(world: World) -> None:
    switch = await throw(world, "all")
    await lift(world, switch)
    with pytest.raises(Refused) as caught:
        await lift(world, switch)
    assert (caught.value.code, caught.value.status) == ("already_lifted", 409)


# who may, and what is written down --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["viewer", "operator", "approver", "admin"])
async def test_in_a_tenant_approvers_and_admins_stop_work_and_nobody_below(world: World, who: str) -> None:
    await world.agent()
    actor = world.people[who]
    orders: list[tuple[str, dict[str, str]]] = [
        ("tenant", {}),
        ("agent", {"agent": "helper"}),
        ("tool", {"tool": "create_ticket"}),
        ("writes", {}),
    ]
    for scope, names in orders:
        if who in ("approver", "admin"):
            switch = await throw(world, scope, by=actor, tenant=world.tenant, **names)
            await sync_to_async(switches.lift)(actor, switch.id, "over")
        else:
            with pytest.raises(Refused) as caught:
                await throw(world, scope, by=actor, tenant=world.tenant, **names)
            assert caught.value.code == ("scope_missing" if who == "viewer" else "role_missing")


async def test_beyond_their_tenant_only_platform_admins_do(world: World) -> None:
    await world.agent()
    beta = await Tenant.objects.acreate(slug="beta")
    admin = world.people["admin"]
    orders: list[tuple[str, dict[str, Any]]] = [("all", {}), ("writes", {}), ("agent", {"agent": "helper"}), ("tenant", {"tenant": beta})]
    for scope, names in orders:
        with pytest.raises(Refused) as caught:
            await throw(world, scope, by=admin, **names)
        assert caught.value.code == "platform_admin_needed", scope
    switch = await throw(world, "all")
    with pytest.raises(Refused) as caught:
        await sync_to_async(switches.lift)(admin, switch.id, "over")
    assert caught.value.code == "platform_admin_needed"
    theirs = await throw(world, "tenant", tenant=beta)
    with pytest.raises(Refused) as caught:
        await sync_to_async(switches.lift)(admin, theirs.id, "over")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("scope", "more", "code"),
    [
        ("everything", {}, "switch_invalid"),
        ("tool", {}, "switch_invalid"),
        ("all", {"tool": "create_ticket"}, "switch_invalid"),
        ("tool", {"tool": "no_such_tool"}, "not_found"),
        ("agent", {"agent": "nobody"}, "not_found"),
        ("all", {"then": "explode"}, "switch_invalid"),
        ("all", {"reason": "  "}, "reason_missing"),
        ("all", {"reason": "x" * 2001}, "reason_too_long"),
    ],
)
async def test_a_switch_that_says_too_little_or_nonsense_is_refused(world: World, scope: str, more: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        await throw(world, scope, **more)
    assert caught.value.code == code and not await Switch.objects.aexists()


async def test_the_same_switch_twice_is_refused_with_the_one_that_is_on(world: World) -> None:
    switch = await throw(world, "all")
    with pytest.raises(Refused) as caught:
        await throw(world, "all")
    assert caught.value.code == "already_on" and caught.value.fields["switch"] == str(switch)


async def test_both_moves_are_audited_with_their_reasons(world: World) -> None:
    switch = await throw(world, "tenant", tenant=world.tenant)
    await lift(world, switch)
    rows = [r async for r in AuditEntry.objects.filter(object_id=str(switch)).order_by("id")]
    assert [(r.action, r.reason, r.tenant_id) for r in rows] == [
        ("switch.engaged", "the desk is on fire", world.tenant.pk),
        ("switch.lifted", "the fire is out", world.tenant.pk),
    ]
    assert rows[0].after and rows[0].after["then"] == "pause"


# drills and numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X10")
async def test_a_drill_changes_nothing_and_counts_what_it_would_have_stopped(world: World) -> None:
    await world.agent()
    await world.permit("create_ticket", "allow", loosen=True)
    rev = (await Controls.objects.aget(tenant=world.tenant)).rev
    drill = await throw(world, "writes", "stop", tenant=world.tenant, drill=True)
    assert (await Controls.objects.aget(tenant=world.tenant)).rev == rev
    run = await world.script(SEARCH, WRITE, DONE)
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    since = await sync_to_async(impact.since)(drill, None)
    assert (since.runs_accepted, since.calls_sent, since.writes_sent) == (1, 1, 1)
    await lift(world, drill)
    assert (await Controls.objects.aget(tenant=world.tenant)).rev == rev


async def test_the_numbers_are_those_of_the_scope(world: World) -> None:
    await world.agent()
    await world.agent("reader", tools=("search_docs",))
    await world.permit("create_ticket", "allow", loosen=True)
    for name in ("helper", "reader"):
        later = await world.script(DONE, agent=name)
        await Run.objects.filter(id=later.id).aupdate(available_at=Now() + timedelta(hours=1))
    run = await within_a_call(world, WRITE, DONE, target="create_ticket")
    found = {scope: await counted(scope, **names) for scope, names in (("all", {}), ("agent", {"agent": "reader"}), ("writes", {}))}
    found |= {"read": await counted("tool", tool="search_docs"), "none": await counted("tenant", tenant=UUID(int=1))}
    figures = {name: (i.in_flight + i.queued, i.calls_in_flight, i.writes_in_flight) for name, i in found.items()}
    assert figures == {"all": (3, 1, 1), "agent": (1, 0, 0), "writes": (2, 1, 1), "read": (3, 0, 0), "none": (0, 0, 0)}
    assert found["all"].last_hour == {"agent": {"helper": 2, "reader": 1}, "tenant": {"acme": 3}, "tool": {"create_ticket": 1}}
    await world.until(run)


async def counted(scope: str, **names: Any) -> impact.Impact:
    return await sync_to_async(lambda: impact.impact(scope, **names))()
