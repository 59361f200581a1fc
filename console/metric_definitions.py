"""What each metric is, in words and as a function of figures. Pure. The API, the console's page and docs/metrics.md read this list.

A value is of JSON: a share from 0 to 1, a number, a decimal string (USD), or an object of them; None where there is nothing to count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .figures import Figures

ENDED = "runs that ended"
QUANTILES = (("p50", "duration_p50_ms"), ("p95", "duration_p95_ms"))


@dataclass(frozen=True, slots=True)
class Metric:
    """`counted`: exactly how. `among`: what `n` is the number of. `by_call`: also told of one model, tool or failure class."""

    key: str
    title: str
    unit: str
    counted: str
    among: str
    value: Callable[[Figures], Any]
    n: Callable[[Figures], int]
    by_call: bool = False


def usd(micro: float | None) -> str | None:
    """Millionths -> a decimal string of at most eight places."""
    return None if micro is None else format((Decimal(repr(float(micro))) / 1_000_000).quantize(Decimal("1e-8")).normalize(), "f")


def rounded(value: float | None, places: int = 6) -> float | None:
    return None if value is None else round(value, places)


def ended(figures: Figures) -> int:
    return figures.ended


METRICS: tuple[Metric, ...] = (
    Metric(
        "run_success_rate",
        "Run success rate",
        "share",
        "Runs in state `succeeded`, degraded answers too, divided by the runs that ended. Cancelled runs count among those that ended; "
        "runs that still go on count nowhere.",
        ENDED,
        lambda f: rounded(f.success_rate),
        ended,
    ),
    Metric(
        "terminal_states",
        "Rate by terminal state",
        "share of each state",
        "For each of `succeeded`, `failed` and `cancelled`: the runs that ended so, divided by the runs that ended. Together they are 1.",
        ENDED,
        lambda f: {state: rounded(part) for state, part in f.terminal_states.items()} or None,
        ended,
    ),
    Metric(
        "steps_per_run",
        "Steps per run",
        "steps",
        "The mean of the number of steps (model turns) of the runs that ended.",
        ENDED,
        lambda f: rounded(f.steps_per_run, 3),
        ended,
    ),
    Metric(
        "tool_error_rate",
        "Tool error rate",
        "share",
        "Calls of tools that failed, divided by the calls of tools that were sent and are settled (`done`, `failed_not_applied`, "
        "`unknown`). However often a call was sent, it counts once, by how it stands at last. An error is any error class but "
        "`duplicate_request`; a write whose outcome is unknown is one. By tool: `group_by=tool`.",
        "calls of tools",
        lambda f: rounded(f.tool_error_rate),
        lambda f: f.tool_calls,
        by_call=True,
    ),
    Metric(
        "retry_rate",
        "Retry rate",
        "share",
        "Calls of models and tools that were sent more than once, divided by those that were sent and are settled. By failure class "
        "(`by_class`, or `group_by=failure_class`): how often a retry was scheduled because of an error of the class, for each of "
        "those calls; one call may be retried for several.",
        "calls of models and tools",
        lambda f: rounded(f.retry_rate),
        lambda f: f.calls,
        by_call=True,
    ),
    Metric(
        "budget_exceeded_rate",
        "Budget exceeded rate",
        "share",
        "Runs that ended with the outcome `budget_exceeded`, `step_limit` or `deadline_exceeded`, divided by the runs that ended. A run "
        "that met a limit and still answered with less is no such run: it fell back.",
        ENDED,
        lambda f: rounded(f.budget_exceeded_rate),
        ended,
    ),
    Metric(
        "fallback_rate",
        "Fallback rate",
        "share",
        "Runs that ended and on their way gave a model up for the next one (`fallback_activated`) or took a rung of their ladder "
        "(`rung_entered`), divided by the runs that ended. A run counts once.",
        ENDED,
        lambda f: rounded(f.fallback_rate),
        ended,
    ),
    Metric(
        "cost_per_success",
        "Cost per successful run",
        "USD",
        "What all runs that ended cost, the failed and cancelled ones too, divided by the runs that succeeded. A lower bound where "
        "`partial` is true: some calls had no known price.",
        "runs that succeeded",
        lambda f: usd(f.cost_per_success),
        lambda f: f.succeeded,
    ),
    Metric(
        "duration_p50_ms",
        "Median duration",
        "milliseconds",
        "From acceptance to the end of the runs that ended, waiting for people included. The nearest rank, told by a histogram with "
        "buckets of ratio 1.15: within 7.3 % of the exact value.",
        ENDED,
        lambda f: rounded(f.p50_ms, 1),
        ended,
    ),
    Metric(
        "duration_p95_ms",
        "95th percentile of duration",
        "milliseconds",
        "As the median: 95 of 100 runs that ended took no longer than this, within 7.3 %.",
        ENDED,
        lambda f: rounded(f.p95_ms, 1),
        ended,
    ),
    Metric(
        "policy_violation_rate",
        "Policy violation rate",
        "share",
        "Runs that ended and tried at least once what policy denies (event `policy_violated`: a call that was refused, or an answer that "
        "was withheld), divided by the runs that ended.",
        ENDED,
        lambda f: rounded(f.policy_violation_rate),
        ended,
    ),
)


def record(figures: Figures) -> dict[str, Any]:
    """The summary as the API gives it: `{value, n}` for each, the quantiles of duration under one key."""
    made: dict[str, Any] = {metric.key: {"value": metric.value(figures), "n": metric.n(figures)} for metric in METRICS}
    made["duration_ms"] = {name: made.pop(key) for name, key in QUANTILES}
    made["retry_rate"]["by_class"] = {name: rounded(figures.retries_of(name)) for name in sorted(figures.retry_classes)}
    made["cost_per_success"]["partial"] = figures.partial
    return made


def flat(figures: Figures) -> dict[str, Any]:
    """The same as one row of a table."""
    made: dict[str, Any] = {}
    for metric in METRICS:
        value = metric.value(figures)
        made |= {f"{metric.key}_{name}": part for name, part in value.items()} if isinstance(value, dict) else {metric.key: value}
        made[f"{metric.key}_n"] = metric.n(figures)
    return made


COLUMNS: tuple[str, ...] = tuple(
    name
    for metric in METRICS
    for name in (
        *(
            ["terminal_states_succeeded", "terminal_states_failed", "terminal_states_cancelled"]
            if metric.key == "terminal_states"
            else [metric.key]
        ),
        f"{metric.key}_n",
    )
)
