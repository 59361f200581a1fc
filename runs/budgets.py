"""What is left of a run's limits before each call. Pure arithmetic on integers (tokens, millionths of a USD) and seconds."""

from dataclasses import dataclass

from .limits import Limits
from .states import Outcome


@dataclass(slots=True)
class Used:
    steps: int = 0
    tool_calls: int = 0
    writes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micro: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Which limit stopped the run, its value, and how much the next call would have brought it to."""

    limit: str  # of Limits, or "switch"
    value: float
    used: float
    by: str  # the model or tool that would have gone over, "clock", or the id of the switch

    @property
    def outcome(self) -> Outcome:
        special = {"max_steps": Outcome.STEP_LIMIT, "run_s": Outcome.DEADLINE_EXCEEDED, "switch": Outcome.STOPPED_BY_SWITCH}
        return special.get(self.limit, Outcome.BUDGET_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Room:
    """A model call may ask for `max_tokens`; its worst case in money is `reserve_micro`."""

    max_tokens: int
    reserve_micro: int


def before_model(
    limits: Limits,
    used: Used,
    *,
    model: str,
    new_step: bool,
    estimate_in: int,
    max_tokens: int,
    micro_in: float,
    micro_out: float,
) -> Room | Stop:
    """Room for one model call, `max_tokens` clipped to what is left. `micro_in`, `micro_out`: price per token in micro-USD."""
    if new_step and used.steps + 1 > limits.max_steps:
        return Stop("max_steps", limits.max_steps, used.steps + 1, model)
    if limits.allowed_models is not None and model not in limits.allowed_models:
        return Stop("allowed_models", len(limits.allowed_models), len(limits.allowed_models) + 1, model)
    if used.tokens_in + estimate_in > limits.max_input_tokens:
        return Stop("max_input_tokens", limits.max_input_tokens, used.tokens_in + estimate_in, model)
    out = min(max_tokens, limits.max_output_tokens - used.tokens_out)
    if out < 1:
        return Stop("max_output_tokens", limits.max_output_tokens, used.tokens_out + 1, model)
    left = limits.max_cost_micro - used.cost_micro
    floor = estimate_in * micro_in
    if micro_out > 0:
        out = min(out, int((left - floor) / micro_out))
    if out < 1 or floor > left:
        return Stop("max_cost_usd", limits.max_cost_micro / 1e6, (used.cost_micro + floor + micro_out) / 1e6, model)
    return Room(out, int(floor + out * micro_out + 0.999))


def before_tool(limits: Limits, used: Used, *, tool: str, mutating: bool) -> Stop | None:
    """None when one more call of this tool fits."""
    if used.tool_calls + 1 > limits.max_tool_calls:
        return Stop("max_tool_calls", limits.max_tool_calls, used.tool_calls + 1, tool)
    if mutating and used.writes + 1 > limits.max_writes:
        return Stop("max_writes", limits.max_writes, used.writes + 1, tool)
    return None
