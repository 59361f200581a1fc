import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from django.db.models.functions import Now

from approvals.digest import FIELDS
from approvals.models import Approval, ApprovalDecision
from runs import lifecycle, signoff
from runs.models import Run, RunInput
from runs.states import CallState, RunState
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import Tenant
from tools.models import Tool, ToolVersion

from .waiting import (
    DIGEST,
    add_call,
    ask,
    at_once,
    call_of,
    kinds,
    make_late,
    make_world,
    park,
    person,
    running,
    sha256,
    waiting,
)

State = Approval.State


@pytest.fixture
def world(db):
    return make_world()


def decide(actor, approval, verdict="approve", **more):
    return signoff.decide(actor, approval.id, **({"verdict": verdict, "digest": DIGEST} | more))


def refusal(*args, **kwargs):
    with pytest.raises(Refused) as refused:
        decide(*args, **kwargs)
    return refused.value


@pytest.mark.mission("P10.4")
def test_a_yes_makes_the_call_ready_and_queues_the_run(world):
    run, approval = waiting(world)
    assert decide(world.operator, approval).state == State.APPROVED
    call = call_of(run)
    assert (call.state, call.approval_id, call.result) == (CallState.READY, approval.id, None)
    assert kinds(run) == ["run_accepted", "approval_decided", "run_resumed"]
    assert (run.state, run.waiting_since, run.owner) == (RunState.QUEUED, None, None)


@pytest.mark.mission("P10.4")
def test_a_no_blocks_the_call_tells_the_model_why_and_queues_the_run(world):
    run, approval = waiting(world)
    assert decide(world.operator, approval, "reject", reason="Wrong\0 account").state == State.REJECTED
    call = call_of(run)
    told = {"ok": False, "error_type": "approval_rejected", "message": "Wrong\N{REPLACEMENT CHARACTER} account"}
    assert (call.state, call.result) == (CallState.BLOCKED, told) and call.ended_at is not None
    assert call.dispatched_at is None
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_the_event_says_who_and_what_and_only_the_hash_of_the_reason(world):
    run, approval = waiting(world)
    decide(world.operator, approval, "reject", reason="because of Mrs Smith")
    payload = run.events.get(kind="approval_decided").payload
    assert payload["data"] == {
        "approval_id": approval.approval_id, "by": world.operator.user.username, "verdict": "reject", "state": "rejected",
        "reason_sha256": sha256("because of Mrs Smith"),
    }  # fmt: skip
    assert (payload["step_id"], payload["ord"], payload["tool"], payload["result"]) == (1, 1, "create_ticket", "denied")


def test_the_deadline_moves_on_by_the_time_people_took(world):
    run, approval = waiting(world)
    park(run, waiting_since=Now() - timedelta(hours=1))
    before = run.deadline_at
    decide(world.operator, approval)
    run.refresh_from_db()
    assert timedelta(hours=1) <= run.deadline_at - before < timedelta(hours=1, minutes=1)


def test_the_deadline_stands_when_waiting_counts(world):
    run, approval = waiting(world)
    asked = RunInput.objects.get(pk=run.pk)
    RunInput.objects.filter(pk=run.pk).update(limits=asked.limits | {"count_waiting": True})
    park(run, waiting_since=Now() - timedelta(hours=1))
    before = run.deadline_at
    decide(world.operator, approval)
    run.refresh_from_db()
    assert run.deadline_at == before


@pytest.mark.mission("P10.4")
def test_the_run_waits_until_its_last_call_is_decided(world):
    run = running(world)
    add_call(run, 1)
    add_call(run, 2)
    first, second = ask(run, 1), ask(run, 2)
    park(run)
    decide(world.operator, first)
    assert kinds(run) == ["run_accepted", "approval_decided"]
    assert (run.state, run.waiting_since is not None) == (RunState.WAITING_APPROVAL, True)
    decide(world.operator, second, "reject")
    assert kinds(run)[2:] == ["approval_decided", "run_resumed"]
    assert [call_of(run, n).state for n in (1, 2)] == [CallState.READY, CallState.BLOCKED]


@pytest.mark.mission("P10.4")
def test_with_two_needed_the_first_yes_is_recorded_and_the_run_still_waits(world):
    run, approval = waiting(world, needed=2, effect="irreversible")
    assert decide(world.approver, approval).state == State.PENDING
    assert kinds(run) == ["run_accepted", "approval_decided"] and run.state == RunState.WAITING_APPROVAL
    assert decide(world.second, approval).state == State.APPROVED
    assert kinds(run)[1:] == ["approval_decided", "approval_decided", "run_resumed"]


def test_a_double_click_is_one_decision_and_one_event(world):
    run, approval = waiting(world)
    assert decide(world.operator, approval) == decide(world.operator, approval)
    assert kinds(run) == ["run_accepted", "approval_decided", "run_resumed"]
    assert ApprovalDecision.objects.count() == 1


def test_a_double_click_is_answered_also_after_the_run_has_ended(world):
    run, approval = waiting(world)
    decide(world.operator, approval)
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=new_id())
    Run.objects.filter(pk=run.pk).update(state=RunState.SUCCEEDED, owner=None)
    assert decide(world.operator, approval).state == State.APPROVED


