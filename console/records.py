"""Rows -> the JSON that the API and the live channel show. Times RFC 3339 UTC, money decimal strings in USD, ids typed."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q

from approvals.models import Approval, ApprovalDecision
from approvals.people import groups_of
from runs.drafts import DRAFTED
from runs.inference.tiers import ACTION, FROM_STORE
from runs.models import Call, Event, Run, Step, Switch, UnknownWrite
from runs.rehearsals import REHEARSED
from runs.states import TERMINAL, Outcome
from tenants.ids import encode

JSON = dict[str, Any]
RUN_ROWS = Run.objects.select_related("tenant", "release", "asked")
UNBILLED = (ACTION, FROM_STORE)  # roles of turns that no model took
ASKED = ("add", "limit", "value", "used", "spent")
EVENT_FIELDS = ("model", "tool", "latency_ms", "input_tokens", "output_tokens", "result", "error_type", "retryable", "data")


def time(value: datetime | None) -> str | None:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if value else None


def usd(micro: int | None) -> str | None:
    """Millionths -> a decimal string without an exponent: 43000 -> "0.043"."""
    return None if micro is None else format((Decimal(micro) / 1_000_000).normalize(), "f")


def calls_of(runs: Iterable[Run]) -> tuple[dict[UUID, list[str]], dict[UUID, list[str]]]:
    """Run -> the tools it sent calls to, in order, each once; run -> the ids of the calls that it kept for a person instead.

    One query for a page of runs.
    """
    called: dict[UUID, dict[str, None]] = {run.id: {} for run in runs}
    kept: dict[UUID, list[str]] = {run_id: [] for run_id in called}
    told = Q(attempt__gt=0) | Q(error_class__in=(DRAFTED, REHEARSED))
    rows = Call.objects.filter(told, run_id__in=called, ord__gt=0).order_by("step", "ord")
    for run_id, step, ord_, name, attempt, error in rows.values_list("run_id", "step", "ord", "name", "attempt", "error_class"):
        if attempt or error == REHEARSED:
            called[run_id].setdefault(name)
        if error == DRAFTED:
            kept[run_id].append(call_id(encode("agt", run_id), step, ord_))
    return {run_id: list(names) for run_id, names in called.items()}, kept


def answers(runs: Iterable[Run]) -> dict[UUID, str]:
    """Run -> its answer's text, for those that have one."""
    at = {run.id: run.answer_step for run in runs if run.answer_step is not None}
    rows = Call.objects.filter(run_id__in=at, ord=0).values_list("run_id", "step", "result")
    return {run_id: result["text"] for run_id, step, result in rows if at[run_id] == step and result}


def tool_results(run: Run) -> list[JSON]:
    """What each tool call of the run came to, in order. `result` is null until the call is settled."""
    rows = Call.objects.filter(run_id=run.id, ord__gt=0).order_by("step", "ord")
    return [
        {
            "call_id": call_id(run.run_id, row.step, row.ord),
            "step": row.step,
            "tool": row.name,
            "state": row.state,
            "error_type": row.error_class,
            "result": row.result,
        }
        for row in rows
    ]


def is_degraded(run: Run) -> bool:
    """It was answered on a rung, or stands on one now."""
    if run.state in TERMINAL:
        return run.outcome == Outcome.COMPLETED_DEGRADED
    return any(not rung.get("missed") for rung in run.rungs)


def fork_of(fork: JSON | None) -> JSON | None:
    """Where the run's first steps come from."""
    return {"run_id": encode("agt", UUID(fork["of"])), "step": fork["step"]} if fork else None


def run_records(runs: list[Run]) -> list[JSON]:
    (called, kept), texts = calls_of(runs), answers(runs)
    return [run_record(run, called[run.id], texts.get(run.id), kept[run.id]) for run in runs]


