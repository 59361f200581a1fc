"""The tool calls of a turn: rule on each, commit the intent, send, and record what came back."""

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from runs import budgets, retries
from runs.budgets import Stop
from runs.events import Kind, encode, event
from runs.states import CallState, RunState
from tools import canonical, policy
from tools.definitions import CallContext, Credential, ErrorClass, ToolDefinition, ToolResult

from .flight import JSON, Ending, Flight, Intent, ToolCall, Turn
from .journal import Changed, Planned
from .services import Services

HOLD_MARGIN_S = 2.0  # a write in flight is not taken over before its wall deadline and this


@dataclass(slots=True)
class Ruling:
    """What will be done with a call, before it is committed."""

    call: ToolCall
    state: CallState
    decision: JSON | None = None
    result: JSON | None = None
    error: str | None = None
    timeout: float | None = None  # set: it is sent as soon as the entry is durable
    stop: Stop | None = None


def open_calls(turn: Turn) -> None:
    """A reply's asks become calls. Arguments that are not a JSON object stay None and are refused, not raised."""
    if turn.calls or turn.reply is None:
        return
    for ord_, ask in enumerate(turn.reply["calls"], 1):
        try:
            value = canonical.loads_limited(ask["arguments"].encode() or b"{}")
            args = canonical.dumps(canonical.clean(value)[0]) if isinstance(value, dict) else None
        except ValueError:
            args = None
        turn.calls.append(ToolCall(ord_, ask["name"][:128], ask["id"][:128], args))


def undecided(turn: Turn) -> list[ToolCall]:
    """Calls without a row yet, those allowed earlier, and those to be sent again: all are ruled on anew at dispatch."""
    fresh = (None, CallState.READY, CallState.FAILED_NOT_APPLIED, CallState.DISPATCHED)
    return [c for c in turn.calls if c.result is None and c.state in fresh and not is_approved(c)]


def rule(f: Flight, turn: Turn) -> list[Ruling]:
    """One ruling for each open call. All reads go at once; writes one at a time, in order, after the reads."""
    rulings, used = [], budgets.Used(**asdict(f.used))
    for call in undecided(turn):
        ruling = rule_on(f, turn, call, used)
        if ruling.timeout is not None and call.attempt == 0:
            used.tool_calls += 1
            used.writes += f.release.tools[call.name].mutating
        rulings.append(ruling)
    sends = [r for r in rulings if r.timeout is not None]
    reads = [r for r in sends if not f.release.tools[r.call.name].mutating]
    for later in [r for r in sends if r not in (reads or sends[:1])]:
        later.state, later.timeout = waiting_state(later.call), None
    return rulings


def waiting_state(call: ToolCall) -> CallState:
    return CallState(call.state) if call.state else CallState.READY


def rule_on(f: Flight, turn: Turn, call: ToolCall, used: budgets.Used) -> Ruling:
    definition = f.release.tools.get(call.name)
    decision = decide(f, turn, call, definition)
    record: JSON = {"decision": decision.verdict, "why": decision.why, "by": decision.by, "rev": f.snapshot.rev}
    if decision.verdict == "deny" or definition is None:
        return refused(call, definition, record, "denied", decision.why, "policy")
    timeout = f.left_for(turn, min(definition.timeout_s, f.limits.tool_call_s))
    if timeout <= 0:
        return refused(call, definition, record, "timeout", "Not sent: the step's time is over.", "timeout")
    if call.attempt >= retries.MAX_SENDS:
        return refused(call, definition, record, "timeout", "Not sent again: the call used all its sends.", "timeout")
    if call.attempt == 0 and (first := rule_on_first_send(f, call, definition, decision, record, used)):
        return first
    return Ruling(call, CallState.DISPATCHED, record, timeout=timeout)


