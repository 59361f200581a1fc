"""Counting tokens without the model's own tokenizer: for reservations, and where a provider's count cannot be believed."""

from typing import Any, NamedTuple

from .transcript import Transcript, size_of
from .types import ModelRequest

# Byte-pair tokenizers make a token of about 4 bytes of English, 3 of JSON, code and digits, 3 of Chinese (one character).
BYTES_PER_TOKEN = 3
PER_TOOL = 24  # what a provider wraps around each function

# A token is at least a byte, but providers add prompts of their own. Beyond these a count is a fault, not usage.
SLACK = 100_000
TIMES = 4
MOST = 1 << 62  # of one part, before the sum is judged


Reported = tuple[Any, Any]  # what a reply says it used, in and out: anything at all


class Usage(NamedTuple):
    tokens_in: int
    tokens_out: int
    estimated: bool


def of_text(*texts: str) -> int:
    """Tokens in these texts, rather too many than too few; 0 for empty ones."""
    size = sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return -(-size // BYTES_PER_TOKEN)


def estimate(request: ModelRequest) -> int:
    """Input tokens of a request, rather too many than too few. At least 1. It is called often: a transcript knows its size."""
    said = request.messages
    offers = [{"name": offer.name, "description": offer.description, "schema": dict(offer.input_schema)} for offer in request.tools]
    size = (said.size() if isinstance(said, Transcript) else size_of(said)) + size_of(offers)
    return max(1, -(-size // BYTES_PER_TOKEN)) + PER_TOOL * len(offers)  # a message's keys stand for what the wire wraps around it


def usage(reported: Reported, request: ModelRequest, *, sent_bytes: int, produced: int) -> Usage:
    """The provider's count where it can be true, else ours: each side by itself, `estimated` when either is ours.

    `sent_bytes`: the request's body. `produced`: our count of what came.
    """
    tokens_in = _believable(reported[0], least=1, most=TIMES * sent_bytes + SLACK)
    most_out = TIMES * max(request.max_tokens, produced) + SLACK
    tokens_out = _believable(reported[1], least=min(produced, 1), most=most_out)
    return Usage(
        estimate(request) if tokens_in is None else tokens_in,
        produced if tokens_out is None else tokens_out,
        tokens_in is None or tokens_out is None,
    )


def total(*counts: Any) -> int | None:
    """The sum of what a provider counts apart, an absent part being none of it; None when one of them is no count."""
    given = [0 if count is None else _believable(count, least=0, most=MOST) for count in counts]
    return None if None in given else sum(count or 0 for count in given)


def _believable(value: Any, *, least: int, most: int) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and least <= value <= most else None
