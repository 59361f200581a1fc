"""Many scores as one: what a suite came to, and what the runs of production came to. Pure."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .checks import CHECKS

JSON = dict[str, Any]
WORST = 5  # of each check, the runs that are named
STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Scored:
    """One run. `measures`: as stored; `failing`: the checks by which its case fails."""

    run_id: str
    measures: Mapping[str, Mapping[str, Any]]
    failing: tuple[str, ...] = ()
    case: str = ""
    succeeded: bool = True


@dataclass(slots=True)
class Column:
    values: list[tuple[float, str]] = field(default_factory=list)

    def as_json(self, better: str) -> JSON:
        numbers = sorted(value for value, _ in self.values)
        worst = sorted(self.values, reverse=better == "low")[:WORST]
        best = numbers[-1] if better == "high" else numbers[0]
        return {
            "value": round(statistics.fmean(numbers), 6), "n": len(numbers), "p50": at(numbers, 0.5), "p95": at(numbers, 0.95),
            "min": numbers[0], "max": numbers[-1], "worst": [run for value, run in worst if value != best],
        }  # fmt: skip


def at(ordered: list[float], share: float) -> float:
    """The value that so many of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]


def summed(scores: Iterable[Scored]) -> JSON:
    """{runs, passed, succeeded, measures: {check: {value (mean over runs), n, p50, p95, min, max, worst}}, steps: {steps: runs},
    failing: {check: runs}, cases: {key: {runs, passed}}}. Checks that judged nothing are left out."""
    columns = {check.name: Column() for check in CHECKS}
    runs, passed, succeeded = 0, 0, 0
    distribution, failing, cases = Counter[int](), Counter[str](), dict[str, JSON]()
    for score in scores:
        ok = not score.failing
        runs, passed, succeeded = runs + 1, passed + ok, succeeded + score.succeeded
        failing.update(score.failing)
        for name, column in columns.items():
            value = score.measures.get(name, {}).get("value")
            if value is not None:
                column.values.append((value, score.run_id))
        if (steps := score.measures.get(STEPS, {}).get("value")) is not None:
            distribution[int(steps)] += 1
        if score.case:
            case = cases.setdefault(score.case, {"runs": 0, "passed": 0})
            case["runs"], case["passed"] = case["runs"] + 1, case["passed"] + ok
    measures = {check.name: columns[check.name].as_json(check.better) for check in CHECKS if columns[check.name].values}
    return {
        "runs": runs, "passed": passed, "succeeded": succeeded, "measures": measures, "failing": dict(failing),
        "steps": {str(steps): distribution[steps] for steps in sorted(distribution)},
        "cases": {key: case for key, case in cases.items() if case["passed"] < case["runs"]},
    }  # fmt: skip
