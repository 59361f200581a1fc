"""What will be done with each open call of a turn, before anything is sent: policy, schema, budget, people, effects made before."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from runs import budgets, retries
from runs.budgets import Stop
from runs.events import Kind, encode, event
from runs.rehearsals import REHEARSED, Rehearsal
from runs.states import CallState, RunState
from runs.stops import SwitchOn
from tools import policy
from tools.definitions import ToolDefinition

from . import critic, facts, halts, repeats
from .flight import JSON, Ending, Flight, Intent, ToolCall, Turn
from .journal import Changed, Planned
from .stance import RESTORED

RESTORED_WHY = "The database was restored from a backup: this run may have made this change before. Look there first."
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


def undecided(turn: Turn) -> list[ToolCall]:
    """Calls without a row yet, those allowed earlier, and those to be sent again: all are ruled on anew at dispatch."""
    fresh = (None, CallState.READY, CallState.FAILED_NOT_APPLIED, CallState.DISPATCHED)
    return [c for c in turn.calls if c.result is None and c.state in fresh and not is_approved(c)]


def rule(f: Flight, turn: Turn) -> list[Ruling]:
    """One ruling for each open call. All reads go at once; writes one at a time, in order, after the reads."""
    rulings, used, halt = [], budgets.Used(**asdict(f.used)), None
    for call in undecided(turn):
        ruling = rule_on(f, turn, call, used)
        if met := halted(f, ruling):
            halt = halt or met
            ruling.state, ruling.timeout = waiting_state(call), None
        elif counts(ruling):
            used.tool_calls += 1
            used.writes += f.release.tools[call.name].mutating
        rulings.append(ruling)
    sends = [r for r in rulings if r.timeout is not None]
    f.halt = None if sends else halt
    reads = [r for r in sends if not f.release.tools[r.call.name].mutating]
    for later in [r for r in sends if r not in (reads or sends[:1])]:
        later.state, later.timeout = waiting_state(later.call), None
    return rulings


def counts(ruling: Ruling) -> bool:
    """A first send, or what stands for one in a run that changes nothing: both take from the budget."""
    return ruling.call.attempt == 0 and (ruling.timeout is not None or ruling.error == REHEARSED)


def halted(f: Flight, ruling: Ruling) -> SwitchOn | None:
    """The switch in the way of a call that would be sent or asked for. It is kept unsent, and ruled on anew after the switch."""
    wanted = ruling.timeout is not None or ruling.state == CallState.WAITING_APPROVAL
    return halts.of_call(f, ruling.call, f.release.tools[ruling.call.name]) if wanted else None


def waiting_state(call: ToolCall) -> CallState:
    return CallState(call.state) if call.state else CallState.READY


def rule_on(f: Flight, turn: Turn, call: ToolCall, used: budgets.Used) -> Ruling:
    definition = f.release.tools.get(call.name)
    decision = decide(f, turn, call, definition)
    record: JSON = {"decision": decision.verdict, "why": decision.why, "by": decision.by, "rev": f.snapshot.rev}
    if decision.because:
        record["because"] = [asdict(source) for source in decision.because]
    if decision.verdict == "deny" or definition is None:
        return refused(call, definition, record, "denied", decision.why, "policy")
    timeout = f.left_for(turn, min(definition.timeout_s, f.limits.tool_call_s))
    if timeout <= 0:
        return refused(call, definition, record, "timeout", "Not sent: the step's time is over.", "timeout")
    if call.unsure and call.sent_at is not None and time.monotonic() - call.sent_at > definition.idempotency_window_s:
        return refused(call, definition, record, "timeout", "Not sent again: the other side no longer knows the key.", "timeout")
    if call.attempt >= retries.MAX_SENDS:
        return refused(call, definition, record, "timeout", "Not sent again: the call used all its sends.", "timeout")
    authorised = call.attempt > 0 and not (call.decision or {}).get("resend")
    if not authorised and (first := rule_on_first_send(f, turn, call, definition, decision, record, used)):
        return first
    return Ruling(call, CallState.DISPATCHED, record, timeout=timeout)


def rule_on_first_send(
    f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition, decision: policy.Decision, record: JSON, used: budgets.Used
) -> Ruling | None:
    """What only the first send has to pass: the schema, drafts, the budget, people. None: it may be sent."""
    if pointless := rule_out(f, turn, call, definition, record):
        return pointless
    if decision.verdict == "draft" and f.rehearsal is None:
        return refused(call, definition, record, "drafted", "Not sent: kept as a recommended action for a person.", "drafted")
    if stop := budgets.before_tool(f.limits, used, tool=call.name, mutating=definition.mutating):
        ruling = refused(call, definition, record, "budget_exceeded", f"Not sent: the run's {stop.limit} is reached.", "policy")
        ruling.stop = stop
        return ruling
    if f.rehearsal:
        return rehearsed(f, f.rehearsal, turn, call, definition, record)  # nobody is asked
    if decision.verdict == "ask" and call.approval_id is None:
        record["approvers"] = decision.approvers
        record |= {"group": decision.group} if decision.group else {}
        return Ruling(call, CallState.WAITING_APPROVAL, record)
    return None


def rule_out(f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition, record: JSON) -> Ruling | None:
    """Calls that nobody need be asked about: the model is told why, or what they came to before."""
    if alike := repeats.times(f, call):
        return Ruling(call, CallState.BLOCKED, record, repeats.hint(f, turn, call, alike), "loop")
    if problem := invalid(f, call):
        return refused(call, definition, record, "validation", problem, "validation")
    if definition.mutating and (recorded := f.recorded.get((call.name, digest_of(call.args or b"")))):
        return Ruling(call, CallState.BLOCKED, record, {**recorded, "already_applied": True})
    if objection := critic.objection(f, turn, call):
        return refused(call, definition, record, "critique_failed", objection, "critique")
    return None


def rehearsed(f: Flight, rehearsal: Rehearsal, turn: Turn, call: ToolCall, definition: ToolDefinition, record: JSON) -> Ruling | None:
    """The answer from the book. None: a read that is allowed as it is, so it is sent."""
    effects = definition.mutating or policy.SIDE_EFFECTS in definition.labels or record["decision"] != "allow"
    earlier = (c for past in f.turns if past.step <= turn.step for c in past.calls if c is not call and c.result is not None)
    before = sum((c.name, c.args) == (call.name, call.args) for c in earlier)
    told = rehearsal.answer(call.name, call.args or b"{}", mutating=effects, before=before)
    if told is None:
        return None
    return Ruling(call, CallState.BLOCKED, record | {"from": told.source}, told.result, REHEARSED)


def refused(call: ToolCall, definition: ToolDefinition | None, record: JSON, kind: str, message: str, error: str | None) -> Ruling:
    """A call that will not be sent (again). One that may already be applied is not refused but unknown."""
    if call.state == CallState.DISPATCHED and (definition is None or definition.mutating):
        return Ruling(call, CallState.UNKNOWN, record, error=call.error)
    sent = call.state in (CallState.DISPATCHED, CallState.FAILED_NOT_APPLIED)
    state = CallState.FAILED_NOT_APPLIED if sent else CallState.BLOCKED
    return Ruling(call, state, record, {"ok": False, "error_type": kind, "message": message}, error)


def decide(f: Flight, turn: Turn, call: ToolCall, definition: ToolDefinition | None) -> policy.Decision:
    seen = policy.Facts(
        tool=call.name,
        effect=definition.effect.value if definition else "write",
        labels=definition.labels if definition else frozenset(),
        args=json.loads(call.args) if call.args else {},
        run=facts.run(f, turn) if asks_about_run(f, call) else facts.place(f),
        now=datetime.now(UTC).isoformat(),
        day=f.day,
        sources=facts.sources(f) if f.snapshot.rules else (),
    )
    offered, enabled = definition is not None, call.name in f.snapshot.enabled
    mode: policy.Mode = f.stance.mode  # type: ignore[assignment]
    decision = policy.decide(seen, f.snapshot.rows, f.snapshot.rules, offered=offered, enabled=enabled, mode=mode)
    if f.stance.restored and definition and definition.mutating and decision.verdict in ("allow", "ask"):
        return replace(decision, verdict="ask", why=RESTORED_WHY, by=f"{RESTORED}; {decision.by}", approvers=max(1, decision.approvers))
    if f.action and decision.verdict == "draft":
        return policy.Decision("ask", "A call that a person names is seen by another one.", "action", 1)
    if decision.verdict == "allow" and definition and definition.mutating and f.stance.ask_writes:
        return policy.Decision("ask", "The run is on a rung where people see every change.", "ladder", 1)
    if decision.verdict == "allow" and definition and definition.mutating and not definition.effect_key:
        earlier = same_write_before(f, turn, call)
        if earlier is not None:
            return policy.Decision("ask", f"Step {earlier} of this run made exactly this change already.", "repeated_write", 1)
    return decision


def asks_about_run(f: Flight, call: ToolCall) -> bool:
    """Whether any condition over this call may look at the run: only then its facts are gathered."""
    return bool(f.snapshot.rules) or any(row.when and row.tool == call.name for row in f.snapshot.rows)


def same_write_before(f: Flight, turn: Turn, call: ToolCall) -> int | None:
    """The step that made a write with the same tool and arguments. A second one is a person's to decide."""
    for past in f.turns:
        for other in past.calls:
            earlier = (past.step, other.ord) < (turn.step, call.ord)
            if earlier and other.state == CallState.DONE and (other.name, other.args) == (call.name, call.args):
                return past.step
    return None


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
        intent.tool_calls += counts(r)
        intent.writes += mutating and counts(r)
        if r.timeout is not None:
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
    about: JSON = {"step_id": turn.step, "ord": call.ord, "tool": call.name}
    if call.state is None or r.state == CallState.BLOCKED:
        intent.events += tell_decision(r.decision or {}, about)
    if r.state == CallState.UNKNOWN:
        intent.events.append(event(Kind.TOOL_CALL_UNKNOWN, **about, result="unknown", error_type=r.error))
    elif r.result is not None:
        intent.events += tell_unsent(r, about)
    if r.timeout is not None:
        data = {"attempt": call.attempt + 1, "args_sha256": digest_of(call.args or b"")}
        intent.events.append(event(Kind.TOOL_CALL_STARTED, **about, data=data))


