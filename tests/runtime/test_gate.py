from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.utils import DatabaseError

from approvals import delegations, gate
from approvals.digest import FIELDS, digest
from approvals.gate import Outcome
from approvals.models import Approval, ApprovalDecision
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import new_id
from tenants.models import Member, Tenant, User
from tenants.roles import SCOPES

from .waiting import DIGEST, ask, make_late, make_world, person, queued, sha256

State = Approval.State


@pytest.fixture
def world(db):
    return make_world()


@pytest.fixture
def run(world):
    return queued(world)


def decide(actor, approval, verdict="approve", digest=DIGEST, **more):
    return gate.decide(actor, approval, verdict=verdict, digest=digest, **more)


def refusal(*args, **kwargs):
    with pytest.raises(Refused) as refused:
        decide(*args, **kwargs)
    return refused.value


def test_a_request_keeps_a_snapshot_of_exactly_what_would_be_sent(run):
    approval = ask(run, args=b'{"a":1}', expires_s=60)
    assert (bytes(approval.args), approval.digest, approval.state) == (b'{"a":1}', DIGEST, State.PENDING)
    assert approval.approval_id.startswith("apr_")
    assert 59 <= (approval.expires_at - approval.created_at).total_seconds() <= 61


def test_asking_twice_about_the_same_thing_is_one_request(run):
    assert ask(run) == ask(run)
    assert Approval.objects.count() == 1


@pytest.mark.mission("X2")
def test_drift_voids_the_open_request_and_says_what_moved(run):
    first = ask(run)
    second = ask(run, tool_version_id=first.tool_version_id, args=b'{"b":1}', digest="e" * 64)
    first.refresh_from_db()
    assert (first.state, first.void_reason) == (State.VOID, "What would be sent has changed: arguments.")
    assert second.state == State.PENDING and second != first
    ask(run, tool_version_id=first.tool_version_id, args=b'{"b":1}', digest="f" * 64)
    second.refresh_from_db()
    assert second.void_reason.endswith("destination or key.")


def test_an_approval_already_given_is_voided_by_drift_too(world, run):
    first = ask(run)
    decide(world.operator, first)
    ask(run, digest="e" * 64)
    first.refresh_from_db()
    assert first.state == State.VOID and not gate.consume(first, DIGEST)


def test_the_database_allows_one_open_request_per_call(run):
    twin = ask(run)
    twin.pk = new_id()
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


@pytest.mark.mission("P10.4")
def test_one_yes_approves_and_one_no_rejects_for_good(world, run):
    yes, no = ask(run), ask(run, ord=2)
    assert decide(world.operator, yes) is Outcome.APPROVED and yes.state == State.APPROVED
    assert decide(world.operator, no, "reject", reason="too much") is Outcome.REJECTED and no.state == State.REJECTED
    assert no.decisions.get().reason == "too much"
    late = refusal(world.approver, no)
    assert (late.code, late.status) == ("already_decided", 409)
    assert (late.fields["winner"], late.fields["verdict"]) == (world.operator.user.username, "reject")
    assert late.fields["at"].endswith("Z")


def test_the_same_person_and_verdict_again_is_recorded_once(world, run):
    approval = ask(run)
    assert [decide(world.operator, approval), decide(world.operator, approval)] == [Outcome.APPROVED, Outcome.REPEATED]
    assert approval.decisions.count() == 1
    assert refusal(world.operator, approval, "reject").code == "already_decided"


@pytest.mark.mission("P10.4")
def test_two_needed_means_two_different_people(world, run):
    approval = ask(run, needed=2)
    assert decide(world.operator, approval) is Outcome.COUNTED and approval.state == State.PENDING
    assert decide(world.operator, approval) is Outcome.REPEATED and approval.state == State.PENDING
    changed_mind = refusal(world.operator, approval, "reject")
    assert (changed_mind.code, changed_mind.fields["winner"]) == ("already_decided", world.operator.user.username)
    assert decide(world.approver, approval) is Outcome.APPROVED and approval.state == State.APPROVED


def test_a_no_beats_an_earlier_yes_while_more_people_are_needed(world, run):
    approval = ask(run, needed=2)
    decide(world.operator, approval)
    assert decide(world.approver, approval, "reject") is Outcome.REJECTED and approval.state == State.REJECTED


