"""One line of plain words for an event of a run, and its tone. Pure. Payloads hold no free text, so neither does this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import limits, rungs

Payload = Mapping[str, Any]

BAD = ("model_call_failed", "tool_call_failed", "tool_call_unknown", "policy_violated", "budget_exceeded", "deadline_exceeded")
WAITS = ("approval_requested", "run_parked", "retry_scheduled", "call_held", "rung_entered", "loop_detected", "call_drafted")


def text(kind: str, payload: Payload) -> str:
    """`payload` as stored: {step_id, ord, tool, model, latency_ms, input_tokens, ..., data}. Any of it may be absent."""
    data = payload.get("data") or {}
    say = SENTENCES.get(kind, plain)
    return " · ".join(part for part in say(payload, data if isinstance(data, Mapping) else {}) if part)


def tone(kind: str, payload: Payload) -> str:
    """ "ok", "wait", "fail" or empty."""
    result = payload.get("result")
    if kind in BAD or (kind == "run_completed" and result == "error"):
        return "fail"
    if kind in ("approval_decided", "approval_expired"):
        return "ok" if result == "ok" else "fail"
    if kind in WAITS or result == "denied":
        return "wait"
    return "ok" if kind == "run_completed" and result == "ok" else ""


def subject(payload: Payload) -> str:
    return str(payload.get("tool") or payload.get("model") or "")


def spoken(value: Any) -> str:
    return str(value).replace("_", " ") if value else ""


def took(payload: Payload) -> str:
    return f"{payload['latency_ms']} ms" if payload.get("latency_ms") is not None else ""


def plain(payload: Payload, data: Payload) -> list[str]:
    return [subject(payload), spoken(payload.get("result")), spoken(payload.get("error_type")), took(payload)]


def started(payload: Payload, data: Payload) -> list[str]:
    return [subject(payload), spoken(data.get("role")), f"attempt {data['attempt']}" if data.get("attempt", 1) != 1 else ""]


def model_done(payload: Payload, data: Payload) -> list[str]:
    tokens = f"{payload.get('input_tokens', 0):,} tok in, {payload.get('output_tokens', 0):,} out"
    return [subject(payload), tokens, took(payload)]


def failed(payload: Payload, data: Payload) -> list[str]:
    status = f"HTTP {data['status']}" if data.get("status") else ""
    return [
        subject(payload),
        spoken(payload.get("error_type")),
        status,
        took(payload),
        "will be tried again" if payload.get("retryable") else "",
    ]


def planned(payload: Payload, data: Payload) -> list[str]:
    return [f"calls {', '.join(map(str, data['calls']))}" if data.get("calls") else "no calls"]


def policy(payload: Payload, data: Payload) -> list[str]:
    return [subject(payload), spoken(data.get("decision")), f"by {data['by']}" if data.get("by") else ""]


def requested(payload: Payload, data: Payload) -> list[str]:
    needed = data.get("needed", 1)
    about = f"more {limits.name_of(data['limit'])}" if data.get("limit") else subject(payload)
    return [about, f"needs {needed} {'person' if needed == 1 else 'people'}"]


def decided(payload: Payload, data: Payload) -> list[str]:
    verdict = {"approve": "approved", "reject": "rejected"}.get(str(data.get("verdict")), "decided")
    return [
        subject(payload),
        f"{verdict} by {data['by']}" if data.get("by") else verdict,
        "one more person needed" if data.get("state") == "pending" else "",
    ]


def parked(payload: Payload, data: Payload) -> list[str]:
    return [spoken(data.get("state")), spoken(data.get("reason"))]


def scheduled(payload: Payload, data: Payload) -> list[str]:
    return [subject(payload), f"attempt {data.get('attempt')} in {data.get('wait_ms', 0)} ms", spoken(payload.get("error_type"))]


def fallback(payload: Payload, data: Payload) -> list[str]:
    return [f"{data.get('from')} → {data.get('to')}", spoken(payload.get("error_type") or data.get("reason"))]


def held(payload: Payload, data: Payload) -> list[str]:
    why = {"breaker_open": "the breaker of its host is open", "no_room": "enough is in flight at its host"}.get(str(data.get("reason")), "")
    return [subject(payload), why, f"for {data['wait_ms'] / 1000:.1f} s" if data.get("wait_ms") else ""]


def limit(payload: Payload, data: Payload) -> list[str]:
    return [
        str(data.get("limit") or ""),
        f"{data.get('used')} of {data.get('value')}" if data.get("used") is not None else "",
        str(data.get("by") or ""),
    ]


def rung(payload: Payload, data: Payload) -> list[str]:
    return [rungs.words(data)]


def missed(payload: Payload, data: Payload) -> list[str]:
    return [rungs.words({**data, "missed": True})]


def went_round(payload: Payload, data: Payload) -> list[str]:
    seen = f"same answer as in step {data['seen']}" if data.get("seen") else ""
    return [subject(payload), f"asked {data['times'] + 1} times" if data.get("times") else "", seen]


def critique(payload: Payload, data: Payload) -> list[str]:
    many = data.get("reasons") or 0
    about = f"{data.get('checks') or 'answer'} of step {data['of']}" if data.get("of") else ""
    return [f"{spoken(data.get('verdict')) or 'no verdict'}", about, f"{many} reason{'' if many == 1 else 's'}" if many else ""]


def granted(payload: Payload, data: Payload) -> list[str]:
    return [by(data), *raised(data.get("limits") or {})]


def raised(changed: Payload) -> list[str]:
    """From the limits as they are kept: cost in millionths."""
    out = []
    for kept, change in changed.items():
        name, scale = ("max_cost_usd", 1_000_000) if kept == "max_cost_micro" else (kept, 1)
        before, after = (limits.figure(name, change[end] / scale if scale > 1 else change[end]) for end in ("from", "to"))
        out.append(f"{limits.name_of(name)} from {before} to {after}")
    return out


def reconciled(payload: Payload, data: Payload) -> list[str]:
    return [subject(payload), spoken(data.get("result")), f"by {data['by']}" if data.get("by") else spoken(data.get("how"))]


def completed(payload: Payload, data: Payload) -> list[str]:
    return [spoken(data.get("state")), spoken(data.get("outcome")) if data.get("outcome") != data.get("state") else "", by(data)]


def by(data: Payload) -> str:
    return f"by {data['by']}" if data.get("by") else ""


def accepted(payload: Payload, data: Payload) -> list[str]:
    return [str(data.get("agent") or ""), f"retry of {data['retry_of']}" if data.get("retry_of") else ""]


SENTENCES: Mapping[str, Callable[[Payload, Payload], list[str]]] = {
    "run_accepted": accepted,
    "run_parked": parked,
    "run_completed": completed,
    "cancel_requested": lambda payload, data: [by(data)],
    "plan_decided": planned,
    "model_call_started": started,
    "tool_call_started": started,
    "model_call_completed": model_done,
    "model_call_failed": failed,
    "tool_call_failed": failed,
    "tool_call_reconciled": reconciled,
    "retry_scheduled": scheduled,
    "policy_decided": policy,
    "policy_violated": policy,
    "approval_requested": requested,
    "approval_decided": decided,
    "budget_exceeded": limit,
    "deadline_exceeded": limit,
    "fallback_activated": fallback,
    "call_held": held,
    "rung_entered": rung,
    "rung_missed": missed,
    "rung_left": lambda payload, data: [rungs.INSTEAD.get(str(data.get("do")), "Ask a person")],
    "loop_detected": went_round,
    "release_changed": lambda payload, data: [f"{data.get('from')} → {data.get('to')}"],
    "call_rehearsed": lambda payload, data: [subject(payload), f"not sent, answered from: {str(data.get('from')).replace('_', ' ')}"],
    "call_drafted": lambda payload, data: [subject(payload), "kept for a person, not sent"],
    "critique_decided": critique,
    "budget_granted": granted,
}
