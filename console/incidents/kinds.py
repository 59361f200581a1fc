"""What each kind of detector measures, how it compares, and what it says. Pure data.

`Kind.by`: `level` compares with the threshold itself; `times` with so many times the baseline's median; `above` with the median and so
much on top. The last two say nothing of a subject without a past.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .parameters import Parameters

Unit = Literal["share", "count", "steps", "usd", "sends", "minutes", "ms"]


@dataclass(frozen=True, slots=True)
class Kind:
    """`metric`: what the chart of its evidence is called. `title`: of an incident, `{of}` is its subject."""

    name: str
    by: Literal["level", "times", "above"]
    unit: Unit
    about: str  # tool, agent, model; empty: the whole tenant, or the installation
    metric: str
    title: str
    severity: str
    runbook: str
    parameters: Parameters
    history: bool = True  # whether the hours of the past say what it would have done
    standing: bool = False  # of what waits now, whatever the window


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("tool_errors", "level", "share", "tool", "Error rate", "{of} fails too often", "major", "tool-timeouts",
             Parameters(window_minutes=10, threshold=0.2, minimum=20)),
        Kind("steps_per_run", "times", "steps", "agent", "Median steps per run", "Runs of {of} take more steps", "major", "planner-loops",
             Parameters(window_minutes=30, threshold=1.5, minimum=10, k=4)),
        Kind("cost_per_run", "times", "usd", "agent", "Median cost per run", "Runs of {of} cost more", "major", "cost-per-run",
             Parameters(window_minutes=30, threshold=1.8, minimum=10, k=4)),
        Kind("fallback_rate", "above", "share", "agent", "Fallback rate", "More runs of {of} fall back", "minor", "provider-degraded",
             Parameters(window_minutes=15, threshold=0.15, minimum=20, k=4)),
        Kind("budget_exceeded", "above", "share", "agent", "Budget-exceeded rate", "More runs of {of} meet their budget", "major",
             "budget-exceeded", Parameters(window_minutes=30, threshold=0.1, minimum=20, k=4)),
        Kind("duplicate_writes", "level", "count", "tool", "Writes made more than once", "{of} makes the same write twice", "critical",
             "duplicate-writes", Parameters(window_minutes=60, threshold=1, minimum=1, hold_minutes=60), history=False),
        Kind("duplicate_answers", "above", "share", "tool", "Answers that the write is made already",
             "{of} is asked again for what is made", "major", "duplicate-writes",
             Parameters(window_minutes=30, threshold=0.1, minimum=20, k=4)),
        Kind("retry_cascade", "level", "sends", "tool", "Sends per call", "Calls of {of} are sent again and again", "major",
             "tool-timeouts", Parameters(window_minutes=10, threshold=1.6, minimum=15)),
        Kind("unknown_outcomes", "level", "count", "tool", "Writes whose outcome is unknown", "Nobody knows what {of} wrote", "major",
             "unknown-outcomes",
             Parameters(window_minutes=10, threshold=1, minimum=1, hold_minutes=0, clear_ratio=1), history=False, standing=True),
        Kind("approvals_ageing", "level", "minutes", "", "Age of the oldest request", "Approvals wait too long", "minor",
             "approvals-ageing",
             Parameters(window_minutes=10, threshold=60, minimum=1, hold_minutes=0, clear_ratio=1), history=False, standing=True),
        Kind("provider_degraded", "level", "share", "model", "Error rate", "{of} is degraded", "major", "provider-degraded",
             Parameters(window_minutes=5, threshold=0.25, minimum=15)),
        Kind("provider_slow", "times", "ms", "model", "p95 latency", "{of} is slow", "minor", "provider-degraded",
             Parameters(window_minutes=10, threshold=2, minimum=20, k=4)),
        Kind("audit_chain", "level", "count", "", "Chains that do not verify", "The audit trail does not verify", "critical", "audit-chain",
             Parameters(window_minutes=10, threshold=1, minimum=1, hold_minutes=0, clear_ratio=1), history=False, standing=True),
        Kind("release_guard", "level", "count", "release", "Guards that fired", "{of} is worse than its baseline", "major", "planner-loops",
             Parameters(window_minutes=10, threshold=1, minimum=1), history=False),
    )
}  # fmt: skip
OUTSIDE = ("release_guard",)  # opened by others through `watch.open_for`; a look never does


def spelled(value: float, unit: str) -> str:
    """A figure as people read it: 0.314 of `share` -> 31%."""
    if unit == "share":
        return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"
    words = {"steps": "steps", "usd": "USD", "sends": "sends per call", "minutes": "minutes", "ms": "ms"}
    shown = (
        f"{value:,.4f}".rstrip("0").rstrip(".")
        if unit == "usd"
        else f"{value:,.0f}"
        if unit == "ms"
        else f"{value:,.1f}".removesuffix(".0")
    )
    return f"{shown} {words[unit]}" if unit in words else shown
