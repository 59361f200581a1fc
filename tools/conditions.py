"""Conditions that people write: CEL over `args`, `call`, `run` and `now`. Checked when saved, evaluated at every decision.

A condition that cannot be evaluated is an error, never false: the caller denies.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import cel

from tenants.errors import Refused

MAX_LENGTH = 2000
NAMES = frozenset({"args", "call", "run", "now"})
TYPES = {"int", "uint", "double", "string", "bool", "list", "map", "bytes", "null_type", "type", "timestamp", "duration"}
TIMES = {"FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds", "Milliseconds"}
CASTS = {"int", "uint", "double", "string", "bytes", "type", "dyn", "timestamp", "duration"}
FUNCTIONS = {"size", "contains", "startsWith", "endsWith", "matches", "sum"} | CASTS | {f"get{part}" for part in TIMES}
TEXTS = re.compile(r"[rR][bB]?(?:\"[^\"]*\"|'[^']*')|[bB]?(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')|//[^\n]*", re.DOTALL)
LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")


class ConditionError(Exception):
    """A condition that could not be evaluated to true or false."""


def check(expression: str, names: frozenset[str] = NAMES) -> None:
    """Raises Refused("bad_condition") if it is too long, broken, uses unknown names or functions, or nests loops."""
    if len(expression) > MAX_LENGTH:
        raise bad(expression, f"it is longer than {MAX_LENGTH} characters")
    try:
        program = compiled(expression)
    except ConditionError as error:
        raise bad(expression, str(error.__cause__ or error))
    code = TEXTS.sub("''", expression)
    known = names | TYPES | set(LOOP.findall(code))
    if unknown := sorted(set(program.variables()) - known):
        raise bad(expression, f"unknown name {', '.join(unknown)} (known: {', '.join(sorted(names))})")
    if missing := sorted({f for f in program.functions() if f[0].isalpha()} - FUNCTIONS):
        raise bad(expression, f"unknown function {', '.join(missing)}")
    if nested(code):
        raise bad(expression, "a loop inside a loop is not allowed")


def holds(expression: str, facts: Mapping[str, Any]) -> bool:
    """Whether the condition is true for these facts. Raises ConditionError for all else.

    JSON knows one kind of number and CEL two that it does not mix: where whole ones and others meet, all are taken as doubles.
    """
    program = compiled(expression)
    try:
        value = guarded(lambda: program.execute(context(facts)))
    except ConditionError as error:
        if not isinstance(error.__cause__, TypeError):
            raise
        value = guarded(lambda: program.execute(context(doubles(facts), 0.0)))
    if not isinstance(value, bool):
        raise ConditionError("the condition gives a value that is neither true nor false")
    return value


def value(expression: str, facts: Mapping[str, Any]) -> Any:
    """What the expression comes to (plain JSON values). Raises ConditionError."""
    program = compiled(expression)
    return guarded(lambda: program.execute(context(facts)))


@lru_cache(maxsize=2048)
def compiled(expression: str) -> Any:
    if len(expression) > MAX_LENGTH:
        raise ConditionError(f"the condition is longer than {MAX_LENGTH} characters")
    return guarded(lambda: cel.compile(expression))


def guarded(work: Callable[[], Any]) -> Any:
    """The evaluator is native: whatever it raises (a panic is no Exception) becomes one error. Its text may quote arguments, so
    that it stays in the cause and out of decisions."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ConditionError(f"the evaluation failed with {type(error).__name__}") from error


def context(facts: Mapping[str, Any], nothing: float = 0) -> Any:
    """`run.tools['name'].sum('field')`: the total of a field over this run's applied calls, `nothing` when none had it."""
    values = cel.Context(dict(facts))
    values.add_function("sum", lambda tool, field: tool["sums"].get(field, nothing))
    return values


def doubles(value: Any) -> Any:
    """A copy in which every whole number is a double."""
    if isinstance(value, Mapping):
        return {key: doubles(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [doubles(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def nested(code: str) -> bool:
    """A loop within the brackets of another one: its price would be a power of what a model may send."""
    for loop in LOOP.finditer(code):
        depth, end = 1, loop.end()
        while end < len(code) and depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        if LOOP.search(code, loop.end(), end):
            return True
    return False


def bad(expression: str, why: str) -> Refused:
    return Refused("bad_condition", f"The condition cannot be used: {why}.", condition=expression[:200])
