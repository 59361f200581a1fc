"""The one map from a state to what a person sees. Pure.

`look(kind, state)` never fails: a name it does not know is shown as it is, idle, so that a new state in the runtime shows
up as a plain word and not as a broken page. Colour is never the only sign: each tone comes with an icon and a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TONES = ("ok", "run", "wait", "fail", "retry", "idle")


@dataclass(frozen=True, slots=True)
class Look:
    """`icon` is a symbol of static/icons/sprite.svg, `tone` one of TONES, `description` one plain sentence."""

    icon: str
    label: str
    tone: str
    description: str


RUN: Mapping[str, Look] = {
    "queued": Look("clock", "Queued", "idle", "Accepted, and waiting for a free slot."),
    "running": Look("loader-circle", "Running", "run", "An engine holds the run and works on it."),
    "waiting_approval": Look("hand", "Waiting for approval", "wait", "A person must decide before the run goes on."),
    "waiting_timer": Look("timer", "Waiting for a time", "wait", "Parked until a set time, such as the end of a back-off."),
    "waiting_budget": Look("wallet", "Waiting for budget", "wait", "A limit was reached; a person may grant more."),
    "needs_reconciliation": Look("circle-question-mark", "Needs reconciliation", "fail", "It is not known whether a write was applied."),
    "quarantined": Look("octagon-alert", "Quarantined", "fail", "Set aside after it failed repeatedly without progress."),
    "paused": Look("circle-pause", "Paused", "wait", "A person or a switch stopped it; it can go on."),
    "cancelling": Look("ban", "Cancelling", "idle", "Asked to stop; the call in progress ends first."),
    "succeeded": Look("circle-check", "Succeeded", "ok", "Ended with an answer."),
    "failed": Look("octagon-x", "Failed", "fail", "Ended without a usable answer."),
    "cancelled": Look("ban", "Cancelled", "idle", "A person stopped it."),
}

CALL: Mapping[str, Look] = {
    "ready": Look("circle-dashed", "Ready", "idle", "May be sent."),
    "waiting_approval": Look("hand", "Waiting for approval", "wait", "Not sent; a person must decide first."),
    "blocked": Look("shield-alert", "Blocked", "fail", "Policy or a person refused it. It was not sent."),
    "drafted": Look("pen-line", "Kept as a draft", "wait", "Not sent; a person may carry it out."),
    "dispatched": Look("loader-circle", "In progress", "run", "Sent; the answer is not here yet."),
    "retrying": Look("refresh-cw", "Retrying", "retry", "An attempt failed and another one follows."),
    "done": Look("circle-check", "Done", "ok", "Answered, and the answer is stored."),
    "failed_not_applied": Look("octagon-x", "Failed, not applied", "fail", "It failed, and certainly changed nothing."),
    "unknown": Look("circle-question-mark", "Unknown", "fail", "It was sent, and it is not known whether it was applied."),
    "abandoned": Look("ban", "Abandoned", "idle", "Given up without being applied."),
}

APPROVAL: Mapping[str, Look] = {
    "pending": Look("hand", "Waiting", "wait", "Nobody has decided yet, or another person is needed."),
    "approved": Look("circle-check", "Approved", "ok", "Enough people approved; the call may be sent."),
    "rejected": Look("octagon-x", "Rejected", "fail", "A person refused. The call is not sent."),
    "expired": Look("clock", "Expired", "idle", "Nobody decided in time. The call is not sent."),
    "consumed": Look("circle-check", "Approved and sent", "ok", "The approved call was sent, once."),
    "void": Look("ban", "Void", "idle", "Something changed after the request, so it no longer counts."),
    "open": Look("circle-dashed", "Open", "idle", "A place for one more person's decision."),
}

OUTCOME: Mapping[str, Look] = {
    "completed": Look("circle-check", "Completed", "ok", "Answered in full."),
    "completed_degraded": Look("triangle-alert", "Completed, degraded", "wait", "Answered on a lower rung of the ladder."),
    "model_error": Look("octagon-x", "Model error", "fail", "No model of the tiers gave a usable answer."),
    "tool_error": Look("octagon-x", "Tool error", "fail", "A tool that was needed failed for good."),
    "invalid_output": Look("braces", "Invalid output", "fail", "The answer did not fit the schema."),
    "empty_answer": Look("circle-dashed", "Empty answer", "fail", "The model ended without an answer."),
    "truncated": Look("octagon-alert", "Truncated", "fail", "The answer was cut off by its length."),
    "refused": Look("ban", "Refused", "fail", "The model declined."),
    "content_filtered": Look("shield-alert", "Content filtered", "fail", "The provider withheld the answer."),
    "loop_detected": Look("rotate-ccw", "Loop detected", "fail", "It repeated itself without progress."),
    "budget_exceeded": Look("wallet", "Budget exceeded", "wait", "A limit of tokens, cost or calls was reached."),
    "step_limit": Look("wallet", "Step limit", "wait", "The most steps allowed were used."),
    "deadline_exceeded": Look("timer", "Deadline exceeded", "wait", "The time allowed ran out."),
    "policy_denied": Look("shield-alert", "Policy denied", "fail", "A rule refused what the run needed."),
    "approval_rejected": Look("octagon-x", "Approval rejected", "fail", "A person refused what the run needed."),
    "approval_expired": Look("clock", "Approval expired", "idle", "Nobody decided in time."),
    "stopped_by_switch": Look("power-off", "Stopped by switch", "fail", "A kill switch was thrown."),
    "cancelled": Look("ban", "Cancelled", "idle", "A person stopped it."),
}

BREAKER: Mapping[str, Look] = {
    "closed": Look("circle-check", "Closed", "ok", "Calls go through."),
    "half_open": Look("refresh-cw", "Half-open", "retry", "One call at a time tests whether the other side is back."),
    "open": Look("zap-off", "Open", "fail", "Calls are held back; the other side keeps failing."),
    "held_open": Look("zap-off", "Held open", "fail", "A person holds calls back until it is reset."),
    "held_closed": Look("play", "Held closed", "wait", "A person lets calls through, whatever comes back, until it is reset."),
}

INCIDENT: Mapping[str, Look] = {
    "open": Look("octagon-alert", "Open", "fail", "Nobody has taken it on yet."),
    "acknowledged": Look("user", "Acknowledged", "wait", "Somebody works on it."),
    "resolved": Look("circle-check", "Resolved", "ok", "Over, with its cause written down."),
}

SEVERITY: Mapping[str, Look] = {
    "critical": Look("octagon-alert", "Critical", "fail", "People are harmed, or money is lost, while it lasts."),
    "major": Look("triangle-alert", "Major", "wait", "Work is held up or comes out wrong."),
    "minor": Look("circle-alert", "Minor", "idle", "Worth a look before it grows."),
}

DELIVERY: Mapping[str, Look] = {
    "pending": Look("clock", "Pending", "wait", "Not taken by the receiver yet; it is sent again at the time shown."),
    "delivered": Look("circle-check", "Delivered", "ok", "The receiver said that it has it."),
    "failed": Look("octagon-x", "Given up", "fail", "The receiver did not take it in a day, or said that it is gone."),
}

KINDS: Mapping[str, Mapping[str, Look]] = {
    "run": RUN,
    "call": CALL,
    "approval": APPROVAL,
    "outcome": OUTCOME,
    "breaker": BREAKER,
    "incident": INCIDENT,
    "severity": SEVERITY,
    "delivery": DELIVERY,
}


def look(kind: str, state: object) -> Look:
    """What to show for a state of `kind`; an unknown kind or state is idle with its raw name."""
    known = KINDS.get(kind, {}).get(str(state))
    return known or Look("circle-dashed", str(state) or "None", "idle", "A state that this console does not know.")
