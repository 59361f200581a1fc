"""How often somebody may ask: one bucket for all processes, 429 and never 5xx, and what happens where nobody can count."""

import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from console import rates
from tenants import rate_limits
from tenants.errors import Refused
from tenants.models import RateBucket, Tenant, User
from tenants.rate_limits import Buckets, Rate
from tests.runtime.waiting import World, make_world, person

from .callers import Caller, caller, refusal
from .entry_world import PASSWORD, door, sign_in
from .past import browser

__all__ = ["door"]

SLOW = Rate(0.5)  # five at once


@pytest.fixture(autouse=True)
def fresh(monkeypatch: Any) -> None:
    monkeypatch.setattr(rates, "buckets", Buckets())


def limited(settings: Any, **per_s: float) -> None:
    settings.RATE_LIMITS = settings.RATE_LIMITS | per_s


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/api/v1/runs", "read"),
        ("POST", "/api/v1/runs", "start"),
        ("POST", "/api/v1/runs/agt_1/retry", "start"),
        ("POST", "/runs/agt_1/fork/", "start"),
        ("POST", "/runs/new/", "start"),
        ("POST", "/api/v1/runs/agt_1/cancel", "write"),
        ("PUT", "/api/v1/tools/x", "write"),
        ("DELETE", "/api/v1/runs/agt_1/x/retry", "write"),
    ],
)
def test_a_request_is_a_read_a_start_or_another_write(method: str, path: str, kind: str) -> None:
    assert rates.kind_of(method, path) == kind


def test_several_processes_in_several_threads_share_one_bucket(committed_db: None) -> None:
    processes, outcomes, began = [Buckets() for _ in range(3)], list[bool](), time.monotonic()

    def ask(mine: Buckets) -> None:
        outcomes.extend(mine.take("read x", Rate(10), fail_open=False).given for _ in range(60))
        connection.close()

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in processes for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    most = 100 + 10 * (time.monotonic() - began)
    assert len(outcomes) == 360 and 100 - 3 * Rate(10).batch <= sum(outcomes) <= most


def test_a_process_takes_tokens_in_batches_and_believes_an_empty_bucket(db: None) -> None:
    mine, rate = Buckets(), Rate(300)
    with CaptureQueriesContext(connection) as said:
        assert all(mine.take("read x", rate, fail_open=False).given for _ in range(2 * rate.batch))
        assert len(said) == 2
        said_before = len(said)
        outcomes = [mine.take("read y", SLOW, fail_open=False) for _ in range(100)]
        assert len(said) - said_before == 6 and [one.given for one in outcomes] == [True] * 5 + [False] * 95
        assert 0 < outcomes[-1].wait_s <= 2


def test_a_bucket_fills_with_time_and_not_beyond_its_size(db: None) -> None:
    assert [Buckets().take("x", SLOW, fail_open=False).given for _ in range(6)] == [True] * 5 + [False]
    with connection.cursor() as cursor:
        cursor.execute("update tenants_ratebucket set at = at - interval '3 seconds'")
    assert [Buckets().take("x", SLOW, fail_open=False).given for _ in range(2)] == [True, False]
    with connection.cursor() as cursor:
        cursor.execute("update tenants_ratebucket set at = at - interval '1 day'")
    assert [Buckets().take("x", SLOW, fail_open=False).given for _ in range(6)] == [True] * 5 + [False]
    RateBucket.objects.create(name="old", tokens=0, given=0, at="2020-01-01T00:00:00Z")
    rate_limits.forget()
    assert list(RateBucket.objects.values_list("name", flat=True)) == ["x"]


def test_a_burst_is_answered_429_with_when_to_come_back_and_nobody_else_notices(db: None, settings: Any) -> None:
    limited(settings, read=5)
    world = make_world()
    mine, other = caller(world.operator), caller(person(Tenant.objects.create(slug="globex"), "olga", "operator"))
    began = time.monotonic()
    answers = [mine.get("/runs") for _ in range(200)]
    statuses, seconds = Counter(answer.status_code for answer in answers), time.monotonic() - began

    assert set(statuses) == {200, 429} and 50 <= statuses[200] <= 51 + 5 * seconds
    first = next(answer for answer in answers if answer.status_code == 429)
    assert refusal(first) == (429, "rate_limited") and int(first["Retry-After"]) == 1
    assert first["RateLimit-Policy"] == '"read";q=50;w=10' and first["RateLimit"] == '"read";r=0;t=1'
    assert answers[0]["RateLimit"] == '"read";r=49;t=1' and other.get("/runs").status_code == 200
    assert mine.post("/runs", {}).status_code == 422  # other kinds have buckets of their own
    people = {caller_of_another_key.get("/runs").status_code for caller_of_another_key in (caller(world.operator), caller(world.approver))}
    assert people == {200}


