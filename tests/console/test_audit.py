"""The audit trail: what an entry says, on whose chain, and that nobody who serves can change it."""

import uuid
from decimal import Decimal

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from tenants import audit
from tenants.actors import Actor
from tenants.models import AuditEntry, Tenant, User


@pytest.fixture
def actor(db: None) -> Actor:
    return Actor(User.objects.create_user("ada"), Tenant.objects.create(slug="acme"), "admin", request_id="req-1")


def test_an_entry_names_who_did_what_to_which_thing_in_which_request(actor: Actor) -> None:
    audit.append(actor, "tool.disabled", "tool", "create_ticket", {"enabled": True}, {"enabled": False}, "it fails")
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.object_kind, entry.object_id) == ("ada", "tool.disabled", "tool", "create_ticket")
    assert (entry.before, entry.after, entry.reason) == ({"enabled": True}, {"enabled": False}, "it fails")
    assert (entry.tenant, entry.request_id) == (actor.tenant, "req-1")


def test_without_an_actor_the_system_writes_on_the_platforms_chain(db: None) -> None:
    entry = audit.append(None, "retention.swept", "runs", "all")
    assert (entry.actor, entry.tenant) == ("system", None)


def test_a_change_to_the_installation_goes_on_the_platforms_chain_though_its_actor_has_a_tenant(actor: Actor) -> None:
    assert audit.append(actor, "egress.allowed", "egress", "127.0.0.1:9009", tenant=None).tenant is None


def test_a_change_in_another_tenant_goes_on_that_tenants_chain(actor: Actor) -> None:
    other = Tenant.objects.create(slug="globex")
    assert audit.append(actor, "member.created", "member", 1, tenant=other).tenant == other


def test_times_money_and_ids_are_kept_and_long_reasons_are_cut_visibly(actor: Actor) -> None:
    after = {"at": timezone.now(), "cost": Decimal("0.043"), "id": uuid.UUID(int=1)}
    entry = audit.append(actor, "x", "y", "z" * 500, None, after, "w" * 5000)
    entry.refresh_from_db()
    assert entry.after["cost"] == "0.043"
    assert entry.after["id"] == str(uuid.UUID(int=1))
    assert (len(entry.object_id), len(entry.reason), entry.reason[-1]) == (200, 1000, "…")


def test_an_entry_disappears_with_the_change_that_failed(actor: Actor) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        audit.append(actor, "x", "y", "z")
        raise ZeroDivisionError
    assert not AuditEntry.objects.exists()


STATEMENTS = [
    "update tenants_auditentry set actor = 'nobody'",
    "delete from tenants_auditentry",
    "truncate tenants_auditentry",
    "truncate tenants_auditentry cascade",
    "alter table tenants_auditentry disable trigger all",
    "drop table tenants_auditentry",
    "drop trigger tenants_auditentry_append_only on tenants_auditentry",
    "set session_replication_role = replica",
]


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_role_that_serves_pages_cannot_change_history(actor: Actor, statement: str) -> None:
    audit.append(actor, "x", "y", "z")
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.get().actor == "ada"


@pytest.mark.parametrize("statement", STATEMENTS[:3])
def test_neither_can_the_role_of_engines_and_jobs(urls, statement: str) -> None:
    with psycopg.connect(urls.engine) as engine, pytest.raises(psycopg.errors.InsufficientPrivilege):
        engine.execute(statement)


@pytest.mark.parametrize("statement", STATEMENTS[:2])
def test_the_trigger_stops_even_the_owner_of_the_table(urls, statement: str) -> None:
    with psycopg.connect(urls.owner) as owner:
        owner.execute(
            "insert into tenants_auditentry (actor, action, object_kind, object_id, reason, request_id) values ('a', 'b', 'c', 'd', '', '')"
        )
        with pytest.raises(psycopg.Error, match="append only"):
            owner.execute(statement)
        owner.rollback()
