"""The checks: a path and what is expected of it -> measures, without a judge. Pure. `CHECKS` is the one place that says what each counts.

Every measure has a value (None: there was nothing to measure, or nothing was expected), the number it was made from, and the places
it points at: `2` is a step, `2.1` a call of it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runs.loops import folded

from .cases import AnswerCheck, Expectations, ExpectedWrite, compiled, of_pattern
from .paths import Path, ToolCall, unnecessary

VERSION = 1  # stored with every score: figures of different versions are not compared


@dataclass(frozen=True, slots=True)
class Measure:
    value: float | None
    n: int
    at: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # what is missing, where there is no place to point at

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "n": self.n, "at": list(self.at), "names": list(self.names)}


NOTHING = Measure(None, 0)


@dataclass(frozen=True, slots=True)
class Check:
    """`must`: the value that a case has to reach to pass; None: it is counted, and no case fails by it."""

    name: str
    title: str
    unit: Literal["share", "count", "usd"]
    better: Literal["high", "low"]
    counted: str
    measure: Callable[[Path, Expectations], Measure]
    must: float | None = None


def share(of: Iterable[ToolCall], wrong: Iterable[ToolCall]) -> Measure:
    """The share that is not wrong, pointing at what is."""
    n, at = len(tuple(of)), tuple(call.place for call in wrong)
    return Measure((n - len(at)) / n, n, at) if n else NOTHING


def rate(n: int, at: tuple[str, ...]) -> Measure:
    return Measure(len(at) / n, n, at) if n else NOTHING


def precision(path: Path, expect: Expectations) -> Measure:
    if expect.allowed is None and not expect.forbidden:
        return NOTHING
    return share(path.calls, [call for call in path.calls if not may_call(call, expect)])


def may_call(call: ToolCall, expect: Expectations) -> bool:
    return call.tool not in expect.forbidden and (expect.allowed is None or call.tool in expect.allowed)


def recall(path: Path, expect: Expectations) -> Measure:
    wanted, called = dict.fromkeys(expect.required), {call.tool for call in path.calls if not call.denied}
    missing = tuple(name for name in wanted if name not in called)
    return Measure((len(wanted) - len(missing)) / len(wanted), len(wanted), (), missing) if wanted else NOTHING


def order(path: Path, expect: Expectations) -> Measure:
    """Of the pairs whose second tool was called."""
    n, at = 0, []
    for first, second in expect.order:
        came = min((call.step for call in path.calls if call.tool == first and not call.error), default=None)
        latter = [call for call in path.calls if call.tool == second]
        n += bool(latter)
        early = [call.place for call in latter if came is None or call.step <= came]
        at += early[:1]
    return Measure((n - len(at)) / n, n, tuple(at)) if n else NOTHING


def actions(path: Path, expect: Expectations) -> Measure:
    if expect.writes is None:
        return NOTHING
    made = [call for call in path.calls if call.writes and call.applied]
    pairs = matched(expect.writes, made)
    missing = tuple(write.tool for number, write in enumerate(expect.writes) if number not in pairs.values())
    wrong = tuple(call.place for number, call in enumerate(made) if number not in pairs)
    n = len(expect.writes) + len(wrong)
    return Measure(len(pairs) / n if n else 1.0, max(n, 1), wrong, missing)


def matched(expected: tuple[ExpectedWrite, ...], made: list[ToolCall]) -> dict[int, int]:
    """Made write -> the expected one it stands for; as many pairs as there can be."""
    fits = [[number for number, call in enumerate(made) if is_as_expected(call, write)] for write in expected]
    pairs: dict[int, int] = {}

    def place(write: int, tried: set[int]) -> bool:
        for call in fits[write]:
            if call not in tried:
                tried.add(call)
                if call not in pairs or place(pairs[call], tried):
                    pairs[call] = write
                    return True
        return False

    for write in range(len(expected)):
        place(write, set())
    return pairs


def is_as_expected(call: ToolCall, write: ExpectedWrite) -> bool:
    args = call.args or {}
    return (
        call.tool == write.tool
        and all(name in args and args[name] == value for name, value in write.args.items())
        and all(not compiled(of_pattern(pattern)).errors(args.get(name)) for name, pattern in write.matches.items())
        and (write.fits is None or not compiled(write.fits).errors(dict(args)))
    )


def steps(path: Path, expect: Expectations) -> Measure:
    return Measure(float(len(path.turns)), 1)


def steps_within(path: Path, expect: Expectations) -> Measure:
    if expect.max_steps is None:
        return NOTHING
    over = tuple(str(turn.step) for turn in path.turns[expect.max_steps :])
    return Measure(0.0 if over else 1.0, 1, over)


def loops(path: Path, expect: Expectations) -> Measure:
    return rate(len(path.calls), tuple(call.place for call in unnecessary(path)))


def retries(path: Path, expect: Expectations) -> Measure:
    sent = [(f"{turn.step}.0", turn.sends) for turn in path.turns if turn.sends] + [(c.place, c.sends) for c in path.calls if c.sends]
    again = tuple(sorted((place for place, sends in sent if sends > 1), key=lambda place: [int(part) for part in place.split(".")]))
    return Measure(float(sum(sends - 1 for _, sends in sent)), len(sent), again) if sent else NOTHING


def violations(path: Path, expect: Expectations) -> Measure:
    at = tuple(call.place for call in path.calls if call.denied)
    kept = () if path.withheld is None else (str(path.withheld),)
    return rate(len(path.calls) + len(kept), at + kept)


def approvals(path: Path, expect: Expectations) -> Measure:
    """Of the calls that people were to be asked about."""
    asked = [call for call in path.calls if call.asked]
    rejected, wrong = set[str](), []
    for call in asked:
        if (call.applied and not call.approved) or call.key in rejected:
            wrong.append(call)
        if call.error == "approval_rejected":
            rejected.add(call.key)
    return share(asked, wrong)


def cost(path: Path, expect: Expectations) -> Measure:
    return Measure(path.cost_micro / 1_000_000, 1)


def cost_within(path: Path, expect: Expectations) -> Measure:
    if expect.max_cost_usd is None:
        return NOTHING
    return Measure(float(path.cost_micro <= expect.max_cost_usd * 1_000_000), 1)


def answer(path: Path, expect: Expectations) -> Measure:
    checks = expect.answer
    failed = tuple(told(check) for check in checks if not holds(check, path.answer))
    at = (str(path.turns[-1].step),) if failed and path.turns else ()
    return Measure((len(checks) - len(failed)) / len(checks), len(checks), at, failed) if checks else NOTHING


def told(check: AnswerCheck) -> str:
    return next(name for name in ("contains", "excludes", "matches", "fits") if getattr(check, name) is not None).replace("fits", "schema")


def holds(check: AnswerCheck, text: str | None) -> bool:
    """Without an answer nothing holds."""
    if text is None:
        return False
    if check.contains is not None:
        return folded(check.contains) in folded(text)
    if check.excludes is not None:
        return folded(check.excludes) not in folded(text)
    if check.matches is not None:
        return not compiled(of_pattern(check.matches)).errors(text)
    try:
        return not compiled(check.fits or {}).errors(json.loads(text))
    except (ValueError, RecursionError):
        return False


CHECKS = (
    Check(
        "tool_selection_precision", "Tool-selection precision", "share", "high",
        "Of the tool calls that the model asked for, sent or not, the share of tools that the case allows: those of `allowed` where it is"
        " given, and none of `forbidden`. Each call counts once. Not judged where the case gives neither. Points at the calls of other"
        " tools.", precision, 1.0,
    ),
    Check(
        "tool_selection_recall", "Tool-selection recall", "share", "high",
        "Of the tools in `required`, the share that was asked for at least once and not refused by the policy. Names the missing ones.",
        recall, 1.0,
    ),
    Check(
        "order_kept", "Order kept", "share", "high",
        "Of the pairs in `order` whose second tool was called, the share where no call of the second stands in the same step as the first"
        " answer of the first, or before it. What failed is no answer. Points at the call that came too early.", order, 1.0,
    ),
    Check(
        "action_correctness", "Action correctness", "share", "high",
        "Changes that were made (applied writes) are paired with those in `writes`, each with one at most, so that as many pairs as"
        " possible are found. The value is pairs over expected changes and unexpected ones together. Not judged without `writes`; with an"
        " empty list a run that changed nothing has 1. Points at unexpected changes, names missing ones.", actions, 1.0,
    ),
    Check(
        "steps", "Steps", "count", "low", "Model turns of the run. Over many runs: median, 95th percentile, and how many took how many.",
        steps,
    ),
    Check(
        "steps_within", "Within the steps allowed", "share", "high", "1 where the run took no more than `max_steps`. Points at the steps"
        " beyond.", steps_within, 1.0,
    ),
    Check(
        "unnecessary_loop_rate", "Unnecessary-loop rate", "share", "low",
        "Of the tool calls, the share that could not bring anything new: one that was asked before in this run (same tool and arguments,"
        " but for case and white space) and had the same answer as the time before; one that repeats a change already made; one that was"
        " answered exactly as two other wordings of it before; one that was stopped as a repetition. Not counted: a read after a change"
        " was made since; asking again after a failure that may pass, twice; waiting for an answer that came to differ in the end;"
        " another page or other arguments with another answer.", loops,
    ),
    Check(
        "retries", "Retries", "count", "low", "Sends of model and tool calls beyond the first of each. Made from the calls that were sent;"
        " points at those that were sent more than once.", retries,
    ),
    Check(
        "policy_violation_rate", "Policy-violation rate", "share", "low",
        "Of the tool calls, the share that the policy refused; an answer that a rule kept back counts as one more of both. What was"
        " drafted, rejected by people or stopped by a limit is none.", violations,
    ),
    Check(
        "approvals_respected", "Approvals respected", "share", "high",
        "Of the calls that people were to be asked about, the share that was not made without their yes, and not asked for again unchanged"
        " after their no.", approvals, 1.0,
    ),
    Check("cost_usd", "Cost per task", "usd", "low", "What the model calls of the run cost, in USD.", cost),
    Check("cost_within", "Within the cost allowed", "share", "high", "1 where the run cost no more than `max_cost_usd`.", cost_within, 1.0),
    Check(
        "answer_correct", "Answer checks", "share", "high",
        "Of the checks in `answer`, the share that holds: a text in it or not in it (but for case and white space), a pattern that is found"
        " in it, a JSON Schema that it fits when read as JSON. Without an answer none holds.", answer, 1.0,
    ),
)  # fmt: skip
BY_NAME: Mapping[str, Check] = {check.name: check for check in CHECKS}
PRODUCTION = ("steps", "unnecessary_loop_rate", "retries", "policy_violation_rate", "approvals_respected", "cost_usd")


def score(path: Path, expect: Expectations | None = None) -> dict[str, Measure]:
    """Every check by its name. Without expectations those that need none have a value."""
    wanted = expect or Expectations()
    return {check.name: check.measure(path, wanted) for check in CHECKS}


def failing(measures: Mapping[str, Measure]) -> tuple[str, ...]:
    """The checks by which a case fails; empty: it passes."""
    return tuple(
        check.name
        for check in CHECKS
        if check.must is not None and (value := measures[check.name].value) is not None and value < check.must
    )
