"""A decision that somebody sends from a page: what is missing is told at its field, everything else is up to `runs.signoff`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest

from approvals import gate
from approvals.models import Approval, ApprovalDecision
from console import approval_facts, argument_forms, argument_rows, step_up
from console.argument_schema import fields
from runs import signoff
from runs.grants import More
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools import canonical

from . import budget
from .approval_list import Context
from .approval_seat import Seat, needs_reason

Verdict = ApprovalDecision.Verdict
BREAK = "break"  # the confirm step of a decision against the rules
UNCHANGED = "Nothing is changed: change an argument, or go back and approve it as it is."


@dataclass
class Wrong(Exception):
    """Shown again with what was typed. `more`: for the page."""

    status: int
    more: Context = field(default_factory=dict)


def decide(request: HttpRequest, seat: Seat, found: Approval) -> Approval:
    """`{verdict, digest, reason, password, break_glass}`. Raises Wrong, Refused `signed_out`, NotFound."""
    said = request.POST
    verdict, reason, glass = said.get("verdict", ""), said.get("reason", "").strip(), "break_glass" in said
    step = BREAK if glass else verdict
    open_to = not seat.hindrance(found) or (glass and seat.may_break(found))
    if open_to:
        missing(found, verdict, reason, glass, step)
    amounts = other_amounts(found, said, verdict, reason)
    if open_to and verdict == Verdict.APPROVE:
        password(request, seat.actor, found, {"confirm": step, "reason": reason})
    try:
        return recorded(seat.actor, found, verdict, said.get("digest", ""), reason, amounts, glass)
    except NotFound:
        raise
    except Refused as refused:
        at_field = refused.code in ("reason_too_long", "reason_missing")
        more: Context = {"confirm": step, "error": refused.message} if at_field else {"notice": refused}
        raise Wrong(refused.status, more | {"reason": reason}) from None


def missing(found: Approval, verdict: str, reason: str, glass: bool, step: str) -> None:
    least = gate.BREAK_GLASS_REASON_MIN
    if glass and len(reason) < least:
        raise Wrong(422, {"confirm": step, "reason": reason, "error": f"Say why, in at least {least} characters: others will read it."})
    if not reason and needs_reason(found, verdict):
        error = "Say why you reject. The agent is told." if verdict == Verdict.REJECT else why_needed(found)
        raise Wrong(422, {"confirm": step, "error": error})


def why_needed(found: Approval) -> str:
    return "A high-risk action needs a reason." if found.risk != "normal" else "What cannot be undone needs a reason."


def password(request: HttpRequest, actor: Actor, found: Approval, more: Context) -> None:
    if not step_up.asked_of(request.session, found):
        return
    try:
        step_up.check(request, actor, request.POST.get("password", ""))
    except Refused as refused:
        if refused.code == "signed_out":
            raise
        raise Wrong(refused.status, more | {"password_error": refused.message}) from None


def other_amounts(found: Approval, said: Any, verdict: str, reason: str) -> More | None:
    try:
        return budget.other_amounts(found, said) if verdict == Verdict.APPROVE else None
    except Refused as refused:
        more = {"confirm": verdict, "reason": reason, "amounts_error": refused.message}
        raise Wrong(422, more | budget.asked(found, said)) from None


def recorded(actor: Actor, found: Approval, verdict: str, digest: str, reason: str, other: More | None, glass: bool) -> Approval:
    """`other`: amounts that the run did not ask for. What this person was not shown is refused as any other decision is."""
    if other and found.state == Approval.State.PENDING and digest == found.digest:
        return signoff.extend(actor, found.run_id, other, reason)
    return signoff.decide(actor, found.id, verdict=verdict, digest=digest, reason=reason, surface="page", break_glass=glass)


# other arguments --------------------------------------------------------------------------------------------------------------


def edit(request: HttpRequest, seat: Seat, found: Approval) -> Approval:
    """`{edit, digest, reason, password, arg/...}`: approve other arguments. -> the request that takes its place. Raises as `decide`."""
    said, reason = request.POST, request.POST.get("reason", "").strip()
    schema = approval_facts.schemas_of([found.tool_version_id]).get(found.tool_version_id, {})
    old = json.loads(bytes(found.args))
    args, unreadable = argument_forms.collected(schema, old, said)
    typed: Context = {"typed": said, "reason": reason}
    if seat.may_edit(found):
        readable(found, args, unreadable, typed)
        if not reason and needs_reason(found, Verdict.APPROVE):
            raise Wrong(422, typed | {"error": why_needed(found)})
        password(request, seat.actor, found, typed)
    try:
        return signoff.decide(
            seat.actor, found.id, verdict=Verdict.APPROVE, digest=said.get("digest", ""), reason=reason, args=args, surface="page"
        )  # fmt: skip
    except NotFound:
        raise
    except Refused as refused:
        raise Wrong(refused.status, typed | refusal(refused, schema, old, args)) from None


def readable(found: Approval, args: Any, unreadable: Mapping[str, list[str]], typed: Context) -> None:
    if unreadable:
        raise Wrong(422, typed | {"told": unreadable})
    try:
        same = canonical.dumps(canonical.clean(args)[0]) == canonical.dumps(json.loads(bytes(found.args)))
    except ValueError as error:
        raise Wrong(422, typed | {"edit_errors": [f"This cannot be sent: {error}."]}) from None
    if same:
        raise Wrong(422, typed | {"edit_errors": [UNCHANGED]})


def refusal(refused: Refused, schema: Any, old: Any, args: Any) -> Context:
    """At the fields it is about; of a request that is over, what was typed is shown as it would have been."""
    if refused.code == "args_invalid":
        told, left = argument_forms.placed(refused.fields.get("errors", ()), fields(schema, old))
        return {"told": told, "edit_errors": left}
    if refused.code == "reason_too_long":
        return {"error": refused.message}
    return {"notice": refused, "kept": argument_rows.changes(schema, old, args)}