def run_record(run: Run, called: list[str], answer: str | None, kept: list[str]) -> JSON:
    """The record of one run. `cost_partial`: a call had no known price, so the cost is a lower bound."""
    limits = run.asked.limits
    return {
        "run_id": run.run_id,
        "tenant": run.tenant.slug,
        "user": run.asked.user,
        "agent": run.agent_id,
        "release": run.release.release_id,
        "release_number": run.release.number,
        "state": run.state,
        "mode": run.mode,
        "step": run.step,
        "max_steps": limits["max_steps"],
        "deadline_at": time(run.deadline_at),
        "cost_usd": usd(run.cost_micro),
        "cost_partial": run.unpriced,
        "tools_called": called,
        "last_error": run.last_error,
        "outcome": run.outcome,
        "stop": run.stop,
        "degraded": is_degraded(run),
        "rungs": run.rungs,
        "drafts": kept,
        "action": run.asked.action,
        "rehearsal": (run.asked.rehearsal or {}).get("kind"),
        "fork_of": fork_of(run.asked.fork),
        "usage": {
            "steps": run.step,
            "tool_calls": run.tool_calls,
            "writes": run.writes,
            "input_tokens": run.tokens_in,
            "output_tokens": run.tokens_out,
            "cost_usd": usd(run.cost_micro),
            "reserved_usd": usd(run.reserved_micro),
        },
        "limits": {key: value for key, value in limits.items() if key != "max_cost_micro"}
        | {"max_cost_usd": usd(limits["max_cost_micro"])},
        "input": {"text": run.asked.text, "data": run.asked.data},
        "output": None if answer is None else {"text": answer},
        "session": run.asked.session or None,
        "metadata": run.asked.metadata,
        "seq": run.seq,
        "cancel_requested": run.cancel_requested,
        "paused_by": encode("swi", run.paused_by) if run.paused_by else None,
        "created_at": time(run.created_at),
        "ended_at": time(run.ended_at),
    }


def event_record(event: Event) -> JSON:
    """One event with every field of the contract; absent ones are null."""
    payload = event.payload
    step, ord_ = payload.get("step_id"), payload.get("ord")
    run_id = encode("agt", event.run_id)
    return {
        "seq": event.seq,
        "run_id": run_id,
        "step_id": step,
        "call_id": None if ord_ is None else call_id(run_id, step, ord_),
        "event": event.kind,
        "at": time(event.at),
        **{name: payload.get(name) for name in EVENT_FIELDS},
        "cost_usd": usd(payload.get("cost_micro")),
        "v": payload.get("v", 1),
    }


def call_id(run_id: str, step: int, ord_: int) -> str:
    return f"{run_id}.{step}.{ord_}"


def text_of(args: bytes | memoryview | None) -> str | None:
    """Arguments for people: indented, and every character outside ASCII escaped, so that nothing in them is invisible."""
    return None if args is None else json.dumps(json.loads(bytes(args)), indent=2, ensure_ascii=True)


def step_records(run: Run) -> list[JSON]:
    """Steps with their calls, each call with its attempts (rebuilt from the events)."""
    tries = attempts(run)
    steps = {step.step: step for step in Step.objects.filter(run_id=run.id)}
    grouped: dict[int, list[Call]] = {}
    for call in Call.objects.filter(run_id=run.id).order_by("step", "ord"):
        grouped.setdefault(call.step, []).append(call)
    return [
        {
            "step": number,
            "role": steps[number].role if number in steps else None,
            "model": None if number in steps and steps[number].role in UNBILLED else calls[0].name,
            "calls": [call_record(run.run_id, call, tries.get((call.step, call.ord), [])) for call in calls],
        }
        for number, calls in grouped.items()
    ]


def call_record(run_id: str, call: Call, tries: list[JSON]) -> JSON:
    return {
        "call_id": call_id(run_id, call.step, call.ord),
        "kind": "model" if call.ord == 0 else "tool",
        "name": call.name,
        "effect": call.effect if call.ord else None,
        "state": call.state,
        "args": None if call.args is None else json.loads(bytes(call.args)),
        "args_text": text_of(call.args),
        "result": call.result,
        "error_type": call.error_class,
        "decision": call.decision,
        "approval_id": call.approval_id and encode("apr", call.approval_id),
        "idempotency_key": call.idem_key,
        "attempt": call.attempt,
        "attempts": tries,
        "dispatched_at": time(call.dispatched_at),
        "ended_at": time(call.ended_at),
        "latency_ms": call.latency_ms,
        "input_tokens": call.tokens_in or None,
        "output_tokens": call.tokens_out or None,
        "cost_usd": usd(call.cost_micro) if call.ord == 0 else None,
    }


def attempts(run: Run) -> dict[tuple[int, int], list[JSON]]:
    """(step, ord) -> its sends in order. A started event opens one, the next ending event of that call closes it."""
    sends: dict[tuple[int, int], list[JSON]] = {}
    kinds = [f"{what}_call_{how}" for what in ("model", "tool") for how in ("started", "completed", "failed")]
    for event in Event.objects.filter(run_id=run.id, kind__in=kinds).order_by("seq"):
        payload, data = event.payload, event.payload.get("data") or {}
        place = (payload["step_id"], payload.get("ord", 0))
        if event.kind.endswith("started"):
            started = {"n": data.get("attempt"), "started_at": time(event.at), "model": payload.get("model"), "ended_at": None}
            sends.setdefault(place, []).append(started | {"result": None, "error_type": None, "latency_ms": None, "status": None})
        elif place in sends:
            sends[place][-1] |= {
                "ended_at": time(event.at),
                "result": payload.get("result"),
                "error_type": payload.get("error_type"),
                "latency_ms": payload.get("latency_ms"),
                "status": data.get("status"),
            }
    return sends


