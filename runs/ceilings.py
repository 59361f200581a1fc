"""What runs mean for ceilings: how many are live, what was accepted in a window, what it came to. The rest is `tenants.quotas`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from tenants import ceilings, quotas
from tenants.actors import Actor
from tenants.errors import Refused
from tenants.ids import first_at
from tenants.models import Ceiling, Tenant

from .models import Agent, Run
from .states import TERMINAL, RunState

COUNTED = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING_TIMER, RunState.CANCELLING)  # the others wait for people
LIVE = """
select count(*) from (
  select 1 from tenants_tenant t, unnest(%(states)s::text[]) s,
    lateral (select 1 from run r where r.tenant_id = t.id and r.state = s and (%(agent)s = '' or r.agent_id = %(agent)s) limit %(most)s) x
  where %(tenant)s::uuid is null or t.id = %(tenant)s limit %(most)s) y
"""
ACCEPTED = """
r.id >= %(first)s and r.created_at >= %(since)s and r.created_at < %(until)s
  and (%(tenant)s::uuid is null or r.tenant_id = %(tenant)s) and (%(agent)s = '' or r.agent_id = %(agent)s)
"""
# Locked against their end: a settlement is only written for a run that holds a reservation by then.
RESERVED = f"""
select r.id, (i.limits->>'max_cost_micro')::bigint from run r join run_input i on i.run_id = r.id
where {ACCEPTED} and r.state <> all(%(ended)s) order by r.id for share of r
"""
SPENT = f"select coalesce(sum(r.cost_micro), 0)::bigint from run r where {ACCEPTED} and r.state = any(%(ended)s)"
ENDED = [state.value for state in TERMINAL]


class Runs:
    """The ledger of `tenants.quotas`, from the table of runs."""

    def live(self, tenant: UUID | None, agent: str, most: int) -> int:
        states = [state.value for state in COUNTED]
        return int(_rows(LIVE, {"tenant": tenant, "agent": agent, "most": most, "states": states})[0][0])

    def reserved(self, tenant: UUID | None, agent: str, since: datetime, until: datetime) -> list[tuple[UUID, int]]:
        return [(run, micro) for run, micro in _rows(RESERVED, _place(tenant, agent, since, until))]

    def spent(self, tenant: UUID | None, agent: str, since: datetime, until: datetime) -> int:
        return int(_rows(SPENT, _place(tenant, agent, since, until))[0][0])


LEDGER = Runs()


def hold(run: Run, cap_micro: int, tenant: Tenant) -> None:
    """Hold an accepted run to its ceilings; the last thing in the transaction that accepts it. Refuses as `quotas.hold` does."""
    quotas.hold(tenant, run.agent_id, run.id, cap_micro, run.created_at, LEDGER)


def put(actor: Actor | None, tenant: Tenant | None, agent: str, kind: str, value: int, reason: str = "") -> tuple[Ceiling, ceilings.Action]:
    """Set a ceiling; its present window is open afterwards, with what was accepted in it before. Refuses unknown_agent 422 as well."""
    if agent and not Agent.objects.filter(name=agent).exists():
        raise Refused("unknown_agent", f"There is no agent {agent}.", agent=agent)
    with transaction.atomic():
        made = ceilings.put(actor, tenant, agent, kind, value, reason)
        quotas.open_windows(_now(), LEDGER)
    return made


def sweep() -> int:
    """Fold what waits, and open the windows that began: how many settlements were folded."""
    folded = 0
    while (done := quotas.fold()) == quotas.AT_ONCE:
        folded += done
    quotas.open_windows(_now(), LEDGER)
    return folded + done


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp()")
        found: datetime = cursor.fetchone()[0]
    return found


def _place(tenant: UUID | None, agent: str, since: datetime, until: datetime) -> dict[str, Any]:
    return {"tenant": tenant, "agent": agent, "since": since, "until": until, "first": first_at(since), "ended": ENDED}


def _rows(sql: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
