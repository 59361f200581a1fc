"""The simulated model on the wire of OpenAI chat completions. Pure and deterministic: the same request, the same answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from console.sandbox import looping
from console.sandbox.conversation import Conversation, read_conversation
from console.sandbox.script import scripted_turn
from console.sandbox.stories import decide

MODELS = ("sim-small", "sim-medium", "sim-large", "sim-script", looping.MODEL)
TRAILER = "This answer is simulated."
#: A fixed moment, so that equal requests get equal bytes.
_CREATED = 1_767_225_600


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `latency_ms` overrides the usual delay."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    latency_ms: int | None = None


def answer_json(status: int, value: Any, **more: Any) -> Answer:
    """An Answer whose body is JSON."""
    return Answer(status, json.dumps(value).encode(), **more)


def error(status: int, message: str, code: str, **more: Any) -> Answer:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return answer_json(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, **more)


def list_models() -> dict[str, Any]:
    """The body of GET /v1/models."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": _CREATED, "owned_by": "sandbox"} for name in MODELS],
    }


def complete(raw: bytes) -> Answer:
    """Answers one chat-completions request. Never raises."""
    try:
        request = json.loads(raw)
    except (ValueError, RecursionError):
        return error(400, "the body is not JSON", "invalid_json")
    if not isinstance(request, dict):
        return error(400, "the body is not an object", "invalid_json")
    if request.get("model") not in MODELS:
        return error(404, f"there is no model {str(request.get('model'))[:80]}", "model_not_found")
    if request.get("stream"):
        return error(400, "the simulated model does not stream", "unsupported_parameter")
    try:
        conversation = read_conversation(request)
        scripted = scripted_turn(conversation.text, conversation.turns) or scripted_turn(conversation.told, conversation.turns)
    except ValueError as problem:
        return error(400, str(problem), "invalid_value")
    if scripted is not None:
        return _scripted(scripted, request, raw)
    return answer_json(200, _completion(_with_trailer(conversation, request["model"]), request, raw))


def _with_trailer(conversation: Conversation, model: str) -> dict[str, Any]:
    turn = looping.decide_worse(conversation) if model == looping.MODEL else decide(conversation)
    return turn | {"text": f"{turn['text']} {TRAILER}"} if turn.get("text") else turn


def _scripted(turn: dict[str, Any], request: dict[str, Any], raw: bytes) -> Answer:
    latency_ms = turn.get("latency_ms")
    if "raw" in turn:
        return Answer(turn.get("status", 200), str(turn["raw"]).encode(), "text/html", latency_ms=latency_ms)
    if turn.get("status", 200) != 200:
        headers = {"Retry-After": str(turn["retry_after"])} if "retry_after" in turn else {}
        return error(turn["status"], "scripted error", "scripted", headers=headers, latency_ms=latency_ms)
    return answer_json(200, _completion(turn, request, raw), latency_ms=latency_ms)


def _completion(turn: dict[str, Any], request: dict[str, Any], raw: bytes) -> dict[str, Any]:
    mark = hashlib.sha256(raw).hexdigest()
    message, finish = _message(turn, request, mark)
    body: dict[str, Any] = {
        "id": f"chatcmpl-sim-{mark[:24]}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": f"{request['model']} (simulated)",
        "choices": [{"index": 0, "message": message, "finish_reason": turn.get("finish_reason", finish)}],
        "usage": turn["usage"] if "usage" in turn else _usage(raw, message),
    }
    if turn.get("no_choices"):
        body["choices"] = []
    if body["usage"] is None:
        del body["usage"]
    return body


def _message(turn: dict[str, Any], request: dict[str, Any], mark: str) -> tuple[dict[str, Any], str]:
    text = None if turn.get("empty") else turn.get("text")
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": turn.get("refusal")}
    if turn.get("calls"):
        message["tool_calls"] = [_tool_call(call, f"{mark[:16]}{n}") for n, call in enumerate(turn["calls"])]
        return message, "tool_calls"
    most = request.get("max_completion_tokens") or request.get("max_tokens")
    if isinstance(text, str) and type(most) is int and most > 0 and _tokens(text) > most:
        return message | {"content": text[: most * 4]}, "length"
    return message, "stop"


def _tool_call(call: dict[str, Any], mark: str) -> dict[str, Any]:
    arguments = call.get("arguments_raw")
    if arguments is None:
        arguments = json.dumps(call.get("arguments", {}))
    tool_call = {"type": "function", "function": {"name": call["name"], "arguments": arguments}}
    call_id = call.get("id", f"call_{mark}")
    return tool_call if call_id is None else {"id": call_id, **tool_call}


def _usage(raw: bytes, message: dict[str, Any]) -> dict[str, int]:
    calls = "".join(c["function"]["name"] + str(c["function"]["arguments"]) for c in message.get("tool_calls", ()))
    prompt, completion = _tokens(raw.decode(errors="replace")), _tokens(str(message["content"] or "") + calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _tokens(text: str) -> int:
    return -(-len(text) // 4)
