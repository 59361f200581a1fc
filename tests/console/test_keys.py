"""API keys: what they let in, what they never let in, and what the database knows of them."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenants import keys
from tenants.errors import Refused
from tenants.models import ApiKey, Member, Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def member(db: None) -> Member:
    tenant = Tenant.objects.create(slug="acme")
    return Member.objects.create(tenant=tenant, user=User.objects.create_user("ada"), role="operator")


def refusal(text: str) -> tuple[str, int]:
    with pytest.raises(Refused) as caught:
        keys.verify(text)
    return caught.value.code, caught.value.status


@pytest.mark.mission("P10.2")
def test_a_key_acts_as_its_member_narrowed_by_its_scopes(member: Member) -> None:
    _, text = keys.issue(member, "ci", ["runs:read", "audit:read"])
    actor = keys.verify(text)
    assert (actor.user, actor.tenant, actor.role) == (member.user, member.tenant, "operator")
    assert actor.can("runs:read")
    assert not actor.can("runs:write"), "the role has it, the key does not"
    assert not actor.can("audit:read"), "the key has it, the role does not"


def test_the_database_holds_nothing_that_can_be_used_as_a_key(member: Member) -> None:
    key, text = keys.issue(member, "ci", ["runs:read"])
    secret = text.removeprefix(f"sbx_{key.id}_")
    with connection.cursor() as cursor:
        cursor.execute("select to_jsonb(k)::text from tenants_apikey k")
        stored = cursor.fetchone()[0]
    assert len(secret) == 43
    assert secret not in stored
    assert secret.encode().hex() not in stored


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"),
        lambda t: t + "x",
        lambda t: t[:-1],
        lambda t: t + "\n",
        lambda t: t.lower(),
        lambda t: "sbx_" + "0" * 12 + "_" + t[17:],
        lambda t: t.replace("sbx_", "sbx-", 1),
        lambda t: "",
        lambda t: "sbx_\0_\ud800",
        lambda t: "sbx_" + "é" * 12 + "_" + t[17:],
        lambda t: t * 1000,
    ],
)
def test_anything_but_the_whole_key_is_unauthorized(member: Member, spoil) -> None:
    _, text = keys.issue(member, "ci", ["runs:read"])
    assert refusal(spoil(text)) == ("unauthorized", 401)


def test_the_secret_of_one_key_does_not_open_another(member: Member) -> None:
    first, first_text = keys.issue(member, "one", ["runs:read"])
    second, _ = keys.issue(member, "two", ["runs:read"])
    assert refusal(first_text.replace(first.id, second.id)) == ("unauthorized", 401)


def test_an_expired_key_is_unauthorized_from_its_last_moment_on(member: Member) -> None:
    now = timezone.now()
    key, text = keys.issue(member, "ci", ["runs:read"], now + timedelta(hours=1))
    assert keys.verify(text, now + timedelta(minutes=59))
    with pytest.raises(Refused):
        keys.verify(text, key.expires_at)


def test_a_revoked_key_is_unauthorized_and_is_revoked_once(member: Member) -> None:
    key, text = keys.issue(member, "ci", ["runs:read"])
    assert keys.revoke(key) is True
    assert keys.revoke(key) is False
    assert refusal(text) == ("unauthorized", 401)


@pytest.mark.parametrize("gone", ["user", "tenant"])
def test_the_key_of_an_inactive_person_or_tenant_is_unauthorized(member: Member, gone: str) -> None:
    _, text = keys.issue(member, "ci", ["runs:read"])
    User.objects.update(is_active=gone != "user")
    Tenant.objects.update(active=gone != "tenant")
    assert refusal(text) == ("unauthorized", 401)


def test_every_refusal_reads_the_same(member: Member) -> None:
    key, text = keys.issue(member, "ci", ["runs:read"])
    keys.revoke(key)
    said = set()
    for bad in (text, text[:-1], "sbx_" + "0" * 12 + "_" + "a" * 43):
        with pytest.raises(Refused) as caught:
            keys.verify(bad)
        said.add((caught.value.message, str(caught.value.fields)))
    assert len(said) == 1


def test_last_use_is_written_once_a_minute_at_most(member: Member) -> None:
    key, text = keys.issue(member, "ci", ["runs:read"])
    now = timezone.now()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for seconds in (0, 1, 30, 59):
            keys.verify(text, now + timedelta(seconds=seconds))
    assert sum("UPDATE" in query["sql"] for query in queries) == 1
    key.refresh_from_db()
    assert key.last_used_at == now
    keys.verify(text, now + timedelta(seconds=60))
    key.refresh_from_db()
    assert key.last_used_at == now + timedelta(seconds=60)


def test_a_refused_key_leaves_no_trace_of_use(member: Member) -> None:
    key, text = keys.issue(member, "ci", ["runs:read"])
    refusal(text[:-1] + "!")
    key.refresh_from_db()
    assert key.last_used_at is None


@pytest.mark.parametrize(
    ("scopes", "hours", "code"),
    [([], 1, "no_scopes"), (["runs:fly"], 1, "unknown_scope"), (["runs:read"], -1, "already_expired")],
)
def test_a_key_that_could_never_work_is_not_issued(member: Member, scopes: list[str], hours: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        keys.issue(member, "ci", scopes, timezone.now() + timedelta(hours=hours))
    assert caught.value.code == code
    assert not ApiKey.objects.exists()
