"""T46: PostgreSQL itself keeps tenants apart. Raw SQL and the ORM as the web's role, with every filter of ours left out."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.models import Q, UUIDField
from django.db.utils import load_backend
from django.test import Client
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from approvals.models import Approval
from console import spending
from console.database import APPEND_ONLY, BY_TRIGGERS, confined_role, grant, plain_roles
from console.embedded import binaries
from console.embedded.account import server_account
from console.embedded.places import SHARED
from console.postgres import Urls
from console.row_security import BEFORE, GUARDED, OPEN, Own, policies
from console.settings import database
from runs import drafts, switches
from runs.models import Call, Run
from tenants.actors import Actor
from tenants.by_tenant import ByTenant
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scope import ALL, installation_wide, settle, spelled, tenant_scope
from tests.console.callers import caller
from tools import breakers

from .furnished import Furnished, furnish

pytestmark = pytest.mark.mission("P13.1")
BORN = {  # as triggers and unique keys let them begin
    "run": {"state": "queued", "owner": None},
    "call": {"state": "ready"},
    "runs_case": {"key": "another"},
}
OURS = ("tenants", "tools", "approvals", "runs", "console")


@pytest.fixture(autouse=True)
def _three_roles() -> None:
    if confined_role() is None:
        pytest.skip("DATABASE_URL and DATABASE_ENGINE_URL name one role: nothing confines it")


@pytest.fixture
def two(committed_db: None) -> tuple[Furnished, Furnished]:
    return furnish("alpha"), furnish("bravo")


@pytest.fixture
def web(urls: Urls) -> Iterator[psycopg.Connection[Any]]:
    """The role of the web process, in autocommit."""
    with psycopg.connect(urls.web, autocommit=True) as made:
        yield made


@contextmanager
def seeing(made: psycopg.Connection[Any], tenants: Any) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that sees these tenants, and is rolled back."""
    with made.transaction(force_rollback=True):
        made.execute("select set_config('app.tenant', %s, true)", [spelled(tenants)])
        yield made


@pytest.fixture
def as_web(urls: Urls) -> Iterator[Any]:
    """Django's default connection of this thread is one of the web's, pooled as in the web process."""
    given, before = database(urls.web), connections["default"]
    options = given["OPTIONS"] | {"pool": {"min_size": 1, "max_size": 1, "timeout": 5}}
    plain = {name: before.settings_dict[name] for name in before.settings_dict if name not in given}
    made = load_backend(given["ENGINE"]).DatabaseWrapper({**plain, **given, "OPTIONS": options}, "web_in_tests")
    made.alias = "default"
    connections["default"] = made
    yield made
    made.close()
    made.alias = "web_in_tests"
    made.close_pool()
    connections["default"] = before


def rows_of(urls: Urls, table: str, *tenants: UUID) -> dict[UUID | None, list[str]]:
    """Tenant -> its rows as text, read by the owner. None: rows without one."""
    found: dict[UUID | None, list[str]] = {}
    with psycopg.connect(urls.owner) as owner:
        for tenant in tenants:
            rows = owner.execute(f"select it::text from {table} it where {belongs(table)}".encode(), [tenant])
            found[tenant] = [text for (text,) in rows]
        known = {text for rows in found.values() for text in rows}
        found[None] = [text for text in read(owner, table) if text not in known]
    return found


def read(made: psycopg.Connection[Any], table: str) -> list[str]:
    return sorted(text for (text,) in made.execute(f"select it::text from {table} it".encode()))


# what is guarded --------------------------------------------------------------------------------------------------------------


