"""Standing grants: what they approve, how often, and what they never reach; and what broke the glass."""

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models.functions import Now

from approvals import gate, reviews, standing
from approvals.models import Approval, GlassReview, StandingGrant
from runs import standing_grants
from runs.engine.asking import fits
from tenants.actors import Actor
from tenants.models import Member, User

from .test_approvers import State, admin, audited, engines, refused, soon, world, yes
from .waiting import DIGEST, World, ask, at_once, make_world, person, queued
from .world import TICKET, call
from .world import World as EngineWorld

__all__ = ["admin", "engines", "world"]


def grant(world: World, actor: Actor | None = None, **values: Any) -> StandingGrant:
    given: dict[str, Any] = {
        "tenant": world.tenant, "agent": "support-triage", "tool": "create_ticket", "most": 2, "expires_at": soon(), "reason": "routine",
    } | values  # fmt: skip
    return standing.give(actor or world.approver, **given)


def used(approval: Approval) -> bool:
    return gate.use_grant(approval, fits)


@pytest.mark.mission("X4")
def test_a_grant_approves_so_many_calls_and_no_more(world: World) -> None:
    made = grant(world)
    asked = [ask(queued(world)) for _ in range(3)]
    assert [used(one) for one in asked] == [True, True, False]
    made.refresh_from_db()
    assert made.used == 2 and [one.grant_id for one in asked] == [made.pk, made.pk, None]
    assert gate.consume(asked[0], DIGEST)


@pytest.mark.mission("X4")
def test_runs_that_ask_at_once_do_not_use_a_grant_more_often_than_it_allows(committed_db: None) -> None:
    world = make_world()
    made = grant(world, most=3)
    asked = [ask(queued(world)) for _ in range(12)]
    taken = at_once(*[lambda one=one: used(one) for one in asked])
    assert sorted(taken) == [False] * 9 + [True] * 3
    made.refresh_from_db()
    assert made.used == 3 and Approval.objects.filter(grant=made, state=State.APPROVED).count() == 3


@pytest.mark.parametrize(
    "values",
    [
        {"risk": "high"}, {"effect": "irreversible"}, {"tool": "send_email"}, {"agent": "another"}, {"kind": "budget"}, {"kind": "answer"},
        {"needed": 2}, {"group": "finance"},
    ],
)  # fmt: skip
def test_a_grant_never_reaches_beyond_what_it_names_nor_what_its_giver_may_decide(world: World, values: dict[str, Any]) -> None:
    made = grant(world)
    assert not used(ask(queued(world), **values))
    made.refresh_from_db()
    assert made.used == 0


