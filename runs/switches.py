"""Kill switches: the only writer. Turning one on or lifting it bumps the revision that every dispatch is checked against.

So the last dispatch of what a switch covers is at most one transaction later than the switch. Calls in flight end and their results
are kept. What the engine does then is in `runs.engine.halts`; what a switch covers in `runs.stops`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from tenants import audit, controls
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import encode
from tenants.models import Tenant
from tenants.roles import Role
from tools.models import Tool

from . import stops
from .events import Kind, event
from .history import MOVED, append, hint
from .models import Agent, Run, Switch
from .resume import requeue_paused
from .stops import PAUSE, SwitchOn

REASON_MAX = 2000
MAY = Role.APPROVER  # the least role that stops work in its own tenant; everywhere: platform admins
AT_ONCE = 200  # runs that a lift moves in one transaction
GRACE_S = 10.0  # so long a lift is left to move its runs itself

# Paused runs by the switches that hold them, through the index of each tenant.
HELD = """
select r.id from tenants_tenant t cross join lateral (
  select id from run where tenant_id = t.id and state = 'paused' and paused_by = any(%(by)s) order by id limit %(n)s
) r order by r.id limit %(n)s
"""


@dataclass(frozen=True, slots=True)
class Order:
    """A switch to be turned on. No tenant: in every tenant."""

    scope: str
    then: str
    reason: str
    tenant: Tenant | None = None
    agent: str = ""
    tool: str = ""
    drill: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        tenant = self.tenant.slug if self.tenant else None
        return {"scope": self.scope, "tenant": tenant, "agent": self.agent, "tool": self.tool, "then": self.then, "drill": self.drill}


# what is on -------------------------------------------------------------------------------------------------------------------


def active(tenant_id: UUID | None) -> tuple[SwitchOn, ...]:
    """Those that are on and no drill, for one tenant, or for all of them (None)."""
    rows = Switch.objects.filter(lifted_at__isnull=True, drill=False).order_by("id")
    if tenant_id is not None:
        rows = rows.filter(Q(tenant=None) | Q(tenant=tenant_id))
    found = rows.values_list("id", "scope", "then", "tenant_id", "agent", "tool")
    return tuple(SwitchOn(*row) for row in found)


def visible(actor: Actor) -> "QuerySet[Switch]":
    """Those of the actor's tenant, and those of every tenant unless they name what the tenant does not see. A platform admin's: all."""
    rows = Switch.objects.select_related("tenant", "by", "lifted_by")
    if actor.platform_admin:
        return rows
    agents, tools = seen(Agent, actor.tenant), seen(Tool, actor.tenant)
    everywhere = (Q(agent="") | Q(agent__in=agents)) & (Q(tool="") | Q(tool__in=tools))
    return rows.filter(Q(tenant=actor.tenant) | Q(everywhere, tenant=None))


def concerning(actor: Actor) -> list[Switch]:
    """What is on where this person looks, drills included; the oldest first."""
    return list(visible(actor).filter(lifted_at__isnull=True).order_by("id"))


def seen(kind: type[Agent] | type[Tool], tenant: Tenant | None) -> "QuerySet[Any]":
    """Names of the agents or tools that a tenant sees; None: of all."""
    rows = kind.objects.all()
    rows = rows.filter(Q(tenants=[]) | Q(tenants__contains=[tenant.slug])) if tenant else rows
    return rows.values_list("name", flat=True)


def refuse_new(tenant: Tenant, agent: str) -> None:
    """Refuses a run with stopped_by_switch 423 while a switch covers the whole of it."""
    met = stops.of_run(active(tenant.pk), tenant.pk, agent)
    if met is None:
        return
    switch = Switch.objects.get(pk=met.id)
    message = f"New runs are refused while an operator's switch is on ({switch.scope}): {switch.reason} Try again when it is lifted."
    raise Refused(
        "stopped_by_switch", message, 423,
        switch=encode("swi", met.id), scope=switch.scope, reason=switch.reason, since=switch.at.isoformat(timespec="milliseconds"),
    )  # fmt: skip


# turning on -------------------------------------------------------------------------------------------------------------------


def may(actor: Actor, scope: str, tenant: Tenant | None) -> bool:
    """Everything and every tenant is the platform admins'; in a tenant it takes the role MAY."""
    if actor.platform_admin:
        return True
    return actor.has_role(MAY) and scope != "all" and tenant is not None and tenant.pk == actor.tenant.pk


def need(actor: Actor, scope: str, tenant: Tenant | None) -> None:
    actor.need("runs:write")
    if not actor.has_role(MAY):
        raise Refused("role_missing", f"This needs the role {MAY} in its tenant, or a higher one.", 403, role=str(MAY))
    if not may(actor, scope, tenant):
        message = f"Beyond one tenant, switches are a platform admin's. Name your tenant: {actor.tenant.slug}."
        raise Refused("platform_admin_needed", message, 403)


