"""The ladder of a release: what a run falls back to when it meets a limit. Pure: facts in, the next rung out.

Each rung is taken at most once a run, so a ladder ends. Rungs of one trigger are tried in their order.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from .budgets import Used
from .limits import Limits, Strict
from .states import Outcome


class Trigger(StrEnum):
    TOOL_UNAVAILABLE = "tool_unavailable"  # a call failed for good: timeout, outage, rate limit, not sent
    BREAKER_OPEN = "breaker_open"  # the host of a call is cut off
    BUDGET = "budget"  # the share `at` of a limit is used
    BUDGET_EXCEEDED = "budget_exceeded"  # the next call does not fit
    DEADLINE_NEAR = "deadline_near"  # the share `at` of the run's time is used
    PROVIDER_DEGRADED = "provider_degraded"  # no model of the role's chain answered
    LOOP = "loop"
    CRITIQUE_FAILED = "critique_failed"
    POLICY_DENIED = "policy_denied"
    APPROVAL_EXPIRED = "approval_expired"


class Do(StrEnum):
    FEWER_STEPS = "fewer_steps"  # at most `max` more turns, the last of them without tools
    CACHED = "cached"  # the answer that the same question had from the same release
    RETRIEVAL_ONLY = "retrieval_only"  # what the reads brought, without another model call
    READ_ONLY = "read_only"  # write tools off
    DRAFT = "draft"  # writes are kept for a person instead of sent
    ASK = "ask"  # of a budget: more of it; else: every further write
    SINGLE_TURN = "single_turn"  # one last model call without tools
    STOP = "stop"


WITH_SHARE = (Trigger.BUDGET, Trigger.DEADLINE_NEAR)
SHARE = 0.8
ENDS = (Do.STOP,)


class Rung(Strict):
    on: Trigger
    do: Do
    at: Annotated[float, Field(gt=0, lt=1)] | None = None
    max: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def fits_together(self) -> "Rung":
        if self.at is not None and self.on not in WITH_SHARE:
            raise ValueError(f"at belongs to {' and '.join(WITH_SHARE)}, not to {self.on}")
        if (self.max is not None) != (self.do is Do.FEWER_STEPS):
            raise ValueError("fewer_steps needs max, and nothing else takes it")
        return self

    @property
    def share(self) -> float:
        return SHARE if self.at is None else self.at


def check(ladder: Sequence[Rung]) -> None:
    """Raises ValueError for a rung that is there twice or can never be reached."""
    seen: set[tuple[str, str, float | None]] = set()
    ended: set[tuple[str, float | None]] = set()
    for rung in ladder:
        place = (rung.on, rung.do, rung.at)
        if place in seen:
            raise ValueError(f"ladder: {rung.on} -> {rung.do} is there twice; each rung is taken at most once")
        if (rung.on, rung.at) in ended:
            raise ValueError(f"ladder: {rung.on} -> {rung.do} is never reached: a stop comes before it")
        seen.add(place)
        if rung.do in ENDS:
            ended.add((rung.on, rung.at))


def following(ladder: Sequence[Rung], taken: Sequence[Mapping[str, Any]], trigger: Trigger, share: float | None = None) -> int | None:
    """The place of the next rung of this trigger that was not taken; `share`: how much is used, for triggers with `at`."""
    used = {entry["n"] for entry in taken}
    for n, rung in enumerate(ladder):
        if rung.on is trigger and n not in used and (share is None or share >= rung.share):
            return n
    return None


def used_share(limits: Limits, used: Used) -> tuple[float, str]:
    """How much of the fullest limit is used, and its name."""
    shares = {
        "max_cost_usd": used.cost_micro / limits.max_cost_micro if limits.max_cost_micro else 0.0,
        "max_steps": used.steps / limits.max_steps,
        "max_tool_calls": used.tool_calls / limits.max_tool_calls if limits.max_tool_calls else 0.0,
        "max_input_tokens": used.tokens_in / limits.max_input_tokens,
        "max_output_tokens": used.tokens_out / limits.max_output_tokens,
    }
    name = max(shares, key=shares.__getitem__)
    return shares[name], name


CAUSES: Mapping[Outcome, Trigger] = {  # endings that a rung may still turn into an answer
    Outcome.BUDGET_EXCEEDED: Trigger.BUDGET_EXCEEDED,
    Outcome.STEP_LIMIT: Trigger.BUDGET_EXCEEDED,
    Outcome.MODEL_ERROR: Trigger.PROVIDER_DEGRADED,
    Outcome.LOOP_DETECTED: Trigger.LOOP,
}