@pytest.mark.parametrize(
    ("when", "args", "granted"),
    [
        ("args.amount < 10", b'{"amount":9}', True), ("args.amount < 10", b'{"amount":11}', False), ("args.amount < 10", b"{}", False),
        ("args.amount < 10", b'{"amount":"9"}', False), ("args.amount", b'{"amount":9}', False), ("", b"{}", True),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_evaluated_grants_nothing(world: World, when: str, args: bytes, granted: bool) -> None:
    grant(world, when=when)
    assert used(ask(queued(world), args=args)) is granted


def test_a_grant_of_the_one_who_started_the_run_does_not_count(world: World) -> None:
    grant(world, Actor(world.starter.user, world.tenant, "approver"))
    assert not used(ask(queued(world)))


@pytest.mark.mission("X4")
@pytest.mark.parametrize("how", ["revoked", "expired", "giver left", "giver off"])
def test_what_a_grant_approved_is_not_sent_once_it_no_longer_holds(world: World, how: str) -> None:
    made = grant(world)
    approval = ask(queued(world))
    assert used(approval)
    if how == "revoked":
        standing_grants.revoke(world.second, made, "misused")
    elif how == "expired":
        StandingGrant.objects.update(expires_at=Now() - timedelta(seconds=1))
    elif how == "giver left":
        Member.objects.filter(user=world.approver.user).update(role="viewer")
    else:
        User.objects.filter(pk=world.approver.user.pk).update(is_active=False)
    assert not gate.consume(approval, DIGEST)
    approval.refresh_from_db()
    assert (approval.state, approval.void_reason) == (State.VOID, "The standing grant was withdrawn.")
    assert not used(ask(queued(world)))


@pytest.mark.mission("X4")
async def test_a_call_that_a_grant_approves_is_sent_without_a_person_and_says_so(engines: EngineWorld) -> None:
    world = engines
    await world.agent()
    give = sync_to_async(standing_grants.give)
    terms: dict[str, Any] = {"agent": "helper", "tool": "create_ticket", "most": 1, "expires_at": soon(), "reason": "routine"}
    made = await give(world.people["approver"], tenant=world.tenant, when="args.priority == 'urgent'", **terms)
    run = await world.script(call("create_ticket", **TICKET), {"text": "Done."})
    other = await world.script(call("create_ticket", **{**TICKET, "account_id": "acct_1002"}), {"text": "Done."})
    await world.engine()
    states = {(await world.until(one, "succeeded", "waiting_approval")).state for one in (run, other)}
    assert states == {"succeeded", "waiting_approval"} and len(await world.ledger()) == 1
    await made.arefresh_from_db()
    assert made.used == 1


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"agent": "nobody"}, "unknown_agent"), ({"tool": "nothing"}, "unknown_tool"), ({"tool": "wipe"}, "never_granted"),
        ({"when": "run.cost_usd > 1"}, "bad_condition"), ({"when": "args.amount <"}, "bad_condition"), ({"most": 0}, "bad_grant"),
        ({"reason": " "}, "reason_missing"),
    ],
)  # fmt: skip
def test_a_grant_names_what_is_there_and_a_condition_over_its_arguments(world: World, values: dict[str, Any], code: str) -> None:
    tool(world, "refund", "write")
    tool(world, "wipe", "irreversible")
    terms: dict[str, Any] = {"agent": "support-triage", "tool": "refund", "most": 1, "expires_at": soon(), "reason": "routine"} | values
    assert refused(standing_grants.give, world.approver, tenant=world.tenant, **terms) == (code, 422)
    assert not StandingGrant.objects.exists()


def tool(world: World, name: str, effect: str) -> None:
    from tools import catalog
    from tools.spec import ToolSpec

    catalog.put(None, name, ToolSpec.model_validate({
        "adapter": {"kind": "http", "url": "https://desk.example.com/x"}, "description": "A tool.", "effect": effect,
        "input_schema": {"type": "object", "additionalProperties": False, "properties": {}},
    }))  # fmt: skip


def test_operators_neither_give_nor_take_grants(world: World) -> None:
    assert refused(grant, world, world.operator) == ("not_yours", 403)
    made = grant(world)
    assert refused(standing_grants.revoke, world.operator, made, "x") == ("not_yours", 403)
    assert refused(standing_grants.revoke, world.approver, made, " ") == ("reason_missing", 422)


# glass ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X4")
def test_broken_glass_is_looked_at_by_another_admin(world: World, admin: Actor) -> None:
    approval = ask(queued(world), needed=2)
    assert yes(admin, approval, break_glass=True, reason="the house is on fire") is gate.Outcome.APPROVED
    assert GlassReview.objects.get().reviewed_at is None
    assert refused(reviews.reviewed, admin, approval, "fine") == ("own_decision", 403)
    assert refused(reviews.reviewed, world.approver, approval, "fine") == ("not_yours", 403)
    other = person(world.tenant, "alma", "admin")
    assert refused(reviews.reviewed, other, approval, " ") == ("note_missing", 422)
    assert reviews.reviewed(other, approval, "It was.").reviewed_by == other.user
    assert refused(reviews.reviewed, other, approval, "again") == ("already_reviewed", 409)
    assert audited("break_glass.reviewed").reason == "It was."


def test_a_decision_by_the_rules_leaves_nothing_to_review(world: World, admin: Actor) -> None:
    approval = ask(queued(world))
    yes(world.operator, approval)
    assert not GlassReview.objects.exists()
    assert refused(reviews.reviewed, admin, approval, "x") == ("nothing_to_review", 409)
