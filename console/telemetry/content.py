"""What was said and done, for those who let it leave (SIGNALBOX_OTEL_CONTENT=1). Pure.

Told are the question and the answer of a run, what each model call said, and the arguments and the result of each tool call: what the
rows of the calls hold, where secrets are masked already; they are masked again with what the tenant has now. Never told is what a prompt
was put together from: instructions and remembered things. Text is cut at `LONGEST`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import names

JSON = dict[str, Any]
LONGEST = 16 * 1024  # characters of one attribute


@dataclass(frozen=True, slots=True)
class Content:
    """`masked`: a JSON value -> the same without secrets."""

    question: str
    session: str
    masked: Callable[[Any], Any]


def of_run(what: Content, answered: Mapping[str, Any] | None) -> dict[str, str]:
    """`answered`: the model call that is the answer."""
    told = {names.INPUT_MESSAGES: written(what, [message("user", [text(what.question)])])}
    if what.session:
        told[names.CONVERSATION] = str(what.masked(what.session))
    if answered and answered["result"]:
        told[names.OUTPUT_MESSAGES] = written(what, [message("assistant", [text(answered["result"]["text"])], answered["result"])])
    return told


def of_call(what: Content, call: Mapping[str, Any], ok: bool) -> dict[str, str]:
    """`call`: in the API's form. `ok`: it was answered, and its result is that answer."""
    if call["kind"] == "tool":
        values = {names.TOOL_ARGUMENTS: call["args"], names.TOOL_RESULT: call["result"]}
        return {name: written(what, value) for name, value in values.items() if value is not None}
    reply = call["result"] if ok else None
    if not reply:
        return {}
    asks = [{"type": "tool_call", "id": ask["id"], "name": ask["name"], "arguments": ask["arguments"]} for ask in reply["calls"]]
    parts = [*([text(reply["text"])] if reply["text"] else []), *asks]
    return {names.OUTPUT_MESSAGES: written(what, [message("assistant", parts, reply)])}


def message(role: str, parts: list[JSON], reply: Mapping[str, Any] | None = None) -> JSON:
    return {"role": role, "parts": parts} | ({"finish_reason": reply.get("finish") or ""} if reply else {})


def text(said: str) -> JSON:
    return {"type": "text", "content": said}


def written(what: Content, value: Any) -> str:
    return json.dumps(what.masked(value), ensure_ascii=False)[:LONGEST]