def rule_on_first_send(
    f: Flight, call: ToolCall, definition: ToolDefinition, decision: policy.Decision, record: JSON, used: budgets.Used
) -> Ruling | None:
    """What only the first send has to pass: the schema, drafts, the budget, people. None: it may be sent."""
    if problem := invalid(f, call):
        return refused(call, definition, record, "validation", problem, "validation")
    if decision.verdict == "draft":
        return refused(call, definition, record, "drafted", "Not sent: kept as a recommended action for a person.", None)
    if stop := budgets.before_tool(f.limits, used, tool=call.name, mutating=definition.mutating):
        ruling = refused(call, definition, record, "budget_exceeded", f"Not sent: the run's {stop.limit} is reached.", "policy")
        ruling.stop = stop
        return ruling
    if decision.verdict == "ask" and call.approval_id is None:
        record["approvers"] = decision.approvers
        return Ruling(call, CallState.WAITING_APPROVAL, record)
    return None


def refused(call: ToolCall, definition: ToolDefinition | None, record: JSON, kind: str, message: str, error: str | None) -> Ruling:
    """A call that will not be sent (again). One that may already be applied is not refused but unknown."""
    if call.state == CallState.DISPATCHED and (definition is None or definition.mutating):
        return Ruling(call, CallState.UNKNOWN, record, error=call.error)
    sent = call.state in (CallState.DISPATCHED, CallState.FAILED_NOT_APPLIED)
    state = CallState.FAILED_NOT_APPLIED if sent else CallState.BLOCKED
    return Ruling(call, state, record, {"ok": False, "error_type": kind, "message": message}, error)


def decide(f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition | None) -> policy.Decision:
    facts = policy.Facts(
        tool=call.name,
        effect=definition.effect.value if definition else "write",
        labels=definition.labels if definition else frozenset(),
        args=json.loads(call.args) if call.args else {},
        run=run_facts(f, turn),
        now=datetime.now(UTC).isoformat(),
    )
    offered, enabled = definition is not None, call.name in f.snapshot.enabled
    return policy.decide(facts, f.snapshot.rows, offered=offered, enabled=enabled, mode=f.mode)  # type: ignore[arg-type]


def run_facts(f: Flight, turn: Turn | None) -> JSON:
    return {
        "agent": f.release.agent,
        "tenant": f.snapshot.slug,
        "user": f.user,
        "release": f.release.number,
        "step": turn.step if turn else 0,
        "labels": [],
        "writes": f.used.writes,
        "cost_usd": f.used.cost_micro / 1e6,
        "tools": {},
    }


def invalid(f: Flight, call: ToolCall) -> str:
    """Why the arguments cannot be sent; empty when they can."""
    if call.args is None:
        return "The arguments are not a JSON object."
    return "; ".join(f.release.validators[call.name].errors(json.loads(call.args)))


def idem_key(f: Flight, turn: Turn, call: ToolCall) -> str:
    """The same over retries, engines, takeovers and restarts of one call; another for every other call."""
    text = f"v1|{f.tenant}|{f.id}|{turn.step}|{call.ord}".encode()
    return base64.b32encode(hmac.new(f.snapshot.secret, text, hashlib.sha256).digest())[:32].decode()


def intend(f: Flight, turn: Turn, rulings: list[Ruling]) -> Intent:
    """The entry's half that depends on the controls: rows and events of the rulings."""
    intent = Intent(dispatches=any(r.timeout is not None for r in rulings))
    for r in rulings:
        definition = f.release.tools.get(r.call.name)
        mutating = definition is None or definition.mutating
        row(f, turn, r, definition, intent)
        tell(turn, r, intent)
        if r.timeout is not None:
            intent.tool_calls += r.call.attempt == 0
            intent.writes += mutating and r.call.attempt == 0
            intent.hold = max(intent.hold or 0.0, r.timeout + HOLD_MARGIN_S) if mutating else intent.hold
    return intent


