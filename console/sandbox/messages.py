"""The simulated model on the messages wire of Anthropic: a translation to chat completions and back, strict about what the wire forbids.

Scripts say the same on both wires: `finish_reason` and `usage` in the words of chat completions are translated, other words pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from console.sandbox import completions
from console.sandbox.completions import Answer, answer_json

_VERSION = "2023-06-01"
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_USAGE = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
_NAME = re.compile("[a-zA-Z0-9_-]+")
_KINDS = {404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}

JSON = dict[str, Any]


def complete(raw: bytes, version: str | None) -> Answer:
    """Answers one request whose `anthropic-version` header is `version`. Never raises."""
    if version != _VERSION:
        return _error(400, f"anthropic-version: must be {_VERSION}")
    try:
        chat = _as_chat(json.loads(raw))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:
        return _error(400, f"{type(problem).__name__}: {problem}")
    answer = completions.complete(json.dumps(chat).encode())
    if answer.content_type != "application/json":
        return answer
    body = json.loads(answer.body)
    if "error" in body:
        return _error(answer.status, body["error"]["message"], headers=answer.headers, latency_ms=answer.latency_ms)
    return answer_json(200, _message(body), latency_ms=answer.latency_ms)


def _error(status: int, message: str, **more: Any) -> Answer:
    kind = _KINDS.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return answer_json(status, {"type": "error", "error": {"type": kind, "message": message}}, **more)


# the request


def _as_chat(request: JSON) -> JSON:
    if type(request.get("max_tokens")) is not int or request["max_tokens"] < 1:
        raise ValueError("max_tokens: must be a whole number above 0")
    if not 0 <= request.get("temperature", 0) <= 1:
        raise ValueError("temperature: must be from 0 to 1")
    turns = [(turn["role"], _content(turn["content"])) for turn in request["messages"]]
    _check_order(turns, offered=bool(request.get("tools")))
    messages = [{"role": "system", "content": request["system"]}] if request.get("system") else []
    messages += [message for role, blocks in turns for message in _as_messages(role, blocks)]
    tools = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}} for tool in request.get("tools", ())
    ]
    chosen = {"tool_choice": "none"} if request.get("tool_choice") == {"type": "none"} else {}
    return {
        "model": request.get("model"),
        "stream": request.get("stream", False),
        "max_tokens": request["max_tokens"],
        "messages": messages,
        **({"tools": tools} if tools else {}),
        **chosen,
    }


def _content(content: Any) -> list[JSON]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not blocks or any(block["type"] == "text" and not block["text"].strip() for block in blocks):
        raise ValueError("messages: a content may not be empty")
    if not all(_NAME.fullmatch(block[key]) for block in blocks if block["type"] == "tool_use" for key in ("id", "name")):
        raise ValueError("messages: the id and the name of a tool_use are letters, digits, _ and -")
    return list(blocks)


def _check_order(turns: list[tuple[str, list[JSON]]], *, offered: bool) -> None:
    """Users begin; the calls of a turn are answered at the beginning of the next one, each once and nothing else."""
    if not turns or turns[0][0] != "user" or {role for role, _ in turns} - {"user", "assistant"}:
        raise ValueError("messages: the first one is the user's, and no other roles exist than user and assistant")
    awaited: list[str] = []
    for role, blocks in turns:
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        first = [block["type"] for block in blocks[: len(answered)]]
        if sorted(answered) != sorted(awaited) or first != ["tool_result"] * len(answered):
            raise ValueError("messages: tool_use ids without tool_result blocks immediately after, or the other way round")
        awaited = [block["id"] for block in blocks if role == "assistant" and block["type"] == "tool_use"]
        if awaited and not offered:
            raise ValueError("tools: must be given where messages hold tool_use blocks")
    if awaited:
        raise ValueError("messages: the last calls have no results")


def _as_messages(role: str, blocks: list[JSON]) -> Iterable[JSON]:
    for block in blocks:
        if block["type"] == "tool_result":
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block.get("content", "")}
    text = "\n".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
        for block in blocks
        if block["type"] == "tool_use"
    ]
    if text or calls:
        yield {"role": role, "content": text, **({"tool_calls": calls} if calls else {})}


# the answer


def _message(body: JSON) -> JSON:
    message: JSON = {
        "id": body["id"].replace("chatcmpl", "msg"),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }
    if body["choices"]:
        choice = body["choices"][0]
        refusal = choice["message"].get("refusal")
        reason = choice["finish_reason"]
        message["content"] = list(_blocks(choice["message"]))
        message["stop_reason"] = "refusal" if refusal else _STOP.get(reason, reason)
    if "usage" in body:
        message["usage"] = _usage(body["usage"])
    return message


def _blocks(message: JSON) -> Iterable[JSON]:
    if text := message.get("refusal") or message["content"]:
        yield {"type": "text", "text": text}
    for call in message.get("tool_calls", ()):
        named = {"id": call["id"]} if "id" in call else {}
        yield {"type": "tool_use", **named, "name": call["function"]["name"], "input": _input(call["function"]["arguments"])}


def _input(arguments: str) -> Any:
    """What a script sends raw and is no JSON stays text: a model that breaks the wire."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _usage(usage: Any) -> Any:
    if not isinstance(usage, dict):
        return usage
    return {_USAGE.get(name, name): count for name, count in usage.items() if name != "total_tokens"}
