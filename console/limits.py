"""The limits of a run for people: what each is called, and how its figures read. Pure."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from console.templatetags.signalbox import compact, duration, micros

Stop = Mapping[str, Any]

LIMITS: Mapping[str, tuple[str, Callable[[Any], str]]] = {  # limit of `stop` -> how it is called, and how its figures read
    "max_steps": ("steps", str),
    "max_tool_calls": ("tool calls", str),
    "max_writes": ("writes", str),
    "max_input_tokens": ("input tokens", compact),
    "max_output_tokens": ("output tokens", compact),
    "max_cost_usd": ("cost", lambda usd: micros(round(usd * 1_000_000))),
    "run_s": ("wall clock", duration),
    "allowed_models": ("models", str),
}
ONE = {"max_steps": "step", "max_tool_calls": "tool call", "max_writes": "write"}


def name_of(limit: str) -> str:
    return LIMITS[limit][0] if limit in LIMITS else limit


def dollars(value: Any) -> str:
    """A limit, or what somebody asks for, to the millionth: $0.08, $1.50, $0.081234."""
    text = format(Decimal(str(value)).quantize(Decimal("0.000001")).normalize(), "f")
    whole, _, parts = text.partition(".")
    return f"${int(whole):,}.{parts.ljust(2, '0')}"


def figure(limit: str, value: Any) -> str:
    """One figure of a limit, exact: what stopped a run must not read the same as what was allowed."""
    if limit == "max_cost_usd":
        return dollars(value)
    return duration(value) if limit == "run_s" else f"{value:,}" if isinstance(value, int | float) else str(value)


def words(stop: Stop) -> str:
    """Why a run stopped, from its `stop`."""
    name, shown = LIMITS.get(stop["limit"], (str(stop["limit"]), str))
    where = f" in step {stop['step']}" if stop.get("step") else ""
    value, used, by = shown(stop.get("value", 0)), shown(stop.get("used", 0)), stop.get("by") or "the next call"
    if by == "clock":
        return f"The limit of {name} ({value}) was passed after {used}{where}."
    return f"The limit of {name} is {value}; {by}{where} would have brought it to {used}."


def stopped_here(stop: Stop) -> str:
    """ "$0.0812 of $0.08 by primary in step 4", for the gauge of the limit."""
    limit, by = stop["limit"], stop.get("by")
    who = f" by {by}" if by and by != "clock" else ""
    where = f" in step {stop['step']}" if stop.get("step") else ""
    return f"{figure(limit, stop.get('used', 0))} of {figure(limit, stop.get('value', 0))}{who}{where}"


def amount(limit: str, value: Any) -> str:
    """So much of a limit: "$0.04", "1 step", "2 tool calls"."""
    if limit == "max_cost_usd":
        return dollars(value)
    return f"{int(value):,} {ONE[limit] if limit in ONE and int(value) == 1 else name_of(limit)}"


def more(limit: str, by: Any) -> str:
    """ "$0.04 more", "1 more step"."""
    number, _, name = amount(limit, by).partition(" ")
    return f"{number} more {name}".strip()


def amounts(add: Mapping[str, Any]) -> str:
    """ "$0.04 more and 2 more steps"."""
    said = [more(limit, by) for limit, by in add.items() if by is not None]
    return " and ".join(part for part in (", ".join(said[:-1]), *said[-1:]) if part)


def so_far(used: Mapping[str, Any]) -> str:
    """What a run has spent, as a request for more says it: "$0.0721, 3 steps, 2 tool calls, 1 write"."""
    counts = {"steps": "max_steps", "tool_calls": "max_tool_calls", "writes": "max_writes"}
    said = [dollars(used["cost_usd"])] if used.get("cost_usd") is not None else []
    return ", ".join(said + [amount(limit, used[name]) for name, limit in counts.items() if used.get(name) is not None])
