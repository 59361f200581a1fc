"""Ceilings in the document, over the API and in the admin: who sets them, what is told of them, and what they say when they are met."""

from typing import Any

import pytest
from django.test import Client

from console import document
from console.apply import Change, apply
from runs.models import Run
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.models import AuditEntry, Ceiling, Spending, Tenant, User
from tests.runtime.test_ceilings import CAP, ceiling, end
from tests.runtime.waiting import World, make_world, person, queued

from .callers import Caller, caller, refusal
from .past import browser

DAY = "cost_usd_per_day"


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


@pytest.fixture
def root(world: World) -> Actor:
    return person(world.tenant, "root", "admin", platform=True)


# the document -----------------------------------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = {
    "platform": {"ceilings": {DAY: 500}},
    "tenants": [{"slug": "acme", "ceilings": {DAY: 50, "concurrent_runs": 50, "runs_per_minute": 600}}, {"slug": "globex"}],
    "agents": [{"name": "support-triage", "ceilings": {"cost_usd_per_month": "20.5"}}],
}
NAMES = [
    "platform cost_usd_per_day", "tenant acme cost_usd_per_day", "tenant acme concurrent_runs", "tenant acme runs_per_minute",
    "agent support-triage cost_usd_per_month",
]  # fmt: skip


def applied(given: dict[str, Any], **how: Any) -> list[Change]:
    return [change for change in apply(None, document.load(given), **how) if change.kind == "ceiling"]


@pytest.mark.mission("P5.1")
def test_a_document_sets_ceilings_of_the_platform_of_tenants_and_of_agents(world: World) -> None:
    assert applied(GIVEN) == [Change("ceiling", name, "create") for name in NAMES]
    assert applied(GIVEN) == [Change("ceiling", name, "unchanged") for name in NAMES]
    assert list(Ceiling.objects.order_by("id").values_list("tenant__slug", "agent", "kind", "value")) == [
        (None, "", DAY, 500_000_000), ("acme", "", DAY, 50_000_000), ("acme", "", "concurrent_runs", 50),
        ("acme", "", "runs_per_minute", 600), (None, "support-triage", "cost_usd_per_month", 20_500_000),
    ]  # fmt: skip
    assert AuditEntry.objects.filter(action="ceiling.created").count() == 5


def test_what_a_given_block_leaves_out_goes_only_when_it_is_pruned(world: World) -> None:
    applied(GIVEN)
    ceiling(Tenant.objects.get(slug="globex"), DAY, CAP)  # its tenant says nothing about ceilings
    less = {"platform": {"ceilings": {}}, "tenants": [{"slug": "acme", "ceilings": {DAY: 60}}, {"slug": "globex"}]}
    updated = Change("ceiling", "tenant acme cost_usd_per_day", "update", ("value",))
    assert applied(less) == [updated]
    gone = [Change("ceiling", NAMES[n], "delete") for n in (0, 2, 3)]
    assert applied(less, prune=True, dry_run=True)[1:] == gone and Ceiling.objects.count() == 6
    assert applied(less, prune=True)[1:] == gone and Ceiling.objects.count() == 3


