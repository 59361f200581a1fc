"""Sending the tool calls of a turn, and what comes back."""

import asyncio
import time
from typing import Any

from runs import retries
from runs.events import Kind, encode
from runs.failpoints import fp
from runs.inference.tiers import CRITIQUE, SYNTHESIS
from runs.states import CallState
from tools import canonical
from tools.definitions import CallContext, Credential, ErrorClass, ToolDefinition, ToolResult

from . import effects, facts, holds, memory_call
from .circuits import Place
from .flight import JSON, Flight, ToolCall, Turn
from .journal import Changed
from .lease import Stale
from .rulings import Ruling, apply, digest_of, idem_key, intend, rule
from .services import Services

NEVER_SENT = "Not sent: this run changes nothing."
LEASE_OVER = "Not sent: the engine's lease was over."


def open_calls(turn: Turn) -> None:
    """A reply's asks become calls. Arguments that are not a JSON object stay None and are refused, not raised."""
    if turn.calls or turn.reply is None or turn.role in (SYNTHESIS, CRITIQUE):
        return  # the latter were offered no tools: what they ask for anyway is not heard
    for ord_, ask in enumerate(turn.reply["calls"], 1):
        try:
            value = canonical.loads_limited(ask["arguments"].encode() or b"{}")
            args = canonical.dumps(canonical.clean(value)[0]) if isinstance(value, dict) else None
        except ValueError:
            args = None
        turn.calls.append(ToolCall(ord_, ask["name"][:128], ask["id"][:128], args))


async def advance(f: Flight, e: Services, turn: Turn) -> None:
    """Rule on the open calls, commit, and send what may be sent now."""
    await facts.look_at_day(f, e)
    rulings = rule(f, turn)
    ways = holds.ways(f, e, rulings)
    if ways.held and await holds.tools(f, e, ways):
        ways.leave()
        return
    try:
        committed = await dispatch(f, e, turn, rulings, ways)
    finally:
        ways.leave()
    if committed and ways.held and not ways.places:
        await holds.tools_wait(f, e, turn, ways)


async def dispatch(f: Flight, e: Services, turn: Turn, rulings: list[Ruling], ways: holds.Ways) -> bool:
    """False: the controls changed, and nothing is written or sent."""
    began = time.monotonic()
    rulings = await effects.claimed(f, e, turn, rulings)
    fp("before_dispatch_commit")
    if not await f.commit(intend(f, turn, rulings)):
        f.snapshot = await e.definitions.snapshot(f.tenant)
        return False
    apply(f, rulings)
    sends = [r for r in rulings if r.timeout is not None]
    if sends:
        fp("after_dispatch_commit")
        check_lease(f, turn, *(r.call for r in sends))
        fp("before_socket")
        spent = time.monotonic() - began  # the deadline that was committed runs since then: who was frozen here sends nothing
        results = await asyncio.gather(*(send(f, e, turn, r.call, (r.timeout or 0.0) - spent, ways.places[r.call.ord]) for r in sends))
        fp("after_answer")
        for r, result in zip(sends, results, strict=True):
            absorb(f, e, turn, r.call, result)
    return True


def check_lease(f: Flight, turn: Turn, *calls: ToolCall) -> None:
    """Between a committed intent and its socket. Raises Stale, and keeps what nobody else can know: these were not sent."""
    if f.lease.holds:
        return
    for call in calls:
        if f.release.tools[call.name].mutating:
            call.error = ErrorClass.NOT_SENT
            f.note(turn, call, {"ok": False, "error_type": call.error.value, "message": LEASE_OVER}, False)
    raise Stale


async def send(f: Flight, e: Services, turn: Turn, call: ToolCall, timeout: float, place: Place) -> ToolResult:
    definition = f.release.tools[call.name]
    if f.rehearsal and definition.mutating:  # it was answered from the book; a second lock on the same door
        return ToolResult(False, {"ok": False, "error_type": "policy", "message": NEVER_SENT}, ErrorClass.POLICY, False, 0)
    if definition.adapter["kind"] == memory_call.KIND:
        return await memory_call.carry_out(f, e, turn, call, definition, timeout)
    if lacking := missing_credential(f, call.name):
        data = {"ok": False, "error_type": "authorization", "message": lacking}
        return ToolResult(False, data, ErrorClass.AUTHORIZATION, False if definition.mutating else None, 0)
    if call.attempt == 1:
        e.retry_budget.sent(str(definition.adapter.get("url", "")))
    context = CallContext(
        run_id=f.run_id,
        step=turn.step,
        idem_key=idem_key(f, turn, call) if definition.mutating else None,
        timeout_s=timeout,
        allow=f.snapshot.allow,
        credential=credential(f, call.name),
        traceparent=f.trace.header(turn.step, call.ord, call.attempt),
        attempt=call.attempt,
        redactor=f.snapshot.redactor,
    )
    result = await e.tools.invoke(definition, call.args or b"{}", context)
    if timeout > 0:  # else it was not sent, and that says nothing of the host
        place.saw(result.error_class, result.latency_ms, retry_after=result.retry_after_s is not None)
    return result


def missing_credential(f: Flight, tool: str) -> str:
    """A tool that names a credential is never called without it. Empty: nothing is missing."""
    name = f.release.credentials.get(tool, "")
    lacking = name and name not in f.snapshot.credentials
    return f"Not sent: this tenant has no credential {name}, or it cannot be opened." if lacking else ""


def credential(f: Flight, tool: str) -> Credential | None:
    return f.snapshot.credentials.get(f.release.credentials.get(tool, ""))


def absorb(f: Flight, e: Services, turn: Turn, call: ToolCall, result: ToolResult) -> None:
    """What came back becomes rows and events; the next commit carries them."""
    definition = f.release.tools[call.name]
    facts: dict[str, Any] = {"step_id": turn.step, "ord": call.ord, "tool": call.name, "latency_ms": result.latency_ms}
    call.error = result.error_class.value if result.error_class else None
    if definition.mutating:
        f.note(turn, call, result.data, result.applied)
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
    """Seconds until the next send, by the tool's policy and the host's budget; None: no more."""
    wait = retries.decide(
        definition.retry, result.error_class or ErrorClass.UNKNOWN, call.attempt, mutating=definition.mutating,
        keyed=definition.idempotency == "key", retry_after_s=result.retry_after_s, left_s=f.left_for(turn, f.limits.step_s), rnd=e.rnd,
    )  # fmt: skip
    return wait if wait is not None and e.retry_budget.may_retry(str(definition.adapter.get("url", ""))) else None


def settle(f: Flight, turn: Turn, call: ToolCall, state: CallState, result: ToolResult) -> None:
    call.state, call.result = state, result.data
    change(f, turn, call, result, encode(result.stored))


def change(f: Flight, turn: Turn, call: ToolCall, result: ToolResult, text: str | None) -> None:
    f.pending.changed.append(
        Changed(turn.step, call.ord, call.state or "", result=text, error=call.error, attempt=call.attempt, latency=result.latency_ms)
    )


def evidence(call: ToolCall, result: ToolResult) -> JSON:
    """Hashes and numbers only: the content is in the call's row."""
    return {
        "attempt": call.attempt,
        "status": result.status,
        "result_sha256": digest_of(canonical.dumps(result.stored)),
        **({"sanitized": result.sanitized} if result.sanitized else {}),
    }


def unknown(turn: Turn) -> list[ToolCall]:
    return [c for c in turn.calls if c.state == CallState.UNKNOWN and c.result is None]


def waiting(turn: Turn) -> list[ToolCall]:
    return [c for c in turn.calls if c.state == CallState.WAITING_APPROVAL and c.result is None]