def tell_decision(record: JSON, about: JSON) -> list[tuple[str, str]]:
    """Which policy decided, and which earlier calls made it decide so."""
    verdict = record.get("decision")
    data: JSON = {name: record[name] for name in ("decision", "by", "rev", "because") if name in record}
    denied = verdict in ("deny", "draft")
    told = [event(Kind.POLICY_DECIDED, **about, result="denied" if denied else "ok", data=data)]
    if verdict == "deny":
        told.append(event(Kind.POLICY_VIOLATED, **about, result="denied", error_type="policy", data=data))
    return told


def tell_unsent(r: Ruling, about: JSON) -> list[tuple[str, str]]:
    """A call that got its answer from us. A denial has told itself."""
    if r.error == "loop" and r.result:
        return [event(Kind.LOOP_DETECTED, **about, result="degraded", data={"times": r.result["times"], "seen": r.result["step"]})]
    if r.error == REHEARSED:
        data = {"from": (r.decision or {}).get("from"), "args_sha256": digest_of(r.call.args or b"")}
        return [event(Kind.CALL_REHEARSED, **about, result="ok", data=data)]
    if r.error == "drafted":
        return [event(Kind.CALL_DRAFTED, **about, result="degraded", data={"attempt": r.call.attempt})]
    if (r.decision or {}).get("decision") == "deny":
        return []
    if r.error is None:  # it is applied already: by the run that this one retries, or by another call
        return [event(Kind.TOOL_CALL_COMPLETED, **about, result="ok", error_type="duplicate_request", data={"sent": False})]
    return [event(Kind.TOOL_CALL_FAILED, **about, result="error", error_type=r.error, retryable=False, data={"sent": False})]


def apply(f: Flight, rulings: list[Ruling]) -> None:
    """After the commit: memory follows the rows."""
    for r in rulings:
        r.call.state, r.call.result, r.call.error, r.call.decision = r.state, r.result, r.error, r.decision
        r.call.attempt += r.timeout is not None
        r.call.sent_at = time.monotonic() if r.timeout is not None else r.call.sent_at
        r.call.wait_s = None
        if r.stop and f.ending is None and f.stance.single_after is None:
            f.ending = Ending(RunState.FAILED, r.stop.outcome, r.stop)


def digest_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def is_approved(call: ToolCall) -> bool:
    """Decided by people and not yet sent: dispatched in a transaction that checks all of it again (`people.dispatch`)."""
    return call.state == CallState.READY and call.approval_id is not None and call.result is None
