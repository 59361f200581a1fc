"""Who decides: groups and what they escalate to, delegations, reminders, standing grants, and glass that was broken."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db.models import F
from django.db.models.functions import Now

from approvals import delegations, gate, groups, timing
from approvals.models import Approval, ApprovalDecision, Delegation, Group
from runs import reminders, signoff
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, Member
from tools import permissions
from tools.models import Permission

from .waiting import DIGEST, World, ask, at_once, kinds, make_world, person, queued, waiting
from .world import TICKET, call, opened
from .world import World as EngineWorld

State = Approval.State


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


@pytest_asyncio.fixture
async def engines(committed_db: None, urls: Any) -> AsyncIterator[EngineWorld]:
    async with opened(urls.engine) as made:
        yield made


def refused(work: Any, *args: Any, **more: Any) -> tuple[str, int]:
    with pytest.raises(Refused) as error:
        work(*args, **more)
    return error.value.code, error.value.status


def yes(actor: Actor, approval: Approval, **more: Any) -> gate.Outcome:
    return gate.decide(actor, approval, verdict="approve", digest=DIGEST, **more)


def part_over(approval: Approval, part: float) -> None:
    """As if this part of the time between asking and expiring were over."""
    whole = F("expires_at") - F("created_at")
    Approval.objects.filter(pk=approval.pk).update(created_at=Now() - whole * part, expires_at=Now() + whole * (1 - part))


def audited(action: str) -> AuditEntry:
    return AuditEntry.objects.get(action=action)


# groups -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("P10.4")
def test_only_the_people_of_its_group_decide_a_request(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    approval = ask(queued(world), group="finance")
    assert refused(yes, world.operator, approval) == ("not_in_group", 403)
    assert refused(yes, world.second, approval) == ("not_in_group", 403)
    assert yes(world.approver, approval) is gate.Outcome.APPROVED


def test_somebody_who_left_the_group_no_longer_counts_when_it_is_sent(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    approval = ask(queued(world), group="finance")
    yes(world.approver, approval)
    groups.put(admin, world.tenant, "finance", [])
    assert not gate.consume(approval, DIGEST)
    approval.refresh_from_db()
    assert (approval.state, approval.void_reason) == (State.VOID, "Somebody who approved this may no longer decide it.")


def test_a_group_is_put_changed_and_deleted_on_record(world: World, admin: Actor) -> None:
    ann, otto = world.starter.user.username, world.operator.user.username
    groups.put(admin, world.tenant, "heads", [ann])
    assert groups.put(admin, world.tenant, "desk", [otto, ann], "heads", "the desk")[1] == "create"
    assert groups.put(admin, world.tenant, "desk", [ann, otto], "heads")[1] == "unchanged"
    assert groups.put(admin, world.tenant, "desk", [ann], "heads")[1] == "update"
    entry = audited("group.updated")
    assert (entry.actor, entry.before["people"], entry.after["people"]) == ("ada", sorted([ann, otto]), [ann])
    heads, desk = (Group.objects.get(name=name) for name in ("heads", "desk"))
    assert refused(groups.delete, admin, heads) == ("group_in_use", 409)
    groups.delete(admin, desk)
    groups.delete(admin, heads)
    assert not Group.objects.exists() and AuditEntry.objects.filter(action="group.deleted").count() == 2


@pytest.mark.parametrize(
    ("name", "people", "upward", "code"),
    [
        ("1st", [], "", "bad_group"), ("a b", [], "", "bad_group"), ("desk", ["nobody"], "", "unknown_person"),
        ("desk", ["abe-globex"], "", "unknown_person"), ("desk", [], "gone", "unknown_group"), ("desk", [], "desk", "bad_group"),
    ],
)  # fmt: skip
def test_a_group_that_makes_no_sense_is_refused(world: World, admin: Actor, name: str, people: list[str], upward: str, code: str) -> None:
    make_world("globex", "other-agent")
    assert refused(groups.put, admin, world.tenant, name, people, upward) == (code, 422)
    assert not Group.objects.exists()


def test_only_admins_of_the_tenant_say_who_is_in_a_group(world: World) -> None:
    foreign = person(make_world("globex", "other-agent").tenant, "gus", "admin")
    for actor in (world.operator, world.approver):
        assert refused(groups.put, actor, world.tenant, "desk", []) == ("scope_missing", 403)
    assert refused(groups.put, foreign, world.tenant, "desk", []) == ("not_yours", 403)


def permit(world: World, **values: Any) -> Permission:
    """A row over a tool that exists in the database."""
    from tools import catalog
    from tools.spec import ToolSpec

    catalog.put(None, "refund", ToolSpec.model_validate({
        "adapter": {"kind": "http", "url": "https://desk.example.com/refund"}, "description": "Pays money back.", "effect": "write",
        "input_schema": {"type": "object", "additionalProperties": False, "properties": {}},
    }))  # fmt: skip
    given: dict[str, Any] = {"decision": "ask", "group": "finance"} | values
    return permissions.set_permission(None, "refund", given.pop("tenant", world.tenant), **given)[0]


def test_a_permission_may_only_name_a_group_that_is_there(world: World, admin: Actor) -> None:
    assert refused(permit, world) == ("unknown_group", 422)
    groups.put(admin, world.tenant, "finance", [])
    row = permit(world)
    assert audited("permission.created").after["group"] == "finance"
    assert refused(groups.delete, admin, Group.objects.get(name="finance")) == ("group_in_use", 409)
    permissions.delete(None, row)
    groups.delete(admin, Group.objects.get(name="finance"))


@pytest.mark.parametrize("wrong", [{"tenant": None}, {"decision": "allow"}, {"decision": "deny"}])
def test_a_group_belongs_to_a_row_that_asks_in_one_tenant(world: World, admin: Actor, wrong: dict[str, Any]) -> None:
    groups.put(admin, world.tenant, "finance", [])
    assert refused(permit, world, **wrong) == ("bad_permission", 422)


def test_another_tenants_group_is_no_group(world: World) -> None:
    other = make_world("globex", "other-agent").tenant
    groups.put(None, other, "finance", [])
    assert refused(permit, world) == ("unknown_group", 422)


@pytest.mark.mission("P10.4")
async def test_the_group_of_a_permission_reaches_the_request(engines: EngineWorld) -> None:
    world = engines
    await sync_to_async(groups.put)(None, world.tenant, "desk", [world.people["approver"].user.username])
    await world.permit("create_ticket", "ask", group="desk")
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    await world.engine()
    await world.until(run, "waiting_approval")
    approval = await Approval.objects.aget(run_id=run.id)
    assert approval.group == "desk"
    requested = next(event for event in await world.events(run) if event.kind == "approval_requested")
    assert requested.payload["data"]["group"] == "desk"


@pytest.mark.mission("P10.4")
@pytest.mark.parametrize("how", ["left the group", "delegation ended", "role lowered"])
async def test_what_was_approved_is_not_sent_once_the_approver_may_no_longer_decide(engines: EngineWorld, how: str) -> None:
    world = engines
    first, second = world.people["approver"], world.people["second"]
    await sync_to_async(groups.put)(None, world.tenant, "desk", [first.user.username])
    await world.permit("create_ticket", "ask", group="desk")
    await world.agent()
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    engine = await world.engine()
    await world.until(run, "waiting_approval")
    engine.stop()
    await world.engines[0][1]
    approval = await Approval.objects.aget(run_id=run.id)
    if how == "delegation ended":
        await sync_to_async(delegations.give)(first, world.tenant, to=second.user.username, until=soon())
    said = {"verdict": "approve", "digest": approval.digest}
    await sync_to_async(signoff.decide)(second if how == "delegation ended" else first, approval.id, **said)
    if how == "left the group":
        await sync_to_async(groups.put)(None, world.tenant, "desk", [])
    elif how == "delegation ended":
        await Delegation.objects.aupdate(until=Now())
    else:
        await Member.objects.filter(user=first.user).aupdate(role="viewer")
    await world.engine()
    await world.until(run, "waiting_approval")
    await approval.arefresh_from_db()
    assert approval.state == State.VOID and await world.ledger() == []
    anew = await Approval.objects.aget(run_id=run.id, state=State.PENDING)
    assert anew.group == "desk" and "approval_voided" in await world.kinds(run)


# time -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "sent", "escalated", "escalates", "reminder", "up"),
    [
        (0.1, 0, False, True, 0, False), (0.25, 0, False, True, 1, False), (0.4, 1, False, True, 0, False), (0.5, 1, False, True, 2, True),
        (0.5, 2, True, True, 0, False), (0.5, 1, False, False, 2, False), (0.9, 0, False, True, 3, True), (0.9, 3, True, True, 0, False),
        (1.0, 0, False, True, 0, False), (-0.1, 0, False, True, 0, False),
    ],
)  # fmt: skip
def test_reminders_come_at_quarters_and_the_escalation_at_half(
    part: float, sent: int, escalated: bool, escalates: bool, reminder: int, up: bool
) -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    now = asked + timedelta(seconds=1000 * part)
    found = timing.due(asked, asked + timedelta(seconds=1000), now, reminders=sent, escalated=escalated, escalates=escalates)
    assert found == timing.Due(reminder, up)


def test_a_request_that_nobody_answers_is_escalated_and_reminded_of_once(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "heads", [world.second.user.username])
    groups.put(admin, world.tenant, "desk", [world.operator.user.username], "heads")
    run, approval = waiting(world, group="desk", expires_s=600)
    assert reminders.sweep() == 0
    assert refused(yes, world.second, approval) == ("not_in_group", 403)
    part_over(approval, 0.6)
    assert (reminders.sweep(), reminders.sweep()) == (2, 0)
    approval.refresh_from_db()
    assert approval.reminders == 2 and approval.escalated_at is not None
    assert kinds(run)[-1] == "approval_escalated"
    assert yes(world.second, approval) is gate.Outcome.APPROVED


def test_the_first_group_may_still_decide_after_the_escalation(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "heads", [])
    groups.put(admin, world.tenant, "desk", [world.operator.user.username], "heads")
    _, approval = waiting(world, group="desk", expires_s=600)
    part_over(approval, 0.6)
    reminders.sweep()
    approval.refresh_from_db()
    assert refused(yes, world.second, approval) == ("not_in_group", 403)
    assert yes(world.operator, approval) is gate.Outcome.APPROVED


def test_requests_of_everybody_are_reminded_of_and_go_to_nobody_else(world: World) -> None:
    _, approval = waiting(world, expires_s=600)
    part_over(approval, 0.8)
    assert reminders.sweep() == 1
    approval.refresh_from_db()
    assert (approval.reminders, approval.escalated_at) == (3, None)


def test_sweeps_at_the_same_time_remind_once(committed_db: None) -> None:
    world = make_world()
    groups.put(None, world.tenant, "heads", [])
    groups.put(None, world.tenant, "desk", [], "heads")
    for _ in range(5):
        _, approval = waiting(world, group="desk", expires_s=600)
        part_over(approval, 0.6)
    counts = at_once(*[reminders.sweep] * 4)
    assert sum(counts) + reminders.sweep() == 10, counts
    assert set(Approval.objects.values_list("reminders", flat=True)) == {2}


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_what_is_decided_is_not_reminded_of(world: World, verdict: str) -> None:
    _, approval = waiting(world, expires_s=600)
    gate.decide(world.operator, approval, verdict=verdict, digest=DIGEST)
    part_over(approval, 0.6)
    assert reminders.sweep() == 0


# delegations ------------------------------------------------------------------------------------------------------------------


def soon(days: float = 1) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_a_delegate_decides_for_the_other_and_both_names_are_kept(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    delegations.give(world.approver, world.tenant, to=world.second.user.username, until=soon(), reason="away")
    approval = ask(queued(world), group="finance")
    assert yes(world.second, approval) is gate.Outcome.APPROVED
    said = ApprovalDecision.objects.get()
    assert (said.user, said.for_user) == (world.second.user, world.approver.user)
    assert gate.consume(approval, DIGEST)
    assert audited("delegation.given").after["to"] == world.second.user.username


def test_one_voice_is_not_counted_twice_by_lending_it(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    delegations.give(world.approver, world.tenant, to=world.second.user.username, until=soon())
    approval = ask(queued(world), group="finance", needed=2)
    assert yes(world.second, approval) is gate.Outcome.COUNTED
    assert yes(world.approver, approval) is gate.Outcome.COUNTED and approval.state == State.PENDING


def test_a_delegation_is_not_passed_on(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    delegations.give(world.approver, world.tenant, to=world.second.user.username, until=soon())
    delegations.give(world.second, world.tenant, to=world.operator.user.username, until=soon())
    assert refused(yes, world.operator, ask(queued(world), group="finance")) == ("not_in_group", 403)


def test_a_delegate_may_no_more_than_the_other(world: World) -> None:
    delegations.give(world.operator, world.tenant, to=world.starter.user.username, until=soon())
    third = person(world.tenant, "tom", "operator")
    risky = ask(queued(world), risk="high")
    assert refused(yes, third, risky) == ("role_missing", 403)
    delegations.give(world.operator, world.tenant, to="tom", until=soon())
    assert refused(yes, third, risky) == ("role_missing", 403)


def test_nobody_decides_their_own_run_through_somebody_else(world: World) -> None:
    approval = ask(queued(world), group="finance")
    groups.put(None, world.tenant, "finance", [world.starter.user.username])
    delegations.give(world.starter, world.tenant, to=world.operator.user.username, until=soon())
    assert refused(yes, world.operator, approval)[1] == 403


def test_a_delegation_that_is_taken_back_voids_what_was_approved_under_it(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    made = delegations.give(world.approver, world.tenant, to=world.second.user.username, until=soon())
    approval = ask(queued(world), group="finance")
    yes(world.second, approval)
    delegations.revoke(world.second, made, "back")
    assert not gate.consume(approval, DIGEST)
    assert refused(yes, world.second, ask(queued(world), group="finance")) == ("not_in_group", 403)
    assert audited("delegation.revoked").reason == "back"


def test_a_delegation_ends_by_itself(world: World, admin: Actor) -> None:
    groups.put(admin, world.tenant, "finance", [world.approver.user.username])
    delegations.give(world.approver, world.tenant, to=world.second.user.username, until=soon())
    Delegation.objects.update(until=Now() - timedelta(seconds=1))
    assert refused(yes, world.second, ask(queued(world), group="finance")) == ("not_in_group", 403)


@pytest.mark.parametrize(
    ("to", "days", "code"),
    [("amy-acme", 91, "bad_delegation"), ("amy-acme", -1, "bad_delegation"), ("abe-acme", 1, "bad_delegation"), ("x", 1, "unknown_person")],
)
def test_a_delegation_goes_to_another_member_for_ninety_days_at_most(world: World, to: str, days: float, code: str) -> None:
    assert refused(delegations.give, world.approver, world.tenant, to=to, until=soon(days)) == (code, 422)


def test_only_admins_delegate_for_others(world: World, admin: Actor) -> None:
    abe, amy = world.approver.user.username, world.second.user.username
    assert refused(delegations.give, world.operator, world.tenant, to=amy, of=abe, until=soon()) == ("not_yours", 403)
    made = delegations.give(admin, world.tenant, to=amy, of=abe, until=soon(), reason="ill")
    assert refused(delegations.revoke, world.operator, made) == ("not_yours", 403)
    assert [one.of.username for one in delegations.visible(world.second)] == [abe]
    assert not delegations.visible(world.operator).exists() and delegations.visible(admin).count() == 1


# standing grants --------------------------------------------------------------------------------------------------------------
