"""Undoing an applied write: a run of its own makes the one call that the write's tool names for it.

That call is like every other one: pinned, decided by policy and people, in the ledger. Nothing is ever undone by itself.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from approvals.gate import storable
from tenants import audit
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.models import Tenant
from tools import canonical, catalog, conditions
from tools.models import Tool, ToolVersion

from .intake import place, usable
from .models import Call, Run, RunInput, Undo
from .states import TERMINAL, CallState

KIND = "undo"
JSON = dict[str, Any]
Place = tuple[UUID, int, int]  # run, step, ord
Made = tuple[Undo, Run, str]  # the undo of a call, its run, and the state of that run's call


@dataclass(frozen=True, slots=True)
class Undoing:
    """Whether a write can be undone now, and what became of it. `code` and `why`: what is in the way, empty when nothing is."""

    tool: str
    until: datetime | None
    code: str = ""
    why: str = ""
    made: Run | None = None  # the run that undoes it
    by: str = ""
    reason: str = ""
    call_state: str = ""  # of that run's call; empty: it has none yet

    @property
    def available(self) -> bool:
        return not self.code


def of(calls: Iterable[Call], now: datetime, *, of_undo: bool = False) -> dict[Place, Undoing]:
    """For those calls that were made (or may have been) with a tool that names its undo. `of_undo`: their run undoes another."""
    sent = {key(call): call for call in calls if call.ord and call.state in (CallState.DONE, CallState.UNKNOWN) and call.attempt}
    blocks = compensations({call.tool_version_id for call in sent.values() if call.tool_version_id})
    kept = {place: (call, blocks[call.tool_version_id]) for place, call in sent.items() if call.tool_version_id in blocks}
    earlier = made_for({call.run_id for call, _ in kept.values()})
    return {place: judge(call, block, now, earlier.get(place), of_undo) for place, (call, block) in kept.items()}


def compensations(version_ids: set[UUID]) -> dict[UUID, JSON]:
    """Version -> how it is undone, for those that say so."""
    rows = ToolVersion.objects.filter(id__in=version_ids, compensate__isnull=False) if version_ids else ()
    return {version.id: dict(version.compensate or {}) for version in rows}


def key(call: Call) -> Place:
    return call.run_id, call.step, call.ord


def made_for(run_ids: set[UUID]) -> dict[Place, Made]:
    """Of the calls of these runs."""
    found = list(Undo.objects.filter(run_id__in=run_ids).select_related("by")) if run_ids else []
    runs = Run.objects.in_bulk([row.action_run for row in found]) if found else {}
    states = dict(Call.objects.filter(run_id__in=runs, step=1, ord=1).values_list("run_id", "state")) if runs else {}
    there = [row for row in found if row.action_run in runs]
    return {(row.run_id, row.step, row.ord): (row, runs[row.action_run], states.get(row.action_run, "")) for row in there}


def judge(call: Call, block: JSON, now: datetime, earlier: Made | None, of_undo: bool) -> Undoing:
    applied_at = call.ended_at or call.dispatched_at
    until = applied_at + timedelta(seconds=float(block["within_s"])) if applied_at else None
    row, made, state = earlier or (None, None, "")
    code, why = hindrance(call, until, now, made, state, of_undo)
    by, reason = (row.by.username, row.reason) if row else ("", "")
    return Undoing(str(block["tool"]), until, code, why, made, by, reason, state)


def hindrance(call: Call, until: datetime | None, now: datetime, made: Run | None, state: str, of_undo: bool) -> tuple[str, str]:
    """What is in the way, as a code and in words; both empty when it can be undone."""
    if of_undo:
        return "undo_of_undo", "This call undoes another one, and an undo is not undone. Ask for what you want as a new run."
    if call.state == CallState.UNKNOWN:
        return "outcome_unknown", "Nobody knows yet whether it was applied. Settle it first."
    if made is not None and state == CallState.DONE:
        return "already_undone", "It was undone."
    if made is not None and (made.state not in TERMINAL or state == CallState.UNKNOWN):
        return "undo_under_way", f"{made.run_id} undoes it, and has not said yet what came of it."
    if until is None or now >= until:
        return "undo_too_late", "The time in which it can be undone is over."
    return "", ""


@transaction.atomic
def undo(actor: Actor, run_id: UUID, step: int, ord: int, reason: str) -> Run:
    """A run that undoes this one call. Refuses: scope_missing 403, not_found 404, reason_missing 422, not_undoable, outcome_unknown,
    already_undone, undo_under_way, undo_too_late, undo_of_undo, undo_unavailable 409, and as intake does."""
    actor.need("runs:write")
    run = Run.objects.select_for_update(no_key=True).filter(pk=run_id).first()
    call = Call.objects.filter(run_id=run_id, step=step, ord=ord, ord__gt=0).first()
    if run is None or call is None or not actor.sees(run.tenant_id):
        raise NotFound("call")
    if not (said := storable(reason.strip())):
        raise Refused("reason_missing", "Say why it is undone: the reason is kept.", 422, field="reason")
    tenant, _, now = usable(run.tenant, run.agent_id)
    first = RunInput.objects.get(pk=run.pk)
    undoing = of([call], now, of_undo=is_undo(first)).get(key(call))
    name = f"{run.run_id}.{step}.{ord}"
    if undoing is None:
        raise Refused("not_undoable", f"{name} was not applied, or its tool does not say how it is undone.", 409)
    if not undoing.available:
        made_by = undoing.made.run_id if undoing.made else None
        raise Refused(undoing.code, f"{name} cannot be undone. {undoing.why}", 409, run_id=made_by)
    asked = RunInput(
        text=f"Undo {name}.", user=first.user, session=first.session, limits=first.limits, action=action(call, undoing.tool, tenant, name),
        metadata={"undo_of": name},
    )  # fmt: skip
    made = place(asked, tenant=tenant, release=run.release, starter=actor.user, mode="normal", now=now)
    values = {"tenant": tenant, "tool": undoing.tool, "action_run": made.id, "by": actor.user, "reason": said, "at": Now()}
    Undo.objects.update_or_create(run_id=run.id, step=step, ord=ord, defaults=values)
    after = {"tool": undoing.tool, "run_id": made.run_id}
    audit.append(actor, "call.undo_started", "call", name, None, after, said, tenant=tenant)
    return made


def is_undo(asked: RunInput) -> bool:
    return (asked.action or {}).get("kind") == KIND


def action(call: Call, tool: str, tenant: Tenant, of: str) -> JSON:
    """The one call of the new run, with the version that its tool has now. Refuses undo_unavailable 409."""
    current = Tool.objects.select_related("current").filter(name=tool, current__isnull=False).first()
    if current is None or current.current is None or tool not in catalog.enabled_tools(tenant.slug):
        raise Refused("undo_unavailable", f"{tool}, which undoes it, is not there, switched off, or not this tenant's.", 409, tool=tool)
    if current.current.effect == "read":
        raise Refused("undo_unavailable", f"{tool} is a read: it undoes nothing.", 409, tool=tool)
    block = ToolVersion.objects.get(pk=call.tool_version_id or UUID(int=0)).compensate or {}
    facts = {"args": json.loads(bytes(call.args or b"{}")), "result": call.result or {}, "idem_key": call.idem_key or ""}
    try:
        args = {name: conditions.value(expression, facts) for name, expression in block["args"].items()}
        written = json.loads(canonical.dumps(canonical.clean(args)[0]))
    except (conditions.ConditionError, ValueError):
        message = f"What {call.name} answered does not say what {tool} needs. Undo it by hand."
        raise Refused("undo_unavailable", message, 409, tool=tool)
    return {"kind": KIND, "tool": tool, "args": written, "of": of, "version": str(current.current_id)}


def undone() -> Exists:
    """Of a call: whether it was undone, so that its effect is no more."""
    applied = Call.objects.filter(run_id=OuterRef("action_run"), step=1, ord=1, state=CallState.DONE)
    return Exists(Undo.objects.filter(Exists(applied), run_id=OuterRef("run_id"), step=OuterRef("step"), ord=OuterRef("ord")))
