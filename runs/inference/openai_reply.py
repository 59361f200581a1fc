"""Reading a chat completion."""

from typing import Any, Final

from tools.definitions import ErrorClass

from .reply import Asked, Heard, Unusable, name_of, object_of, read
from .tokens import Reported
from .types import Finish, ModelFailure, ModelReply, ModelRequest

_FINISH: Final[dict[str, Finish]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
}
_BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource"})


def parse(raw: bytes, request: ModelRequest, *, sent_bytes: int, latency_ms: int, status: int = 200) -> ModelReply | ModelFailure:
    """Read the body of a 2xx answer. `sent_bytes`: size of the request's body, a bound for the tokens it can hold."""
    return read(raw, request, _hear, _usage, sent_bytes=sent_bytes, latency_ms=latency_ms, status=status)


def _usage(reply: dict[str, Any]) -> Reported:
    usage = object_of(reply.get("usage"))
    return usage.get("prompt_tokens"), usage.get("completion_tokens")


def _hear(reply: dict[str, Any]) -> Heard:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Unusable("the reply has no choices")
    choice = object_of(choices[0])
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unusable("the reply has no message")
    reason = choice.get("finish_reason")
    if not isinstance(reason, str):
        reason = ""
    if reason in _BROKEN_OFF:
        raise Unusable(f"the provider broke the answer off ({reason})", ErrorClass.TRANSIENT_UPSTREAM)
    text, refusal = _texts(message)
    return Heard(text, refusal, _asked(message), _FINISH.get(reason), reply.get("model"))


def _texts(message: dict[str, Any]) -> tuple[str, str]:
    """-> (text, refusal), both perhaps empty. Content may be text, null or a list of parts."""
    refusal = message.get("refusal")
    refusals = [refusal] if isinstance(refusal, str) else []
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or "", "".join(refusals)
    if not isinstance(content, list):
        raise Unusable("the content is neither text nor a list of parts")
    texts: list[str] = []
    for part in content:
        kind, text = _part(part)
        (refusals if kind == "refusal" else texts).append(text)
    return "".join(texts), "".join(refusals)


def _part(part: Any) -> tuple[str, str]:
    if isinstance(part, str):
        return "text", part
    part = object_of(part)
    kind = part.get("type", "text")
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return "refusal", part["refusal"]
    if kind in ("text", "output_text") and isinstance(part.get("text"), str):
        return "text", part["text"]
    if kind in ("thinking", "reasoning"):
        return "text", ""
    raise Unusable("a part of the content is not text")


def _asked(message: dict[str, Any]) -> list[Asked]:
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise Unusable("tool_calls is not a list")
    return [_asked_one(object_of(call)) for call in calls]


def _asked_one(call: dict[str, Any]) -> Asked:
    function = object_of(call.get("function"))
    return call.get("id"), name_of(function.get("name")), function.get("arguments")
