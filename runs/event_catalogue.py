"""The catalogue of events: when each kind is written, which fields it has, and what its `data` holds. Pure.

`docs/events.md`, `docs/events.schema.json` and `GET /api/v1/events/schema` are made of it; the suite holds every event that its runs
write to it. The schema only grows under one VERSION: what is required stays, and readers take fields and kinds that they do not know.
"""

from typing import Any, Final, NamedTuple

from .events import FIELDS, VERSION, Kind

JSON = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Told(NamedTuple):
    """When an event is written, which of FIELDS it has, and the keys of its `data`. A `?` marks what is not always there."""

    when: str
    fields: str = ""
    data: str = ""


CALL_OF_TOOL = "step_id ord tool"
CALL_OF_MODEL = "step_id ord model"
SPENT = "latency_ms input_tokens output_tokens cost_micro"
SENT = "attempt status result_sha256 sanitized?"
RUNG = "n on do step limit? value? used? by? share? tool? model? error_type? reason? of? verdict?"

EVENTS: Final[dict[str, Told]] = {
    "run_accepted": Told(
        "intake, in the transaction that accepts the run; `rehearsal`: it changes nothing",
        "",
        "agent release input_sha256 retry_of? fork_of? fork_step? rehearsal?",
    ),
    "run_started": Told("an engine claims the run for the first time"),
    "run_resumed": Told("no call of the run waits for a person any more: it is queued again"),
    "run_claimed": Told("an engine claims it again after a wait"),
    "run_taken_over": Told("another engine takes it, because the lease of its owner is over"),
    "run_parked": Told("the engine lets go of it: to people, to a timer, or back to the queue", "step_id?", "state reason? switch?"),
    "run_completed": Told(
        "the run ends; its last event. `error_type`: what ended it, where that is no call's own error",
        "step_id? input_tokens? output_tokens? cost_micro? result? error_type?",
        "state outcome stop? by?",
    ),
    "cancel_requested": Told("a person cancels a run that an engine holds; the engine makes the move", "", "by"),
    "plan_decided": Told("a model has answered: the tools it was offered and those it asked for", "step_id model", "calls offered"),
    "model_call_started": Told("the intent of a model call is durable; it is sent next", CALL_OF_MODEL, "attempt role reserve_micro"),
    "model_call_completed": Told("the model has answered", f"{CALL_OF_MODEL} {SPENT} result", "attempt result_sha256 finish estimated"),
    "model_call_failed": Told(
        "it failed, or its engine was lost (`lost`: the reservation counts as spent)",
        f"{CALL_OF_MODEL} latency_ms? input_tokens? output_tokens? cost_micro result error_type retryable",
        "attempt status? lost?",
    ),
    "tool_call_started": Told("the intent of a tool call is durable; it is sent next", CALL_OF_TOOL, "attempt args_sha256 approval_id?"),
    "tool_call_completed": Told(
        "the tool has answered; a write is applied (`duplicate_request`: it was before, and with `sent` false it was not sent again)",
        f"{CALL_OF_TOOL} latency_ms? result error_type?",
        "sent? attempt? status? result_sha256? sanitized?",
    ),
    "tool_call_failed": Told(
        "an answer with an error, no answer, or (`sent` false) a call that was never sent",
        f"{CALL_OF_TOOL} latency_ms? result error_type retryable",
        f"sent? {SENT.replace(' ', '? ').replace('??', '?')}",
    ),
    "tool_call_unknown": Told(
        "a write may or may not be applied; it is not sent again",
        f"{CALL_OF_TOOL} result error_type?",
        "attempt? status? result_sha256? sanitized? lost?",
    ),
    "tool_call_reconciled": Told(
        "an unknown outcome was settled: by late evidence, a probe or a person",
        "step_id ord tool result",
        "result how by? unknown_id resend",
    ),
    "retry_scheduled": Told(
        "a failed call will be sent again; `attempt` is the next one", "step_id ord model? tool? result error_type", "attempt wait_ms"
    ),
    "call_held": Told(
        "a call is not sent now, and its run is parked: the breaker of its host is open (`breaker_open`), or too much is in flight"
        " there (`no_room`); no attempt is spent",
        "step_id ord model? tool?",
        "reason wait_ms",
    ),
    "policy_decided": Told("the policy has ruled on a call", f"{CALL_OF_TOOL} result", "decision by rev because?"),
    "policy_violated": Told(
        "the ruling is deny, an approved call may no longer be sent, or a rule withheld the answer",
        "step_id ord? tool? result error_type",
        "decision? by? rev? because? of?",
    ),
    "approval_requested": Told(
        "people are asked about a call, or (with `limit`) for more of the run's budget",
        "step_id ord tool?",
        "approval_id digest needed limit? preview_sha256? group? of?",
    ),
    "approval_decided": Told(
        "a person has decided; the reason is kept as a hash here",
        "step_id ord tool? result",
        "approval_id by verdict state reason_sha256? grant?",
    ),
    "approval_edited": Told(
        "a person wrote other arguments, which are asked about anew; earlier approvals are gone",
        f"{CALL_OF_TOOL} result",
        "approval_id by digest fields",
    ),
    "approval_escalated": Told(
        "half of the time is over and nobody has decided: the group that theirs escalates to may decide too",
        "step_id ord tool?",
        "approval_id groups",
    ),
    "approval_expired": Told("nobody decided in time; what was asked about is not done", "step_id ord tool? result", "approval_id"),
    "approval_voided": Told(
        "an open approval is not needed or not valid any more; `moved`: what differs from what was approved",
        "step_id? ord? tool? result?",
        "approval_id? moved?",
    ),
    "budget_exceeded": Told("a limit has no room for the next call; the run ends", "step_id result", "limit value used by step"),
    "deadline_exceeded": Told("the time of the run is over; the run ends", "result", "limit value"),
    "fallback_activated": Told(
        "a model is given up for the next one of its role", f"{CALL_OF_MODEL} result error_type?", "from to reason? limit?"
    ),
    "rung_entered": Told(
        "the run takes a rung of its ladder and goes on with less; the same is kept in its record (`rungs`)",
        "step_id result",
        f"{RUNG} last_step? from? age_s? exact? results?",
    ),
    "rung_missed": Told("a rung had nothing to give, so the next one was tried", "step_id result", RUNG),
    "rung_left": Told("the run ends, and with it each rung that it stood on", "step_id result", "n on do"),
    "loop_detected": Told(
        "a call is not sent, because it was answered `times` times before, each time alike, the last time in step `seen`",
        f"{CALL_OF_TOOL} result",
        "times seen",
    ),
    "release_changed": Told("the run's release was taken back, and it goes on with another one from its next step", "step_id?", "from to"),
    "call_rehearsed": Told(
        "a run that changes nothing was answered instead of sending: with what the same call came to in another run (`recorded`), what"
        " a case says (`simulated`), or nothing but a note (`would_have`)",
        f"{CALL_OF_TOOL} result",
        "from args_sha256",
    ),
    "call_drafted": Told("a write is kept for a person instead of sent; it is never sent by this run", f"{CALL_OF_TOOL} result", "attempt"),
    "critique_decided": Told(
        "a critique has checked step `of`; the reasons are in its reply, their number here",
        "step_id model? result",
        "of checks verdict reasons",
    ),
    "budget_granted": Told(
        "a person has raised limits of this run, each with its value before and after", "step_id result", "approval_id by limits"
    ),
}

