"""The list of the approvals inbox: those that wait, those that expire first in front, and those that are over."""

import json
from datetime import timedelta
from typing import Any

from django.db.models import BinaryField, Case, F, Func, IntegerField, Q, QuerySet, When
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone

from approvals.models import Approval
from console import approval_facts, sentences, step_up
from console.api import paging
from console.api.approvals import visible
from tenants.actors import Actor

from . import budget
from .approval_seat import Seat, approved, needed, overdue

State = Approval.State
Context = dict[str, Any]
SOON = timedelta(minutes=10)
LISTED = 50  # requests in the list
BRIEF = 16 * 1024  # bytes of arguments that a line of the list is made from
LONG = 2000  # bytes of arguments from which on nobody approves before their end was in view
WAITING = Q(state=State.PENDING, expires_at__gt=Now())


def lines(actor: Actor) -> "QuerySet[Approval]":
    """Requests as the list needs them, those that expire first in front; of large arguments nothing is read."""
    rows: QuerySet[Approval] = briefly(visible(actor).select_related("tenant"))
    return rows.order_by("expires_at", "id").defer("proposed", "preview")


def briefly(rows: Any) -> Any:
    """Rows with `brief`: their arguments if those are short, else None."""
    size = Func(F("args"), function="octet_length", output_field=IntegerField())
    brief = Case(When(size__lte=BRIEF, then=F("args")), output_field=BinaryField())
    return rows.defer("args").annotate(size=size).annotate(brief=brief)


def listing(request: HttpRequest, seat: Seat, tab: str) -> Context:
    found: list[Approval]
    more, count = None, None
    if tab == "decided":
        found, more = paging.page(lines(seat.actor).filter(~WAITING), request.GET, "apr")
    else:
        waiting = lines(seat.actor).filter(WAITING)
        found = list(waiting[: LISTED + 1])
        count = len(found) if len(found) <= LISTED else waiting.count()
    schemas = approval_facts.schemas_of(one.tool_version_id for one in found[:LISTED])
    items = [item(seat, one, schemas.get(one.tool_version_id, {})) for one in found[:LISTED]]
    if tab == "waiting":
        pair_up(items)
    return {"tab": tab, "items": items, "more": more, "count": count, "together": any(one["together"] for one in items)}


def item(seat: Seat, found: Approval, schema: Any) -> Context:
    return {
        "approval": found,
        "approval_id": found.approval_id,
        "headline": headline(found, getattr(found, "brief", None), schema),
        "soon": found.expires_at - timezone.now() < SOON,
        "approved": approved(found),
        "needed": needed(found),
        "hindrance": seat.hindrance(found),
        "state": State.EXPIRED if overdue(found) else found.state,
        "together": False,
    }


def pair_up(items: list[Context]) -> None:
    """Mark those that may be decided together with another one of their tool."""
    able = [one for one in items if not one["hindrance"] and may_together(one["approval"], one["approval"].size)]
    tools = [one["approval"].tool for one in able]
    for one in able:
        one["together"] = tools.count(one["approval"].tool) > 1


def may_together(found: Approval, size: int) -> bool:
    """Only what is harmless alone, that one person decides, and that fits a line: nobody approves what was not on their screen."""
    return found.kind == Approval.Kind.CALL and not step_up.is_grave(found) and needed(found) == 1 and size <= LONG


def headline(found: Approval, args: bytes | memoryview | None, schema: Any = None) -> str:
    """For a line of a list. `args` None: they are too large for one."""
    if found.kind == Approval.Kind.BUDGET:
        return budget.headline(found, json.loads(bytes(args)) if args else {})
    return call_headline(found.tool, args, schema)


def call_headline(tool: str, args: bytes | memoryview | None, schema: Any = None) -> str:
    return sentences.headline(tool, approval_facts.told(args, schema) if args else {})