def test_every_table_is_guarded_or_open_for_a_reason(committed_db: None, urls: Urls) -> None:
    of_tenants = {"tenant", "tenant_id"}
    ours = {m._meta.db_table: m for m in apps.get_models(include_auto_created=True) if m._meta.app_label in OURS}
    assert sorted(set(ours) - set(GUARDED) - set(OPEN)) == [], "say in console/row_security.py whose rows these are"
    with_tenant = {table for table, model in ours.items() if of_tenants & {field.name for field in model._meta.concrete_fields}}
    assert {table: OPEN[table] for table in with_tenant - set(GUARDED)} == {"tenants_member": BEFORE, "console_invitation": BEFORE}
    there = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
    with psycopg.connect(urls.owner) as owner:
        tables = {name for (name,) in owner.execute(there)}
    assert {name for name in tables - set(GUARDED) - set(OPEN) if not name.startswith(("auth_", "django_"))} == set()


def test_guards_are_on_for_plain_roles_and_never_for_the_owner(committed_db: None, urls: Urls) -> None:
    asked = "select relname, relrowsecurity, relforcerowsecurity from pg_class where relname = any(%s) and relkind = 'r'"
    made = "select tablename, policyname from pg_policies where policyname like 'sbx%%'"
    with psycopg.connect(urls.owner) as owner:
        state = {name: (on, forced) for name, on, forced in owner.execute(asked, [list(GUARDED)])}
        there = set(owner.execute(made).fetchall())
    assert state == dict.fromkeys(state, (True, False)) and set(state) <= set(GUARDED)
    wanted = {(one.table, one.name) for one in policies(confined_role(), plain_roles() - {confined_role() or ""}) if one.table in state}
    assert there == wanted
    grant("owner")  # again: nothing differs, nothing is touched
    with psycopg.connect(urls.owner) as owner:
        assert set(owner.execute(made).fetchall()) == wanted


# raw SQL as the web's role ----------------------------------------------------------------------------------------------------


def test_each_scope_sees_its_own_rows_of_every_table(two: tuple[Furnished, Furnished], urls: Urls, web: Any) -> None:
    a, b = (made.world.tenant.id for made in two)
    with psycopg.connect(urls.engine, autocommit=True) as engine, psycopg.connect(urls.owner, autocommit=True) as owner:
        for table, guard in GUARDED.items():
            there = rows_of(urls, table, a, b)
            everything = sorted(text for rows in there.values() for text in rows)
            shared = there[None] if isinstance(guard, Own) and guard.shared else []
            assert there[a] and there[b], f"{table}: furnish() leaves it empty"
            assert read(web, table) == sorted(shared), f"{table}: unset, and outside of a transaction"
            for tenants, seen in ((), []), ((a,), there[a]), ((b,), there[b]), ((a, b), there[a] + there[b]):
                with seeing(web, tenants):
                    assert read(web, table) == sorted(seen + shared), table
            with seeing(web, ALL):
                assert read(web, table) == everything, table
            assert read(engine, table) == read(owner, table) == everything, table
            assert read(web, table) == sorted(shared), f"{table}: after the scope"


def test_rows_of_every_tenant_are_read_by_all_and_those_of_the_platform_by_none(two: Any, urls: Urls, web: Any) -> None:
    a = two[0].world.tenant.id
    with psycopg.connect(urls.engine, autocommit=True) as engine:
        for table, guard in GUARDED.items():
            if not isinstance(guard, Own):
                continue
            nullable = "select is_nullable = 'YES' from information_schema.columns where table_name = %s and column_name = 'tenant_id'"
            if not engine.execute(nullable, [table]).fetchone()[0]:  # type: ignore[index]
                assert not guard.shared
                continue
            engine.execute(copied(engine, table, a, tenant_id=None, **fresh(table)))
            with seeing(web, (a,)):
                seen = web.execute(f"select count(*) from {table} where tenant_id is null".encode()).fetchone()[0]
                assert seen == int(guard.shared), table
                with pytest.raises(errors.InsufficientPrivilege), web.transaction():
                    web.execute(copied(engine, table, a, tenant_id=None, **fresh(table)))
                if table not in APPEND_ONLY:
                    assert web.execute(f"delete from {table} where tenant_id is null".encode()).rowcount == 0, table


