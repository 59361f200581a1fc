"""Checking arguments: ours beside python-jsonschema, on arguments of the demo's tools that fit and on the same with a part missing."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tools import schemas

DEMO = Path(__file__).resolve().parent.parent.parent / "console" / "sandbox" / "demo.yaml"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "search_docs": {"query": "duplicate charge refund", "limit": 3},
    "fetch_account": {"account_id": "acct_1001"},
    "create_ticket": {"account_id": "acct_1001", "priority": "urgent", "summary": "Charged twice for one invoice. " * 6},
}
TIMES, ROUNDS = 2000, 5


def main() -> None:
    tools = {tool["name"]: tool["input_schema"] for tool in yaml.safe_load(DEMO.read_text())["tools"]}
    print("\nChecking arguments, microseconds each; medians of 5, interleaved")
    print(f"{'':28}{'signalbox':>12}{'python-jsonschema':>20}{'ratio':>9}")
    for name, args in ARGUMENTS.items():
        ours, theirs = schemas.compile(tools[name]).errors, Draft202012Validator(tools[name]).iter_errors
        missing = dict(list(args.items())[1:])
        for case, value in (("fits", args), ("does not fit", missing)):
            mine, other = beside(lambda v=value, f=ours: f(v), lambda v=value, f=theirs: list(f(v)))  # type: ignore[misc]
            print(f"{name + ', ' + case:28}{mine:12.2f}{other:20.2f}{other / mine:8.1f}x")


def beside(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
    times = [(microseconds(one), microseconds(other)) for _ in range(ROUNDS)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def microseconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        action()
    return (time.perf_counter() - began) / TIMES * 1e6


if __name__ == "__main__":
    main()