WHOLE: Final = {"type": "integer", "minimum": 0}
NUMBER: Final = {"type": "number"}
NAME: Final = {"type": "string", "maxLength": 200}
NAMES: Final = {"type": "array", "items": NAME}
WORD: Final = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"}
SHA256: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
FIGURE: Final = {"type": ["number", "string", "null"]}  # of a limit: money as a decimal string
FROM_TO: Final = {"type": "object", "required": ["from", "to"], "properties": {"from": FIGURE, "to": FIGURE}, "additionalProperties": False}
STOP: Final = {
    "type": "object",
    "required": ["limit", "value", "used", "by", "step"],
    "properties": {"limit": NAME, "value": FIGURE, "used": FIGURE, "by": NAME, "step": WHOLE},
    "additionalProperties": False,
}


def an_id(prefix: str) -> JSON:
    return {"type": "string", "pattern": f"^{prefix}_[0-9A-HJKMNP-TV-Z]{{26}}$"}


# Of a field, or of a key of `data`, wherever it stands; `<kind>.<key>` where it differs.
TYPES: Final[dict[str, JSON]] = {
    "step_id": WHOLE, "model": NAME, "tool": NAME, "latency_ms": WHOLE, "input_tokens": WHOLE, "output_tokens": WHOLE,
    "cost_micro": {"type": "integer"}, "error_type": WORD, "retryable": {"type": "boolean"},
    "result": {"enum": ["ok", "error", "denied", "retried", "unknown", "degraded"]},
    "agent": NAME, "release": an_id("rel"), "retry_of": an_id("agt"), "fork_of": an_id("agt"), "fork_step": WHOLE,
    "run": an_id("agt"), "switch": an_id("swi"), "grant": an_id("grt"),
    "approval_id": an_id("apr"), "unknown_id": an_id("unk"),
    "input_sha256": SHA256, "args_sha256": SHA256, "result_sha256": SHA256, "preview_sha256": SHA256, "reason_sha256": SHA256,
    "digest": SHA256,
    "state": WORD, "outcome": WORD, "reason": WORD, "verdict": WORD, "decision": WORD, "how": WORD, "finish": WORD, "role": WORD,
    "on": WORD, "do": WORD, "rehearsal": WORD, "limit": WORD, "checks": WORD, "by": NAME, "from": NAME, "to": NAME, "group": NAME,
    "calls": NAMES, "offered": NAMES, "fields": NAMES, "groups": NAMES, "stop": STOP, "value": FIGURE, "used": FIGURE,
    "attempt": WHOLE, "n": WHOLE, "step": WHOLE, "last_step": WHOLE, "results": WHOLE, "times": WHOLE, "seen": WHOLE, "reasons": WHOLE,
    "because": {"type": "array", "items": {"type": "object"}},
    "rev": WHOLE, "needed": WHOLE, "wait_ms": WHOLE, "reserve_micro": WHOLE, "sanitized": WHOLE, "status": WHOLE, "of": WHOLE,
    "share": NUMBER, "age_s": NUMBER, "exact": {"type": "boolean"}, "sent": {"type": "boolean"}, "lost": {"type": "boolean"},
    "estimated": {"type": "boolean"}, "resend": {"type": "boolean"},
    "moved": {"type": ["array", "string"], "items": NAME},
    "approval_requested.of": WORD, "policy_violated.of": WORD,
    "tool_call_reconciled.data.result": {"enum": ["applied", "not_applied"]},
    "budget_granted.limits": {"type": "object", "additionalProperties": FROM_TO},
}  # fmt: skip


