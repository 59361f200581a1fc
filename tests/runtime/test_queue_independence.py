"""Rows are the truth: the jobs' messages may all be lost, or all arrive ten times, and no run is lost, doubled or late for long."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django_q.models import OrmQ, Schedule

from approvals.models import Approval
from runs import tasks
from runs.models import Event

from .world import TICKET, World, call


@pytest.mark.mission("X1")
async def test_ten_copies_of_every_message_change_nothing(world: World) -> None:
    await world.agent(deadlines={"run_s": 60, "approval_s": 0.2})
    runs = [await world.script(call("create_ticket", **TICKET), {"text": "Nobody answered."}) for _ in range(5)]
    await world.engine()
    for run in runs:
        await world.until(run, "waiting_approval", "succeeded")
    jobs = [sync_to_async(job, thread_sensitive=False) for job in (tasks.expire_approvals, tasks.canary) for _ in range(10)]
    await asyncio.gather(*(job() for job in jobs))
    for run in runs:
        assert (await world.until(run)).outcome == "completed"
        assert (await world.kinds(run)).count("approval_expired") == 1
    assert await Approval.objects.filter(state="expired").acount() == 5 and await world.ledger() == []


async def test_without_any_jobs_cluster_runs_start_and_approvals_expire(world: World) -> None:
    """Every message lost: there is no cluster at all, and nothing waits in its queue."""
    await world.agent(deadlines={"run_s": 60, "approval_s": 0.2})
    run = await world.script(call("create_ticket", **TICKET), {"text": "Nobody answered."})
    await world.engine()
    assert (await world.until(run)).outcome == "completed"
    assert not await OrmQ.objects.aexists() and not await Schedule.objects.aexists()
    assert await Event.objects.filter(run_id=run.id, kind="approval_expired").acount() == 1
