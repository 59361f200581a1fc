from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django_q.models import Schedule

from approvals.models import Approval
from runs import lifecycle, tasks
from runs.models import Call, Canary, Run
from runs.states import PEOPLE, TERMINAL, CallState, RunState
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import Tenant

from .waiting import add_call, at_once, call_of, kinds, make_late, make_world, park, person, queued, running, waiting


@pytest.fixture
def world(db):
    return make_world()


def end(run, state=RunState.FAILED):
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, ended_at=Now())
    run.refresh_from_db()
    return run


def refusal(move, *args):
    with pytest.raises(Refused) as refused:
        move(*args)
    return refused.value


def test_a_run_that_nobody_holds_is_cancelled_at_once(world):
    run, approval = waiting(world)
    fence = run.fence
    run = lifecycle.cancel(world.operator, run.id)
    assert (run.state, run.outcome, run.stop) == (
        RunState.CANCELLED,
        "cancelled",
        {"by": world.operator.user.username, "step": 0},
    )
    assert run.ended_at is not None and run.waiting_since is None and run.fence == fence + 1
    assert call_of(run).state == CallState.ABANDONED
    approval.refresh_from_db()
    assert (approval.state, approval.void_reason) == (Approval.State.VOID, "The run was cancelled.")
    assert kinds(run) == ["run_accepted", "approval_voided", "run_completed"]


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.WAITING_TIMER, RunState.QUARANTINED, *PEOPLE])
def test_every_state_without_an_engine_can_be_cancelled(world, state):
    run = running(world)
    park(run, state)
    assert lifecycle.cancel(world.operator, run.id).state == RunState.CANCELLED
    assert kinds(run) == ["run_accepted", "run_completed"]


def test_a_run_that_an_engine_holds_is_only_asked_to_stop(world):
    run = running(world)
    owner = run.owner
    for _ in range(2):
        run = lifecycle.cancel(world.operator, run.id)
        assert (run.state, run.owner, run.fence, run.cancel_requested) == (RunState.RUNNING, owner, 1, True)
    assert kinds(run) == ["run_accepted", "cancel_requested"]


@pytest.mark.parametrize("state", TERMINAL)
def test_a_run_that_has_ended_is_returned_as_it_is(world, state):
    run = end(running(world), state)
    again = lifecycle.cancel(world.operator, run.id)
    assert (again.state, again.ended_at, again.cancel_requested) == (state, run.ended_at, False)
    assert kinds(run) == ["run_accepted"]


def test_cancelling_settles_nothing_about_a_write_that_was_sent(world):
    run = running(world)
    sent = {"state": CallState.DISPATCHED, "dispatched_at": Now()}
    add_call(run, 0, **sent, effect="model")
    add_call(run, 1, **sent, effect="read")
    add_call(run, 2, **sent, effect="write")
    add_call(run, 3, **sent)
    Call.objects.filter(run_id=run.pk, ord=3).update(state=CallState.UNKNOWN)
    add_call(run, 4, state=CallState.READY)
    park(run, RunState.QUARANTINED)
    lifecycle.cancel(world.operator, run.id)
    states = list(Call.objects.filter(run_id=run.pk).order_by("ord").values_list("state", flat=True))
    assert states == ["abandoned", "abandoned", "unknown", "unknown", "abandoned"]


def test_cancel_and_retry_are_for_operators_of_the_tenant(world):
    run = end(running(world))
    viewer = person(world.tenant, "vic", "viewer")
    stranger = person(Tenant.objects.create(slug="globex"), "gil", "admin")
    for move in (lifecycle.cancel, lifecycle.retry):
        assert refusal(move, viewer, run.id).status == 403
        assert refusal(move, stranger, run.id).status == 404
        assert refusal(move, world.operator, new_id()).status == 404


def test_a_platform_admin_cancels_in_every_tenant(world):
    boss = person(Tenant.objects.create(slug="globex"), "boss", "viewer", platform=True)
    assert lifecycle.cancel(boss, queued(world).id).state == RunState.CANCELLED


