"""The events of a run: their names, and the payload of each. Pure."""

import json
from enum import StrEnum
from typing import Any

VERSION = 1
encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # one encoder: making one costs more than a small payload


class Kind(StrEnum):
    RUN_ACCEPTED = "run_accepted"
    RUN_STARTED = "run_started"
    RUN_RESUMED = "run_resumed"
    RUN_CLAIMED = "run_claimed"  # an engine took it again after a wait
    RUN_TAKEN_OVER = "run_taken_over"
    RUN_PARKED = "run_parked"
    RUN_COMPLETED = "run_completed"
    CANCEL_REQUESTED = "cancel_requested"
    PLAN_DECIDED = "plan_decided"
    MODEL_CALL_STARTED = "model_call_started"
    MODEL_CALL_COMPLETED = "model_call_completed"
    MODEL_CALL_FAILED = "model_call_failed"
    TOOL_CALL_STARTED = "tool_call_started"
    TOOL_CALL_COMPLETED = "tool_call_completed"
    TOOL_CALL_FAILED = "tool_call_failed"
    TOOL_CALL_UNKNOWN = "tool_call_unknown"
    TOOL_CALL_RECONCILED = "tool_call_reconciled"  # an unknown outcome was settled: by late evidence, a probe, or a person
    RETRY_SCHEDULED = "retry_scheduled"
    CALL_HELD = "call_held"  # it is not sent now: the breaker of its host is open, or too much is in flight there
    POLICY_DECIDED = "policy_decided"
    POLICY_VIOLATED = "policy_violated"
    APPROVAL_REQUESTED = "approval_requested"
    APPROVAL_EDITED = "approval_edited"  # a person wrote other arguments; earlier approvals are gone
    APPROVAL_DECIDED = "approval_decided"
    APPROVAL_ESCALATED = "approval_escalated"  # half of the time is over: another group may decide too
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_VOIDED = "approval_voided"
    BUDGET_EXCEEDED = "budget_exceeded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    FALLBACK_ACTIVATED = "fallback_activated"
    RUNG_ENTERED = "rung_entered"  # the ladder: the run goes on with less
    RUNG_MISSED = "rung_missed"  # a rung that had nothing to give
    RUNG_LEFT = "rung_left"
    LOOP_DETECTED = "loop_detected"
    RELEASE_CHANGED = "release_changed"  # the run's release was taken back: it goes on with another one
    CALL_REHEARSED = "call_rehearsed"  # a run that changes nothing: answered from the book instead of sent
    CALL_DRAFTED = "call_drafted"  # a write that could not be made is kept for a person
    CRITIQUE_DECIDED = "critique_decided"
    BUDGET_GRANTED = "budget_granted"  # a person raised a limit of this run


FIELDS = (
    "step_id", "ord", "model", "tool", "latency_ms", "input_tokens", "output_tokens", "cost_micro", "result", "error_type",
    "retryable",
)  # fmt: skip


def event(kind: Kind, *, data: dict[str, Any] | None = None, **fields: Any) -> tuple[str, str]:
    """(kind, payload JSON). `fields` are of FIELDS, Nones left out; `data` holds hashes, references and numbers, no free text."""
    payload: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if data:
        payload["data"] = data
    payload["v"] = VERSION
    return kind.value, encode(payload)
