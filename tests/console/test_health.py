"""Are people reading what they approve? Figures, findings, the page, the API, and what broke the glass."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from approvals import gate, health, past
from approvals.health import Finding, Missed, Said
from approvals.models import Approval, ApprovalDecision, Opening
from tenants.actors import Actor
from tenants.models import AuditEntry
from tests.runtime.waiting import DIGEST, World, ask, make_late, make_world, person, queued, waiting

from .callers import caller, refusal
from .past import HTMX, browser

START = datetime(2026, 1, 1, tzinfo=UTC)


def one(took: float = 60, **values: Any) -> Said:
    given: dict[str, Any] = {
        "person": "amy", "tool": "refund", "effect": "write", "approved": True, "asked_at": START, "at": START + timedelta(seconds=took),
    } | values  # fmt: skip
    return Said(**given)


def codes(said: list[Said], missed: list[Missed] | None = None) -> dict[str, int]:
    found = health.findings(health.by_person(said), health.by_tool(said, missed or []))
    return {each.code: each.n for each in found}


# figures ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.mission("X4")
def test_times_shares_and_edits_are_counted_by_person_and_by_tool() -> None:
    said = [one(took) for took in range(1, 101)] + [one(5, person="abe", tool="mail", approved=False, edited=True, break_glass=True)]
    amy, abe = health.by_person(said)
    assert (amy.name, amy.decided, amy.p50_s, amy.p95_s, amy.rejection_rate, amy.quick) == ("amy", 100, 50.0, 95.0, 0.0, 1)
    assert (abe.rejected, abe.edited, abe.broke_glass, abe.rejection_rate) == (1, 1, 1, 1.0)
    refund, mail = health.by_tool(said, [Missed("mail"), Missed("page")])[:2]
    assert (refund.name, refund.decided, refund.expired, mail.expired) == ("refund", 100, 0, 1)
    (page,) = [line for line in health.by_tool(said, [Missed("page")]) if line.name == "page"]
    assert (page.decided, page.expired, page.p50_s, page.rejection_rate) == (0, 1, None, None)


@pytest.mark.parametrize(
    ("took", "opened", "quick"),
    [(1.9, None, 1), (2.0, None, 0), (600, 599, 1), (600, 598, 0), (600, 601, 0), (1.0, 0.5, 1)],
)
def test_quick_is_under_two_seconds_from_the_first_opening_or_else_from_the_request(took: float, opened: float | None, quick: int) -> None:
    at = START + timedelta(seconds=opened) if opened is not None else None
    assert health.by_person([one(took, opened_at=at)])[0].quick == quick


@pytest.mark.mission("X4")
@pytest.mark.parametrize(
    ("said", "missed", "found"),
    [
        ([one()] * 400, [], {"never_rejected": 400}), ([one()] * 49, [], {}), ([one()] * 60 + [one(approved=False)], [], {}),
        ([one()] * 60 + [one(edited=True)], [], {}), ([one()] * 7 + [one(approved=False)] * 3, [], {"often_rejected": 3}),
        ([one()] * 4 + [one(approved=False)] * 5, [], {}), ([one(1)] * 12, [], {"too_quick": 12}), ([one(1)] * 4, [], {}),
        ([one()] * 8, [Missed("refund")] * 2, {"unanswered": 2}), ([one()] * 9, [Missed("refund")], {}), ([], [], {}),
    ],
)  # fmt: skip
def test_what_stands_out_is_named_from_ten_on(said: list[Said], missed: list[Missed], found: dict[str, int]) -> None:
    assert codes(said, missed) == found


def test_a_finding_says_what_to_do() -> None:
    said = [one(1)] * 12 + [one()] * 388
    found = health.findings(health.by_person(said), health.by_tool(said, []))
    assert found == [
        Finding("never_rejected", "refund", 400, "refund was never rejected in 400 decisions: write a rule, or give a standing grant."),
        Finding("too_quick", "amy", 12, "12 decisions under two seconds by amy: are they read?"),
    ]
    grave = [one(effect="irreversible")] * 50
    assert "grant" not in health.findings([], health.by_tool(grave, []))[0].text, "what cannot be undone is never granted in advance"


# rows -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


def decided(world: World, actor: Actor, verdict: str = "approve", **more: Any) -> Approval:
    approval = ask(queued(world), **{key: more.pop(key) for key in ("tool", "kind", "needed") if key in more})
    gate.decide(actor, approval, verdict=verdict, digest=DIGEST, **more)
    return approval


@pytest.mark.mission("X4")
def test_the_rows_of_the_last_month_of_one_tenant_are_read(world: World) -> None:
    other = make_world("globex", "other-agent")
    decided(other, other.operator)
    decided(world, world.operator)
    decided(world, world.approver, "reject")
    decided(world, world.approver, kind="budget")
    old = ask(queued(world))
    ApprovalDecision.objects.create(approval=old, user=world.operator.user, verdict="approve", digest=DIGEST, at=Now() - timedelta(days=31))
    late = ask(queued(world))
    make_late(late)
    gate.expire(late)
    since = datetime.now(UTC) - timedelta(days=30)
    assert sorted((said.person, said.approved) for said in past.said(world.tenant.id, since)) == [
        (world.approver.user.username, False), (world.operator.user.username, True),
    ]  # fmt: skip
    assert past.missed(world.tenant.id, since) == [Missed("create_ticket")]
    assert len(past.said(None, since)) == 3


def test_the_first_time_that_somebody_has_a_request_on_their_screen_is_kept(world: World) -> None:
    _, approval = waiting(world)
    client = browser(world.operator)
    path = f"/approvals/{approval.approval_id}/"
    client.get(path + "?part=status")
    assert not Opening.objects.exists()
    client.get(path)
    first = Opening.objects.get()
    client.get(path, headers=HTMX)
    assert Opening.objects.get() == first and first.user == world.operator.user
    stranger = make_world("globex", "other-agent").operator
    assert browser(stranger).get(path).status_code == 404
    assert Opening.objects.count() == 1
    gate.decide(world.operator, approval, verdict="approve", digest=DIGEST)
    (said,) = past.said(world.tenant.id, datetime.now(UTC) - timedelta(days=1))
    assert said.opened_at == first.at


# the API and the page ---------------------------------------------------------------------------------------------------------


def words(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode()))


@pytest.mark.mission("X4")
def test_admins_see_everybody_and_others_themselves(world: World, admin: Actor) -> None:
    decided(world, world.operator)
    decided(world, world.approver, "reject")
    body = caller(admin).get("/approvals/health").json()
    assert (body["days"], body["decided"], body["expired"]) == (30, 2, 0)
    assert {line["name"] for line in body["people"]} == {"otto-acme", "abe-acme"}
    assert [(line["name"], line["rejection_rate"]) for line in body["tools"]] == [("create_ticket", 0.5)]
    mine = caller(world.operator).get("/approvals/health").json()
    assert [line["name"] for line in mine["people"]] == ["otto-acme"] and mine["tools"] == body["tools"]
    page = words(browser(world.operator).get("/approvals/health/").content)
    assert "otto-acme" in page and "abe-acme" not in page and "you see yourself" in page
    assert "abe-acme" in words(browser(admin).get("/approvals/health/").content)
    assert refusal(caller(world.operator, "runs:read").get("/approvals/health")) == (403, "scope_missing")


def test_before_anybody_decided_the_page_says_so(world: World) -> None:
    page = words(browser(world.operator).get("/approvals/health/").content)
    assert "Nobody was asked about a call" in page and "Nothing stands out" in page


def test_what_stands_out_is_on_the_page(world: World, admin: Actor) -> None:
    for _ in range(7):
        decided(world, world.operator)
    for _ in range(3):
        decided(world, world.approver, "reject")
    page = browser(admin).get("/approvals/health/").content
    assert "30% of create_ticket are rejected: fix the agent" in words(page)
    assert "7 decisions under two seconds by otto-acme: are they read?" in words(page)
    assert b'width="30.0%"' in page


@pytest.mark.mission("X4")
def test_broken_glass_is_listed_until_another_admin_has_looked_at_it(world: World, admin: Actor) -> None:
    approval = decided(world, admin, needed=2, break_glass=True, reason="the <house> is on fire")
    other = person(world.tenant, "alma", "admin")
    call = caller(other)
    (row,) = call.get("/approvals/reviews").json()["items"]
    assert (row["approval_id"], row["by"], row["reviewed_by"]) == (approval.approval_id, "ada", None)
    mine = browser(admin).get("/approvals/health/").content.decode()
    assert "the &lt;house&gt; is on fire" in mine and "I have looked at it" not in mine
    client = browser(other)
    empty = client.post("/approvals/health/", {"approval": approval.approval_id, "note": ""})
    assert empty.status_code == 422 and "Say what you found" in words(empty.content)
    answer = client.post("/approvals/health/", {"approval": approval.approval_id, "note": "It was."}, follow=True)
    assert "alma looked at it: It was." in words(answer.content)
    assert refusal(call.post(f"/approvals/{approval.approval_id}/reviewed", {"note": "x"})) == (409, "already_reviewed")
    assert AuditEntry.objects.get(action="break_glass.reviewed").actor == "alma"


def test_another_tenants_broken_glass_is_not_there(world: World, admin: Actor) -> None:
    approval = decided(world, admin, needed=2, break_glass=True, reason="the house is on fire")
    stranger = person(make_world("globex", "other-agent").tenant, "gus", "admin")
    assert caller(stranger).get("/approvals/reviews").json()["items"] == []
    assert refusal(caller(stranger).post(f"/approvals/{approval.approval_id}/reviewed", {"note": "x"})) == (404, "not_found")
    assert browser(stranger).post("/approvals/health/", {"approval": approval.approval_id, "note": "x"}).status_code == 404
