"""One attempt of a model call: room, intent, send, and what its answer means for the run."""

import hashlib
import time
from typing import Any

from runs import budgets, retries
from runs.events import Kind, encode, event
from runs.failpoints import fp
from runs.inference import providers, tiers, tokens
from runs.inference.prices import cost_micro
from runs.inference.redacted import redacted
from runs.inference.types import ModelEndpoint, ModelFailure, ModelReply, ModelRequest, ToolOffer
from runs.states import CallState, Outcome, RunState

from . import critic, holds, seating
from .circuits import Place, Wait
from .flight import JSON, Ending, Flight, Intent, Turn
from .journal import Changed, Planned
from .services import Services

# An answer that is none: how the run ends. `length` also means that calls in it may be cut off.
FINISH = {"length": Outcome.TRUNCATED, "content_filter": Outcome.CONTENT_FILTERED, "refusal": Outcome.REFUSED}

ANSWER_NOW = "No tools are available any more. Answer the user now with what is known, and say plainly what could not be done."

DEADLINE_NEAR_S = 0.05  # a call that was given all the time the run had ends about when the run does


def failed(f: Flight, outcome: Outcome, message: str, error: str) -> None:
    f.ending = Ending(RunState.FAILED, outcome, error={"error_type": error, "message": message[:500]})


async def ask(f: Flight, e: Services, turn: Turn) -> None:
    """Send the turn's model call once. Afterwards the turn has a reply, or `f.wait_s`, or `f.ending` is set."""
    endpoint = f.endpoint(turn.model)
    if endpoint is None:
        failed(f, Outcome.MODEL_ERROR, f"The model {turn.model} is not defined.", "validation")
        return
    if turn.model in f.snapshot.lacking:
        message = f"This tenant has no credential {f.snapshot.lacking[turn.model]}, or it cannot be opened: {turn.model} needs it."
        failed(f, Outcome.MODEL_ERROR, message, "authorization")
        return
    seat = await seating.seat(f, e, turn, endpoint)
    if seat is not None:
        with seat:
            await enter(f, e, turn, endpoint)


async def enter(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint) -> None:
    """The model has a seat for it."""
    place = e.circuits.enter(f.tenant, endpoint.base_url)
    if isinstance(place, Wait):
        held = await holds.model(f, e, turn, endpoint, place)
        if held is None:
            return  # nothing is sent now, and no attempt is spent
        place = held
    try:
        await attempt(f, e, turn, endpoint, place)
    finally:
        place.leave()


async def attempt(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint, place: Place) -> None:
    """The call's host lets it through."""
    offers = offered(f, turn)
    chosen = tiers.model_for(f.release.spec.models, turn.role)
    request = ModelRequest(messages(f, turn), offers, chosen.max_tokens, chosen.temperature)
    room = make_room(f, turn, endpoint, request)
    if isinstance(room, budgets.Stop):
        return no_room(f, turn, room)
    request = ModelRequest(request.messages, offers, room.max_tokens, chosen.temperature)
    timeout = f.left_for(turn, min(endpoint.timeout_s, f.limits.model_call_s) - turn.waited_s)
    fp("before_model_intent")
    began = time.monotonic()
    if not await commit_intent(f, e, turn, room, timeout):
        return  # the controls changed: the loop comes back here with the new ones
    fp("after_model_intent")
    f.lease.check()
    fp("before_model_socket")
    if turn.tries == 1:
        e.retry_budget.sent(endpoint.base_url)
    answer = await providers.complete(
        endpoint, request, e.egress, allow=f.snapshot.allow, timeout_s=timeout - (time.monotonic() - began),
        traceparent=f.trace.header(turn.step, 0, turn.attempt),
    )  # fmt: skip
    answer = redacted(answer, f.snapshot.redactor)
    fp("after_model_answer")
    if isinstance(answer, ModelReply):
        place.saw(None, answer.latency_ms)
        absorb(f, turn, endpoint, answer)
    else:
        place.saw(answer.error_class, answer.latency_ms, retry_after=answer.retry_after_s is not None)
        absorb_failure(f, e, turn, endpoint, answer)


def offered(f: Flight, turn: Turn) -> tuple[ToolOffer, ...]:
    """The tools this turn may ask for."""
    if turn.role in (tiers.SYNTHESIS, tiers.CRITIQUE):
        return ()
    if f.stance.mode == "read_only" and f.mode != "read_only":  # a rung took the writes away
        return tuple(offer for offer in f.release.offers if not f.release.tools[offer.name].mutating)
    return f.release.offers


