"""Reading a reply, whatever the wire. A reply is data from outside, and none makes this raise.

What cannot be used becomes a ModelFailure with a class; what can be repaired without guessing (call ids, arguments sent
as an object, a missing count) is repaired.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.canonical import clean, loads_limited
from tools.definitions import ErrorClass

from . import tokens
from .transcript import Transcript, ids_of
from .types import Finish, ModelFailure, ModelReply, ModelRequest, ToolAsk

MAX_CALLS: Final = 64
MAX_TEXT: Final = 256 * 1024  # bytes of UTF-8, for the text and for the arguments of one call
MAX_NAME: Final = 128
CUT: Final = "\n[cut: the answer was longer than 256 KiB]"

_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")  # in a function's name on either wire

Asked = tuple[Any, str, Any]  # a call as it came: id, name, arguments


class Unusable(Exception):
    """While a reply is read: it cannot be used. `read` makes a failure of it."""

    def __init__(self, message: str, error_class: ErrorClass = ErrorClass.INVALID_OUTPUT) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True, slots=True)
class Heard:
    """What a wire found in a reply, as it came. `finish` None: the provider named no reason that we know."""

    text: str
    refusal: str
    asked: Sequence[Asked]
    finish: Finish | None
    model: Any


def wire_name(name: str) -> str:
    """A tool's name as the wires take it: providers refuse dots, and the whole conversation with them."""
    return _FORBIDDEN.sub("_", name)[:64] or "_"


def names_on_wire(request: ModelRequest) -> dict[str, str]:
    """Name on the wire -> our name; shorter than the offers when two of them would be one there."""
    return {wire_name(offer.name): offer.name for offer in request.tools}


def read(
    raw: bytes,
    request: ModelRequest,
    hear: Callable[[dict[str, Any]], Heard],
    usage_of: Callable[[dict[str, Any]], tokens.Reported],
    *,
    sent_bytes: int,
    latency_ms: int,
    status: int,
) -> ModelReply | ModelFailure:
    """Read the body of a 2xx answer. `hear` and `usage_of` know the wire; `hear` may raise Unusable.

    `sent_bytes`: size of the request's body, a bound for the tokens it can hold.
    """
    reply: dict[str, Any] = {}
    try:
        reply = object_of(_decoded(raw))
        said = _said(hear(reply), request)
    except Unusable as fault:
        counted = tokens.usage(usage_of(reply), request, sent_bytes=sent_bytes, produced=request.max_tokens)
        spent = counted.tokens_in, counted.tokens_out
        return ModelFailure(fault.error_class, str(fault), status, None, latency_ms, *spent)
    produced = tokens.of_text(said.text, *(part for call in said.calls for part in (call.name, call.arguments)))
    counted = tokens.usage(usage_of(reply), request, sent_bytes=sent_bytes, produced=produced)
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
        raise Unusable("the reply is not JSON") from None


def object_of(value: Any) -> dict[str, Any]:
    """The value, or an empty object where something else stands."""
    return value if isinstance(value, dict) else {}


def name_of(value: Any) -> str:
    """The name of a call. Raises Unusable: a call without one cannot be answered."""
    if not isinstance(value, str) or not value:
        raise Unusable("a call has no name")
    return value


def _said(heard: Heard, request: ModelRequest) -> _Said:
    if len(heard.asked) > MAX_CALLS:
        raise Unusable(f"the model asked for {len(heard.asked)} calls at once, more than {MAX_CALLS}")
    (text, refusal, model, asked), sanitized = clean([heard.text, heard.refusal, heard.model, list(heard.asked)])
    calls = _asks(asked, request)
    finish = "refusal" if refusal else heard.finish or ("tool_calls" if calls else "stop")
    if finish in ("refusal", "content_filter"):
        calls = ()  # nothing that was refused or filtered is acted upon
    model = model[:200] if isinstance(model, str) else ""
    return _Said(text or refusal, calls, finish, model, sanitized)


def _asks(asked: Iterable[Asked], request: ModelRequest) -> tuple[ToolAsk, ...]:
    ours = names_on_wire(request)
    ids = _Ids(request.messages)
    return tuple(ToolAsk(ids.take(given), ours.get(name, name)[:MAX_NAME], _arguments(arguments)) for given, name, arguments in asked)


def _arguments(value: Any) -> str:
    """Raw text. Nothing at all is what some servers send for a function without parameters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if value is None or not text.strip():
        return "{}"
    if len(text) > MAX_TEXT or _fitting(text)[1]:
        raise Unusable("the arguments of a call are longer than 256 KiB")
    return text


class _Ids:
    """Call ids, unique in the conversation. One that is missing, repeated or too long becomes call_<n>, the n-th call of it."""

    def __init__(self, messages: Iterable[Mapping[str, Any]]) -> None:
        self._used = set(messages.call_ids()) if isinstance(messages, Transcript) else ids_of(messages)
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
