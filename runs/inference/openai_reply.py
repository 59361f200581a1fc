"""Reading a chat completion. A reply is data from outside, and none makes this raise.

What cannot be used becomes a ModelFailure with a class; what can be repaired without guessing (call ids, arguments sent
as an object, a missing count) is repaired.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tools.canonical import clean, loads_limited
from tools.definitions import ErrorClass

from . import tokens
from .types import Finish, ModelFailure, ModelReply, ModelRequest, ToolAsk

MAX_CALLS: Final = 64
MAX_TEXT: Final = 256 * 1024  # bytes of UTF-8, for the text and for the arguments of one call
MAX_NAME: Final = 128
CUT: Final = "\n[cut: the answer was longer than 256 KiB]"

_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")  # in a function's name on this wire
_FINISH: Final[dict[str, Finish]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
}
_BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource"})


class _Unusable(Exception):
    """Inside this file only: the reply cannot be used."""

    def __init__(self, message: str, error_class: ErrorClass = ErrorClass.INVALID_OUTPUT) -> None:
        super().__init__(message)
        self.error_class = error_class


def wire_name(name: str) -> str:
    """A tool's name as the wire takes it: providers refuse dots, and the whole conversation with them."""
    return _FORBIDDEN.sub("_", name)[:64] or "_"


def names_on_wire(request: ModelRequest) -> dict[str, str]:
    """Name on the wire -> our name; shorter than the offers when two of them would be one there."""
    return {wire_name(offer.name): offer.name for offer in request.tools}


def parse(raw: bytes, request: ModelRequest, *, sent_bytes: int, latency_ms: int, status: int = 200) -> ModelReply | ModelFailure:
    """Read the body of a 2xx answer. `sent_bytes`: size of the request's body, a bound for the tokens it can hold."""
    reply: dict[str, Any] = {}
    try:
        reply = _object(_decoded(raw))
        said = _read(reply, request)
    except _Unusable as fault:
        counted = tokens.usage(reply.get("usage"), request, sent_bytes=sent_bytes, produced=request.max_tokens)
        spent = counted.tokens_in, counted.tokens_out
        return ModelFailure(fault.error_class, str(fault), status, None, latency_ms, *spent)
    produced = tokens.of_text(said.text, *(part for call in said.calls for part in (call.name, call.arguments)))
    counted = tokens.usage(reply.get("usage"), request, sent_bytes=sent_bytes, produced=produced)
    text, cut = _fitting(said.text)
    finish: Finish = "length" if cut else said.finish
    return ModelReply(text, said.calls, finish, *counted, said.model, latency_ms, said.sanitized)


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    calls: tuple[ToolAsk, ...]
    finish: Finish
    model: str
    sanitized: int


def _decoded(raw: bytes) -> Any:
    try:
        return loads_limited(raw)
    except ValueError:
        raise _Unusable("the reply is not JSON") from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read(reply: dict[str, Any], request: ModelRequest) -> _Said:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _Unusable("the reply has no choices")
    choice = _object(choices[0])
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _Unusable("the reply has no message")
    reason = choice.get("finish_reason")
    if isinstance(reason, str) and reason in _BROKEN_OFF:
        raise _Unusable(f"the provider broke the answer off ({reason})", ErrorClass.TRANSIENT_UPSTREAM)
    (text, refusal, model, asked), sanitized = clean([*_texts(message), reply.get("model"), _asked(message)])
    calls = _asks(asked, request)
    finish = _finish(reason, refused=bool(refusal), calls=bool(calls))
    if finish in ("refusal", "content_filter"):
        calls = ()  # nothing that was refused or filtered is acted upon
    model = model[:200] if isinstance(model, str) else ""
    return _Said(text or refusal, calls, finish, model, sanitized)


def _finish(reason: Any, *, refused: bool, calls: bool) -> Finish:
    if refused:
        return "refusal"
    known = _FINISH.get(reason) if isinstance(reason, str) else None
    return known or ("tool_calls" if calls else "stop")


def _texts(message: dict[str, Any]) -> tuple[str, str]:
    """-> (text, refusal), both perhaps empty. Content may be text, null or a list of parts."""
    refusal = message.get("refusal")
    refusals = [refusal] if isinstance(refusal, str) else []
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or "", "".join(refusals)
    if not isinstance(content, list):
        raise _Unusable("the content is neither text nor a list of parts")
    texts: list[str] = []
    for part in content:
        kind, text = _part(part)
        (refusals if kind == "refusal" else texts).append(text)
    return "".join(texts), "".join(refusals)


def _part(part: Any) -> tuple[str, str]:
    if isinstance(part, str):
        return "text", part
    part = _object(part)
    kind = part.get("type", "text")
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return "refusal", part["refusal"]
    if kind in ("text", "output_text") and isinstance(part.get("text"), str):
        return "text", part["text"]
    if kind in ("thinking", "reasoning"):
        return "text", ""
    raise _Unusable("a part of the content is not text")


def _asked(message: dict[str, Any]) -> list[list[Any]]:
    """-> [[id, name, arguments]] as they came, the names being strings."""
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise _Unusable("tool_calls is not a list")
    if len(calls) > MAX_CALLS:
        raise _Unusable(f"the model asked for {len(calls)} calls at once, more than {MAX_CALLS}")
    return [_asked_one(_object(call)) for call in calls]


def _asked_one(call: dict[str, Any]) -> list[Any]:
    function = _object(call.get("function"))
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _Unusable("a call has no name")
    return [call.get("id"), name, function.get("arguments")]


def _asks(asked: list[list[Any]], request: ModelRequest) -> tuple[ToolAsk, ...]:
    if not asked:
        return ()
    ours = names_on_wire(request)
    ids = _Ids(request.messages)
    return tuple(ToolAsk(ids.take(given), ours.get(name, name)[:MAX_NAME], _arguments(arguments)) for given, name, arguments in asked)


def _arguments(value: Any) -> str:
    """Raw text. Nothing at all is what some servers send for a function without parameters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if value is None or not text.strip():
        return "{}"
    if len(text) > MAX_TEXT or _fitting(text)[1]:
        raise _Unusable("the arguments of a call are longer than 256 KiB")
    return text


class _Ids:
    """Call ids, unique in the conversation. One that is missing, repeated or too long becomes call_<n>, the n-th call of it."""

    def __init__(self, messages: Iterable[Mapping[str, Any]]) -> None:
        self._used = {call.get("id") for message in messages for call in message.get("tool_calls") or ()}
        self._count = len(self._used)

    def take(self, given: Any) -> str:
        self._count += 1
        usable = isinstance(given, str) and 0 < len(given) <= MAX_NAME and given not in self._used
        taken: str = given if usable else self._free()
        self._used.add(taken)
        return taken

    def _free(self) -> str:
        number = self._count
        while (made := f"call_{number}") in self._used:
            number += 1
        return made


def _fitting(text: str) -> tuple[str, bool]:
    """-> (text of at most 256 KiB and a mark, was it cut)."""
    if len(text) * 4 <= MAX_TEXT:
        return text, False
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT:
        return text, False
    return encoded[:MAX_TEXT].decode(errors="ignore") + CUT, True