def unknown_record(case: UnknownWrite, call: Call | None) -> JSON:
    """A write whose outcome is (or was) unknown: what was sent, how far it got, the probes, and how it was settled."""
    run_id = encode("agt", case.run_id)
    return {
        "unknown_id": case.unknown_id,
        "run_id": run_id,
        "step_id": case.step,
        "call_id": call_id(run_id, case.step, case.ord),
        "tool": case.tool,
        "state": "settled" if case.result else "open",
        "opened_at": time(case.opened_at),
        "call": None if call is None else call_record(run_id, call, []),
        "send_deadline": time(call.send_deadline) if call else None,
        "probes": case.probes,
        "next_probe_at": time(case.next_probe_at),
        "result": case.result or None,
        "how": case.how or None,
        "settled_by": case.settled_by or None,
        "evidence": case.evidence or None,
        "settled_at": time(case.settled_at),
    }


def approval_record(approval: Approval) -> JSON:
    """`asked` is of a request for more budget, which has no call and no tool. `sealed`: the fields under the digest; `proposed`: what the
    model wrote, where a person wrote something else; `replaced_by`: the request that was edited from it, or asks anew.
    """
    replaced = getattr(approval, "replaced_by", None)  # of `console.api.approvals.visible`
    run_id, of_budget = encode("agt", approval.run_id), approval.kind == Approval.Kind.BUDGET
    return {
        "approval_id": approval.approval_id,
        "kind": approval.kind,
        "run_id": run_id,
        "step_id": approval.step,
        "call_id": None if of_budget else call_id(run_id, approval.step, approval.ord),
        "agent": approval.agent,
        "tool": approval.tool or None,
        "asked": {name: value for name, value in json.loads(bytes(approval.args)).items() if name in ASKED} if of_budget else None,
        "effect": approval.effect,
        "args": json.loads(bytes(approval.args)),
        "args_text": text_of(approval.args),
        "digest": approval.digest,
        "sealed": approval.sealed,
        "proposed": None if approval.proposed is None else json.loads(bytes(approval.proposed)),
        "edited_by": approval.edited_by.username if approval.edited_by else None,
        "replaces": approval.replaces and encode("apr", approval.replaces),
        "replaced_by": replaced and encode("apr", replaced),
        "preview": approval.preview,
        "risk": approval.risk,
        "why": approval.why,
        "evidence": approval.evidence,
        "needed": approval.needed,
        "group": approval.group or None,
        "groups": groups_of(approval),
        "escalated_at": time(approval.escalated_at),
        "reminders": approval.reminders,
        "grant": approval.grant_id and encode("grt", approval.grant_id),
        "decisions": [decision_record(said) for said in approval.decisions.all()],
        "state": approval.state,
        "void_reason": approval.void_reason or None,
        "created_at": time(approval.created_at),
        "expires_at": time(approval.expires_at),
    }


def decision_record(said: ApprovalDecision) -> JSON:
    """`for_user`: by delegation, the person whose decision it is."""
    return {
        "user": said.user.username,
        "for_user": said.for_user.username if said.for_user else None,
        "verdict": said.verdict,
        "reason": said.reason,
        "break_glass": said.break_glass,
        "surface": said.surface or None,
        "at": time(said.at),
    }


def switch_record(switch: Switch) -> JSON:
    """`tenant` null: in every tenant. The reasons are people's own words."""
    return {
        "switch_id": str(switch),
        "scope": switch.scope,
        "tenant": switch.tenant.slug if switch.tenant else None,
        "agent": switch.agent or None,
        "tool": switch.tool or None,
        "then": switch.then,
        "drill": switch.drill,
        "state": "lifted" if switch.lifted_at else "on",
        "reason": switch.reason,
        "by": switch.by.get_username(),
        "at": time(switch.at),
        "lifted_by": switch.lifted_by.get_username() if switch.lifted_by else None,
        "lifted_at": time(switch.lifted_at),
        "lift_reason": switch.lift_reason or None,
    }
