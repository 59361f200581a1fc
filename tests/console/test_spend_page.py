"""The spend page: what was spent, how far each ceiling is used, where its pace leads, and setting one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from console import spending
from console.pages.spend import foretold
from console.spending import Standing
from runs.models import Step
from tenants import windows
from tenants.actors import Actor
from tenants.models import AuditEntry, Ceiling
from tests.runtime.test_ceilings import CAP, ceiling
from tests.runtime.test_ceilings import end as settle
from tests.runtime.waiting import World, make_world, person, queued

from .past import browser, called, ended

DAY = "cost_usd_per_day"
H = timedelta(hours=1)


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def admin(world: World) -> Actor:
    return person(world.tenant, "ada", "admin")


def text(actor: Actor, path: str = "/spend/") -> str:
    answer = browser(actor).get(path)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_without_ceilings_and_runs_the_page_says_so(world: World, admin: Actor) -> None:
    assert "Set one here, or in a configuration document" in text(admin)
    assert "nothing was spent" in text(admin)
    said = text(world.operator)
    assert "An admin of the tenant sets one" in said and "Set a ceiling" not in said


@pytest.mark.mission("P5.1")
def test_each_ceiling_shows_what_is_spent_reserved_and_when_it_resets(world: World, admin: Actor) -> None:
    settle(queued(world), 30_000)
    queued(world)
    ceiling(world.tenant, DAY, 2 * CAP)
    ceiling(world.tenant, "concurrent_runs", 4)
    ceiling(None, DAY, CAP)
    context = browser(admin).get("/spend/").context
    assert [group["title"] for group in context["groups"]] == ["Tenant acme"]
    cost, live = context["groups"][0]["lines"]
    assert (cost.standing.spent, cost.standing.reserved, cost.used_text, cost.limit_text) == (30_000, CAP, "$0.11", "$0.16")
    assert cost.standing.ends_at - cost.standing.starts_at == timedelta(days=1)
    assert (live.used, live.limit) == (1, 4)
    said = text(admin)
    assert "$0.030 spent, $0.080 reserved" in said and "At this pace" in said
    ceiling(world.tenant, DAY, CAP)
    assert "no new run is accepted until there is room" in text(admin, "/spend/?part=ceilings")
    root = person(world.tenant, "root", "admin", platform=True)
    assert [group["title"] for group in browser(root).get("/spend/").context["groups"]] == ["Platform", "Tenant acme"]


@pytest.mark.parametrize(
    ("spent", "value", "words", "late"),
    [
        (0, 50, "Nothing spent in this window yet.", False),
        (10, 50, "At this pace $20.00 by midnight UTC.", False),
        (20, 30, "At this pace $40.00 by midnight UTC, over the ceiling at 18:00.", True),
        (31, 30, "At this pace $62.00 by midnight UTC; the ceiling is reached.", True),
    ],
)
def test_the_pace_is_a_straight_line_from_the_windows_start(spent: int, value: int, words: str, late: bool) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    end, now = windows.ends(DAY, start), start + 12 * H
    pace = windows.pace(spent * 10**6, value * 10**6, start, end, now)
    one = Standing(Ceiling(kind=DAY, value=value * 10**6), spent * 10**6, spent * 10**6, 0, start, end, pace)
    assert foretold(one) == (words, late)


def test_cost_by_day_agent_model_and_role_come_to_the_same(world: World, admin: Actor) -> None:
    other = make_world("globex", "other")
    for days, cost in ((0, 10_000), (0, 5_000), (3, 20_000), (20, 99_000)):
        run = ended(world, timedelta(days=days, minutes=1), cost_micro=cost)
        called(run, ord=0, name="primary", cost_micro=cost)
        Step.objects.create(run=run, step=1, tenant_id=run.tenant_id, role="planner", model="primary", calls=0)
    ended(other, H, cost_micro=7_000)
    found = spending.spent(world.tenant.id, timezone.now())
    assert found.cost_micro == 35_000 == sum(one.cost_micro for one in found.agents) == sum(one.cost_micro for one in found.models)
    assert [(one.name, one.role, one.calls) for one in found.models] == [("primary", "planner", 3)]
    assert len(found.days) == 14 and found.days[-4].cost_micro + found.days[-1].cost_micro >= 25_000
    assert spending.spent(None, timezone.now()).cost_micro == 42_000
    said = text(admin)
    assert "By agent" in said and "planner" in said and "$0.04 in 14 days" not in said and "$0.035 in 14 days" in said


def post(actor: Actor, **more: Any) -> Any:
    return browser(actor).post("/spend/", {"scope": "acme/", "kind": DAY, "value": "5", "reason": "a trial", "act": "set"} | more)


def test_an_admin_sets_changes_and_removes_a_ceiling_with_a_reason(world: World, admin: Actor) -> None:
    assert post(admin).status_code == 302
    assert Ceiling.objects.get().value == 5_000_000
    form = browser(admin).get(browser(admin).get("/spend/").context["groups"][0]["lines"][0].change_url).context["form"]
    assert (form["scope"].value(), form["kind"].value(), form["value"].value()) == ("acme/", DAY, "5")
    assert post(admin, value="$7.5").status_code == 302
    assert post(admin, act="remove", value="").status_code == 302
    assert not Ceiling.objects.exists()
    assert [(e.action, e.reason) for e in AuditEntry.objects.order_by("id")] == [
        (f"ceiling.{verb}", "a trial") for verb in ("created", "changed", "deleted")
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"value": "-1"}, "must be an amount in USD"), ({"value": ""}, "Say how much"), ({"reason": ""}, "This field is required"),
        ({"scope": "globex/"}, "Select a valid choice"), ({"scope": "/"}, "Select a valid choice"),
        ({"act": "remove"}, "There is no such ceiling"), ({"kind": "concurrent_runs", "value": "1.5"}, "a whole number of runs"),
    ],
)  # fmt: skip
def test_a_form_that_makes_no_sense_is_shown_again_with_what_was_typed(world: World, admin: Actor, more: dict[str, str], said: str) -> None:
    make_world("globex", "other")
    answer = post(admin, **more)
    assert answer.status_code == 422 and said in answer.content.decode()
    assert not Ceiling.objects.exists()


def test_an_operator_looks_on(world: World) -> None:
    assert post(world.operator).status_code == 403
    assert not Ceiling.objects.exists()
