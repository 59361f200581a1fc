"""Scripted turns: a line `#sim {"turns": [...]}` in the last user message drives the simulated model turn by turn. One in the
instructions drives it where the user wrote none: so a release of its own can behave badly.

Turn n answers the nth request after that message (n = assistant messages since). A turn is an object with any of
  calls [{name, arguments | arguments_raw, id?}] · text · finish_reason · refusal · usage (null: left out)
  empty (a message with neither text nor calls) · no_choices · raw (the whole body, 200 text/html)
  status (an HTTP error) · retry_after (with it) · latency_ms · repeat (this turn for ever; alone: the turn before it).
After the last turn the answer is a text that says so.
"""

from __future__ import annotations

import json
import re
from typing import Any

_TURN_FIELDS = {
    *("calls", "text", "finish_reason", "refusal", "usage", "empty"),
    *("no_choices", "raw", "status", "retry_after", "latency_ms", "repeat"),
}
_CALL_FIELDS = {"name", "arguments", "arguments_raw", "id"}
_DIRECTIVE = re.compile(r"^[ \t]*#sim[ \t]+(?=\{)", re.M)


def scripted_turn(text: str, index: int) -> dict[str, Any] | None:
    """The turn the directive in `text` prescribes; None without a directive. Raises ValueError when it is malformed."""
    found = _DIRECTIVE.search(text)
    if found is None:
        return None
    try:
        script, _ = json.JSONDecoder().raw_decode(text, found.end())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"#sim is not JSON: {error}")
    turns = script.get("turns")  # raw_decode gave an object: the directive begins with a brace
    if set(script) != {"turns"} or not isinstance(turns, list) or not turns:
        raise ValueError("#sim takes {turns: [...]} with at least one turn")
    for turn in turns:
        _check(turn)
    return _pick(turns, index)


def strip_directive(text: str) -> str:
    """The text before the directive, so that no script ends up in a ticket."""
    found = _DIRECTIVE.search(text)
    return text[: found.start()] if found else text


def _pick(turns: list[dict[str, Any]], index: int) -> dict[str, Any]:
    for place, turn in enumerate(turns):
        if turn.get("repeat") and index >= place:
            alone = set(turn) <= {"repeat", "latency_ms"} and place > 0
            return turns[place - 1] if alone else turn
    return turns[index] if index < len(turns) else {"text": "The script is over."}


def _check(turn: Any) -> None:
    if not isinstance(turn, dict):
        raise ValueError("a turn of #sim is an object")
    if unknown := sorted(set(turn) - _TURN_FIELDS):
        raise ValueError(f"unknown field in a turn of #sim: {unknown[0]}")
    calls = turn.get("calls", [])
    if not isinstance(calls, list) or not all(_is_call(call) for call in calls):
        raise ValueError("calls in #sim is a list of {name, arguments | arguments_raw, id?}")
    for name, least, most in (("status", 200, 599), ("latency_ms", 0, 120_000), ("retry_after", 0, 3600)):
        value = turn.get(name, least)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} in #sim is a whole number from {least} to {most}")


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and set(value) <= _CALL_FIELDS
