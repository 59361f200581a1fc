"""Holding runs to the ceilings: of cost in a window, of runs at once and of starts a minute. The only writer of what is held.

A run reserves its whole cost cap in every window that it counts in, once, when it is accepted; its settlement (a trigger writes it
when the run ends) gives that back and adds what it came to. Locks are taken in one order by everybody: `ACCEPTING`, ceilings by id,
settlements (never waited for), windows by id.

A ceiling of the installation counts the runs of every tenant, so all of this reads and writes installation wide.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from django.db import connection, transaction

from . import windows
from .errors import Refused
from .models import Ceiling, Reservation, Spending, Tenant
from .scope import installation_wide
from .windows import MICRO

ACCEPTING = 0x5B0A_CE11  # advisory lock: shared by whoever accepts a run, exclusive for whoever adds a ceiling
AT_ONCE = 500  # settlements folded in one go

# Two statements in one trip: the second sees what was committed while the first waited.
APPLICABLE = """
select pg_advisory_xact_lock_shared(%(key)s);
select c.id, c.kind, c.value, c.tenant_id, c.agent, t.slug
from tenants_ceiling c left join tenants_tenant t on t.id = c.tenant_id
where (c.tenant_id is null or c.tenant_id = %(tenant)s) and c.agent in ('', %(agent)s) order by c.id
"""
COUNTERS = "select id, bucket, bucket_at from tenants_ceiling where id = any(%(ids)s) order by id for no key update"
TAKE = "update tenants_ceiling set bucket = %(left)s, bucket_at = greatest(bucket_at, %(now)s) where id = %(id)s"
OPEN = """
insert into tenants_spending (ceiling_id, starts_at) values (%(ceiling)s, %(start)s) on conflict do nothing returning id
"""
HELD = """
, held as (
  update tenants_spending s set reserved_micro = s.reserved_micro + %(micro)s from w, tenants_ceiling c
  where s.id = w.id and c.id = s.ceiling_id and s.reserved_micro + s.spent_micro + %(micro)s <= c.value
  returning s.id
)"""
RESERVE = f"""
with w as materialized (
  select id from tenants_spending where id = any(%(windows)s) order by id for no key update
){HELD}, kept as (
  insert into tenants_reservation (run_id, spending_id, micro) select %(run)s, id, %(micro)s from held
)
select w.id from w left join held on held.id = w.id where held.id is null order by w.id
"""
RAISE = f"""
with w as materialized (
  select s.id from tenants_spending s join tenants_reservation r on r.spending_id = s.id
  where r.run_id = %(run)s order by s.id for no key update of s
){HELD}, kept as (
  update tenants_reservation r set micro = r.micro + %(micro)s from held where r.run_id = %(run)s and r.spending_id = held.id
)
select w.id from w left join held on held.id = w.id where held.id is null order by w.id
"""
PICK = "select run_id from tenants_settlement order by run_id limit %(limit)s for update skip locked"
LOCK = """
select id from tenants_spending where id = any(%(windows)s)
  or id in (select spending_id from tenants_reservation where run_id = any(%(runs)s)) order by id for no key update
