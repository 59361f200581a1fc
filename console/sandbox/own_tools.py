"""How the simulated model uses tools that are not the desk's, so that a tool of one's own is called without any account at a provider.

It calls each tool whose name shares a word with what was asked, once, in the order they are offered. Numbers and words of the question
become the arguments, as far as the tool's schema has a place for them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from console.sandbox.conversation import Conversation, Outcome
from console.sandbox.script import strip_directive
from console.sandbox.world import READS, WRITES

DESK = frozenset({*READS, *WRITES})
LONGEST = 200
JSON = Mapping[str, Any]


def concerns(c: Conversation) -> bool:
    """Whether this is an agent with tools of its own and none of the desk's."""
    used = {outcome.tool for outcome in c.outcomes}
    return bool(own(c) or [name for name in used if is_own(name)]) and not (c.offered | used) & DESK


def own(c: Conversation) -> list[str]:
    return [name for name in c.schemas if name in c.offered and is_own(name)]


def is_own(name: str) -> bool:
    return name not in DESK and not name.startswith("memory_")


def use(c: Conversation) -> dict[str, Any]:
    """The next turn: the next call, or what the calls brought."""
    text = strip_directive(c.text)
    wanted = [name for name in own(c) if words(name) & words(text)]
    left = [name for name in wanted if c.of(name) is None]
    if left:
        return {"calls": [{"name": left[0], "arguments": arguments(c.schemas[left[0]], text)}]}
    if c.outcomes:
        return {"text": " ".join(told(outcome) for outcome in c.outcomes)}
    names = ", ".join(own(c)) or "nothing"
    return {"text": f"I am a simulated model and call a tool when its name shares a word with the question. Here I have: {names}."}


def words(text: str) -> set[str]:
    """Of three letters and more, without the plural's s."""
    return {word.rstrip("s") for word in re.findall(r"[a-z]{3,}", text.lower())}


def arguments(schema: JSON, text: str) -> dict[str, Any]:
    """What the schema requires, from the text."""
    numbers = iter(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)", text))
    properties = schema.get("properties") or {}
    return {name: value(properties.get(name) or {}, text, numbers) for name in schema.get("required") or ()}


def value(schema: JSON, text: str, numbers: Iterator[str]) -> Any:
    if choices := schema.get("enum"):
        return next((one for one in choices if str(one).lower() in text.lower()), choices[0])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return number(schema, next(numbers, None))
    if kind == "string":
        quoted = re.search(r"[\"“']([^\"”']+)[\"”']", text)
        return " ".join((quoted.group(1) if quoted else text).split())[: schema.get("maxLength", LONGEST)]
    return {"boolean": True, "array": [], "object": {}}.get(str(kind))


def number(schema: JSON, written: str | None) -> float:
    """The written one, or one, within the bounds; whole for an integer."""
    wanted = float(written) if written else 1.0
    least, most = schema.get("minimum", wanted), schema.get("maximum", wanted)
    within = max(least, min(most, wanted))
    return int(within) if schema.get("type") == "integer" else within


def told(outcome: Outcome) -> str:
    if outcome.unknown:
        return f"It is not known yet whether {outcome.tool} was done; a person is looking into it."
    if not outcome.ok:
        return f"{outcome.tool} was not done: {outcome.message.rstrip('.')}."
    facts = ", ".join(f"{key} {one}" for key, one in outcome.data.items() if key != "ok" and isinstance(one, str | int | float))
    return f"{outcome.tool}: {facts or 'done'}."
