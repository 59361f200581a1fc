"""T55: whatever is done to the audit trail as the owner of the tables, with the triggers off, a verification finds it."""

import io
import json
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.db.utils import load_backend

from console import audit_health, tasks
from console.postgres import Urls
from console.settings import database
from tenants import audit, checkpoints, verification
from tenants.chain import PLATFORM, Linked, Place, digest, line
from tenants.chain_sql import EXISTING
from tenants.models import AuditCheckpoint, AuditHead, AuditLink, AuditNote, AuditVerified, Tenant, User
from tests.crash.figures import figure

from . import tampering

pytestmark = pytest.mark.mission("P13.5", "X12")
CHAOS = bool(os.environ.get("CHAOS"))


@pytest.fixture(autouse=True)
def _file(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_CHECKPOINTS = tmp_path / "checkpoints.jsonl"


@pytest.fixture
def owner(trail: Any, urls: Urls) -> Any:
    """Django's connection of this thread is the owner's, in a transaction that is rolled back, with every trigger off."""
    given, before = database(urls.owner), connections["default"]
    plain = {name: before.settings_dict[name] for name in before.settings_dict if name not in given}
    made: Any = load_backend(given["ENGINE"]).DatabaseWrapper({**plain, **given}, "owner_in_tests")
    made.alias = "default"
    connections["default"] = made
    with transaction.atomic():
        with made.cursor() as cursor:
            for table in ("entry", "link", "head", "checkpoint", "note"):
                cursor.execute(f"alter table tenants_audit{table} disable trigger user")
            cursor.execute("select conname from pg_constraint where conrelid = 'tenants_auditlink'::regclass and contype = 'f'")
            cursor.execute(f'alter table tenants_auditlink drop constraint "{cursor.fetchone()[0]}"')
        yield made.connection
        transaction.set_rollback(True)
    made.close()
    connections["default"] = before


@pytest.fixture
def trail(committed_db: None) -> tuple[Tenant, Tenant]:
    """Three chains of some length, signed."""
    ada = User.objects.create_user("ada")
    tenants = (Tenant.objects.create(slug="acme"), Tenant.objects.create(slug="globex"))
    with transaction.atomic():
        for n in range(12):
            for tenant in (*tenants, None):
                after = {"n": n, "cost": 0.10, "text": 'é "quoted"\n\x7f \\', "big": 2**60, "none": None, "list": [1.0, True]}
                audit.append(ada, "tool.changed", "tool", f"t{n}", {"n": n - 1}, after, "why not\t\x01", tenant=tenant, request_id="r")
    assert verification.checkpoint() == []
    return tenants


def found() -> list[tuple[str, int, str]]:
    names = audit_health.names(AuditHead.objects.values_list("chain", flat=True))
    looked = [one.broken for one in verification.verify() if one.broken]
    return [(names.get(one.chain, "?"), one.seq, one.code) for one in looked]


def test_each_chain_is_numbered_without_gaps_and_python_and_the_database_agree_on_every_hash(trail: Any) -> None:
    assert found() == []
    for chain in (PLATFORM, *(tenant.id for tenant in trail)):
        links = list(AuditLink.objects.filter(chain=chain).order_by("seq"))
        assert [one.seq for one in links] == list(range(1, 13))
        assert links[-1].hash == AuditHead.objects.get(chain=chain).hash
    with connection.cursor() as cursor:
        cursor.execute(
            f"""select audit_line(e, l.seq), l.seq, l.prev, l.hash, e.id, e.tenant_id::text, {verification.ENTRY}
            from tenants_auditlink l join tenants_auditentry e on e.id = l.entry_id"""
        )
        rows = cursor.fetchall()
    for text, *columns in rows:
        row = Linked(*columns)
        assert line(row) == text.encode() and digest(bytes(row.prev), line(row)) == bytes(row.hash)
    assert len(rows) == 36 and not AuditNote.objects.exists()


def test_an_entry_that_is_rolled_back_leaves_no_gap(trail: Any) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        audit.append(None, "x", "y", "z", tenant=None)
        raise ZeroDivisionError
    with transaction.atomic():
        audit.append(None, "x", "y", "kept", tenant=None)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            audit.append(None, "x", "y", "not kept", tenant=None)
            raise ZeroDivisionError
    assert AuditHead.objects.get(chain=PLATFORM).seq == 13
    assert found() == []


def test_writers_on_two_chains_in_any_order_neither_wait_for_ever_nor_leave_gaps(committed_db: None) -> None:
    tenants = [Tenant.objects.create(slug=slug) for slug in ("acme", "globex")]

    def write(worker: int) -> None:
        try:
            for n in range(12):
                first, second = tenants if (worker + n) % 2 else tenants[::-1]
                with transaction.atomic():  # both locks of the rows of others, in either order
                    audit.append(None, "x", "y", f"{worker}.{n}", tenant=first)
                    audit.append(None, "x", "y", f"{worker}.{n}", tenant=second)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    for tenant in tenants:
        assert list(AuditLink.objects.filter(chain=tenant.id).order_by("seq").values_list("seq", flat=True)) == list(range(1, 97))
    assert found() == []


def test_the_lock_of_the_chains_is_taken_after_every_check_of_a_commit(committed_db: None, urls: Urls) -> None:
    """A change that deletes what another one refers to: the other's check waits for it, and holds no chain meanwhile."""
    tenant = Tenant.objects.create(slug="acme")
    user = User.objects.create_user("ada")
    with psycopg.connect(urls.owner) as deleting, psycopg.connect(urls.owner, autocommit=True) as watching:
        deleting.execute("delete from tenants_user where id = %s", [user.pk])

        def refer() -> str:
            try:
                with transaction.atomic():
                    audit.append(None, "x", "y", "refers", tenant=tenant)
                    values = "(%s, %s, 'viewer')"
                    connection.cursor().execute(
                        f"insert into tenants_member (tenant_id, user_id, role) values {values}", [tenant.pk, user.pk]
                    )
            except Exception as error:
                return type(error).__name__
            finally:
                connections.close_all()
            return "written"

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(refer)
            waits = "select count(*) from pg_locks where not granted"
            until = time.monotonic() + 30
            while not watching.execute(waits).fetchone()[0] and time.monotonic() < until:  # type: ignore[index]
                time.sleep(0.01)
            deleting.execute(
                "insert into tenants_auditentry (actor, action, object_kind, object_id, reason, request_id) values ('a','b','c','d','','')"
            )
            deleting.commit()  # needs the chains' lock
            assert other.result(30) == "IntegrityError"
    assert AuditHead.objects.get().seq == 1 and found() == []


def test_the_roles_that_serve_can_neither_link_nor_move_a_head_nor_take_a_checkpoint_back(trail: Any, urls: Urls) -> None:
    statements = [
        "insert into tenants_auditlink (entry_id, chain, seq, prev, hash) values (1, gen_random_uuid(), 1, '', '')",
        "update tenants_auditlink set seq = 0", "delete from tenants_auditlink", "update tenants_audithead set seq = 0",
        "delete from tenants_audithead", "insert into tenants_auditnote (entry_id) values (1)", "delete from tenants_auditcheckpoint",
        "update tenants_auditcheckpoint set seq = 0", "select audit_link(1)",
    ]  # fmt: skip
    for url in {urls.web, urls.engine} - {urls.owner}:
        for statement in statements:
            with psycopg.connect(url) as plain, pytest.raises(psycopg.errors.InsufficientPrivilege):
                plain.execute(statement.encode())


def test_what_was_written_before_there_were_chains_is_brought_into_them(trail: Any, owner: Any) -> None:
    before = tampering.fingerprint(owner)
    owner.execute("delete from tenants_auditlink; delete from tenants_audithead")
    owner.execute(EXISTING)
    assert tampering.fingerprint(owner) == before  # each chain was written in the order of the ids


# tampering --------------------------------------------------------------------------------------------------------------------


def test_random_tamperings_are_found_each_time(trail: Any, owner: Any) -> None:
    trials, seed = (1000, 55) if CHAOS else (150, 56)
    dice, started, kinds = random.Random(seed), time.monotonic(), Counter[str]()
    untouched = tampering.fingerprint(owner)
    while sum(kinds.values()) < trials:
        with transaction.atomic():
            try:
                with transaction.atomic():
                    name = dice.choice(tampering.WAYS)(owner, dice)
            except (tampering.Nothing, psycopg.errors.UniqueViolation):
                continue
            if tampering.fingerprint(owner) != untouched:
                assert found(), f"{name} was not found (seed {seed}, trial {sum(kinds.values())})"
                kinds[name.split()[0]] += 1
            transaction.set_rollback(True)
    assert found() == []
    assert set(kinds) == {way.__name__.split("_")[0] for way in tampering.WAYS}
    if CHAOS:
        figure("T55", "random tamperings with the audit trail, all found", n=trials, seconds=time.monotonic() - started, seed=seed, **kinds)


@pytest.mark.skipif(not CHAOS, reason="long: CHAOS=1")
@pytest.mark.timeout(900)
def test_a_million_entries_are_walked_in_a_minute(trail: Any, owner: Any) -> None:
    columns = "tenant_id, at, actor, action, object_kind, object_id, before, after, reason, request_id"
    owner.execute(
        f"""insert into tenants_auditentry ({columns}) select null, now(), 'ada', 'permission.updated', 'permission', i::text,
        '{{"decision": "ask", "approvers": 1, "tool": "create_ticket"}}', '{{"decision": "deny", "approvers": 1, "tool": "create_ticket"}}',
        'too many', '01M84NVW2ARRGAAF26N9XW52ZZ' from generate_series(1, 1000000) i""".encode()
    )
    owner.execute("delete from tenants_auditlink; delete from tenants_audithead")
    owner.execute(EXISTING)
    owner.execute("analyze tenants_auditentry; analyze tenants_auditlink")
    started = time.monotonic()
    looked = list(verification.verify([PLATFORM]))
    assert [(one.reached.seq, one.broken) for one in looked] == [(1_000_012, None)]
    figure("T55", "entries of one audit chain, verified", n=1_000_012, seconds=time.monotonic() - started)


def test_a_checkpoint_that_only_the_file_still_has_shows_what_was_cut_off(trail: Any, owner: Any, settings: Any) -> None:
    last = AuditLink.objects.get(chain=PLATFORM, seq=12).entry_id
    owner.execute("delete from tenants_auditcheckpoint; delete from tenants_auditlink where entry_id = %s", [last])
    owner.execute("delete from tenants_auditentry where id = %s", [last])
    tampering.right_head(owner, PLATFORM)
    assert ("platform", 12, "lost") in found() or ("platform", 12, "truncated") in found()
    settings.AUDIT_CHECKPOINTS.unlink()
    assert found() == []  # nothing left in the database says so: hence the file


# the checkpoints --------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_signs_only_chains_that_have_grown_and_keeps_a_copy_outside(trail: Any, settings: Any) -> None:
    assert AuditCheckpoint.objects.count() == 3 and tasks.checkpoint_audit() == 0
    audit.append(None, "x", "y", "z", tenant=trail[0])
    assert tasks.checkpoint_audit() == 0
    lines = [json.loads(text) for text in settings.AUDIT_CHECKPOINTS.read_text().splitlines()]
    assert len(lines) == AuditCheckpoint.objects.count() == 4
    assert (lines[-1]["chain"], lines[-1]["seq"]) == (str(trail[0].id), 13)
    assert settings.AUDIT_CHECKPOINTS.stat().st_mode & 0o777 == 0o600
    assert all(checkpoints.holds(one) for one in checkpoints.kept())


def test_what_was_added_and_does_not_hold_is_not_signed(trail: Any, owner: Any) -> None:
    owner.execute("update tenants_audithead set seq = seq + 1 where chain = %s", [PLATFORM])
    assert [(one.chain, one.code) for one in verification.checkpoint()] == [(PLATFORM, "head")]


def test_an_earlier_key_still_checks_and_a_foreign_one_never_did(trail: Any, settings: Any) -> None:
    earlier = (Path(settings.HOME) / "audit-signing").read_text().strip()
    settings.AUDIT_SIGNING_KEYS = f"{'A' * 43}=,{earlier}"
    audit.append(None, "x", "y", "z", tenant=None)
    assert verification.checkpoint() == [] and found() == []
    settings.AUDIT_SIGNING_KEYS = f"{'A' * 43}="
    assert {code for _, _, code in found()} == {"unsigned"}


def test_a_line_of_the_file_that_is_no_checkpoint_is_named(trail: Any, settings: Any) -> None:
    with settings.AUDIT_CHECKPOINTS.open("a") as file:
        file.write("{}\n")
    with pytest.raises(CommandError, match=r"Line 4 of .* is no checkpoint"):
        call_command("verify_audit")


# what people and the detectors see --------------------------------------------------------------------------------------------


def said(*words: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("verify_audit", *words, stdout=out, stderr=err)
    except SystemExit as ended:
        return int(ended.code or 0), err.getvalue()
    return 0, out.getvalue()


def test_the_command_walks_every_chain_and_says_how_far_each_holds(trail: Any) -> None:
    code, text = said()
    assert code == 0 and "acme: 12 entries hold." in text and "3 chains, 36 entries, nothing is missing" in text
    assert said("--tenant", "acme") == (0, "acme: 12 entries hold.\n1 chains, 12 entries, nothing is missing and nothing was changed.\n")
    assert list(AuditVerified.objects.values_list("seq", "problem")) == [(12, None)] * 3
    with pytest.raises(CommandError, match="There is no tenant nobody"):
        call_command("verify_audit", "--tenant", "nobody")


def test_the_command_names_the_chain_the_entry_what_differs_and_the_cure(trail: Any, owner: Any) -> None:
    entry = AuditLink.objects.get(chain=trail[1].id, seq=5).entry_id
    owner.execute("update tenants_auditentry set actor = 'bob' where id = %s", [entry])
    code, text = said()
    assert code == 1 and text.startswith(
        "BROKEN chain globex, entry 5: a column of the entry is not what its hash was made of.\n    Restore"
    )
    assert said("--tenant", "acme")[0] == 0


def test_the_hourly_verification_keeps_what_it_found_until_it_holds_again(trail: Any, owner: Any) -> None:
    assert tasks.verify_audit() == 0 and audit_health.last().at is not None and audit_health.broken() == []
    with transaction.atomic():
        owner.execute("delete from tenants_auditentry where id = %s", [AuditLink.objects.get(chain=PLATFORM, seq=12).entry_id])
        assert tasks.verify_audit() == 1
        (kept,) = audit_health.broken()
        assert (kept["chain"], kept["seq"], kept["code"]) == (str(PLATFORM), 12, "entry_gone") and kept["cure"]
        transaction.set_rollback(True)
    assert tasks.verify_audit() == 0 and audit_health.broken() == []


def test_a_trail_that_is_too_long_for_one_turn_is_walked_in_several(trail: Any, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "BATCH", 5)
    audit_health.verify(lambda: False)
    AuditVerified.objects.all().delete()

    def turn(chain: UUID) -> tuple[int, int]:
        """One batch of one chain."""
        row = AuditVerified.objects.filter(chain=chain).first()
        after = Place(row.walked, bytes(row.walked_hash)) if row and row.walked else None
        asked = iter([True, True])
        audit_health.keep(verification.look(chain, verification.expected(), after, lambda: next(asked, False)))
        row = AuditVerified.objects.get(chain=chain)
        return row.walked, row.seq

    assert [turn(PLATFORM), turn(PLATFORM)] == [(5, 0), (10, 0)]
    assert audit_health.verify(lambda: False) == []
    assert AuditVerified.objects.get(chain=PLATFORM).seq == 12
    owner.execute("update tenants_auditverified set walked = 5, walked_hash = sha256('x') where chain = %s", [PLATFORM])
    assert [one.code for one in audit_health.verify(lambda: False)] == ["order"]  # it really went on from there