@pytest.mark.parametrize("block", [{DAY: -1}, {DAY: "NaN"}, {"concurrent_runs": 1.5}, {"cost_usd_per_year": 1}, {DAY: "0.0000001"}])
def test_a_block_that_makes_no_sense_is_refused_with_its_path(block: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        document.load({"tenants": [{"slug": "acme", "ceilings": block}]})
    assert refused.value.code == "bad_document"
    assert refused.value.fields["errors"][0]["path"].startswith("tenants[0].ceilings.")


# over the API -----------------------------------------------------------------------------------------------------------------


def put(call: Caller, value: Any, kind: str = DAY, **more: Any) -> Any:
    return call.put("/ceilings", {"tenant": "acme", "kind": kind, "value": value, "reason": "a test", **more})


@pytest.mark.mission("P5.1")
def test_a_ceiling_is_set_read_lowered_and_taken_away(world: World, admin: Actor) -> None:
    call = caller(admin)
    end(queued(world), 30_000)
    queued(world)
    made = put(call, "0.5").json()
    assert (made["value"], made["spent_usd"], made["reserved_usd"], made["over"]) == ("0.5", "0.03", "0.08", False)
    assert caller(world.operator).get("/ceilings").json() == {"items": [made], "next_cursor": None}
    lowered = put(call, 0.05).json()
    assert lowered["over"] and "nothing that runs is stopped" in lowered["note"]
    assert refusal(caller(world.operator).post("/runs", {"agent": "support-triage", "input": "x"})) == (402, "ceiling_reached")
    assert put(call, 7, "concurrent_runs").json() | {"live": 1, "value": 7} == put(call, 7, "concurrent_runs").json()
    assert put(call, None).status_code == 204
    assert refusal(put(call, None)) == (404, "not_found")
    assert [e.action for e in AuditEntry.objects.filter(object_kind="ceiling").order_by("id")] == [
        "ceiling.created", "ceiling.changed", "ceiling.created", "ceiling.deleted",
    ]  # fmt: skip


def test_who_may_set_what(world: World, admin: Actor, root: Actor) -> None:
    Tenant.objects.create(slug="globex")
    assert refusal(put(caller(world.approver), 1)) == (403, "scope_missing")
    assert refusal(put(caller(admin), 1, tenant=None)) == (403, "platform_admin_needed")
    assert refusal(put(caller(admin), 1, tenant="globex")) == (404, "not_found")
    assert refusal(put(caller(admin), 1, tenant=None, agent="support-triage")) == (403, "platform_admin_needed")
    assert put(caller(admin), 1, agent="support-triage").status_code == 200
    assert put(caller(root), 1, tenant=None).status_code == 200
    assert [one["scope"] for one in caller(admin).get("/ceilings").json()["items"]] == ["tenant acme, agent support-triage"]
    assert len(caller(root).get("/ceilings").json()["items"]) == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"value": -1}, "bad_ceiling"), ({"value": "NaN"}, "validation"), ({"kind": "x"}, "bad_ceiling"), ({"reason": ""}, "validation"),
        ({"reason": "  "}, "reason_missing"), ({"agent": "nobody"}, "unknown_agent"), ({"more": 1}, "validation"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(world: World, admin: Actor, change: dict[str, Any], code: str) -> None:
    body = {"tenant": "acme", "kind": DAY, "value": 1, "reason": "a test"} | change
    assert refusal(caller(admin).put("/ceilings", body)) == (422, code)


@pytest.mark.mission("P5.2")
def test_a_program_is_told_what_was_met_and_when_it_ends(world: World) -> None:
    ceiling(world.tenant, DAY, CAP // 2)
    answer = caller(world.operator).post("/runs", {"agent": "support-triage", "input": "x"})
    body = answer.json()
    assert refusal(answer) == (402, "ceiling_reached")
    assert (body["scope"], body["kind"], body["value_usd"], body["spent_usd"]) == ("tenant acme", DAY, "0.04", "0")
    assert body["resets_at"].endswith("T00:00:00Z")


def test_a_quota_answers_with_the_time_to_wait(world: World) -> None:
    ceiling(world.tenant, "runs_per_minute", 1)
    call = caller(world.operator)
    assert call.post("/runs", {"agent": "support-triage", "input": "x"}).status_code == 202
    answer = call.post("/runs", {"agent": "support-triage", "input": "x"})
    assert refusal(answer) == (429, "quota_runs_per_minute") and 50 <= int(answer["Retry-After"]) <= 60


# the admin --------------------------------------------------------------------------------------------------------------------


def staff(actor: Actor) -> Client:
    User.objects.filter(pk=actor.user.pk).update(is_staff=True)
    return browser(actor)


def test_the_admin_shows_people_the_ceilings_of_their_tenants_and_keeps_the_others(world: World, admin: Actor, root: Actor) -> None:
    mine, platform = ceiling(world.tenant, DAY, CAP), ceiling(None, DAY, 7 * CAP)
    page = "/admin/tenants/ceiling/"
    assert staff(admin).get(f"{page}{mine.pk}/change/").status_code == 200
    assert staff(admin).get(f"{page}{platform.pk}/change/").status_code == 302
    assert staff(root).get(f"{page}{platform.pk}/change/").status_code == 200
    assert staff(world.operator).get(f"{page}{mine.pk}/change/").status_code == 403


def test_a_change_in_the_admin_is_audited_and_a_tenants_admin_sets_none_for_the_installation(world: World, admin: Actor) -> None:
    made = ceiling(world.tenant, DAY, CAP)
    page, client = "/admin/tenants/ceiling/", staff(admin)
    assert client.post(f"{page}{made.pk}/change/", {"amount": "1.5"}).status_code == 302
    made.refresh_from_db()
    assert made.value == 1_500_000
    assert AuditEntry.objects.filter(action="ceiling.changed", tenant=world.tenant, after__value=1_500_000).count() == 1
    assert client.post(f"{page}add/", {"tenant": "", "agent": "", "kind": DAY, "amount": "1"}).status_code == 200
    assert client.post(f"{page}{made.pk}/change/", {"amount": "-1"}).status_code == 200
    made.refresh_from_db()
    assert (Ceiling.objects.count(), made.value) == (1, 1_500_000)
    queued(world)
    assert Spending.objects.get().reserved_micro == CAP


# who waits --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefer", "priority"), [("wait=1", 1), ("respond-async", 0), ("", 0)])
def test_a_run_whose_caller_waits_goes_before_the_others_of_its_tenant(committed_db: None, prefer: str, priority: int) -> None:
    world = make_world()
    answer = caller(world.operator).post("/runs", {"agent": "support-triage", "input": "x"}, Prefer=prefer)
    assert answer.status_code == 202
    assert Run.objects.get().priority == priority