@pytest.mark.parametrize("verdict", ["", "APPROVE", "maybe", "approved"])
def test_an_unknown_verdict_is_refused(world, run, verdict):
    assert (refusal(world.operator, ask(run), verdict).code, refusal(world.operator, ask(run), verdict).status) == (
        "unknown_verdict", 422,
    )  # fmt: skip


@pytest.mark.mission("X2")
def test_a_digest_of_something_else_is_refused_with_the_current_one(world, run):
    stale = refusal(world.operator, ask(run), digest="e" * 64)
    assert (stale.code, stale.status, stale.fields["digest"]) == ("stale_digest", 409, DIGEST)
    assert not ApprovalDecision.objects.exists()


def test_after_its_time_nobody_decides(world, run):
    approval = ask(run)
    make_late(approval)
    assert (refusal(world.operator, approval).code, refusal(world.operator, approval).status) == ("approval_expired", 410)
    assert gate.expire(approval) and not gate.expire(approval)
    approval.refresh_from_db()
    assert refusal(world.operator, approval).status == 410


def test_nothing_expires_before_its_time_or_after_a_verdict(world, run):
    early, decided = ask(run), ask(run, ord=2)
    decide(world.operator, decided)
    make_late(decided)
    assert not gate.expire(early) and not gate.expire(decided)


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_nobody_decides_an_approval_of_a_run_they_started(world, run, verdict):
    own = refusal(world.starter, ask(run), verdict)
    assert (own.code, own.status) == ("own_run", 403) and "somebody else must decide" in own.message


def test_not_even_a_platform_admin_decides_on_their_own_run(world, run):
    boss = person(world.tenant, "boss", "admin", platform=True)
    assert refusal(boss, ask(run, starter_id=boss.user.pk)).code == "own_run"
    assert decide(boss, ask(run, ord=2, risk="high")) is Outcome.APPROVED


@pytest.mark.parametrize(
    ("values", "role", "may"),
    [
        ({}, "viewer", False), ({}, "operator", True), ({}, "approver", True), ({}, "admin", True),
        ({"risk": "high"}, "operator", False), ({"risk": "high"}, "approver", True), ({"risk": "odd"}, "operator", False),
        ({"effect": "irreversible"}, "operator", False), ({"effect": "irreversible"}, "approver", True),
    ],
)  # fmt: skip
@pytest.mark.mission("P10.4")
def test_the_role_needed_follows_the_risk(world, run, values, role, may):
    somebody, approval = person(world.tenant, "somebody", role), ask(run, **values)
    if may:
        assert decide(somebody, approval) is Outcome.APPROVED
    else:
        assert refusal(somebody, approval).status == 403
    assert ApprovalDecision.objects.count() == may


def test_a_key_without_the_scope_decides_nothing(world, run):
    narrow = Actor(world.operator.user, world.tenant, "operator", frozenset(SCOPES) - {"approvals:decide"})
    assert refusal(narrow, ask(run)).code == "scope_missing"


def test_another_tenants_approval_does_not_exist(world, run):
    stranger = person(Tenant.objects.create(slug="globex"), "gil", "admin")
    assert (refusal(stranger, ask(run)).code, refusal(stranger, ask(run)).status) == ("not_found", 404)


def test_what_counts_is_the_role_at_the_moment_of_the_verdict(world, run):
    approval = ask(run)
    Member.objects.filter(user=world.operator.user).update(role="viewer")
    assert refusal(world.operator, approval).code == "role_missing"
    Member.objects.filter(user=world.approver.user).delete()
    assert refusal(world.approver, approval).code == "role_missing"
    User.objects.filter(pk=world.second.user.pk).update(is_active=False)
    assert refusal(world.second, approval).code == "account_inactive"


def test_a_reason_is_kept_without_what_cannot_be_stored_and_has_a_limit(world, run):
    decide(world.operator, ask(run), reason="a\0b\ud800c")
    assert ApprovalDecision.objects.get().reason == "a\N{REPLACEMENT CHARACTER}b?c"
    assert refusal(world.operator, ask(run, ord=2), reason="x" * 2001).code == "reason_too_long"


@pytest.mark.mission("X2")
def test_an_approval_is_consumed_once_and_only_for_its_digest(world, run):
    approval = ask(run)
    assert not gate.consume(approval, DIGEST)  # nobody has said yes
    decide(world.operator, approval)
    assert gate.consume(approval, DIGEST) and not gate.consume(approval, DIGEST)
    approval.refresh_from_db()
    assert approval.state == State.CONSUMED
    assert refusal(world.approver, approval, "reject").code == "already_decided"


