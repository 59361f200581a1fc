"""Sealed credentials: bound to their tenant and name, opened only with our keys, and never told to anybody."""

import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from django.db import connection

from tenants import credentials, rotation
from tenants.credentials import Unreadable
from tenants.errors import Refused
from tenants.models import Credential, Tenant

CANARY = "sk-canary-5f1c9e"
A, B = UUID(int=1), UUID(int=2)


@pytest.fixture
def acme(db: None) -> Tenant:
    return Tenant.objects.create(slug="acme")


def test_what_was_sealed_for_a_tenant_and_name_opens_for_them(settings) -> None:
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    sealed = credentials.seal(A, "desk", CANARY)
    assert CANARY.encode() not in sealed
    assert credentials.open(A, "desk", sealed) == CANARY


@pytest.mark.mission("P10.2")
@pytest.mark.parametrize(("tenant", "name"), [(B, "desk"), (A, "mail")])
def test_a_sealed_value_moved_to_another_tenant_or_name_does_not_open(settings, tenant: UUID, name: str) -> None:
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    with pytest.raises(Unreadable):
        credentials.open(tenant, name, credentials.seal(A, "desk", CANARY))


def test_a_swap_of_rows_between_tenants_opens_for_neither(acme: Tenant) -> None:
    globex = Tenant.objects.create(slug="globex")
    mine, theirs = (credentials.store(t, "desk", "bearer", f"{CANARY}-{t.slug}") for t in (acme, globex))
    Credential.objects.filter(pk=mine.pk).update(sealed=theirs.sealed)
    Credential.objects.filter(pk=theirs.pk).update(sealed=mine.sealed)
    assert credentials.open_all(acme.id) == {}
    assert credentials.open_all(globex.id) == {}
    assert sorted(credentials.unreadable()) == ["acme/desk", "globex/desk"]


def test_a_swap_of_rows_within_a_tenant_opens_neither(acme: Tenant) -> None:
    desk, mail = (credentials.store(acme, name, "bearer", f"{CANARY}-{name}") for name in ("desk", "mail"))
    Credential.objects.filter(pk=desk.pk).update(sealed=mail.sealed)
    assert set(credentials.open_all(acme.id)) == {"mail"}
    assert list(credentials.unreadable()) == ["acme/desk"]


def other_byte(sealed: bytes) -> bytes:
    return sealed[:40] + (b"B" if sealed[40:41] == b"A" else b"A") + sealed[41:]


@pytest.mark.parametrize("spoil", [lambda s: s[:-1], lambda s: b"", other_byte, lambda s: b"\xff\x00"])
def test_a_failure_tells_neither_the_secret_nor_the_sealed_value(settings, spoil) -> None:
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    sealed = spoil(credentials.seal(A, "desk", CANARY))
    with pytest.raises(Unreadable) as caught:
        credentials.open(A, "desk", sealed)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.fields)
    assert caught.value.code == "credential_unreadable"
    assert CANARY not in told
    assert len(sealed) < 10 or sealed.decode("latin-1") not in told


def test_an_older_key_still_opens_and_resealing_makes_it_unneeded(settings, acme: Tenant) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.SEALING_KEYS = old
    for name in ("desk", "mail"):
        credentials.store(acme, name, "bearer", CANARY)
    settings.SEALING_KEYS = f"{new},{old}"
    assert credentials.open_all(acme.id)["desk"].secret == CANARY
    assert (sum(rotation.rotate()), rotation.left()) == (2, [])
    settings.SEALING_KEYS = new
    assert {name: opened.secret for name, opened in credentials.open_all(acme.id).items()} == {"desk": CANARY, "mail": CANARY}


def test_without_the_key_nothing_opens_and_the_log_names_the_credential_only(settings, acme: Tenant, caplog) -> None:
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    row = credentials.store(acme, "desk", "bearer", CANARY)
    settings.SEALING_KEYS = Fernet.generate_key().decode()
    assert credentials.open_all(acme.id) == {}
    assert "desk" in caplog.text
    assert CANARY not in caplog.text
    assert bytes(row.sealed).decode() not in caplog.text


def test_a_key_that_is_no_key_is_refused_without_being_told(settings) -> None:
    settings.SEALING_KEYS = "not-a-fernet-key"
    with pytest.raises(Refused, match="SEALING_KEYS") as caught:
        credentials.seal(A, "desk", CANARY)
    assert "not-a-fernet-key" not in "".join(traceback.format_exception(caught.value))


def test_without_sealing_keys_one_is_made_once_and_kept_for_its_owner_only(settings, tmp_path: Path) -> None:
    settings.SEALING_KEYS, settings.HOME = "", tmp_path / "home"
    sealed = credentials.seal(A, "desk", CANARY)
    kept = settings.HOME / "sealing"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in settings.HOME.iterdir()] == ["sealing"]
    credentials._load.cache_clear()  # as another process would
    assert credentials.open(A, "desk", sealed) == CANARY


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        seen = set(pool.map(lambda _: credentials.kept_key(tmp_path / "sealing"), range(64)))
    assert len(seen) == 1


def test_a_dump_of_the_table_holds_no_secret(acme: Tenant) -> None:
    for number in range(50):
        credentials.store(acme, f"c{number}", "bearer", f"{CANARY}-{number}")
    with connection.cursor() as cursor:
        cursor.execute("select string_agg(to_jsonb(c)::text || encode(c.sealed, 'escape'), '') from tenants_credential c")
        dump = cursor.fetchone()[0]
    assert CANARY not in dump


def test_replacing_a_secret_raises_the_version_and_keeps_one_row(acme: Tenant) -> None:
    credentials.store(acme, "desk", "bearer", "old")
    row = credentials.store(acme, "desk", "header", CANARY, "X-Token")
    assert (Credential.objects.count(), row.version) == (1, 2)
    opened = credentials.open_all(acme.id)["desk"]
    assert (opened.kind, opened.header, opened.secret) == ("header", "X-Token", CANARY)
    assert CANARY not in repr(opened)