def test_what_others_spend_under_a_shared_ceiling_is_out_of_sight(two: Any, urls: Urls, web: Any) -> None:
    a = two[0].world.tenant.id
    with psycopg.connect(urls.engine) as engine:
        engine.execute("update tenants_ceiling set tenant_id = null, agent = 'x' where tenant_id = %s", [two[1].world.tenant.id])
    with seeing(web, (a,)):
        assert web.execute("select count(*) from tenants_ceiling").fetchone() == (2,)
        assert web.execute("select count(*) from tenants_spending").fetchone() == (1,)


def test_no_scope_writes_rows_of_another_tenant(two: tuple[Furnished, Furnished], urls: Urls, web: Any) -> None:
    a, b = (made.world.tenant.id for made in two)
    with psycopg.connect(urls.owner, autocommit=True) as owner:
        for table, guard in GUARDED.items():
            if table in BY_TRIGGERS:
                continue  # nobody who serves writes those at all
            mine = len(rows_of(urls, table, a)[a])
            stolen = copied(owner, table, b)
            for scope in ((), (a,)):
                with seeing(web, scope), pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
                    web.execute(stolen)
            if table in APPEND_ONLY:
                continue  # nobody changes those: see the grants
            with seeing(web, (a,)):
                changed = web.execute(f"update {table} set {guard.column} = {guard.column}".encode()).rowcount
                assert changed == mine, f"{table}: an update without a filter"
            if isinstance(guard, Own):
                with seeing(web, (a,)), pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
                    web.execute(f"update {table} set {guard.column} = %s".encode(), [b])
            with seeing(web, (b,)):
                theirs = web.execute(f"select array_agg(ctid) from {table}".encode()).fetchone()[0]
            with seeing(web, (a,)):
                assert web.execute(f"delete from {table} where ctid = any(%s::tid[])".encode(), [theirs]).rowcount == 0, table


def copied(owner: psycopg.Connection[Any], table: str, tenant: UUID, **changes: Any) -> sql.Composed:
    """A statement that inserts one of this tenant's rows anew."""
    row = owner.execute(f"select to_jsonb(it) from {table} it where {belongs(table)} limit 1".encode(), [tenant]).fetchone()
    assert row, table
    stored = "select column_name from information_schema.columns where table_name = %s and is_generated = 'NEVER'"
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in owner.execute(stored, [table]))
    statement = "insert into {0} ({1}) select {1} from jsonb_populate_record(null::{0}, {2})"
    return sql.SQL(statement).format(sql.Identifier(table), columns, sql.Literal(Jsonb(row[0] | BORN.get(table, {}) | changes)))


def belongs(table: str) -> str:
    """The condition of a tenant's rows."""
    guard = GUARDED[table]
    if isinstance(guard, Own):
        return f"{guard.column} = %s"
    return f"{guard.column} in (select {guard.key} from {guard.of} where {belongs(guard.of)})"


def fresh(table: str) -> dict[str, Any]:
    """A key that is not there yet."""
    model = next(model for model in apps.get_models(include_auto_created=True) if model._meta.db_table == table)
    return {model._meta.pk.column: str(new_id()) if isinstance(model._meta.pk, UUIDField) else 10**6}


# the one door -----------------------------------------------------------------------------------------------------------------


def everybody() -> set[str]:
    return {run.tenant.slug for run in Run.objects.select_related("tenant")}


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_a_scope_ends_with_each_statement_and_leaves_nothing_on_the_pooled_connection(two: Any, as_web: Any) -> None:
    a = two[0].world.tenant.id
    with tenant_scope((a,)):
        used = backend()
        assert everybody() == {"alpha"}
        as_web.close()  # back to the pool in the middle
        assert everybody() == {"alpha"} and backend() == used
    assert everybody() == set()
    as_web.close()
    assert everybody() == set() and backend() == used
    with connection.cursor() as cursor:
        cursor.execute("select coalesce(current_setting('app.tenant', true), '')")
        assert cursor.fetchone() == ("",)
    with tenant_scope((a,)), transaction.atomic():
        assert everybody() == {"alpha"}
    assert everybody() == set()