def type_of(kind: str, name: str) -> JSON:
    found = TYPES.get(f"{kind}.data.{name}") or TYPES.get(f"{kind}.{name}") or TYPES.get(name)
    if found is None:
        raise ValueError(f"runs/event_catalogue.py: TYPES does not say what {name} of {kind} is")
    return found


def or_null(given: JSON) -> JSON:
    return {"anyOf": [given, {"type": "null"}]}


def asked(names: str) -> dict[str, bool]:
    """Name -> whether it is always there."""
    return {name.rstrip("?"): not name.endswith("?") for name in names.split()}


def schema_of(kind: Kind, *, strict: bool = False) -> JSON:
    """Of one kind, in the form that the API gives it. `strict`: what this version writes and no more, for those who write."""
    told = EVENTS[kind]
    fields = asked(told.fields)
    if "cost_micro" in fields:
        fields["cost_usd"] = fields.pop("cost_micro")
    ord_ = fields.pop("ord", None)
    properties: JSON = {
        "seq": {"type": "integer", "minimum": 1},
        "run_id": an_id("agt"),
        "event": {"const": kind.value},
        "at": {"type": "string", "format": "date-time"},
        "v": {"const": VERSION} if strict else {"type": "integer", "minimum": VERSION},
        "call_id": CALL_ID if ord_ else or_null(CALL_ID) if ord_ is False or not strict else {"type": "null"},
        "data": data_of(kind, told, strict=strict),
    }
    for name in [*FIELDS[:1], *FIELDS[2:]]:  # all but `ord`, which is in call_id
        name = "cost_usd" if name == "cost_micro" else name
        given = USD if name == "cost_usd" else TYPES[name]
        properties[name] = given if fields.get(name) else or_null(given) if name in fields or not strict else {"type": "null"}
    return {
        "title": kind.value,
        "description": told.when,
        "type": "object",
        "required": sorted(properties),
        "properties": properties,
        "additionalProperties": not strict,
    }


CALL_ID: Final = {"type": "string", "pattern": r"^agt_[0-9A-HJKMNP-TV-Z]{26}\.[0-9]+\.[0-9]+$"}
USD: Final = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,6})?$"}


def data_of(kind: Kind, told: Told, *, strict: bool) -> JSON:
    names = asked(told.data)
    if not names:
        return {"type": "null"} if strict else {"type": ["object", "null"]}
    needed = [name for name, always in names.items() if always]
    made = {
        "type": "object",
        "required": needed,
        "properties": {name: type_of(kind, name) if name in needed else or_null(type_of(kind, name)) for name in names},
        "additionalProperties": not strict,
    }
    return made if needed else or_null(made)


def schema() -> JSON:
    """One document: `$defs` has a schema for each kind; the whole takes any event, also of a kind that this version does not know."""
    known = [kind.value for kind in Kind]
    return {
        "$schema": DIALECT,
        "$id": f"urn:signalbox:events:{VERSION}",
        "title": "An event of a run",
        "version": VERSION,
        "type": "object",
        "required": ["at", "event", "run_id", "seq", "v"],
        "properties": {"event": {"type": "string", "examples": known}},
        "allOf": [
            {"if": {"properties": {"event": {"const": kind}}, "required": ["event"]}, "then": {"$ref": f"#/$defs/{kind}"}} for kind in known
        ],
        "$defs": {kind.value: schema_of(kind) for kind in Kind},
    }
