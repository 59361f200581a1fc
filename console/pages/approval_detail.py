"""One request with everything that a person needs to decide it. Rendered whole, arguments included; what is secret is not."""

import json
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest

from approvals.models import Approval, ApprovalDecision
from approvals.people import groups_of, least_role
from console import approval_facts, argument_forms, argument_rows, previews, sentences, step_up
from console.argument_schema import masked
from runs.models import Call
from tenants.ids import encode
from tenants.models import User
from tools.models import ToolVersion

from . import budget
from .approval_list import LONG, Context, briefly, call_headline
from .approval_seat import Seat, approved, needed, needs_reason, overdue

State, Verdict = Approval.State, ApprovalDecision.Verdict
CLAIM = 6000  # characters of the model's own text; the run's page has the rest
EVIDENCE = 40  # calls
EFFECTS = {
    "read": ("Read", "Changes nothing."),
    "write": ("Write", "Changes something outside."),
    "irreversible": ("Irreversible", "Cannot be undone."),
    "budget": ("Budget", "Raises limits of this run."),
}


def detail(request: HttpRequest, seat: Seat, found: Approval) -> Context:
    hindered = seat.hindrance(found)
    seen = earlier_calls(found)
    schemas = approval_facts.schemas_of([found.tool_version_id, *(call.tool_version_id for call in seen.values())])
    schema = schemas.get(found.tool_version_id, {})
    return state_of(seat, found) | {
        "run_id": encode("agt", found.run_id),
        "effect": EFFECTS.get(found.effect, (found.effect, "")),
        "starter": User.objects.filter(id=found.starter_id).first() if found.starter_id else None,
        "hindrance": hindered,
        "least": least_role(found),
        "may": seat.others(found) if hindered in ("own_run", "role", "group", "spoken") else [],
        "reason_needed": needs_reason(found, Verdict.APPROVE),
        "grave": step_up.is_grave(found),
        "proof": step_up.proof_of(seat.actor.user) if step_up.is_grave(found) else "",
        "password_needed": hindered != "closed" and step_up.asked_of(request.session, found),
        "may_edit": seat.may_edit(found) and bool(schema),
        "may_break": seat.may_break(found),
        "mine": found.edited_by_id == seat.actor.user.pk,
        "chain": approval_facts.chain(found, schema),
        "policy": approval_facts.policy(found),
        **approval_facts.asked_text(found),
        **before(found, seen, schemas),
        **(budget.asked(found) if found.kind == Approval.Kind.BUDGET else call_asked(found, schema)),
    }


def call_asked(found: Approval, schema: Any) -> Context:
    """What would be sent, and what is known of such calls."""
    versions = ToolVersion.objects.filter(id__in=[found.tool_version_id] if found.tool_version_id else [])
    raw = bytes(found.args)
    args, shown = json.loads(raw), approval_facts.told(raw, schema)
    whole = masked(schema, args)
    return {
        "says": sentences.happens(found.tool, found.effect, shown),
        "version": versions.values("number", "sha256", "description").first(),
        "rows": argument_rows.rows(schema, proposed_of(found), args),
        "size": len(raw),
        "long": len(raw) > LONG,
        "exact": json.dumps(whole, indent=2, ensure_ascii=True),
        "keeps_back": whole != args,
        "preview": previews.shown(found.preview),
        "beside": siblings(found).exclude(ord=found.ord),
        "radius": approval_facts.radius(found) if found.kind == Approval.Kind.CALL else None,
        "history": approval_facts.history(found),
        "record": approval_facts.record(found),
    }


def proposed_of(found: Approval) -> Any:
    return json.loads(bytes(found.proposed if found.proposed is not None else found.args))


def editing(found: Approval, typed: Mapping[str, str] | None = None, told: Mapping[str, list[str]] | None = None) -> Context:
    """The edit form. `typed` and `told`: what came back, and what was wrong with it."""
    schema = approval_facts.schemas_of([found.tool_version_id]).get(found.tool_version_id, {})
    made = argument_forms.inputs(schema, json.loads(bytes(found.args)), typed, told)
    return {"inputs": made, "editing": True}


def state_of(seat: Seat, found: Approval) -> Context:
    waits = seat.hindrance(found) != "closed"
    have, want = approved(found), needed(found)
    return {
        "approval": found,
        "approved": have,
        "needed": want,
        "open_places": range(have + 1, want + 1) if waits else (),
        "still": want - have if waits else 0,
        "not_me": waits and seat.hindrance(found) in ("own_run", "spoken", "role", "group"),
        "groups": groups_of(found),
        "ending": ending(found),
        "grant": approval_facts.grant_of(found),
        "successor": approval_facts.replaced_by(found),
        "decisions": list(found.decisions.all()),
        "me": seat.actor.user,
    }


def ending(found: Approval) -> Context | None:
    """How it came to its end, None while it waits: state, and a sentence in words or by whom and when."""
    what = "nothing {} granted" if found.kind == Approval.Kind.BUDGET else "the call {} not made"
    if found.state == State.PENDING:
        return {"state": State.EXPIRED, "words": f"Nobody decided in time, so {what.format('is')}."} if overdue(found) else None
    if found.state == State.EXPIRED:
        return {"state": found.state, "words": f"Nobody decided in time, so {what.format('was')}.", "at": found.decided_at}
    if found.state == State.VOID:
        return {"state": found.state, "words": f"Nobody needs to decide this any more. {found.void_reason}", "at": found.decided_at}
    last = max(found.decisions.all(), key=lambda one: one.pk, default=None)
    did = "rejected" if found.state == State.REJECTED else "approved"
    return {"state": found.state, "by": last and last.user, "did": did, "at": last.at if last else found.decided_at, "last": last}


def earlier_calls(found: Approval) -> dict[tuple[int, int], Any]:
    """The calls before this one that the request names, by step and ord. Empty where retention has been."""
    seen = found.evidence[-EVIDENCE:]
    rows = briefly(Call.objects.filter(run_id=found.run_id, step__in={one["step"] for one in seen}, ord__gt=0).defer("result"))
    return {(call.step, call.ord): call for call in (rows if seen else ())}


def before(found: Approval, calls: dict[tuple[int, int], Any], schemas: Mapping[Any, Any]) -> Context:
    """The calls before this one, and what the model said with it."""
    evidence = [one | {"call": calls.get((one["step"], one["ord"]))} for one in found.evidence[-EVIDENCE:]]
    for one in evidence:
        call = one["call"]
        one["what"] = call_headline(one["tool"], call and call.brief, schemas.get(call and call.tool_version_id, {}))
    said = Call.objects.filter(run_id=found.run_id, step=found.step, ord=0).values_list("result__text", flat=True).first()
    text = str(said or "").strip()
    earlier = len(found.evidence) - len(evidence)
    return {"evidence": evidence, "earlier": earlier, "claim": text[:CLAIM], "claim_cut": len(text) > CLAIM}


def siblings(found: Approval) -> Any:
    same = Approval.objects.filter(run_id=found.run_id, step=found.step, kind=found.kind).exclude(pk=found.pk).order_by("ord", "id")
    return same.filter(state__in=(State.PENDING, State.APPROVED, State.REJECTED, State.CONSUMED)).only("id", "ord", "tool", "state")