def test_whoever_comes_second_learns_who_was_first(world):
    _, approval = waiting(world)
    decide(world.operator, approval, "reject")
    late = refusal(world.approver, approval)
    assert (late.status, late.fields["winner"], late.fields["verdict"]) == (409, world.operator.user.username, "reject")


def test_a_run_that_does_not_wait_is_not_decided(world):
    run = running(world)
    add_call(run)
    approval = ask(run)
    early = refusal(world.operator, approval)
    assert (early.code, early.status, early.fields["state"]) == ("run_not_waiting", 409, "running")
    assert not ApprovalDecision.objects.exists() and kinds(run) == ["run_accepted"]


def test_a_refusal_leaves_no_trace(world):
    run, approval = waiting(world)
    for actor, more in ((world.starter, {}), (world.operator, {"digest": "e" * 64}), (world.operator, {"verdict": "yes"})):
        refusal(actor, approval, **more)
    assert kinds(run) == ["run_accepted"] and run.state == RunState.WAITING_APPROVAL
    assert call_of(run).state == CallState.WAITING_APPROVAL and not ApprovalDecision.objects.exists()


def desk_tool():
    parts = {"n": {"type": "integer", "maximum": 9}, "to": {"type": "string", "readOnly": True}}
    schema = {"type": "object", "additionalProperties": False, "required": ["n"], "properties": parts}
    tool = Tool.objects.create(name="desk")
    return ToolVersion.objects.create(
        tool=tool, number=1, description="d", effect="write", adapter={}, input_schema=schema, timeout_s=1, sha256="0" * 64
    )


SEALED = {name: "x" for name in FIELDS}


@pytest.mark.mission("X3")
def test_other_arguments_pass_the_schema_and_need_another_person(world):
    args = {"args": b'{"n":1}', "tool_version_id": desk_tool().id, "sealed": SEALED}
    run, approval = waiting(world, **args)
    for wrong in ({"n": 10}, {"n": "1"}, {}, {"n": 1, "more": 2}, {"n": 2, "to": "elsewhere"}):
        assert refusal(world.operator, approval, args=wrong).code == "args_invalid"
    assert refusal(world.operator, approval, verdict="reject", args={"n": 2}).code == "args_refused"
    edited = decide(world.operator, approval, args={"n": 2})
    approval.refresh_from_db()
    assert (approval.state, edited.state, edited.replaces) == ("void", "pending", approval.id)
    assert (bytes(edited.args), bytes(edited.proposed), edited.digest != approval.digest) == (b'{"n":2}', b'{"n":1}', True)
    assert (bytes(call_of(run).args), bytes(call_of(run).proposed)) == (b'{"n":2}', b'{"n":1}')
    assert refusal(world.second, approval).code == "approval_void"
    assert refusal(world.second, edited).code == "stale_digest"
    decide(world.second, edited, digest=edited.digest)
    edited.refresh_from_db()
    assert edited.state == "approved" and "approval_edited" in kinds(run)


@pytest.mark.mission("X3", "X4")
def test_an_edit_takes_the_earlier_yes_away(world):
    args = {"args": b'{"n":1}', "tool_version_id": desk_tool().id, "sealed": SEALED, "needed": 2}
    _, approval = waiting(world, **args)
    decide(world.operator, approval)
    edited = decide(world.second, approval, args={"n": 3})
    assert [d.user for d in edited.decisions.all()] == [world.second.user] and edited.state == "pending"
    decide(world.operator, edited, digest=edited.digest)
    edited.refresh_from_db()
    assert edited.state == "approved"


def test_an_approval_of_another_tenant_or_of_nobody_does_not_exist(world):
    _, approval = waiting(world)
    stranger = person(Tenant.objects.create(slug="globex"), "gil", "admin")
    assert refusal(stranger, approval).status == 404
    assert refusal(world.operator, Approval(id=new_id())).status == 404


def test_a_platform_admin_decides_in_every_tenant(world):
    run, approval = waiting(world, risk="high")
    decide(person(Tenant.objects.create(slug="globex"), "boss", "viewer", platform=True), approval)
    run.refresh_from_db()
    assert run.state == RunState.QUEUED


def test_an_approval_outlives_its_run(world):
    _, approval = waiting(world)
    decide(world.operator, approval)
    Approval.objects.filter(pk=approval.pk).update(run_id=new_id())
    assert decide(world.operator, approval).state == State.APPROVED
    assert refusal(world.approver, approval).code == "already_decided"


@pytest.mark.mission("P10.4")
def test_when_nobody_decides_in_time_the_call_is_blocked_and_the_run_goes_on(world):
    run, approval = waiting(world)
    assert signoff.expire_due() == 0
    make_late(approval)
    assert (signoff.expire_due(), signoff.expire_due()) == (1, 0)
    approval.refresh_from_db()
    call = call_of(run)
    assert (approval.state, call.state, call.result["error_type"]) == (State.EXPIRED, CallState.BLOCKED, "approval_expired")
    assert kinds(run) == ["run_accepted", "approval_expired", "run_resumed"] and run.state == RunState.QUEUED