def row(f: Flight, turn: Turn, r: Ruling, definition: ToolDefinition | None, intent: Intent) -> None:
    call, attempt = r.call, r.call.attempt + (r.timeout is not None)
    decision, result = (encode(x) if x else None for x in (r.decision, r.result))
    if call.state is not None:
        if r.timeout is not None or r.state != call.state or r.result is not None:
            intent.changed.append(
                Changed(
                    turn.step, call.ord, r.state, result=result, error=r.error, attempt=attempt, decision=decision,
                    deadline=r.timeout,
                )
            )  # fmt: skip
        return
    mutating = definition is not None and definition.mutating
    intent.planned.append(
        Planned(
            turn.step, call.ord, r.state, call.name, definition.version_id if definition else None,
            definition.effect.value if definition else "write", call.provider_id, call.args,
            idem_key(f, turn, call) if mutating else None, decision, attempt, r.timeout, result, r.error,
        )
    )  # fmt: skip


def tell(turn: Turn, r: Ruling, intent: Intent) -> None:
    call = r.call
    facts: JSON = {"step_id": turn.step, "ord": call.ord, "tool": call.name}
    if call.state is None or r.state == CallState.BLOCKED:
        verdict = (r.decision or {}).get("decision")
        denied = verdict in ("deny", "draft")
        data = {"decision": verdict, "by": (r.decision or {}).get("by"), "rev": (r.decision or {}).get("rev")}
        intent.events.append(event(Kind.POLICY_DECIDED, **facts, result="denied" if denied else "ok", data=data))
        if verdict == "deny":
            intent.events.append(event(Kind.POLICY_VIOLATED, **facts, result="denied", error_type="policy", data=data))
    if r.state == CallState.UNKNOWN:
        intent.events.append(event(Kind.TOOL_CALL_UNKNOWN, **facts, result="unknown", error_type=r.error))
    elif r.result is not None and (r.decision or {}).get("decision") not in ("deny", "draft"):
        intent.events.append(
            event(Kind.TOOL_CALL_FAILED, **facts, result="error", error_type=r.error, retryable=False, data={"sent": False})
        )
    if r.timeout is not None:
        data = {"attempt": call.attempt + 1, "args_sha256": digest_of(call.args or b"")}
        intent.events.append(event(Kind.TOOL_CALL_STARTED, **facts, data=data))


def apply(f: Flight, rulings: list[Ruling]) -> None:
    """After the commit: memory follows the rows."""
    for r in rulings:
        r.call.state, r.call.result, r.call.error, r.call.decision = r.state, r.result, r.error, r.decision
        r.call.attempt += r.timeout is not None
        r.call.wait_s = None
        if r.stop and f.ending is None:
            f.ending = Ending(RunState.FAILED, r.stop.outcome, r.stop)


async def advance(f: Flight, e: Services, turn: Turn) -> None:
    """Rule on the open calls, commit, and send what may be sent now."""
    rulings = rule(f, turn)
    if not await f.commit(intend(f, turn, rulings)):
        f.snapshot = await e.definitions.snapshot(f.tenant)
        return
    apply(f, rulings)
    sends = [r for r in rulings if r.timeout is not None]
    if sends:
        e.lease.check()
        results = await asyncio.gather(*(send(f, e, turn, r.call, r.timeout or 0.0) for r in sends))
        for r, result in zip(sends, results, strict=True):
            absorb(f, e, turn, r.call, result)


async def send(f: Flight, e: Services, turn: Turn, call: ToolCall, timeout: float) -> ToolResult:
    definition = f.release.tools[call.name]
    context = CallContext(
        run_id=f.run_id,
        step=turn.step,
        idem_key=idem_key(f, turn, call) if definition.mutating else None,
        timeout_s=timeout,
        allow=f.snapshot.allow,
        credential=credential(f, call.name),
        traceparent=f.traceparent,
        attempt=call.attempt,
    )
    return await e.tools.invoke(definition, call.args or b"{}", context)


def credential(f: Flight, tool: str) -> Credential | None:
    return f.snapshot.credentials.get(f.release.credentials.get(tool, ""))