def test_scopes_do_not_nest_and_a_request_has_one_actor(two: Any, as_web: Any) -> None:
    a, b = (made.world.tenant.id for made in two)
    with tenant_scope((a,)):
        for inner in ((b,), (a,), ALL, ()):
            with pytest.raises(RuntimeError, match="nest"), tenant_scope(inner):
                pass
        with pytest.raises(RuntimeError, match="settled"):
            settle((b,))
        settle((a,))
        assert everybody() == {"alpha"}
    with tenant_scope():
        assert everybody() == set()
        settle((b,))
        assert everybody() == {"bravo"}
    settle(ALL)  # nothing is open: nothing is settled
    assert everybody() == set()
    with tenant_scope(ALL):
        assert everybody() == {"alpha", "bravo"}


def test_what_is_no_id_never_becomes_a_scope(two: Any, web: Any) -> None:
    for text in ("", "x", "' or true --", "*,", "{}"):
        with pytest.raises(ValueError):
            spelled([text])  # type: ignore[list-item]
    with seeing(web, ALL):  # `*` beside a cast to uuid[]: the cast is not tried
        assert web.execute("select count(distinct tenant_id) from run").fetchone() == (2,)
    for text in ("x", "*,", "%", f"{two[0].world.tenant.id},*"):
        with pytest.raises(errors.InvalidTextRepresentation), web.transaction():
            web.execute("select set_config('app.tenant', %s, true)", [text])
            web.execute("select count(*) from run")


def test_a_refused_statement_and_a_savepoint_keep_the_scope(two: Any, as_web: Any) -> None:
    a, b = (made.world.tenant for made in two)
    with tenant_scope((a.id,)), transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic():
            Tenant.objects.create(slug=a.slug)
        assert everybody() == {"alpha"}
        with pytest.raises(DatabaseError, match="row-level security"), transaction.atomic():
            Run.objects.filter(tenant=a).update(tenant=b)
        assert everybody() == {"alpha"}
        with connection.cursor() as cursor:
            cursor.execute("select 1; select 2")
            assert cursor.fetchone() == (1,) and cursor.nextset() and cursor.fetchone() == (2,)
            with pytest.raises(NotImplementedError):
                cursor.executemany("select %s", [(1,), (2,)])


def test_a_scope_holds_no_transaction_open_between_statements(two: Any, as_web: Any) -> None:
    with tenant_scope((two[0].world.tenant.id,)):
        assert everybody() == {"alpha"}
        status = as_web.connection.info.transaction_status
        assert status == psycopg.pq.TransactionStatus.IDLE


def test_installation_wide_means_all_tenants_and_only_within_a_scope(two: Any, as_web: Any) -> None:
    with tenant_scope((two[0].world.tenant.id,)):
        with installation_wide():
            assert everybody() == {"alpha", "bravo"}
        assert everybody() == {"alpha"}
    with installation_wide():
        assert everybody() == set()


def test_who_may_act_installation_wide_is_a_short_list() -> None:
    users = set()
    for path in settings.BASE_DIR.glob("*/**/*.py"):
        room = path.relative_to(settings.BASE_DIR)
        if room.parts[0] in OURS and "installation_wide" in path.read_text():
            users.add(str(room))
    assert users == {
        "tenants/scope.py",
        "tenants/audit.py",
        "tenants/controls.py",
        "tenants/quotas.py",
        "runs/releases.py",
        "console/changes.py",
    }


# the ORM without our filters --------------------------------------------------------------------------------------------------