def test_expiry_of_one_call_leaves_the_other_waiting(world):
    run = running(world)
    add_call(run, 1)
    add_call(run, 2)
    late, early = ask(run, 1), ask(run, 2)
    park(run)
    make_late(late)
    assert signoff.expire_due() == 1
    run.refresh_from_db()
    early.refresh_from_db()
    assert (run.state, early.state) == (RunState.WAITING_APPROVAL, State.PENDING)


def test_what_cannot_expire_now_does_not_stand_in_the_way_of_what_can(world):
    held = running(world)
    add_call(held)
    make_late(ask(held))
    _, approval = waiting(world)
    make_late(approval)
    assert signoff.expire_due(limit=1) == 1
    assert kinds(held) == ["run_accepted"]


def test_a_run_locked_by_somebody_is_left_to_the_next_round(committed_db):
    world = make_world()
    run, approval = waiting(world)
    make_late(approval)
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        assert at_once(signoff.expire_due) == [0]
    assert signoff.expire_due() == 1


def consistent(run, approval):
    """However a race ended: approval, decisions, call, run and history tell one story."""
    approval.refresh_from_db()
    state, kind = {
        "approved": (CallState.READY, "approval_decided"),
        "rejected": (CallState.BLOCKED, "approval_decided"),
        "expired": (CallState.BLOCKED, "approval_expired"),
    }[approval.state]
    assert kinds(run) == ["run_accepted", kind, "run_resumed"]
    assert (call_of(run).state, run.state) == (state, RunState.QUEUED)
    assert ApprovalDecision.objects.filter(approval=approval).count() == (kind == "approval_decided")
    return approval.state


@pytest.mark.mission("P10.4")
def test_of_a_yes_and_a_no_at_once_exactly_one_wins(committed_db):
    world = make_world()
    for _ in range(30):
        run, approval = waiting(world)
        yes = lambda approval=approval: decide(world.operator, approval)
        no = lambda approval=approval: decide(world.approver, approval, "reject")
        answers = at_once(yes, no)
        (loser,) = [one for one in answers if isinstance(one, Refused)]
        winner = world.operator.user.username if answers.index(loser) == 1 else world.approver.user.username
        assert (loser.code, loser.fields["winner"]) == ("already_decided", winner)
        assert consistent(run, approval) == (State.APPROVED if answers.index(loser) == 1 else State.REJECTED)


def test_eight_clicks_of_one_person_at_once_are_one_decision(committed_db):
    world = make_world()
    run, approval = waiting(world)
    answers = at_once(*[lambda: decide(world.operator, approval)] * 8)
    assert {one.state for one in answers} == {State.APPROVED}
    assert consistent(run, approval) == State.APPROVED


@pytest.mark.mission("P10.4")
def test_two_of_three_people_at_once_are_enough_and_the_third_is_told(committed_db):
    world = make_world()
    for _ in range(10):
        run, approval = waiting(world, needed=2)
        people = (world.operator, world.approver, world.second)
        answers = at_once(*[lambda actor=actor, approval=approval: decide(actor, approval) for actor in people])
        (third,) = [one for one in answers if isinstance(one, Refused)]
        assert third.code == "already_decided"
        approval.refresh_from_db()
        assert approval.state == State.APPROVED
        assert kinds(run)[1:] == ["approval_decided", "approval_decided", "run_resumed"]


def test_a_yes_and_a_cancellation_at_once_tell_one_story(committed_db):
    world = make_world()
    for _ in range(30):
        run, approval = waiting(world)
        yes = lambda approval=approval: decide(world.operator, approval)
        answer, cancelled = at_once(yes, lambda run=run: lifecycle.cancel(world.starter, run.id))
        assert cancelled.state == RunState.CANCELLED
        approval.refresh_from_db()
        assert approval.state == State.VOID  # also one that was given a moment before
        decided = "approval_decided" in kinds(run)
        assert decided == (not isinstance(answer, Refused))
        assert call_of(run).state == CallState.ABANDONED
        if not decided:
            assert answer.code in ("approval_void", "run_not_waiting")


@pytest.mark.mission("P10.4")
def test_a_yes_and_the_expiry_at_once_have_one_winner(committed_db):
    world = make_world()
    for nth in range(20):
        run, approval = waiting(world, expires_s=0.1)
        early = timedelta(milliseconds=2 * nth)  # from hopeless to comfortable
        yes = lambda approval=approval, early=early: at(approval.expires_at - early, lambda: decide(world.operator, approval))
        answer, expired = at_once(yes, lambda approval=approval: at(approval.expires_at, signoff.expire_due))
        expired += signoff.expire_due()
        state = consistent(run, approval)
        if state == State.APPROVED:
            assert expired == 0 and answer.state == State.APPROVED
        else:
            assert (state, expired, answer.code) == (State.EXPIRED, 1, "approval_expired")


def at(moment, move):
    """The race is about the database's own clock, which cannot be moved: so this waits for it."""
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
    return move()
