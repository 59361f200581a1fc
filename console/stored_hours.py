"""Hours that are kept, added up as far as nobody wants to tell them apart, and remembered by this process until they are counted anew.

PostgreSQL adds up the numbers and hands the histograms of a group over together: few rows cross, however many tenants, agents and
releases there are. An hour that is over rarely changes, so what was read of it is good until `FoldedHour.at` is another.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from threading import Lock
from typing import Any, Literal
from uuid import UUID

from django.db import connection

from tenants.scope import said

from .histograms import merge
from .models import CallHour, RunHour
from .rollups import COUNTS, figure_names

Apart = Literal["tenant", "agent", "release"]
Row = RunHour | CallHour
MOST = 4_000  # hours of a cut that a process remembers: tens of megabytes
COLUMNS: dict[Apart, str] = {"tenant": "tenant_id", "agent": "agent", "release": "release_id"}
NOBODY = {"tenant_id": "null::uuid", "agent": "''", "release_id": "null::uuid"}


class Memory:
    """What was read last, the least used forgotten first. For all threads of a process."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._found: OrderedDict[tuple[Any, ...], tuple[Row, ...]] = OrderedDict()
        self._lock = Lock()

    def of(self, keys: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Row, ...]]:
        with self._lock:
            found = {key: self._found[key] for key in keys if key in self._found}
            for key in found:
                self._found.move_to_end(key)
        return found

    def keep(self, found: Mapping[tuple[Any, ...], tuple[Row, ...]]) -> None:
        with self._lock:
            self._found |= found
            while len(self._found) > self.most:
                self._found.popitem(last=False)


MEMORY = Memory()


def rows(model: type[Row], counted: Mapping[datetime, datetime], asked: Mapping[str, Any], apart: tuple[Apart, ...]) -> list[Any]:
    """What is kept of the hours `counted` (when each was), where the columns `asked` have these values, the oldest hour first.

    What is not told `apart` is added up, and its column empty. The rows are shared: they are for reading only.
    """
    about = (model, tuple(sorted(asked.items())), apart, said())
    keys = {(hour, at, *about): hour for hour, at in counted.items()}
    found = MEMORY.of(keys)
    if lacking := {hour: key for key, hour in keys.items() if key not in found}:
        read = _read(model, list(lacking), asked, apart)
        fresh = {key: tuple(read.get(hour, ())) for hour, key in lacking.items()}
        MEMORY.keep(fresh)
        found |= fresh
    return [row for key in sorted(found, key=lambda key: key[0]) for row in found[key]]


def _read(model: type[Row], hours: list[datetime], asked: Mapping[str, Any], apart: tuple[Apart, ...]) -> dict[datetime, list[Row]]:
    named = {COLUMNS[one] for one in apart}
    keys = {column: column if column in named else empty for column, empty in NOBODY.items()}
    keys |= {"kind": "kind", "name": "name"} if model is CallHour else {}
    figures = figure_names(model)
    sums = (f"json_agg({name})" if name in COUNTS else f"sum({name})::bigint" for name in figures)
    where = "".join(f" and {column} = %({column})s" for column in asked)
    group = ", ".join(["hour", *(column for column in keys if keys[column] == column)])
    what = ", ".join([*keys.values(), *sums])
    sql = f"select hour, {what} from {model._meta.db_table} where hour = any(%(hours)s){where} group by {group}"
    found: dict[datetime, list[Row]] = {}
    with connection.cursor() as cursor:
        cursor.execute(sql, {"hours": hours, **asked})
        for values in cursor.fetchall():
            row = dict(zip(("hour", *keys, *figures), values, strict=True))
            row |= {name: merge(*row[name]) for name in figures if name in COUNTS}
            found.setdefault(row["hour"], []).append(model(**row))
    return found


def told_apart(group_by: str | None) -> tuple[Apart, ...]:
    """What a grouping needs."""
    return tuple(one for one in COLUMNS if one == group_by)


def asked_of(tenant: UUID | None, agent: str, release: UUID | None) -> dict[str, Any]:
    """The columns that must have a value."""
    found = {"tenant_id": tenant, "agent": agent, "release_id": release}
    return {name: value for name, value in found.items() if value}