def messages(f: Flight, turn: Turn) -> list[JSON]:
    if turn.role == tiers.CRITIQUE:
        return critic.messages(f, turn)
    if turn.role == tiers.SYNTHESIS and f.rungs:
        return [*f.conversation(), {"role": "system", "content": ANSWER_NOW}]
    return f.conversation()


def no_room(f: Flight, turn: Turn, stop: budgets.Stop) -> None:
    """A model of the chain that costs less may still fit; a critique that does not fit is no reason to end."""
    if turn.role == tiers.CRITIQUE:
        critic.give_up(turn)
    elif stop.limit in ("max_cost_usd", "allowed_models") and turn.state is None and (cheaper := next_model(f, turn)):
        f.say(Kind.FALLBACK_ACTIVATED, step_id=turn.step, ord=0, model=turn.model, result="degraded",
              data={"from": turn.model, "to": cheaper, "limit": stop.limit})  # fmt: skip
        turn.model = cheaper
    else:
        f.ending = Ending(RunState.FAILED, stop.outcome, stop)


def make_room(f: Flight, turn: Turn, endpoint: ModelEndpoint, request: ModelRequest) -> budgets.Room | budgets.Stop:
    price = endpoint.price
    return budgets.before_model(
        f.limits,
        f.used,
        model=turn.model,
        new_step=turn.state is None,
        estimate_in=tokens.estimate(request),
        max_tokens=request.max_tokens,
        micro_in=float(price.input) if price else 0.0,
        micro_out=float(price.output) if price else 0.0,
    )


async def commit_intent(f: Flight, e: Services, turn: Turn, room: budgets.Room, timeout: float) -> bool:
    attempt = turn.attempt + 1
    data = {"attempt": attempt, "role": turn.role, "reserve_micro": room.reserve_micro}
    intent = Intent(dispatches=True, reserve=room.reserve_micro, step=turn.step)
    if f.snapshot.endpoints[turn.model].price is None and not f.unpriced:
        intent.rare["unpriced"] = True  # with the intent: also a call whose answer is lost may have cost something
    intent.events.append(event(Kind.MODEL_CALL_STARTED, step_id=turn.step, ord=0, model=turn.model, data=data))
    if turn.state is None:
        intent.planned.append(Planned(turn.step, 0, CallState.DISPATCHED, turn.model, None, "read", attempt=attempt, deadline=timeout))
    else:
        intent.changed.append(Changed(turn.step, 0, CallState.DISPATCHED, name=turn.model, attempt=attempt, deadline=timeout))
    if not await f.commit(intent):
        f.snapshot = await e.definitions.snapshot(f.tenant)
        return False
    f.unpriced = f.unpriced or "unpriced" in intent.rare
    if turn.state is None:
        f.used.steps += 1
    turn.state, turn.attempt = CallState.DISPATCHED, attempt
    turn.tries += 1
    return True


def absorb(f: Flight, turn: Turn, endpoint: ModelEndpoint, answer: ModelReply) -> None:
    """The reply is data: record it, count it, and note what it asks for."""
    cost = charge(f, endpoint, answer.tokens_in, answer.tokens_out)
    turn.reply = {
        "text": answer.text,
        "calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in answer.calls],
        "finish": answer.finish,
        "model": answer.reported_model,
        "estimated": answer.estimated,
        **({"_sanitized": answer.sanitized} if answer.sanitized else {}),
    }
    turn.state = CallState.DONE
    text = encode(turn.reply)
    f.pending.changed.append(
        Changed(
            turn.step, 0, CallState.DONE, result=text, attempt=turn.attempt, latency=answer.latency_ms,
            tin=answer.tokens_in, tout=answer.tokens_out, cost=cost,
        )
    )  # fmt: skip
    f.pending.steps.append((turn.step, turn.role, turn.model, len(answer.calls)))
    facts = {"step_id": turn.step, "ord": 0, "model": turn.model}
    f.say(
        Kind.MODEL_CALL_COMPLETED, **facts, latency_ms=answer.latency_ms, input_tokens=answer.tokens_in,
        output_tokens=answer.tokens_out, cost_micro=cost, result="ok",
        data={"attempt": turn.attempt, "result_sha256": sha256(text), "finish": answer.finish, "estimated": answer.estimated},
    )  # fmt: skip
    f.say(
        Kind.PLAN_DECIDED, step_id=turn.step, model=turn.model,
        data={"calls": [c.name[:64] for c in answer.calls], "offered": [o.name for o in offered(f, turn)]},
    )  # fmt: skip