def test_many_cancellations_at_once_are_one(committed_db):
    world = make_world()
    held, free = running(world), waiting(world)[0]
    for run, kind in ((held, "cancel_requested"), (free, "run_completed")):
        answers = at_once(*[lambda run=run: lifecycle.cancel(world.operator, run.id)] * 6)
        assert len({one.state for one in answers}) == 1
        assert kinds(run).count(kind) == 1


def test_a_retry_is_a_new_run_from_the_same_input_limits_and_release(world):
    first = end(running(world))
    run = lifecycle.retry(world.operator, first.id)
    assert run.id != first.id and run.state == RunState.QUEUED and run.starter == world.operator.user
    assert (run.release, run.mode, run.asked.text) == (first.release, first.mode, first.asked.text)
    assert run.asked.limits == first.asked.limits
    assert run.asked.metadata == first.asked.metadata | {"retry_of": first.run_id}
    assert run.events.get().payload["data"]["retry_of"] == first.run_id
    assert kinds(first) == ["run_accepted"]


@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_only_what_has_failed_is_tried_again(world, state):
    run = running(world)
    if state == "succeeded":
        end(run, RunState.SUCCEEDED)
    refused = refusal(lifecycle.retry, world.operator, run.id)
    assert (refused.code, refused.status, Run.objects.count()) == ("run_not_retryable", 409, 1)


@pytest.mark.parametrize(
    ("path", "effect", "may"),
    [
        ((CallState.DISPATCHED, CallState.DONE), "write", True),  # answered from its record
        ((CallState.DISPATCHED, CallState.UNKNOWN), "write", False),
        ((CallState.DISPATCHED, CallState.UNKNOWN, CallState.ABANDONED), "write", False),
        ((CallState.DISPATCHED, CallState.FAILED_NOT_APPLIED), "write", True),
        ((CallState.READY, CallState.ABANDONED), "write", True),
        ((CallState.DISPATCHED, CallState.DONE), "read", True),
    ],
)
def test_a_run_with_a_write_of_unknown_outcome_is_not_tried_again(world, path, effect, may):
    run = running(world)
    first, *rest = path
    add_call(run, state=first, effect=effect, dispatched_at=Now() if first == CallState.DISPATCHED else None)
    for state in rest:
        Call.objects.filter(run_id=run.pk).update(state=state)
    end(run)
    if may:
        assert lifecycle.retry(world.operator, run.id)
    else:
        assert refusal(lifecycle.retry, world.operator, run.id).code == "retry_would_repeat_writes"


def test_a_retry_needs_the_tenant_and_the_agent_as_they_are_now(world):
    run = end(running(world))
    type(world.agent).objects.update(tenants=["globex"])
    assert refusal(lifecycle.retry, world.operator, run.id).status == 404
    type(world.agent).objects.update(tenants=[])
    Tenant.objects.update(active=False)
    assert refusal(lifecycle.retry, world.operator, run.id).code == "tenant_inactive"


def test_the_jobs_cluster_proves_that_it_lives(db):
    tasks.canary()
    first = Canary.objects.get(name="jobs").at
    tasks.canary()
    assert Canary.objects.get(name="jobs").at > first


def test_the_schedules_are_made_once_and_run_what_they_name(world):
    tasks.ensure_schedules()
    later = Schedule.objects.earliest("next_run").next_run + timedelta(hours=1)
    Schedule.objects.update(next_run=later)
    tasks.ensure_schedules()
    assert sorted(Schedule.objects.values_list("func", flat=True)) == [f"runs.tasks.{name}" for name in sorted(tasks.EVERY_MINUTE)]
    assert set(Schedule.objects.values_list("next_run", flat=True)) == {later}
    _, approval = waiting(world)
    make_late(approval)
    assert tasks.expire_approvals() == 1
