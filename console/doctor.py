"""What must hold in the tables whatever happened: kills, zombies, lost answers, races. Each rule is one statement that finds offenders.

The statements look at a sample, so that they stay quick on large tables: every run that has not ended (at most `MANY`), the newest
that have, and a random probe of the others, which is another one each time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.conninfo import conninfo_to_dict

from runs.states import TERMINAL, RunState
from tenants import credentials
from tenants.errors import Refused
from tenants.ids import encode

from .database import APPEND_ONLY, confined_role
from .doctor_rules import RULES, Rule
from .row_security import GUARDED

LIMIT = 20
MANY = 5000
NEWEST = 2000
PROBE = 1000
PATIENCE = "15s"  # for one statement
UNREADABLE = "credential_unreadable"
GOING_ON = [state.value for state in RunState if state not in TERMINAL]
MOVES = (
    "run_moves_u", "run_moves_i", "call_moves_u", "call_moves_i", "run_settles", "tenants_auditentry_noted", "tenants_auditnote_linked",
)  # fmt: skip

SAMPLE = """
(select r.id from tenants_tenant t, unnest(%(open)s::text[]) s,
    lateral (select id from run where tenant_id = t.id and state = s limit %(many)s) r limit %(many)s)
union (select id from run order by id desc limit %(newest)s)
union (select id from run tablesample system (%(percent)s) limit %(probe)s)
"""
SIZE = "select greatest(reltuples, 0) from pg_class where oid = 'run'::regclass"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold. `ids`: at most 20 offenders, as people see them (`agt_… 2.1`: call 1 of step 2)."""

    name: str
    meaning: str
    cure: str
    ids: tuple[str, ...]
    warning: bool = False  # something to know, no damage


def examine(connection: BaseDatabaseWrapper) -> list[Finding]:
    """Every rule that does not hold now, in the order of the list. A rule that takes too long is reported as a warning."""
    return list(_findings(connection))


def _findings(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    with transaction.atomic(using=connection.alias):
        # through the keys: a table may be large, the sample never is
        connection.cursor().execute(f"set local statement_timeout = '{PATIENCE}'; set local enable_seqscan = off; set local jit = off")
        values = _values(connection)
        for rule in RULES:
            ids = _offenders(connection, rule, values)
            if ids is None:
                yield Finding(rule.name, f"Not examined within {PATIENCE}: {rule.meaning}", "Run it again when it is quiet.", (), True)
            elif ids:
                yield Finding(rule.name, rule.meaning, rule.cure, ids, rule.warning)
        yield from _sealed(connection)


def _sealed(connection: BaseDatabaseWrapper) -> Iterator[Finding]:
    """What no statement can see: whether our keys still open the credentials."""
    cure = "Give back the key in SEALING_KEYS (or the state folder), or enter the credential again: its calls fail until then."
    try:
        names = tuple(islice(credentials.unreadable(connection.alias, MANY), LIMIT))
    except Refused as refused:
        yield Finding(UNREADABLE, refused.message, cure, ())
        return
    if names:
        yield Finding(UNREADABLE, "A credential cannot be opened, or was sealed for another tenant or name.", cure, names)


def _values(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(SIZE)
        percent = min(100.0, 100.0 * 3 * PROBE / max(cursor.fetchone()[0], 1))
        cursor.execute(SAMPLE, {"open": GOING_ON, "many": MANY, "newest": NEWEST, "probe": PROBE, "percent": percent})
        runs = [row[0] for row in cursor.fetchall()]
    web, engine = (str(conninfo_to_dict(url).get("user") or "") for url in (settings.WEB_URL, settings.ENGINE_URL))
    return {
        "runs": runs, "serving": sorted({web, engine}), "ttl": settings.LEASE_TTL_S, "slots": settings.ENGINE_SLOTS,
        "append_only": [f"{table}_append_only" for table in APPEND_ONLY], "history": list(APPEND_ONLY), "moves": list(MOVES),
        "web": web, "confined": confined_role() or "", "guarded": list(GUARDED),
    }  # fmt: skip


def _offenders(connection: BaseDatabaseWrapper, rule: Rule, values: dict[str, Any]) -> tuple[str, ...] | None:
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(f"select * from ({rule.sql}) as offending limit {LIMIT}", values)
            return tuple(_shown(rule, *row) for row in cursor.fetchall())
    except OperationalError:
        return None


def _shown(rule: Rule, key: Any, place: str | None = None) -> str:
    name = encode(rule.prefix, key) if isinstance(key, UUID) and rule.prefix else str(key)
    return f"{name} {place}" if place else name
