"""A transcript says the same as the plain list of its messages, however it grew."""

import json
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.inference import openai, tokens
from runs.inference.transcript import Transcript, ids_of, size_of
from runs.inference.types import ModelEndpoint, ModelRequest, Price, ToolOffer
from tools.definitions import RetryPolicy

OFFER = ToolOffer("lookup", "Look an item up", {"type": "object"})
ENDPOINT = ModelEndpoint("primary", "openai", "http://127.0.0.1:1/v1", "sim-small", None, Price(Decimal(1), Decimal(2)), 5, RetryPolicy())
CALL = {"id": "call_1", "type": "function", "function": {"name": "look up", "arguments": "{}"}}
TEXTS = st.text(max_size=20) | st.sampled_from(["\ud800", "ünï", "", "\x00", '"\\'])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXTS | st.floats()})
    | st.just({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    max_size=8,
)


def request(messages: list[dict[str, Any]]) -> ModelRequest:
    return ModelRequest(messages, (OFFER,), 100)


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.lists(st.integers(0, 8), max_size=4))
def test_what_is_sent_and_counted_is_that_of_the_whole_list(messages: list[dict[str, Any]], looked_at: list[int]) -> None:
    grown = Transcript()
    for number, message in enumerate(messages):
        if number in looked_at:  # between two messages, as a run does
            openai.body_of(ENDPOINT, request(grown))
            tokens.estimate(request(grown))
            grown.call_ids()
        grown.append(message)
    body = openai.body_of(ENDPOINT, request(grown))
    assert body == openai.body_of(ENDPOINT, request(messages))
    assert len(json.loads(body)["messages"]) == len(messages)
    assert tokens.estimate(request(grown)) == tokens.estimate(request(messages)) >= 1
    assert (grown.size(), grown.call_ids()) == (size_of(messages), ids_of(messages))


def test_a_message_is_encoded_once_for_a_wire_and_anew_for_another() -> None:
    grown, seen = Transcript([{"role": "user", "content": "a"}]), []

    def one(message: dict[str, Any]) -> bytes:
        seen.append(message["content"])
        return b"1"

    def other(message: dict[str, Any]) -> bytes:
        return b"2"

    assert grown.encoded(one) == b"1"
    grown.append({"role": "user", "content": "b"})
    assert (grown.encoded(one), seen) == (b"1,1", ["a", "b"])
    assert (grown.encoded(other), grown.encoded(one)) == (b"2,2", b"1,1")
