"""Chat completions: what is sent."""

from typing import Any, Final

from .openai_reply import parse
from .reply import names_on_wire, wire_name
from .transcript import Transcript
from .types import ModelEndpoint, ModelRequest
from .wire import Wire, encoded


def body_of(endpoint: ModelEndpoint, request: ModelRequest) -> bytes:
    """The JSON that is sent. Raises ValueError, TypeError or RecursionError for what JSON cannot say."""
    rest: dict[str, Any] = {"max_tokens": request.max_tokens}
    if request.tools:
        if len(names_on_wire(request)) < len(request.tools):
            raise ValueError("two offered tools have the same name on the wire")
        rest["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": wire_name(offer.name),
                    "description": offer.description,
                    "parameters": dict(offer.input_schema),
                },
            }
            for offer in request.tools
        ]
    if request.temperature is not None:
        rest["temperature"] = request.temperature
    model, said = encoded({"model": endpoint.model}), request.messages
    texts = said.encoded(_piece) if isinstance(said, Transcript) else b",".join(map(_piece, said))
    return model[:-1] + b',"messages":[' + texts + b"]," + encoded(rest)[1:]


def _piece(message: dict[str, Any]) -> bytes:
    return encoded(_message(message))


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Content is never null, and names are such as the wire takes: providers refuse the whole conversation otherwise."""
    if message.get("role") != "assistant":
        return message
    mended = message | {"content": message.get("content") or ""}
    calls = mended.pop("tool_calls", None)
    if calls:
        mended["tool_calls"] = [call | {"function": _named(call["function"])} for call in calls]
    return mended


def _named(function: dict[str, Any]) -> dict[str, Any]:
    return function | {"name": wire_name(function["name"])}


WIRE: Final = Wire("/chat/completions", ("Authorization", "Bearer "), {}, body_of, parse)