def charge(f: Flight, endpoint: ModelEndpoint, tokens_in: int, tokens_out: int) -> int:
    cost = cost_micro(endpoint.price, tokens_in, tokens_out)
    f.spend(tokens_in, tokens_out, cost)
    return cost


def absorb_failure(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint, failure: ModelFailure) -> None:
    """Retry, fall back, or end: decided by data, never by what the reply said."""
    cost = charge(f, endpoint, failure.tokens_in, failure.tokens_out)
    turn.state = CallState.FAILED_NOT_APPLIED
    wait = retries.decide(
        endpoint.retry, failure.error_class, turn.tries, mutating=False, keyed=False, retry_after_s=failure.retry_after_s,
        left_s=f.left_for(turn, f.limits.step_s), rnd=e.rnd, max_sends=max(0, retries.MAX_SENDS - (turn.attempt - turn.tries)),
    )  # fmt: skip
    if wait is not None and not e.retry_budget.may_retry(endpoint.base_url):
        wait = None
    f.pending.changed.append(
        Changed(
            turn.step, 0, turn.state, error=failure.error_class, attempt=turn.attempt, latency=failure.latency_ms,
            tin=failure.tokens_in, tout=failure.tokens_out, cost=cost,
        )
    )  # fmt: skip
    facts: dict[str, Any] = {"step_id": turn.step, "ord": 0, "model": turn.model, "error_type": failure.error_class.value}
    data = {"attempt": turn.attempt, "status": failure.status}
    f.say(
        Kind.MODEL_CALL_FAILED, **facts, latency_ms=failure.latency_ms, input_tokens=failure.tokens_in,
        output_tokens=failure.tokens_out, cost_micro=cost, result="error", retryable=wait is not None, data=data,
    )  # fmt: skip
    f.pending.rare["last_error"] = {"error_type": failure.error_class.value, "message": failure.message[:500], "step": turn.step}
    if wait is not None:
        f.wait_s = wait
        f.say(Kind.RETRY_SCHEDULED, **facts, result="retried", data={"attempt": turn.attempt + 1, "wait_ms": int(wait * 1000)})
    elif following := next_model(f, turn):
        f.say(Kind.FALLBACK_ACTIVATED, **facts, result="degraded", data={"from": turn.model, "to": following})
        turn.model, turn.tries, f.wait_s = following, 0, 0.0
    elif turn.role == tiers.CRITIQUE:
        critic.give_up(turn)
    elif f.left_s() > DEADLINE_NEAR_S:
        outcome = Outcome.INVALID_OUTPUT if failure.error_class == "invalid_output" else Outcome.MODEL_ERROR
        failed(f, outcome, failure.message, failure.error_class.value)
    else:  # the run's own deadline cut it short, and that is how the run ends
        f.wait_s = max(f.left_s(), 0.0) + 0.001


def next_model(f: Flight, turn: Turn) -> str | None:
    """The next in the role's chain, while the call has sends left."""
    if turn.attempt >= retries.MAX_SENDS:
        return None
    chosen = tiers.model_for(f.release.spec.models, turn.role)
    chain = (chosen.model, *chosen.fallback)
    at = chain.index(turn.model) if turn.model in chain else len(chain)
    return next((name for name in chain[at + 1 :] if allowed(f, name)), None)


def allowed(f: Flight, model: str) -> bool:
    return f.limits.allowed_models is None or model in f.limits.allowed_models


def conclude(f: Flight, turn: Turn) -> None:
    """A reply without calls ends the run; only a whole, non-empty one is an answer."""
    reply = turn.reply or {}
    if bad := FINISH.get(reply["finish"]):
        failed(f, bad, f"The model ended with {reply['finish']}.", bad.value)
    elif not reply["text"].strip():
        failed(f, Outcome.EMPTY_ANSWER, "The model answered nothing.", "empty_answer")
    else:
        f.ending = Ending(RunState.SUCCEEDED, Outcome.COMPLETED_DEGRADED if f.taken else Outcome.COMPLETED, answer_step=turn.step)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