def test_the_orm_without_any_filter_finds_no_foreign_row(two: tuple[Furnished, Furnished], as_web: Any) -> None:
    a, b = (made.world.tenant.id for made in two)
    of_tables = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    with tenant_scope((a,)):
        for table in GUARDED:
            found = list(of_tables[table]._default_manager.values())
            assert found, table
            assert not [row for row in found if b in row.values() or "bravo" in repr(row)], table
    for table in GUARDED:
        assert not list(of_tables[table]._default_manager.all()), table


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filter by tenant, as if nobody had thought of it."""
    monkeypatch.setattr(Actor, "sees", lambda self, tenant: True)
    monkeypatch.setattr(ByTenant, "scope", lambda self, user, least: self.model._default_manager.all())
    monkeypatch.setattr(ByTenant, "get_queryset", lambda self, request: self.model._default_manager.all())
    monkeypatch.setattr(switches, "visible", lambda actor: switches.Switch.objects.all())
    monkeypatch.setattr(spending, "visible", lambda actor: spending.Ceiling.objects.all())
    monkeypatch.setattr(
        drafts, "drafts", lambda actor, waiting=True: Call.objects.annotate(was_decided=drafts.decided()).order_by("-run_id")
    )
    monkeypatch.setattr(breakers, "visible", lambda actor: Q())


def test_pages_and_api_with_our_filters_taken_out_show_nothing_foreign(
    two: tuple[Furnished, Furnished], as_web: Any, forgotten: None
) -> None:
    a, b = two
    api, browser = caller(a.admin), Client()
    browser.force_login(a.admin.user)
    run, approval = b.runs["ended"], b.known[Approval]
    for path in (f"/runs/{run.run_id}", f"/runs/{run.run_id}/steps", f"/runs/{run.run_id}/events", f"/approvals/{approval.approval_id}"):
        assert api.get(path).status_code == 404, path
    for path in ("/runs", "/approvals", "/drafts", "/unknowns", "/switches", "/breakers", "/ceilings"):
        answer = api.get(path)
        assert answer.status_code == 200 and b"bravo" not in answer.content, path
    changelists = [f"/admin/{m._meta.app_label}/{m._meta.model_name}/" for m in admin.site._registry if m._meta.db_table in GUARDED]
    for path in ("/", "/runs/", "/approvals/", "/drafts/", "/unknowns/", "/spend/", "/switches/", *changelists):
        answer = browser.get(path)
        assert answer.status_code in (200, 403) and b"bravo" not in answer.content, path
    assert len(changelists) > 5


# those who see everything -----------------------------------------------------------------------------------------------------


def test_the_owner_migrates_data_and_dumps_all_of_it(two: tuple[Furnished, Furnished], urls: Urls, tmp_path: Path) -> None:
    with psycopg.connect(urls.owner) as owner, owner.transaction(force_rollback=True):
        assert owner.execute("update tools_rule set approvers = 2").rowcount == 2
    place = tmp_path / "dump.sql"
    dump(urls.owner, place)
    text = place.read_text()
    assert "ENABLE ROW LEVEL SECURITY" in text and "FORCE ROW LEVEL SECURITY" not in text
    for made in two:
        assert str(made.runs["queued"].id) in text and f"{made.word} asks" in text


def dump(url: str, place: Path) -> None:
    program = binaries.programs(server_account(), SHARED) / "pg_dump"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([program, "--file", place, url], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_one_role_for_everything_is_confined_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert confined_role() == conninfo_to_dict(settings.WEB_URL)["user"]
    for name in ("WEB_URL", "ENGINE_URL"):
        with monkeypatch.context() as patch:
            patch.setattr(settings, name, settings.OWNER_URL)
            assert (confined_role() is None) == (name == "WEB_URL")
    monkeypatch.setattr(settings, "ENGINE_URL", settings.WEB_URL)
    assert confined_role() is None
    assert {one.condition for one in policies(None, {"one"})} == {"true"}