@transaction.atomic
def engage(actor: Actor, order: Order) -> Switch:
    """Turn a switch on. A drill changes nothing but what pages show.

    Refuses with: scope_missing, role_missing, platform_admin_needed 403, not_found 404, already_on 409, switch_invalid,
    reason_missing, reason_too_long 422.
    """
    check(order)
    need(actor, order.scope, order.tenant)
    reason = reasoned(order.reason)
    facts = {"scope": order.scope, "tenant": order.tenant, "agent": order.agent, "tool": order.tool, "drill": order.drill}
    same = Switch.objects.filter(lifted_at__isnull=True, then=order.then, **facts).first()
    if same is not None:
        raise Refused("already_on", f"This switch is on already: {same}.", 409, switch=str(same))
    for kind, name in ((Agent, order.agent), (Tool, order.tool)):
        if name and not seen(kind, order.tenant).filter(name=name).exists():
            raise NotFound(kind.__name__.lower())
    switch = Switch.objects.create(then=order.then, reason=reason, by=actor.user, **facts)
    changed(switch)
    audit.append(actor, "switch.engaged", "switch", str(switch), None, order.facts, reason, tenant=order.tenant)
    switch.refresh_from_db()
    return switch


def check(order: Order) -> None:
    if order.scope not in Switch.Scope.values or order.then not in Switch.Then.values:
        known = {"scope": Switch.Scope.values, "then": Switch.Then.values}
        raise Refused("switch_invalid", f"The scope is one of {', '.join(Switch.Scope.values)}; then is pause or stop.", 422, known=known)
    if wrong := stops.misplaced(order.scope, tenant=order.tenant is not None, agent=bool(order.agent), tool=bool(order.tool)):
        raise Refused("switch_invalid", wrong, 422)


def reasoned(text: str) -> str:
    reason = text.strip()
    if not reason:
        raise Refused("reason_missing", "Say why: everybody who meets the switch is shown the reason.", 422, field="reason")
    if len(reason) > REASON_MAX:
        raise Refused("reason_too_long", f"A reason has at most {REASON_MAX} characters.", 422, field="reason")
    return reason


def changed(switch: Switch) -> None:
    """Every decision made before this is made again, and pages look anew."""
    if not switch.drill:
        controls.bump(switch.tenant)
    hint(MOVED)


# lifting ----------------------------------------------------------------------------------------------------------------------


def lift(actor: Actor, switch_id: UUID, reason: str, per_second: float | None = None) -> Switch:
    """Turn it off and queue the runs that it paused, in the order in which they were accepted; `per_second`: so many at a time.

    What is left undone here, if this process ends, the engines do a little later. Refuses with: scope_missing, role_missing,
    platform_admin_needed 403, not_found 404, already_lifted 409, reason_missing, reason_too_long, per_second_invalid 422.
    """
    switch = turn_off(actor, switch_id, reason, per_second)
    freed = 0
    while not switch.drill and (moved := release([switch.id], per_second, freed)):
        freed += moved
    return switch


@transaction.atomic
def turn_off(actor: Actor, switch_id: UUID, reason: str, per_second: float | None) -> Switch:
    switch = visible(actor).filter(pk=switch_id).first()
    if switch is None:
        raise NotFound("switch")
    need(actor, switch.scope, switch.tenant)
    reason = reasoned(reason)
    if per_second is not None and not 0.01 <= per_second <= 100_000:
        raise Refused("per_second_invalid", "per_second is a number from 0.01 to 100000.", 422, field="per_second")
    now = {"lifted_at": Now(), "lifted_by": actor.user, "lift_reason": reason}
    if not Switch.objects.filter(pk=switch.pk, lifted_at__isnull=True).update(**now):
        raise Refused("already_lifted", "Somebody has lifted this switch already.", 409)
    changed(switch)
    facts = {"scope": switch.scope, "drill": switch.drill, "per_second": per_second}
    audit.append(actor, "switch.lifted", "switch", str(switch), None, facts, reason, tenant=switch.tenant)
    switch.refresh_from_db()
    return switch


@transaction.atomic
def release(by: list[UUID], per_second: float | None = None, before: int = 0) -> int:
    """Queue runs that these switches paused, AT_ONCE at most; how many were looked at. One that another switch pauses stays."""
    with connection.cursor() as cursor:
        cursor.execute(HELD, {"by": by, "n": AT_ONCE})
        ids = [row[0] for row in cursor.fetchall()]
    locked = Run.objects.select_for_update(no_key=True, skip_locked=True).filter(id__in=ids, state="paused", paused_by__in=by)
    runs, on = list(locked.order_by("id")), active(None)
    due: list[tuple[UUID, float]] = []
    for run in runs:
        other = stops.of_run(on, run.tenant_id, run.agent_id)
        if other is not None and other.then == PAUSE:
            hold(run, other)
        else:
            due.append((run.id, (before + len(due)) / per_second if per_second else 0.0))
    requeue_paused(due)
    return len(runs)


def hold(run: Run, other: SwitchOn) -> None:
    append(run, [event(Kind.RUN_PARKED, data={"state": "paused", "reason": "switch", "switch": encode("swi", other.id)})])
    Run.objects.filter(pk=run.pk).update(seq=run.seq, paused_by=other.id)


def release_stranded() -> int:
    """Runs that were paused while their switch was being lifted, or whose lift was cut short. Every engine does this each second."""
    over = Switch.objects.filter(lifted_at__lt=Now() - timedelta(seconds=GRACE_S), drill=False)
    lifted = list(over.values_list("id", flat=True))
    return release(lifted) if lifted else 0