@pytest.mark.mission("X2")
def test_an_approval_of_something_else_is_void_at_dispatch(world, run):
    approval = ask(run)
    decide(world.operator, approval)
    assert not gate.consume(approval, "e" * 64)
    approval.refresh_from_db()
    assert approval.state == State.VOID
    assert ask(run).state == State.PENDING  # so that people are asked again


def test_an_approver_who_has_left_since_does_not_count_at_dispatch(world, run):
    approval = ask(run, needed=2)
    decide(world.operator, approval)
    decide(world.approver, approval)
    User.objects.filter(pk=world.operator.user.pk).update(is_active=False)
    assert not gate.consume(approval, DIGEST)
    approval.refresh_from_db()
    assert (approval.state, "no longer" in approval.void_reason) == (State.VOID, True)


def edited(actor, approval, args=b'{"b":1}'):
    fields = dict.fromkeys(FIELDS, "") | {"args_sha256": sha256(args.decode())}
    made = gate.edit(actor, approval, args=args, sealed=fields, digest=digest(fields), shown=approval.digest, reason="")
    return made, fields


@pytest.mark.mission("X2")
def test_what_somebody_edited_is_not_sent_on_their_word_alone_once_the_other_has_left(world, run):
    made, fields = edited(world.operator, ask(run))
    decide(world.approver, made, digest=made.digest)
    Member.objects.filter(user=world.approver.user).delete()
    assert not gate.consume(made, made.digest, fields)
    made.refresh_from_db()
    assert (made.state, made.void_reason) == (State.VOID, "Somebody who approved this may no longer decide it.")


@pytest.mark.mission("X2")
def test_a_delegate_in_the_editors_name_is_not_somebody_else(world, run):
    delegations.give(world.approver, world.tenant, to=world.operator.user.username, until=datetime.now(UTC) + timedelta(hours=1))
    made, _ = edited(world.approver, ask(run, risk="high"))
    assert decide(world.operator, made, digest=made.digest) is Outcome.COUNTED
    assert decide(world.second, made, digest=made.digest) is Outcome.APPROVED


@pytest.mark.mission("X2")
def test_what_was_on_the_screen_and_is_not_what_would_be_sent_is_not_sent(world, run):
    made, fields = edited(world.operator, ask(run))
    Approval.objects.filter(pk=made.pk).update(args=b'{"a":1}')
    decide(world.approver, made, digest=made.digest)
    assert not gate.consume(made, made.digest, fields)
    made.refresh_from_db()
    assert (made.state, made.void_reason) == (State.VOID, "What people were shown is not what would be sent: arguments.")


def test_one_approval_can_be_withdrawn_given_or_not_but_never_a_refusal(world, run):
    pending, given, refused = ask(run), ask(run, ord=2), ask(run, ord=3)
    decide(world.operator, given)
    decide(world.operator, refused, "reject")
    assert [gate.withdraw(one.id, "The policy changed.") for one in (pending, given, refused)] == [True, True, False]
    assert not gate.consume(given, DIGEST) and refusal(world.approver, refused).code == "already_decided"


def test_void_closes_what_is_open_and_leaves_what_was_decided(world, run):
    pending, approved, rejected = ask(run), ask(run, ord=2), ask(run, ord=3)
    decide(world.operator, approved)
    decide(world.operator, rejected, "reject")
    assert gate.void(run.pk, "The run was cancelled.") == [pending.pk, approved.pk]
    assert gate.void(run.pk, "again") == []
    rejected.refresh_from_db()
    assert rejected.state == State.REJECTED
    pending.refresh_from_db()
    gone = refusal(world.operator, pending)
    assert (gone.code, gone.status) == ("approval_void", 409) and "The run was cancelled." in gone.message


def test_a_verdict_is_never_changed_afterwards(world, run):
    approval = ask(run)
    decide(world.operator, approval)
    for change in (lambda rows: rows.update(verdict="reject"), lambda rows: rows.delete()):
        with pytest.raises(DatabaseError), transaction.atomic():
            change(ApprovalDecision.objects.all())
    assert connections["default"].settings_dict["USER"] != connections["owner"].settings_dict["USER"]
