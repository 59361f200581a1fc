"""The rows of some hours -> figures. Pure.

What each figure counts is said in `console.metric_definitions`, which is where the docs and the console have it from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runs.states import RunState

from .histograms import Histogram, merge, quantile

if TYPE_CHECKING:
    from .models import CallHour, RunHour

SUCCEEDED = RunState.SUCCEEDED.value
TERMINAL = (SUCCEEDED, RunState.FAILED.value, RunState.CANCELLED.value)


def share(part: float, whole: float) -> float | None:
    """None: nothing that it could be a share of."""
    return part / whole if whole else None


@dataclass(frozen=True, slots=True)
class Figures:
    """Runs that started in a stretch of time, and their calls. Micro-USD, milliseconds; rates are shares from 0 to 1, or None."""

    runs: int = 0
    ended: int = 0
    states: Histogram = field(default_factory=dict)
    outcomes: Histogram = field(default_factory=dict)
    budget_exceeded: int = 0
    fell_back: int = 0
    violated: int = 0
    rejected: int = 0
    decided: int = 0
    writes: int = 0
    cost_micro: int = 0
    spent_micro: int = 0
    unpriced: int = 0
    steps: Histogram = field(default_factory=dict)
    steps_total: int = 0
    duration_ms: Histogram = field(default_factory=dict)
    duration_total_ms: int = 0
    cost: Histogram = field(default_factory=dict)
    calls: int = 0  # of models and tools
    tool_calls: int = 0
    tool_errors: int = 0
    retried: int = 0
    sends: int = 0
    denied: int = 0
    unknown: int = 0
    classes: Histogram = field(default_factory=dict)  # of tools' errors
    retry_classes: Histogram = field(default_factory=dict)
    latency_ms: Histogram = field(default_factory=dict)

    @property
    def succeeded(self) -> int:
        return self.states.get(SUCCEEDED, 0)

    @property
    def partial(self) -> bool:
        """Some of the runs had no price: costs are lower bounds."""
        return self.unpriced > 0

    @property
    def success_rate(self) -> float | None:
        return share(self.succeeded, self.ended)

    @property
    def terminal_states(self) -> dict[str, float]:
        return {state: self.states.get(state, 0) / self.ended for state in TERMINAL} if self.ended else {}

    @property
    def steps_per_run(self) -> float | None:
        return share(self.steps_total, self.ended)

    @property
    def steps_p50(self) -> float | None:
        return quantile(self.steps, 0.5)

    @property
    def tool_error_rate(self) -> float | None:
        return share(self.tool_errors, self.tool_calls)

    @property
    def retry_rate(self) -> float | None:
        return share(self.retried, self.calls)

    @property
    def budget_exceeded_rate(self) -> float | None:
        return share(self.budget_exceeded, self.ended)

    @property
    def fallback_rate(self) -> float | None:
        return share(self.fell_back, self.ended)

    @property
    def policy_violation_rate(self) -> float | None:
        return share(self.violated, self.ended)

    @property
    def rejection_rate(self) -> float | None:
        return share(self.rejected, self.decided)

    @property
    def cost_per_success(self) -> float | None:
        return share(self.cost_micro, self.succeeded)

    @property
    def p50_ms(self) -> float | None:
        return quantile(self.duration_ms, 0.5)

    @property
    def p95_ms(self) -> float | None:
        return quantile(self.duration_ms, 0.95)

    def latency(self, q: float) -> float | None:
        """Milliseconds, of the calls."""
        return quantile(self.latency_ms, q)

    def retries_of(self, failure_class: str) -> float | None:
        """Retries that were scheduled for the class, for each call that was sent."""
        return share(self.retry_classes.get(failure_class, 0), self.calls)


def figures(runs: "Iterable[RunHour]", calls: "Iterable[CallHour]") -> Figures:
    mine, sent = list(runs), list(calls)
    made: dict[str, Any] = {name: total(mine, name) for name in RUN_SUMS} | {name: total(sent, name) for name in CALL_SUMS}
    made |= {name: merge(*(getattr(row, name) for row in mine)) for name in RUN_COUNTS}
    made |= {name: merge(*(getattr(row, name) for row in sent)) for name in ("retry_classes", "latency_ms")}
    tools = [row for row in sent if row.kind == "tool"]
    return Figures(
        runs=total(mine, "started"),
        **made,
        tool_calls=total(tools, "calls"),
        tool_errors=total(tools, "errors"),
        classes=merge(*(row.classes for row in tools)),
    )


RUN_SUMS = (
    "ended", "budget_exceeded", "fell_back", "violated", "rejected", "decided", "writes", "cost_micro", "spent_micro", "unpriced",
    "steps_total", "duration_total_ms",
)  # fmt: skip
RUN_COUNTS = ("states", "outcomes", "steps", "duration_ms", "cost")
CALL_SUMS = ("calls", "retried", "sends", "denied", "unknown")


def total(rows: "Sequence[RunHour] | Sequence[CallHour]", name: str) -> int:
    return sum(getattr(row, name) for row in rows)


def of_class(calls: "Iterable[CallHour]", failure_class: str) -> Figures:
    """One class of failure: the errors that were of it, and the retries that were scheduled for it, among all calls."""
    whole = figures((), calls)
    errors, retries = whole.classes.get(failure_class, 0), whole.retry_classes.get(failure_class, 0)
    return Figures(
        calls=whole.calls,
        tool_calls=whole.tool_calls,
        tool_errors=errors,
        retried=retries,
        classes=one(failure_class, errors),
        retry_classes=one(failure_class, retries),
    )


def one(key: str, count: int) -> Histogram:
    return {key: count} if count else {}


def classes_of(calls: "Iterable[CallHour]") -> Mapping[str, int]:
    """Every class that there were errors or retries of."""
    return merge(*(merge(row.classes, row.retry_classes) for row in calls))
