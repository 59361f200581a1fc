"""Where a model call waits for a seat. It takes one before its intent is committed, so that a wait uses no attempt; its own time runs.

First come, first served; a model without `max_concurrency` has seats for all.
"""

import time
from types import TracebackType
from typing import Any

from runs.events import Kind
from runs.inference import tiers
from runs.inference.types import ModelEndpoint
from runs.states import Outcome, RunState

from . import critic, holds
from .flight import Ending, Flight, Intent, Turn
from .seats import Seats
from .services import Services

DEADLINE_NEAR_S = 0.05  # a wait that took all the time the run had ends about when the run does


class Seat:
    """One call's, until the block ends. Without `seats`: the model has no limit."""

    __slots__ = ("model", "seats", "turn")

    def __init__(self, seats: Seats | None, model: str, turn: Turn) -> None:
        self.seats, self.model, self.turn = seats, model, turn

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.turn.waited_s = 0.0
        if self.seats is not None:
            self.seats.leave(self.model)


async def seat(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint) -> Seat | None:
    """None: something happened to the run, or the call's time passed: the turn has another model, or `f.ending` is set."""
    if endpoint.max_concurrency is None:
        return Seat(None, endpoint.name, turn)
    share = max(1, endpoint.max_concurrency // e.circuits.engines)
    if e.seats.now(endpoint.name, share):
        return Seat(e.seats, endpoint.name, turn)
    f.poked.clear()
    await f.commit(Intent(reserve=0))  # what was seen is durable before a wait, and this tells whether to stop
    if f.cancel or f.draining:
        return None
    began = time.monotonic()
    left = f.left_for(turn, min(endpoint.timeout_s, f.limits.model_call_s)) - turn.waited_s
    got = await e.seats.take(endpoint.name, left, f.poked)
    turn.waited_s += time.monotonic() - began
    if got:
        return Seat(e.seats, endpoint.name, turn)
    if not f.poked.is_set():
        none_left(f, e, turn, endpoint)
    return None


def none_left(f: Flight, e: Services, turn: Turn, endpoint: ModelEndpoint) -> None:
    """The call's time passed without a seat. No attempt was used."""
    waited_ms, turn.waited_s = int(turn.waited_s * 1000), 0.0
    facts: dict[str, Any] = {"step_id": turn.step, "ord": 0, "model": turn.model}
    f.say(Kind.CALL_HELD, **facts, data={"reason": "no_seat", "wait_ms": waited_ms})
    if following := holds.detour(f, e, turn):
        f.say(Kind.FALLBACK_ACTIVATED, **facts, result="degraded", data={"from": turn.model, "to": following, "reason": "no_seat"})
        turn.model, turn.tries = following, 0
    elif turn.role == tiers.CRITIQUE:
        critic.give_up(turn)
    elif f.left_s() > DEADLINE_NEAR_S:
        message = f"{endpoint.max_concurrency} calls of {turn.model} are in flight, and none ended within this call's time."
        f.ending = Ending(RunState.FAILED, Outcome.MODEL_ERROR, error={"error_type": "rate_limit", "message": message})
    else:
        f.wait_s = max(f.left_s(), 0.0) + 0.001