"""
FOLD = """
with gone as (
  delete from tenants_reservation where run_id = any(%(runs)s) returning run_id, spending_id, micro
), sums as (
  select g.spending_id, sum(g.micro) as held, sum(s.spent_micro) as spent
  from gone g join tenants_settlement s on s.run_id = g.run_id group by 1
), moved as (
  update tenants_spending w set reserved_micro = w.reserved_micro - x.held, spent_micro = w.spent_micro + x.spent
  from sums x where w.id = x.spending_id
)
delete from tenants_settlement where run_id = any(%(runs)s)
"""


@dataclass(frozen=True, slots=True)
class Bound:
    """A ceiling that a run counts in. No tenant and no agent: the whole installation."""

    id: int
    kind: str
    value: int
    tenant: UUID | None
    agent: str
    slug: str | None

    @property
    def scope(self) -> str:
        return scope_name(self.slug, self.agent)


class Ledger(Protocol):
    """What the runs say. Given by the room that has them."""

    def live(self, tenant: UUID | None, agent: str, most: int) -> int:
        """How many runs are accepted, not ended and not waiting for a person; counted up to `most`."""

    def reserved(self, tenant: UUID | None, agent: str, since: datetime, until: datetime) -> list[tuple[UUID, int]]:
        """(run, cost cap in micro-USD) of those accepted in the window that have not ended, which cannot end until we commit."""

    def spent(self, tenant: UUID | None, agent: str, since: datetime, until: datetime) -> int:
        """What those accepted in the window that have ended came to, in micro-USD."""


def scope_name(slug: str | None, agent: str) -> str:
    place = f"agent {agent}" if agent else ""
    tenant = f"tenant {slug}" if slug else ""
    return ", ".join(part for part in (tenant, place) if part) or "platform"


# accepting a run --------------------------------------------------------------------------------------------------------------


@installation_wide()
def hold(tenant: Tenant, agent: str, run_id: UUID, cap_micro: int, now: datetime, ledger: Ledger) -> None:
    """Reserve what an accepted run may come to, in every ceiling it counts in. Called last in the transaction that accepts it.

    `now` is the run's `created_at` in database time. Refuses with ceiling_reached 402, quota_concurrent_runs,
    quota_runs_per_minute 429; the caller's transaction is then rolled back, and nothing is held.
    """
    bounds = _applicable(tenant, agent)
    counters = [bound for bound in bounds if not windows.is_cost(bound.kind)]
    costs = [bound for bound in bounds if windows.is_cost(bound.kind)]
    if counters:
        _count(counters, now, ledger)
    if costs:
        ids = sorted(_window(bound, now, ledger, run_id) for bound in costs)
        fold(AT_ONCE, ids)
        full = _rows(RESERVE, {"windows": ids, "run": run_id, "micro": cap_micro})
        if full:
            raise _reached(full[0][0], cap_micro, tenant.id)


@installation_wide()
def more(run_id: UUID, micro: int) -> None:
    """Reserve `micro` more for a run whose limits a person raises, in the windows it was accepted in. Refuses as `hold` does."""
    fold(AT_ONCE, list(Reservation.objects.filter(run_id=run_id).values_list("spending_id", flat=True)))
    if full := _rows(RAISE, {"run": run_id, "micro": micro}):
        raise _reached(full[0][0], micro, None)


@installation_wide()
def fold(limit: int = AT_ONCE, also: Sequence[int] = ()) -> int:
    """Give back what ended runs held and add what they came to; how many. `also`: windows to lock beside theirs, in one order."""
    with transaction.atomic(savepoint=False):
        runs = [row[0] for row in _rows(PICK, {"limit": limit})]
        if runs:
            _rows(LOCK, {"windows": list(also), "runs": runs})
            _do(FOLD, {"runs": runs})
    return len(runs)


@installation_wide()
def open_windows(now: datetime, ledger: Ledger) -> int:
    """The present windows of all cost ceilings, so that a new one shows what was accepted before it; how many were missing."""
    costs = _bounds(Ceiling.objects.filter(kind__in=windows.COSTS).select_related("tenant").order_by("id"))
    if not costs:
        return 0
    starts = {windows.starts(kind, now) for kind in windows.COSTS}
    there = set(Spending.objects.filter(starts_at__in=starts).values_list("ceiling_id", "starts_at"))
    missing = [bound for bound in costs if (bound.id, windows.starts(bound.kind, now)) not in there]
    for bound in missing:
        with transaction.atomic():
            _open(bound, windows.starts(bound.kind, now), ledger)
    return len(missing)


def _applicable(tenant: Tenant, agent: str) -> list[Bound]:
    with connection.cursor() as cursor:
        cursor.execute(APPLICABLE, {"key": ACCEPTING, "tenant": tenant.id, "agent": agent})
        cursor.nextset()
        return [Bound(*row) for row in cursor.fetchall()]


def _bounds(rows: Iterable[Ceiling]) -> list[Bound]:
    return [Bound(c.id, c.kind, c.value, c.tenant_id, c.agent, c.tenant.slug if c.tenant else None) for c in rows]


def _count(bounds: list[Bound], now: datetime, ledger: Ledger) -> None:
    """Under the locks of their rows: whoever is next counts what we accept."""
    buckets = {row[0]: row[1:] for row in _rows(COUNTERS, {"ids": [bound.id for bound in bounds]})}
    for bound in bounds:
        if bound.id not in buckets:
            continue  # deleted since
        if bound.kind == Ceiling.Kind.CONCURRENT:
            if ledger.live(bound.tenant, bound.agent, bound.value + 1) > bound.value:
                raise _too_many(bound)
            continue
        bucket, at = buckets[bound.id]
        tokens = windows.left(bound.value, bucket, at, now)
        if tokens < 1:
            raise _too_fast(bound, windows.wait_s(bound.value, tokens))
        _do(TAKE, {"left": tokens - 1, "now": now, "id": bound.id})


def _window(bound: Bound, now: datetime, ledger: Ledger, run_id: UUID) -> int:
    """The id of the window that `now` is in."""
    start = windows.starts(bound.kind, now)
    there = Spending.objects.filter(ceiling_id=bound.id, starts_at=start).values_list("id", flat=True)
    found = there.first()
    if found is None:
        _open(bound, start, ledger, run_id)
        found = there.get()
    return found


def _open(bound: Bound, start: datetime, ledger: Ledger, but: UUID | None = None) -> None:
    """A window starts from what was accepted in it before: its ceiling may be younger. Nothing, if somebody else was first.

    `but`: the run that is being accepted, which reserves for itself.
    """
    place = (bound.tenant, bound.agent, start, windows.ends(bound.kind, start))
    live = [one for one in ledger.reserved(*place) if one[0] != but]  # these cannot end now; whatever else was accepted has
    made = _rows(OPEN, {"ceiling": bound.id, "start": start})
    if made:
        Reservation.objects.bulk_create([Reservation(run_id=run, spending_id=made[0][0], micro=micro) for run, micro in live])
        reserved = sum(micro for _, micro in live)
        Spending.objects.filter(id=made[0][0]).update(reserved_micro=reserved, spent_micro=ledger.spent(*place))


# refusals ---------------------------------------------------------------------------------------------------------------------


def _reached(window: int, wanted: int, tenant: UUID | None) -> Refused:
    """What others spend is told to nobody: the sums of an installation-wide ceiling stay out of a tenant's answer."""
    found = Spending.objects.select_related("ceiling__tenant").get(id=window)
    ceiling = found.ceiling
    resets = windows.ends(ceiling.kind, found.starts_at)
    mine = tenant is None or ceiling.tenant_id == tenant
    scope = scope_name(ceiling.tenant.slug if ceiling.tenant else None, ceiling.agent)
    used = f" with {usd(found.spent_micro)} spent and {usd(found.reserved_micro)} reserved" if mine else ""
    message = (
        f"This would pass the ceiling of {usd(ceiling.value)} ({scope}, {ceiling.kind}){used}: it needs {usd(wanted)}. "
        f"Wait until {resets:%Y-%m-%d %H:%M} UTC, lower max_cost_usd, or have the ceiling raised."
    )
    return Refused(
        "ceiling_reached", message, 402, scope=scope, kind=ceiling.kind, value_usd=amount(ceiling.value),
        spent_usd=amount(found.spent_micro) if mine else None, reserved_usd=amount(found.reserved_micro) if mine else None,
        needed_usd=amount(wanted), resets_at=resets.isoformat().replace("+00:00", "Z"),
    )  # fmt: skip


def _too_many(bound: Bound) -> Refused:
    message = f"{bound.scope} may have {bound.value} runs at once, and has them. Try again when one has ended, or have the ceiling raised."
    fields = {"scope": bound.scope, "kind": bound.kind, "value": bound.value, "retry_after_s": 1}
    return Refused("quota_concurrent_runs", message, 429, **fields)


def _too_fast(bound: Bound, seconds: float) -> Refused:
    cure = f"Try again in {seconds:.1f} s, or have the ceiling raised." if bound.value else "Have the ceiling raised."
    message = f"{bound.scope} may start {bound.value} runs a minute, and has started them. {cure}"
    fields = {"scope": bound.scope, "kind": bound.kind, "value": bound.value, "retry_after_s": round(seconds, 3)}
    return Refused("quota_runs_per_minute", message, 429, **fields)


def amount(micro: int) -> str:
    """Micro-USD as the API writes money: a decimal string in USD."""
    whole, rest = divmod(micro, MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def usd(micro: int) -> str:
    return f"${amount(micro)}"


def _rows(sql: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _do(sql: str, values: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