def absorb(f: Flight, e: Services, turn: Turn, call: ToolCall, result: ToolResult) -> None:
    """What came back becomes rows and events; the next commit carries them."""
    definition = f.release.tools[call.name]
    facts: dict[str, Any] = {"step_id": turn.step, "ord": call.ord, "tool": call.name, "latency_ms": result.latency_ms}
    call.error = result.error_class.value if result.error_class else None
    if result.ok or result.applied:
        settle(f, turn, call, CallState.DONE, result)
        f.say(Kind.TOOL_CALL_COMPLETED, **facts, result="ok", error_type=call.error, data=evidence(call, result))
        return
    wait = retry_after(f, e, turn, call, definition, result)
    call.unsure = call.unsure or (definition.mutating and result.applied is None)  # one lost answer is not taken back by a later "no"
    unsure = call.unsure
    f.pending.rare["last_error"] = {"error_type": call.error, "message": str(result.data.get("message"))[:500], "step": turn.step,
                                    "tool": call.name}  # fmt: skip
    f.say(
        Kind.TOOL_CALL_FAILED, **facts, result="unknown" if unsure and wait is None else "error", error_type=call.error,
        retryable=wait is not None, data=evidence(call, result),
    )  # fmt: skip
    if wait is not None:
        call.wait_s = wait
        # a keyed write that may be applied stays `dispatched`: only the same key may be sent again
        call.state = CallState.DISPATCHED if unsure else CallState.FAILED_NOT_APPLIED
        change(f, turn, call, result, None)
        f.say(Kind.RETRY_SCHEDULED, step_id=turn.step, ord=call.ord, tool=call.name, result="retried", error_type=call.error,
              data={"attempt": call.attempt + 1, "wait_ms": int(wait * 1000)})  # fmt: skip
    elif unsure:
        call.state = CallState.UNKNOWN
        change(f, turn, call, result, None)
        f.say(Kind.TOOL_CALL_UNKNOWN, step_id=turn.step, ord=call.ord, tool=call.name, result="unknown", error_type=call.error,
              data=evidence(call, result))  # fmt: skip
    else:
        settle(f, turn, call, CallState.FAILED_NOT_APPLIED, result)


def retry_after(f: Flight, e: Services, turn: Turn, call: ToolCall, definition: ToolDefinition, result: ToolResult) -> float | None:
    return retries.decide(
        definition.retry, result.error_class or ErrorClass.UNKNOWN, call.attempt, mutating=definition.mutating,
        keyed=definition.idempotency == "key", retry_after_s=result.retry_after_s, left_s=f.left_for(turn, f.limits.step_s), rnd=e.rnd,
    )  # fmt: skip


def settle(f: Flight, turn: Turn, call: ToolCall, state: CallState, result: ToolResult) -> None:
    call.state, call.result = state, result.data
    change(f, turn, call, result, encode(result.data))


def change(f: Flight, turn: Turn, call: ToolCall, result: ToolResult, text: str | None) -> None:
    f.pending.changed.append(
        Changed(turn.step, call.ord, call.state or "", result=text, error=call.error, attempt=call.attempt, latency=result.latency_ms)
    )


def evidence(call: ToolCall, result: ToolResult) -> JSON:
    """Hashes and numbers only: the content is in the call's row."""
    return {
        "attempt": call.attempt,
        "status": result.status,
        "result_sha256": digest_of(canonical.dumps(result.data)),
        **({"sanitized": result.sanitized} if result.sanitized else {}),
    }


def digest_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def unknown(turn: Turn) -> list[ToolCall]:
    return [c for c in turn.calls if c.state == CallState.UNKNOWN and c.result is None]


def waiting(turn: Turn) -> list[ToolCall]:
    return [c for c in turn.calls if c.state == CallState.WAITING_APPROVAL and c.result is None]


def is_approved(call: ToolCall) -> bool:
    """Decided by people and not yet sent: dispatched in a transaction that checks all of it again (`people.dispatch`)."""
    return call.state == CallState.READY and call.approval_id is not None and call.result is None
