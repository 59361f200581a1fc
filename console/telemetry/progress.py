"""Which runs telemetry has told of. Rows are the truth: what ended is looked up, told, and only then written down as told.

One exporter has the row at a time. A failure moves nothing but the time of the next try; what is older than the buffer is given up
and counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import random
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

NAME = "otlp"
LATE = timedelta(minutes=2)  # a run may become visible so long after its `ended_at`
LEASE = timedelta(seconds=60)
BATCH = 32  # runs at a time
FIRST_WAIT_S, SLOWEST_S = 5.0, 300.0

BEGIN = """
insert into console_telemetryexport (name, floor, batch) values (%(name)s, statement_timestamp() - %(late)s, %(batch)s)
on conflict do nothing
"""
TAKE = """
update console_telemetryexport set lease_until = statement_timestamp() + %(lease)s
where name = %(name)s and lease_until <= statement_timestamp() and next_at <= statement_timestamp() returning batch
"""
KEEP = "update console_telemetryexport set lease_until = statement_timestamp() + %(lease)s where name = %(name)s"
LEAVE = "update console_telemetryexport set lease_until = statement_timestamp() where name = %(name)s"
UNTOLD = """
from run r, console_telemetryexport x
where x.name = %(name)s and r.ended_at >= x.floor and not exists (select from console_telemetrysent s where s.run_id = r.id)
"""
DUE = f"select r.id, r.ended_at {UNTOLD} order by r.ended_at, r.id limit %(most)s"
PENDING = f"select count(*) from (select {UNTOLD} limit %(most)s) as pending"
GIVE_UP = f"""
with old as (select count(*) as runs {UNTOLD} and r.ended_at < statement_timestamp() - %(buffer)s)
update console_telemetryexport x set floor = statement_timestamp() - %(buffer)s, dropped = dropped + old.runs,
  dropped_at = case when old.runs > 0 then statement_timestamp() else dropped_at end
from old where x.name = %(name)s and x.floor < statement_timestamp() - %(buffer)s
"""
TOLD = """
insert into console_telemetrysent (run_id, ended_at) select id, ended_at from run where id = any(%(runs)s) on conflict do nothing
"""
MOVE_ON = """
update console_telemetryexport set failures = 0, last_error = %(error)s, batch = least(%(batch)s, batch * 2),
  sent = sent + %(sent)s, sent_at = case when %(sent)s > 0 then statement_timestamp() else sent_at end,
  dropped = dropped + %(refused)s, dropped_at = case when %(refused)s > 0 then statement_timestamp() else dropped_at end,
  floor = greatest(floor, least(statement_timestamp() - %(late)s, %(oldest)s)), lease_until = statement_timestamp()
where name = %(name)s
"""
FORGET = "delete from console_telemetrysent where ended_at < (select floor from console_telemetryexport where name = %(name)s)"
FAILED = """
update console_telemetryexport set failures = failures + 1, failed_at = statement_timestamp(), last_error = %(error)s,
  batch = case when %(smaller)s then greatest(1, batch / 2) else batch end, lease_until = statement_timestamp(),
  next_at = statement_timestamp() + make_interval(secs => %(spread)s * least(%(slowest)s, %(wait)s * power(2, least(failures, 10))))
where name = %(name)s
"""


@contextmanager
def statements() -> Iterator[CursorWrapper]:
    with transaction.atomic(), connection.cursor() as cursor:
        yield cursor


def values(**more: Any) -> dict[str, Any]:
    return {"name": NAME, "late": LATE, "lease": LEASE, "batch": BATCH} | more


def take(buffer: timedelta) -> list[UUID] | None:
    """The next runs to tell, ours for `LEASE`, the first that ended first; None: somebody else is at it, or it is not time yet.

    The first time it begins with what ends now: nobody asked for what was before.
    """
    with statements() as cursor:
        cursor.execute(BEGIN, values())
        cursor.execute(TAKE, values())
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(GIVE_UP, values(buffer=buffer))
        cursor.execute(DUE, values(most=row[0]))
        return [run for run, _ in cursor.fetchall()]


def keep() -> None:
    """Ours for `LEASE` from now."""
    with statements() as cursor:
        cursor.execute(KEEP, values())


def leave() -> None:
    """There is nothing to tell."""
    with statements() as cursor:
        cursor.execute(LEAVE, values())


def told(runs: list[UUID], refused: list[UUID], error: str = "") -> None:
    """`runs` were taken, `refused` never will be. What is told once is not told again."""
    with statements() as cursor:
        cursor.execute(TOLD, values(runs=[*runs, *refused]))
        cursor.execute(DUE, values(most=1))
        first: tuple[UUID, datetime] | None = cursor.fetchone()
        oldest = first[1] if first else None  # least() passes over null
        cursor.execute(MOVE_ON, values(sent=len(runs), refused=len(refused), error=error[:200], oldest=oldest))
        cursor.execute(FORGET, values())


def failed(error: str, smaller: bool = False) -> None:
    """Nothing was taken: try later; `smaller`: at once, with half as many runs."""
    spread = 0.0 if smaller else 0.8 + 0.2 * random()
    with statements() as cursor:
        cursor.execute(FAILED, values(error=error[:200], smaller=smaller, spread=spread, wait=FIRST_WAIT_S, slowest=SLOWEST_S))


def pending(most: int = 10_000) -> int:
    """Runs that are still to be told, counted up to `most`."""
    with statements() as cursor:
        cursor.execute(PENDING, values(most=most))
        return int(cursor.fetchone()[0])