def test_what_a_tenants_keys_and_people_do_counts_together_and_another_tenant_does_not_notice(db: None, settings: Any) -> None:
    limited(settings, tenant=0.4, read=300)
    world = make_world()
    keys, page = (caller(world.operator), caller(world.approver)), browser(world.operator)
    other = caller(person(Tenant.objects.create(slug="globex"), "olga", "operator"))
    statuses = [keys[0].get("/runs").status_code, keys[1].get("/runs").status_code, page.get("/tools/").status_code]
    answer = keys[1].get("/runs")
    statuses += [answer.status_code, (refused := keys[0].get("/approvals")).status_code, page.get("/tools/").status_code]
    assert statuses == [200, 200, 200, 200, 429, 429]
    assert answer["RateLimit-Policy"].startswith('"read"') and refused["RateLimit-Policy"] == '"tenant";q=4;w=10'
    assert refusal(refused) == (429, "rate_limited") and "of your tenant" in refused.json()["detail"]
    assert other.get("/runs").status_code == 200


def test_who_asks_beyond_their_own_limit_takes_nothing_from_their_tenant(db: None, settings: Any) -> None:
    limited(settings, tenant=0.4, read=0.2)
    world = make_world()
    flood, other = caller(world.operator), caller(world.approver)
    assert [flood.get("/runs").status_code for _ in range(12)] == [200] * 2 + [429] * 10
    assert [other.get("/runs").status_code for _ in range(2)] == [200] * 2


def test_pages_and_the_admin_count_by_person(db: None, settings: Any) -> None:
    limited(settings, read=0.2)
    world = make_world()
    User.objects.filter(pk=world.operator.user.pk).update(is_staff=True)
    client = browser(world.operator)
    assert [client.get(address).status_code for address in ("/tools/", "/admin/", "/tools/", "/admin/")] == [200, 200, 429, 429]
    refused = client.get("/runs/")
    assert refused.status_code == 429 and int(refused["Retry-After"]) >= 1 and b"Retry-After" in refused.content
    assert browser(world.approver).get("/tools/").status_code == 200


def test_tries_at_signing_in_are_counted_by_address(door: World, settings: Any) -> None:
    limited(settings, sign_in=0.2)
    nobody = [Client().post("/sign-in/", {"username": f"n{n}", "password": "x"}).status_code for n in range(4)]
    assert nobody == [422, 422, 429, 429]
    assert sign_in(door.operator)[1].status_code == 429
    assert sign_in(door.operator, at="203.0.113.9")[1].status_code == 302
    assert Client().get("/sign-in/").status_code == 200


def test_where_nobody_can_count_reads_go_on_and_signing_in_does_not(committed_db: None, settings: Any, urls: Any) -> None:
    limited(settings, read=5, sign_in=5)
    world = make_world()
    world.operator.user.set_password(PASSWORD)
    world.operator.user.save()
    mine = caller(world.operator)
    with psycopg.connect(urls.owner, autocommit=True) as owner:
        owner.execute("alter table tenants_ratebucket rename to elsewhere")
        try:
            assert [mine.get("/runs").status_code for _ in range(3)] == [200] * 3
            refused = sign_in(world.operator)[1]
            with pytest.raises(Refused) as why:
                rates.charge_sign_in(refused.wsgi_request)
        finally:
            owner.execute("alter table elsewhere rename to tenants_ratebucket")
    assert refused.status_code == why.value.status == 503 and refused["Retry-After"] == "2"
    assert sign_in(world.operator)[1].status_code == 302


def test_no_limit_is_no_limit(db: None, settings: Any) -> None:
    limited(settings, read=0)
    mine: Caller = caller(make_world().operator)
    assert "RateLimit" not in mine.get("/runs").headers and not RateBucket.objects.exists()
