"""Releases that go out in stages: canaries, shadows, promotion with its reasons, and taking one back while runs are in flight."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models import F

from runs import canaries, releases, shadows, stages
from runs import catalog as models
from runs.models import Agent, Call, Evaluation, Release, ReleaseMove, Rollout, Run, RunInput, Suite
from runs.rehearsing import same_question
from runs.spec import ReleaseSpec, limits
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, User

from .world import TICKET, World, call

ASK = call("search_docs", query="refund")
pytestmark = pytest.mark.mission("P12.1")


def platform(world: World, name: str = "root") -> Actor:
    user, _ = User.objects.get_or_create(username=name, defaults={"is_platform_admin": True})
    return Actor(user, world.tenant, "admin")


async def candidate_of(world: World, **block: Any) -> tuple[Release, Release]:
    """The live release and another one of the same agent, which is not live."""
    await world.agent()
    live = await Release.objects.aget(agent_id="helper", number=1)
    await world.agent(**block)
    await Agent.objects.filter(name="helper").aupdate(live=live)
    return live, await Release.objects.aget(agent_id="helper", number=2)


async def canary(world: World, candidate: Release, **options: Any) -> Rollout:
    actor = await sync_to_async(platform)(world)
    return await sync_to_async(stages.canary)(actor, candidate, **options)


@pytest.mark.parametrize(("share", "candidates"), [(0.0, 0), (1.0, 20)])
async def test_a_canary_of_nobody_and_of_everybody(world: World, share: float, candidates: int) -> None:
    _, candidate = await candidate_of(world)
    await canary(world, candidate, steps=(share,))
    for n in range(20):
        await world.submit("hello", user={"id": f"u{n}"})
    assert await Run.objects.filter(release=candidate).acount() == candidates


async def test_a_user_keeps_the_release_that_they_got_also_when_the_share_grows(world: World) -> None:
    _, candidate = await candidate_of(world)
    rollout = await canary(world, candidate, steps=(0.3, 0.7))
    users = [f"u{n}" for n in range(30)]

    async def chosen() -> dict[str, bool]:
        runs = {user: await world.submit("hello", user={"id": user}) for user in users}
        return {user: run.release_id == candidate.id for user, run in runs.items()}

    first, again = await chosen(), await chosen()
    assert first == again and 0 < sum(first.values()) < 30
    assert await sync_to_async(stages.set_share)(await sync_to_async(platform)(world), rollout, 0.7)
    later = await chosen()
    assert sum(later.values()) > sum(first.values()) and all(later[user] for user in users if first[user])


def ended(world: World, release: Release, count: int, *, bad: int = 0, steps: int = 3, writes: int = 0) -> None:
    """Runs that ended just now, as if an engine had driven them."""
    made = [
        Run(
            tenant=world.tenant, agent_id="helper", release=release, deadline_at="2030-01-01T00:00Z", starter=world.people["operator"].user,
            step=steps, writes=writes, cost_micro=1000 * steps,
        )
        for _ in range(count)
    ]  # fmt: skip
    Run.objects.bulk_create(made)
    within = limits(ReleaseSpec.model_validate(release.spec)).model_dump(mode="json")
    RunInput.objects.bulk_create([RunInput(run=run, text="x", limits=within) for run in made])
    ids = [run.id for run in made]
    Run.objects.filter(id__in=ids).update(state="running", owner="01890000-0000-7000-8000-000000000000")
    over = {"owner": None, "ended_at": F("created_at") + timedelta(seconds=2)}
    Run.objects.filter(id__in=ids[:bad]).update(state="failed", outcome="tool_error", **over)
    Run.objects.filter(id__in=ids[bad:]).update(state="succeeded", outcome="completed", **over)


async def test_a_canary_that_does_worse_is_rolled_back_by_itself_and_named(world: World) -> None:
    live, candidate = await candidate_of(world)
    rollout = await canary(world, candidate, steps=(0.5,), enough=60)
    await sync_to_async(ended)(world, live, 60)
    await sync_to_async(ended)(world, candidate, 60, steps=9)
    acted = await sync_to_async(canaries.look)()
    assert [one.id for one in acted] == [rollout.id]
    await rollout.arefresh_from_db()
    assert rollout.state == "rolled_back" and rollout.verdict["verdict"] == "roll_back" and rollout.ended_by_id is None
    assert (await world.submit("hello", user={"id": "u1"})).release_id == live.id
    assert await AuditEntry.objects.filter(action="release.canary_rolled_back").aexists()
    assert await sync_to_async(canaries.look)() == []
    assert (await world.submit("hello")).release_id == live.id


async def test_a_canary_with_enough_good_runs_goes_on_to_its_next_share_and_no_further_by_itself(world: World) -> None:
    live, candidate = await candidate_of(world)
    rollout = await canary(world, candidate, steps=(0.5, 1.0), enough=40)
    await sync_to_async(ended)(world, live, 40)
    await sync_to_async(ended)(world, candidate, 39)
    await sync_to_async(canaries.look)()
    await rollout.arefresh_from_db()
    assert rollout.share == 0.5 and rollout.verdict["why"] == "needs 40 runs, has 39"
    await sync_to_async(ended)(world, candidate, 1)
    await sync_to_async(canaries.look)()
    await rollout.arefresh_from_db()
    assert rollout.share == 1.0 and rollout.state == "running"
    await sync_to_async(canaries.look)()
    await rollout.arefresh_from_db()
    assert rollout.state == "running" and (await Agent.objects.aget(name="helper")).live_id == live.id


@pytest.mark.mission("P12.2")
async def test_promotion_is_refused_with_its_reason_and_two_people_may_overrule_it(world: World) -> None:
    _, candidate = await candidate_of(world)
    rollout = await canary(world, candidate, enough=200)
    await sync_to_async(ended)(world, candidate, 143)
    await sync_to_async(canaries.look)()
    first, second = await sync_to_async(platform)(world), await sync_to_async(platform)(world, "second-root")
    promote = sync_to_async(stages.promote)
    with pytest.raises(Refused) as refused:
        await promote(first, candidate)
    assert refused.value.code == "promotion_refused" and "needs 200 runs" in refused.value.fields["why"]
    for _ in range(2):  # the same person twice is one person
        with pytest.raises(Refused) as refused:
            await promote(first, candidate, "It is a typing mistake in a prompt.", override=True)
        assert refused.value.code == "override_needs_second"
    with pytest.raises(Refused) as refused:
        await promote(second, candidate, " ", override=True)
    assert refused.value.code == "reason_missing"
    assert await promote(second, candidate, "I read the difference.", override=True)
    await rollout.arefresh_from_db()
    assert rollout.state == "promoted" and (await Agent.objects.aget(name="helper")).live_id == candidate.id


@pytest.mark.mission("P9.2")
async def test_a_release_is_not_promoted_past_an_evaluation_that_failed(world: World) -> None:
    _, candidate = await candidate_of(world)
    actor = await sync_to_async(platform)(world)
    suite = await Suite.objects.acreate(name="billing")
    values = {"suite": suite, "release": candidate, "tenant": world.tenant, "started_by": actor.user, "ceiling_micro": 1, "total": 2}
    for passed in (2, 1):  # the newest counts
        await Evaluation.objects.acreate(**values, revision=1, suite_sha256="0" * 64, state="done", result={"runs": 2, "passed": passed})
    with pytest.raises(Refused) as refused:
        await sync_to_async(stages.promote)(actor, candidate)
    assert (refused.value.code, refused.value.fields["why"]) == ("promotion_refused", "its evaluation by billing passed 1 of 2")
    await Evaluation.objects.acreate(**values, revision=1, suite_sha256="0" * 64, state="done", result={"runs": 2, "passed": 2})
    assert await sync_to_async(stages.promote)(actor, candidate)


async def test_of_two_who_promote_and_roll_back_at_once_both_end_in_one_state(world: World) -> None:
    live, candidate = await candidate_of(world)
    actor = await sync_to_async(platform)(world)
    await sync_to_async(releases.promote)(actor, candidate)

    def attempt(function: Any, release: Release) -> str:
        try:
            function(actor, release)
        except Refused as refusal:
            return refusal.code
        return "done"

    told = await asyncio.gather(
        sync_to_async(attempt, thread_sensitive=False)(stages.roll_back, candidate),
        sync_to_async(attempt, thread_sensitive=False)(stages.promote, live),
    )
    assert set(told) <= {"done", "live_changed", "not_live", "no_previous_release"}
    assert (await Agent.objects.aget(name="helper")).live_id in (live.id, candidate.id)


async def test_a_shadow_runs_on_the_candidate_and_changes_nothing(world: World) -> None:
    live, candidate = await candidate_of(world, instructions="Be brief.")
    await world.permit("create_ticket", "allow", loosen=True)
    await world.engine()
    actor = await sync_to_async(platform)(world)
    rollout = await sync_to_async(stages.shadow)(actor, candidate, share=1.0)
    run = await world.until(await world.script(ASK, call("create_ticket", **TICKET), {"text": "Done."}), "succeeded")
    effects = await world.ledger()
    assert await sync_to_async(shadows.launch)() == 1
    assert await sync_to_async(shadows.launch)() == 0  # once
    shadow = await Run.objects.aget(mode="shadow")
    await world.until(shadow, "succeeded")
    assert shadow.release_id == candidate.id and await world.ledger() == effects and run.release_id == live.id
    ticket = await Call.objects.aget(run_id=shadow.id, name="create_ticket")
    assert ticket.decision["from"] == "recorded" and ticket.attempt == 0
    [pair] = await sync_to_async(shadows.pairs)(rollout)
    assert (pair.base.id, pair.shadow.id) == (run.id, shadow.id)


async def test_a_shadow_ends_when_its_budget_is_used_up(world: World) -> None:
    _, candidate = await candidate_of(world)
    await world.engine()
    actor = await sync_to_async(platform)(world)
    rollout = await sync_to_async(stages.shadow)(actor, candidate, share=1.0, max_cost_micro=1)
    await world.until(await world.script({"text": "Done."}), "succeeded")
    await sync_to_async(shadows.launch)()
    await world.until(await Run.objects.aget(mode="shadow"), "succeeded")
    await world.until(await world.script({"text": "Done."}), "succeeded")
    assert await sync_to_async(shadows.launch)() == 0
    await rollout.arefresh_from_db()
    assert rollout.state == "ended" and await Run.objects.filter(mode="shadow").acount() == 1


async def test_runs_in_flight_go_on_with_the_other_release_from_their_next_step(world: World) -> None:
    live, bad = await candidate_of(world, instructions="The bad one.")
    actor = await sync_to_async(platform)(world)
    await Agent.objects.filter(name="helper").aupdate(live=None)
    await sync_to_async(releases.promote)(actor, live)
    await sync_to_async(releases.promote)(actor, bad)
    await world.fault("search_docs", "latency", ms=600)
    await world.engine()
    run = await world.script(ASK, call("fetch_account", account_id="acct_1001"), {"text": "Done."})
    while not await Call.objects.filter(run_id=run.id, name="search_docs", state="dispatched").aexists():
        await asyncio.sleep(0.01)
    to = await sync_to_async(stages.roll_back)(actor, bad, in_flight="move", reason="It loops.")
    assert to.id == live.id and await ReleaseMove.objects.filter(release=bad, to=live).aexists()
    done = await world.until(run, "succeeded")
    assert done.release_id == live.id and (await world.kinds(run)).count("release_changed") == 1
    assert (await world.script({"text": "x"})).release_id == live.id


async def test_runs_in_flight_are_stopped_when_that_is_asked_for(world: World) -> None:
    _, candidate = await candidate_of(world)
    runs = [await world.submit("hello", release=candidate.release_id) for _ in range(3)]
    actor = await sync_to_async(platform)(world)
    assert len(await sync_to_async(stages.stop_in_flight)(actor, candidate)) == 3
    assert {run.state async for run in Run.objects.filter(id__in=[run.id for run in runs])} == {"cancelled"}


async def test_a_release_pins_its_models_and_another_definition_changes_nothing_for_it(world: World) -> None:
    await world.agent()
    actor = await sync_to_async(platform)(world)
    block = {"instructions": "x", "models": {"planner": {"model": "primary"}}}
    first = await sync_to_async(releases.create)(actor, "helper", block)
    assert (await sync_to_async(releases.create)(actor, "helper", block)).id == first.id
    spec = models.ModelSpec.model_validate({"provider": "openai", "base_url": f"{world.url}/nowhere", "model": "gone", "timeout_s": 5})
    await sync_to_async(models.put_model)(None, "primary", spec)
    await Agent.objects.filter(name="helper").aupdate(live=first)
    await world.engine()
    await world.until(await world.script({"text": "Done."}), "succeeded")
    second = await sync_to_async(releases.create)(actor, "helper", block)
    assert second.id != first.id and second.model_versions != first.model_versions
    await Agent.objects.filter(name="helper").aupdate(live=second)
    assert (await world.until(await world.script({"text": "Done."}), "failed")).outcome == "model_error"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"steps": (0.5, 0.2)}, "bad_share"),
        ({"steps": (float("nan"),)}, "bad_share"),
        ({"steps": ()}, "bad_share"),
        ({"key": "moon"}, "bad_key"),
    ],
)
async def test_what_no_canary_can_be_is_refused(world: World, options: dict[str, Any], code: str) -> None:
    _, candidate = await candidate_of(world)
    with pytest.raises(Refused) as refused:
        await canary(world, candidate, **options)
    assert refused.value.code == code and not await Rollout.objects.aexists()


async def test_an_agent_has_one_canary_at_a_time(world: World) -> None:
    live, candidate = await candidate_of(world)
    await canary(world, candidate)
    with pytest.raises(Refused) as refused:
        await canary(world, candidate)
    assert refused.value.code == "rollout_open"
    with pytest.raises(Refused) as refused:
        await canary(world, live)
    assert refused.value.code == "already_live"


def test_a_question_is_asked_again_as_it_was() -> None:
    first = RunInput(text="t", data={"a": 1}, user={"id": "u"}, session="s", metadata={"m": 1})
    again = same_question(first, shadow_of="agt_1")
    assert (again.text, again.data, again.user, again.session) == ("t", {"a": 1}, {"id": "u"}, "s")
    assert json.dumps(again.metadata) == '{"m": 1, "shadow_of": "agt_1"}'
