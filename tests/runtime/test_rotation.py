"""A new sealing key takes over while credentials are read and written, and afterwards nothing needs the old one."""

import io
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import connection, transaction

from tenants import credentials, rotation
from tenants.models import AuditEntry, Credential, Tenant, User
from tests.console.past import browser
from tests.crash.figures import figure
from tests.runtime import waiting

MANY = 10_000 if os.environ.get("CHAOS") else 2000
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def rotated(*options: str) -> tuple[int, str]:
    """(exit code, what the command said)."""
    out = io.StringIO()
    try:
        call_command("rotate_credentials", *options, stdout=out)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def sealed(tenant: Tenant, how_many: int) -> None:
    Credential.objects.bulk_create(
        Credential(tenant=tenant, name=f"c{n}", sealed=credentials.seal(tenant.id, f"c{n}", f"secret-{n}-0")) for n in range(how_many)
    )


@pytest.fixture
def acme(committed_db: None, settings: Any) -> Tenant:
    settings.SEALING_KEYS = OLD
    return Tenant.objects.create(slug="acme")


@pytest.mark.mission("P10.2")
def test_every_secret_is_sealed_anew_during_traffic_without_a_failure(acme: Tenant, settings: Any) -> None:
    sealed(acme, MANY)
    settings.SEALING_KEYS = f"{NEW},{OLD}"
    over, version = Flag(), dict.fromkeys(range(MANY), 0)

    def reads() -> tuple[int, int]:
        good = bad = 0
        while not over.is_set():
            row = Credential.objects.get(tenant=acme, name=f"c{random.randrange(MANY)}")
            fine = credentials.open(acme.id, row.name, row.sealed).startswith(f"secret-{row.name[1:]}-")
            good, bad = good + fine, bad + (not fine)
        return good, bad

    def writes(mine: int) -> tuple[int, int]:
        good, rnd = 0, random.Random(mine)
        while not over.is_set():
            number = rnd.randrange(mine, MANY, 2)
            version[number] += 1
            credentials.store(acme, f"c{number}", "bearer", f"secret-{number}-{version[number]}")
            good += 1
        return good, 0

    with ThreadPoolExecutor(4) as pool:
        traffic = [pool.submit(in_thread, work) for work in (reads, reads, lambda: writes(0), lambda: writes(1))]
        began = time.monotonic()
        code, said = rotated("--batch", "50")
        seconds = time.monotonic() - began
        over.set()
        done = [one.result() for one in traffic]
    assert code == 0, said
    assert f"{MANY} credentials" in said and "0 do not open with the newest key alone" in said
    assert all(good > 0 for good, _ in done) and sum(bad for _, bad in done) == 0

    settings.SEALING_KEYS = NEW
    held = {name: one.secret for name, one in credentials.open_all(acme.id).items()}
    assert held == {f"c{n}": f"secret-{n}-{version[n]}" for n in range(MANY)}
    assert rotation.left() == []
    figure("T53", "credentials sealed anew under a new key beside reads and writes", n=MANY, seconds=seconds,
           reads=sum(good for good, _ in done[:2]), writes=sum(good for good, _ in done[2:]), failures=0, old_key_rows=0)  # fmt: skip


def in_thread(work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    try:
        return work()
    finally:
        connection.close()


def test_a_rotation_that_was_stopped_goes_on_where_it_was(acme: Tenant, settings: Any) -> None:
    sealed(acme, 30)
    settings.SEALING_KEYS = f"{NEW},{OLD}"
    first = rotation.rotate(batch=10)
    assert next(first) == 10
    first.close()
    assert len(rotation.left()) == 20
    code, said = rotated("--check")
    assert code == 1 and "30 credentials, 0 sealed anew, 20 do not open" in said and "acme/c10" in said
    assert rotated() == (0, "30 credentials, 20 sealed anew, 0 do not open with the newest key alone.\nThe older keys may go.\n")
    assert AuditEntry.objects.get(action="credentials.rotated").after == {"sealed": 20, "left": 0}
    assert Credential.objects.filter(version=1).count() == 30  # the secrets are what they were


def test_a_row_that_somebody_holds_is_passed_over_and_comes_later(acme: Tenant, settings: Any) -> None:
    sealed(acme, 3)
    settings.SEALING_KEYS = f"{NEW},{OLD}"
    ids = list(Credential.objects.order_by("id").values_list("id", flat=True))
    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        Credential.objects.select_for_update().get(id=ids[1])
        assert pool.submit(in_thread, lambda: (rotation.reseal(ids), 0)).result() == (2, 0)
    assert rotation.left() == ["acme/c1"]
    assert list(rotation.rotate()) == [1] and rotation.left() == []


def test_a_credential_that_no_key_opens_is_left_named_and_fails_the_command(acme: Tenant, settings: Any) -> None:
    sealed(acme, 2)
    other = Tenant.objects.create(slug="globex")
    Credential.objects.create(tenant=other, name="moved", sealed=Credential.objects.get(name="c0").sealed)
    settings.SEALING_KEYS = NEW
    sealed(Tenant.objects.create(slug="initech"), 1)
    settings.SEALING_KEYS = f"{NEW},{OLD}"
    code, said = rotated()
    assert code == 1
    assert "4 credentials, 2 sealed anew, 1 do not open" in said and "    globex/moved\n" in said and "secret-" not in said


def test_a_key_that_is_no_key_is_a_plain_refusal(acme: Tenant, settings: Any) -> None:
    settings.SEALING_KEYS = "nonsense"
    with pytest.raises(Exception, match="SEALING_KEYS must be Fernet keys") as refused:
        rotated()
    assert "nonsense" not in str(refused.value)


def test_saving_the_form_without_a_secret_keeps_what_a_rotation_sealed_meanwhile(
    committed_db: None, settings: Any, monkeypatch: Any
) -> None:
    settings.SEALING_KEYS = OLD
    world = waiting.make_world()
    row = credentials.store(world.tenant, "desk", "bearer", "secret-of-the-desk")
    settings.SEALING_KEYS = f"{NEW},{OLD}"
    admin = waiting.person(world.tenant, "root", "admin", platform=True)
    User.objects.filter(pk=admin.user.pk).update(is_staff=True)
    locked = credentials.locked

    def late(read: Credential) -> Credential:
        rotation.reseal([read.pk])
        return locked(read)

    monkeypatch.setattr(credentials, "locked", late)
    form = {"kind": "header", "header": "X-Token", "secret": ""}
    answer = browser(admin).post(f"/admin/tenants/credential/{row.pk}/change/", form)
    assert answer.status_code == 302, answer.content
    row.refresh_from_db()
    assert (row.kind, row.version, rotation.left()) == ("header", 2, [])
    settings.SEALING_KEYS = NEW
    assert credentials.open_all(world.tenant.id)["desk"].secret == "secret-of-the-desk"
