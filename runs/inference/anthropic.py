"""The messages wire of Anthropic: what is sent."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from tools.canonical import loads_limited

from .anthropic_reply import parse
from .reply import names_on_wire, wire_name
from .types import ModelEndpoint, ModelRequest
from .wire import Wire, encoded

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the wire takes as the id of a call

JSON = dict[str, Any]


def body_of(endpoint: ModelEndpoint, request: ModelRequest) -> bytes:
    """The JSON that is sent. Raises ValueError, TypeError, LookupError, AttributeError or RecursionError for what cannot be said."""
    system = "\n\n".join(_text(message) for message in request.messages if message["role"] == "system")
    messages = _turns(message for message in request.messages if message["role"] != "system")
    body: JSON = {"model": endpoint.model, "max_tokens": request.max_tokens, "messages": messages}
    if system.strip():
        body["system"] = system
    if request.temperature is not None:
        body["temperature"] = min(max(request.temperature, 0.0), 1.0)  # the scale of this wire ends at 1
    return encoded(body | _offered(request, messages))


def _offered(request: ModelRequest, messages: list[JSON]) -> JSON:
    """The tools. Where a conversation holds calls the wire wants tools even if none is offered: those it used, forbidden."""
    if request.tools:
        if len(names_on_wire(request)) < len(request.tools):
            raise ValueError("two offered tools have the same name on the wire")
        return {"tools": [_tool(wire_name(offer.name), offer.description, dict(offer.input_schema)) for offer in request.tools]}
    used = {block["name"] for message in messages for block in message["content"] if block["type"] == "tool_use"}
    if not used:
        return {}
    return {"tools": [_tool(name, "", {"type": "object"}) for name in sorted(used)], "tool_choice": {"type": "none"}}


def _tool(name: str, description: str, schema: JSON) -> JSON:
    return {"name": name, "description": description, "input_schema": schema}


def _turns(messages: Iterable[JSON]) -> list[JSON]:
    """Users and the assistant take turns on this wire: neighbours of one side become one message, the results of a turn first of all."""
    turns: list[JSON] = []
    for message in messages:
        side = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": side, "content": blocks})
    return turns


def _blocks(message: JSON) -> list[JSON]:
    text = _text(message)
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": _id(message["tool_call_id"]), "content": text}]
    said = [{"type": "text", "text": text}] if text.strip() else []  # the wire refuses a text of nothing
    return said + [_use(call) for call in message.get("tool_calls") or ()]


def _text(message: JSON) -> str:
    content = message.get("content") or ""
    if not isinstance(content, str):
        raise TypeError("the content of a message is not text")
    return content


def _use(call: JSON) -> JSON:
    function = call["function"]
    given = loads_limited(function["arguments"].encode("utf-8", "replace") or b"{}")
    return {
        "type": "tool_use",
        "id": _id(call["id"]),
        "name": wire_name(function["name"]),
        "input": given if isinstance(given, dict) else {},
    }


def _id(given: str) -> str:
    """Ids of another wire, kept where this one takes them; the same other one each time where it does not."""
    return given if _ID.fullmatch(given) else f"call_{hashlib.sha256(given.encode('utf-8', 'replace')).hexdigest()[:32]}"


WIRE: Final = Wire("/messages", ("x-api-key", ""), {"anthropic-version": "2023-06-01"}, body_of, parse)
