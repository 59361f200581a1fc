"""A chat-completions request read as a conversation: what the user asked, which tools are offered, what came back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Tool results that say "ok" and yet did nothing.
_NOT_DONE = frozenset({"drafted", "draft", "denied", "rejected", "expired", "skipped", "failed"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of this conversation came to. `message` is a sentence for the user when it is not ok."""

    tool: str
    ok: bool
    unknown: bool
    data: Mapping[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """`text` is the last user message; outcomes and `turns` (assistant messages) are those after it. `told` are the instructions.

    `schemas`: of the arguments of each tool, in the order of the request."""

    text: str
    told: str
    offered: frozenset[str]
    outcomes: tuple[Outcome, ...]
    turns: int
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, tool: str) -> Outcome | None:
        """The latest outcome of a tool, None when it was not called."""
        return next((o for o in reversed(self.outcomes) if o.tool == tool), None)

    def account_id(self) -> str | None:
        """The first account id the user wrote."""
        found = re.search(r"\bacct_\d+", self.text)
        return found.group() if found else None


def read_conversation(request: Mapping[str, Any]) -> Conversation:
    """Reads an OpenAI chat-completions request body. Raises ValueError when `messages` is not a list of objects."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ValueError("messages must be a list of objects that is not empty")
    last = max((place for place, m in enumerate(messages) if m.get("role") == "user"), default=-1)
    after = messages[last + 1 :]
    return Conversation(
        text=content_text(messages[last].get("content")) if last >= 0 else "",
        told="\n".join(content_text(m.get("content")) for m in messages if m.get("role") == "system"),
        offered=_offered(request),
        outcomes=tuple(_outcomes(after)),
        turns=sum(m.get("role") == "assistant" for m in after),
        schemas=_schemas(request),
    )


def content_text(content: Any) -> str:
    """The text of a message's content, which is a string, a list of parts, or null."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _offered(request: Mapping[str, Any]) -> frozenset[str]:
    if request.get("tool_choice") == "none":
        return frozenset()
    return frozenset(str(_function(tool).get("name")) for tool in request.get("tools") or () if isinstance(tool, dict))


def _schemas(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    functions = [_function(tool) for tool in request.get("tools") or () if isinstance(tool, dict)]
    return {str(f.get("name")): f["parameters"] for f in functions if isinstance(f.get("parameters"), dict)}


def _function(value: Mapping[str, Any]) -> Mapping[str, Any]:
    function = value.get("function")
    return function if isinstance(function, dict) else {}


def _outcomes(messages: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    names: dict[str, str] = {}
    outcomes = []
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[str(call.get("id"))] = str(_function(call).get("name"))
        if message.get("role") == "tool":
            name = names.get(str(message.get("tool_call_id")), str(message.get("name", "")))
            outcomes.append(read_outcome(name, content_text(message.get("content"))))
    return outcomes


def read_outcome(tool: str, content: str) -> Outcome:
    """One tool message; content that is not a JSON object counts as failed."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        return Outcome(tool, False, False, {}, content.strip()[:200] or "no result came back")
    for wrapper in ("result", "data"):
        if isinstance(data.get(wrapper), dict):
            data = data | data[wrapper]
    kind = str(data.get("error_type") or data.get("status") or data.get("state") or "")
    ok = data.get("ok") is not False and "error" not in data and kind not in _NOT_DONE and not data.get("drafted")
    message = data.get("message") or data.get("error") or kind or "no reason was given"
    return Outcome(tool, ok, kind in ("unknown", "outcome_unknown"), data, str(message)[:400])
