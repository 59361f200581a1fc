"""Ceilings: what is accepted under them, what is held, and that it comes out even."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Now

from console.api.problems import problem
from runs import ceilings, lifecycle
from runs.intake import Accepted, Order, submit
from runs.models import Run
from runs.states import PEOPLE, RunState
from tenants import quotas, windows
from tenants.ceilings import delete, read
from tenants.errors import NotFound, Refused
from tenants.ids import new_id
from tenants.models import AuditEntry, Ceiling, Reservation, Settlement, Spending, Tenant

from .waiting import World, at_once, make_world, park, person, queued, running

CAP = 80_000  # micro-USD: what a run of this world may cost
DAY, MONTH, CONCURRENT, PER_MINUTE = Ceiling.Kind.values


@pytest.fixture
def world(db: None) -> World:
    return make_world()


def ceiling(tenant: Tenant | None, kind: str, value: int, agent: str = "") -> Ceiling:
    return ceilings.put(None, tenant, agent, kind, value)[0]


def refusal(world: World) -> Refused:
    with pytest.raises(Refused) as refused:
        queued(world)
    return refused.value


def end(run: Run, cost: int, state: str = RunState.SUCCEEDED) -> None:
    """As an engine does: the run is its own until the end."""
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=run.tenant_id)
    Run.objects.filter(pk=run.pk).update(state=state, owner=None, cost_micro=cost, outcome="completed", ended_at=Now())


def sums() -> tuple[int, int]:
    """(reserved, spent) of each window, which are all the same here."""
    ceilings.sweep()
    found = {(one.reserved_micro, one.spent_micro) for one in Spending.objects.all()}
    assert len(found) == 1
    return found.pop()


FOUR = (("platform", ""), ("tenant", ""), ("platform", "support-triage"), ("tenant", "support-triage"))


def four_scopes(world: World, value: int) -> None:
    for place, agent in FOUR:
        for kind in (DAY, MONTH):
            ceiling(world.tenant if place == "tenant" else None, kind, value, agent)


@pytest.mark.mission("P5.1")
def test_of_64_at_once_in_four_scopes_exactly_those_are_accepted_that_fit(committed_db: None) -> None:
    world = make_world()
    four_scopes(world, 10 * CAP + CAP // 2)
    other = make_world("globex", "other")  # counts in the platform's windows only
    answers = at_once(*[lambda: queued(world)] * 64)
    accepted = [one for one in answers if isinstance(one, Run)]
    refused = [one for one in answers if not isinstance(one, Run)]
    assert len(accepted) == 10 == Run.objects.count()
    assert {(one.code, one.status) for one in refused} == {("ceiling_reached", 402)}
    assert {(one.reserved_micro, one.spent_micro) for one in Spending.objects.all()} == {(10 * CAP, 0)}
    assert refusal(other).fields["scope"] == "platform"
    for number, run in enumerate(accepted):
        end(run, 1000 * number)
    assert sums() == (0, 45_000)
    assert Run.objects.aggregate(all=Sum("cost_micro"))["all"] == 45_000
    assert not Reservation.objects.exists() and not Settlement.objects.exists()


def test_windows_that_are_used_for_the_first_time_by_many_at_once_are_opened_once(committed_db: None) -> None:
    world = make_world()
    before = queued(world)
    end(before, CAP)
    four_scopes(world, 10 * CAP)
    Spending.objects.all().delete()
    answers = at_once(*[lambda: queued(world)] * 32)
    assert Run.objects.count() == 10
    assert {getattr(one, "code", "") for one in answers if not isinstance(one, Run)} == {"ceiling_reached"}
    assert {(one.reserved_micro, one.spent_micro) for one in Spending.objects.all()} == {(9 * CAP, CAP)}


@pytest.mark.mission("P5.1")
def test_accepting_ending_and_folding_at_once_comes_out_even(committed_db: None) -> None:
    world = make_world()
    four_scopes(world, 12 * CAP)

    def work() -> int:
        accepted = 0
        for _ in range(6):
            try:
                run = queued(world)
            except Refused:
                continue
            held = Spending.objects.order_by("-reserved_micro").first()
            assert held is not None and held.reserved_micro + held.spent_micro <= 12 * CAP
            end(run, 5_000)
            quotas.fold()
            accepted += 1
        connection.close()
        return accepted

    counts = at_once(*[work] * 8)
    assert all(isinstance(one, int) for one in counts), counts
    assert sum(counts) == Run.objects.count() > 12
    assert sums() == (0, 5_000 * sum(counts))


@pytest.mark.mission("P5.2")
def test_a_ceiling_that_is_reached_refuses_the_next_run_and_says_when_it_fits_again(world: World) -> None:
    ceiling(world.tenant, DAY, 200_000)
    queued(world)
    end(queued(world), 30_000)
    queued(world)  # what the ended run did not need is free again
    refused = refusal(world)
    midnight = Spending.objects.get().starts_at + timedelta(days=1)
    assert (refused.code, refused.status) == ("ceiling_reached", 402)
    assert refused.fields == {
        "scope": "tenant acme", "kind": "cost_usd_per_day", "value_usd": "0.2", "spent_usd": "0.03", "reserved_usd": "0.16",
        "needed_usd": "0.08", "resets_at": f"{midnight:%Y-%m-%dT00:00:00Z}",
    }  # fmt: skip
    assert "have the ceiling raised" in refused.message
    assert Run.objects.count() == 3


def test_what_other_tenants_spend_is_not_told_to_the_one_that_is_refused(world: World) -> None:
    ceiling(None, DAY, CAP)
    end(queued(make_world("globex", "other")), 50_000)
    refused = refusal(world)
    assert (refused.fields["scope"], refused.fields["spent_usd"], refused.fields["reserved_usd"]) == ("platform", None, None)
    assert "0.05" not in refused.message


def test_without_ceilings_nothing_is_held_and_an_end_settles_nothing(world: World, django_assert_num_queries: Any) -> None:
    run = queued(world)
    with django_assert_num_queries(1):
        quotas.hold(world.tenant, "support-triage", run.id, CAP, run.created_at, ceilings.LEDGER)
    end(run, 1000)
    assert not (Spending.objects.exists() or Reservation.objects.exists() or Settlement.objects.exists())


def failed_in_engine(world: World, run: Run) -> None:
    end(run, 20_000, RunState.FAILED)


def cancelled_while_queued(world: World, run: Run) -> None:
    lifecycle.cancel(world.operator, run.id)


def cancelled_in_quarantine(world: World, run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=world.tenant.id, cost_micro=20_000)
    park(run, RunState.QUARANTINED)
    lifecycle.cancel(world.operator, run.id)


def given_back_and_cancelled(world: World, run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING, owner=world.tenant.id, cost_micro=20_000)
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED, owner=None)
    lifecycle.cancel(world.operator, run.id)


@pytest.mark.parametrize(
    ("how", "cost"),
    [(failed_in_engine, 20_000), (cancelled_while_queued, 0), (cancelled_in_quarantine, 20_000), (given_back_and_cancelled, 20_000)],
)
def test_however_a_run_ends_it_is_settled(world: World, how: Callable[[World, Run], None], cost: int) -> None:
    ceiling(world.tenant, DAY, 10 * CAP)
    run = queued(world)
    assert sums() == (CAP, 0)
    how(world, run)
    assert sums() == (0, cost)
    assert not Reservation.objects.exists()


def test_what_a_run_cost_beyond_its_reservation_is_counted_all_the_same(world: World) -> None:
    ceiling(world.tenant, DAY, 10 * CAP)
    end(queued(world), CAP + 123)
    assert sums() == (0, CAP + 123)


def test_a_ceiling_set_in_the_middle_of_a_window_starts_from_what_was_accepted_in_it(world: World) -> None:
    end(queued(world), 30_000)
    going, _, old = queued(world), queued(make_world("globex", "other")), queued(world)
    Run.objects.filter(pk=old.pk).update(created_at=windows.starts(MONTH, old.created_at) - timedelta(seconds=1))
    ceiling(world.tenant, MONTH, 10 * CAP)
    found = Spending.objects.get()
    assert (found.reserved_micro, found.spent_micro) == (CAP, 30_000)
    assert Reservation.objects.get().run_id == going.id
    end(going, 10_000)
    assert sums() == (0, 40_000)


@pytest.mark.parametrize("_", range(3))
def test_no_run_is_missed_by_a_ceiling_that_is_set_while_runs_are_accepted_and_end(committed_db: None, _: int) -> None:
    world = make_world()

    def accept() -> int:
        for number in range(6):
            run = queued(world)
            if number % 2:
                end(run, 1_000)
        connection.close()
        return 0

    def put() -> None:
        ceiling(world.tenant, DAY, 10**9)
        ceiling(None, DAY, 10**9)
        connection.close()

    assert set(at_once(accept, accept, put, accept, accept)) <= {0, None}
    assert sums() == (12 * CAP, 12_000)
    assert {one.reserved for one in Spending.objects.annotate(reserved=Sum("reservation__micro"))} == {12 * CAP}


def test_a_ceiling_below_what_is_held_stops_nothing_and_accepts_nothing_until_there_is_room(world: World) -> None:
    ceiling(world.tenant, DAY, 10 * CAP)
    runs = [queued(world) for _ in range(3)]
    ceiling(world.tenant, DAY, CAP + 1_000)
    assert refusal(world).code == "ceiling_reached"
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.QUEUED}
    for run in runs:
        end(run, 300)
    queued(world)


@pytest.mark.parametrize("kind", [DAY, CONCURRENT, PER_MINUTE])
def test_a_ceiling_of_nothing_accepts_nothing(world: World, kind: str) -> None:
    ceiling(world.tenant, kind, 0)
    assert refusal(world).status in (402, 429)
    assert not Run.objects.exists()


def test_a_new_day_is_a_new_window_and_a_month_goes_on(world: World) -> None:
    ceiling(world.tenant, DAY, CAP)
    ceiling(world.tenant, MONTH, 3 * CAP)
    run = queued(world)
    end(run, CAP)
    day = windows.starts(DAY, run.created_at)
    tomorrow = day + timedelta(days=1) if (day + timedelta(days=1)).month == day.month else day - timedelta(days=1)
    with pytest.raises(Refused), transaction.atomic():
        quotas.hold(world.tenant, "support-triage", new_id(), 1, run.created_at, ceilings.LEDGER)
    quotas.hold(world.tenant, "support-triage", new_id(), CAP, tomorrow, ceilings.LEDGER)
    spent = {(one.ceiling.kind, one.starts_at): (one.reserved_micro, one.spent_micro) for one in Spending.objects.select_related("ceiling")}
    assert spent == {(DAY, day): (0, CAP), (DAY, tomorrow): (CAP, 0), (MONTH, windows.starts(MONTH, day)): (CAP, CAP)}


# runs whose limits a person raises --------------------------------------------------------------------------------------------


def test_more_is_held_for_a_run_whose_limits_a_person_raises_as_long_as_it_fits(world: World) -> None:
    ceiling(world.tenant, DAY, 3 * CAP)
    run = queued(world)
    quotas.more(run.id, CAP)
    assert sums() == (2 * CAP, 0)
    with pytest.raises(Refused) as refused, transaction.atomic():
        quotas.more(run.id, 2 * CAP)
    assert refused.value.code == "ceiling_reached"
    end(run, 150_000)
    assert sums() == (0, 150_000)


# runs at once, and starts a minute --------------------------------------------------------------------------------------------


@pytest.mark.mission("P5.1")
def test_of_32_at_once_no_more_are_live_than_the_quota_says(committed_db: None) -> None:
    world = make_world()
    ceiling(world.tenant, CONCURRENT, 7)
    ceiling(None, CONCURRENT, 20, "support-triage")
    answers = at_once(*[lambda: queued(world)] * 32)
    assert Run.objects.count() == 7
    refused = [one for one in answers if not isinstance(one, Run)]
    assert {(one.code, one.status) for one in refused} == {("quota_concurrent_runs", 429)}


@pytest.mark.parametrize("state", PEOPLE)
def test_a_run_that_waits_for_a_person_takes_nobodys_place(world: World, state: str) -> None:
    ceiling(world.tenant, CONCURRENT, 1)
    run = running(world)
    assert refusal(world).fields["retry_after_s"] == 1
    park(run, state)
    end(queued(world), 0)
    queued(world)
    assert refusal(world).code == "quota_concurrent_runs"


def test_starts_a_minute_are_counted_in_database_time_and_the_wait_is_exact(world: World) -> None:
    row = ceiling(world.tenant, PER_MINUTE, 2)
    queued(world)
    queued(world)
    refused = refusal(world)
    assert (refused.code, refused.status) == ("quota_runs_per_minute", 429)
    assert 25 < refused.fields["retry_after_s"] <= 30
    row.refresh_from_db()
    assert row.bucket is not None and row.bucket_at is not None
    at = row.bucket_at + timedelta(seconds=(1 - row.bucket) * 30)
    with pytest.raises(Refused):
        quotas.hold(world.tenant, "support-triage", new_id(), CAP, at - timedelta(milliseconds=1), ceilings.LEDGER)
    quotas.hold(world.tenant, "support-triage", new_id(), CAP, at + timedelta(milliseconds=1), ceilings.LEDGER)


def test_of_32_started_at_once_no_more_pass_than_the_bucket_holds(committed_db: None) -> None:
    world = make_world()
    ceiling(world.tenant, PER_MINUTE, 5)
    at_once(*[lambda: queued(world)] * 32)
    assert 5 <= Run.objects.count() <= 6


def test_the_wait_is_told_to_programs_as_a_header(world: World) -> None:
    ceiling(world.tenant, PER_MINUTE, 1)
    queued(world)
    answer = problem(refusal(world))
    assert 55 <= int(answer["Retry-After"]) <= 60


def test_a_run_that_is_tried_again_is_held_to_the_ceilings_as_well(world: World) -> None:
    run = queued(world)
    end(run, CAP, RunState.FAILED)
    ceiling(world.tenant, DAY, CAP)
    with pytest.raises(Refused) as refused:
        lifecycle.retry(world.operator, run.id)
    assert refused.value.code == "ceiling_reached"
    ceiling(world.tenant, DAY, 2 * CAP)
    lifecycle.retry(world.operator, run.id)
    assert sums() == (CAP, CAP)


# setting them -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "given"), [
    (DAY, "-1"), (DAY, "NaN"), (DAY, float("inf")), (DAY, "1.0000001"), (DAY, True), (DAY, "x"), (DAY, "1e10"), (DAY, None),
    (CONCURRENT, "1.5"), (CONCURRENT, -1), ("cost_usd_per_year", 1),
])  # fmt: skip
def test_a_ceiling_that_makes_no_sense_is_refused(kind: str, given: Any) -> None:
    with pytest.raises(Refused) as refused:
        read(kind, given)
    assert (refused.value.code, refused.value.status) == ("bad_ceiling", 422)


@pytest.mark.parametrize(("kind", "given", "kept"), [(DAY, "0.5", 500_000), (MONTH, 500, 500_000_000), (CONCURRENT, "50", 50), (DAY, 0, 0)])
def test_costs_are_kept_in_millionths_and_counts_as_they_are(kind: str, given: Any, kept: int) -> None:
    assert read(kind, given) == kept


@pytest.mark.mission("P5.1")
def test_admins_set_the_ceilings_of_their_tenant_and_platform_admins_the_others(world: World) -> None:
    admin = person(world.tenant, "ada", "admin")
    root = person(world.tenant, "root", "admin", platform=True)
    other = Tenant.objects.create(slug="globex")
    made, _ = ceilings.put(admin, world.tenant, "", DAY, CAP, "a trial")
    for actor, tenant, kind in ((world.operator, world.tenant, Refused), (admin, None, Refused), (admin, other, NotFound)):
        with pytest.raises(kind):
            ceilings.put(actor, tenant, "", DAY, CAP)
        with pytest.raises(kind):
            delete(actor, Ceiling(tenant=tenant, kind=DAY, value=1))
    ceilings.put(root, None, "support-triage", DAY, CAP)
    ceilings.put(root, other, "", DAY, CAP)
    with pytest.raises(Refused) as refused:
        ceilings.put(root, None, "nobody", DAY, CAP)
    assert refused.value.code == "unknown_agent"
    assert ceilings.put(admin, world.tenant, "", DAY, CAP)[1] == "unchanged"
    ceilings.put(admin, world.tenant, "", DAY, 2 * CAP, "more work")
    delete(admin, made, "over")
    entries = AuditEntry.objects.order_by("id")
    told = [(e.tenant.slug if e.tenant else "", e.action, e.object_id, e.before, e.after, e.reason) for e in entries]
    name = "tenant acme cost_usd_per_day"
    assert told == [
        ("acme", "ceiling.created", name, None, {DAY: "0.08"}, "a trial"),
        ("", "ceiling.created", "agent support-triage cost_usd_per_day", None, {DAY: "0.08"}, ""),
        ("globex", "ceiling.created", "tenant globex cost_usd_per_day", None, {DAY: "0.08"}, ""),
        ("acme", "ceiling.changed", name, {DAY: "0.08"}, {DAY: "0.16"}, "more work"),
        ("acme", "ceiling.deleted", name, {DAY: "0.16"}, None, "over"),
    ]
    assert not Spending.objects.filter(ceiling__tenant=world.tenant).exists()


def test_an_answer_that_was_given_is_given_again_although_the_ceiling_is_reached(world: World) -> None:
    order = Order(agent="support-triage", input="x")
    first = submit(world.starter, order, idempotency_key="k", body_sha256=b"1" * 32)
    ceiling(world.tenant, DAY, 0)
    assert submit(world.starter, order, idempotency_key="k", body_sha256=b"1" * 32) == Accepted(first.run, replayed=True)
