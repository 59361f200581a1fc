"""Reading a message of Anthropic's wire."""

from typing import Any, Final

from .reply import Asked, Heard, Unusable, name_of, object_of, read
from .tokens import Reported, total
from .types import Finish, ModelFailure, ModelReply, ModelRequest

_CUT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_FINISH: Final[dict[str, Finish]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the provider wants to be asked to go on, which is no whole answer
    "refusal": "refusal",
}


def parse(raw: bytes, request: ModelRequest, *, sent_bytes: int, latency_ms: int, status: int = 200) -> ModelReply | ModelFailure:
    """Read the body of a 2xx answer. `sent_bytes`: size of the request's body, a bound for the tokens it can hold."""
    return read(raw, request, _hear, _usage, sent_bytes=sent_bytes, latency_ms=latency_ms, status=status)


def _usage(reply: dict[str, Any]) -> Reported:
    """What went into a cache or came out of one was read by the model too: all of it is input."""
    usage = object_of(reply.get("usage"))
    read_from = (usage.get(name) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))
    return total(*read_from), usage.get("output_tokens")


def _hear(reply: dict[str, Any]) -> Heard:
    content = reply.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Unusable("the reply has no content")
    reason = reply.get("stop_reason")
    if not isinstance(reason, str):
        reason = ""
    blocks = [object_of(block) for block in content]
    if reason in _CUT and blocks and blocks[-1].get("type") == "tool_use":
        blocks.pop()  # its input is an object all the same, and may lack what the model had not yet said
    text = "".join(_text(block) for block in blocks if block.get("type") == "text")
    asked = [_asked(block) for block in blocks if block.get("type") == "tool_use"]
    return Heard(text, "", asked, _FINISH.get(reason), reply.get("model"))


def _text(block: dict[str, Any]) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise Unusable("a text of the content is not text")
    return text


def _asked(block: dict[str, Any]) -> Asked:
    return block.get("id"), name_of(block.get("name")), block.get("input")
