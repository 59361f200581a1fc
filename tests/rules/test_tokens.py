"""Our own count of tokens, and when it takes the place of the provider's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.inference import tokens
from runs.inference.types import ModelRequest, ToolOffer

HELLO = ModelRequest([{"role": "user", "content": "hello " * 100}], (), max_tokens=50)


def judge(reported, produced=10):
    return tokens.usage(reported, HELLO, sent_bytes=700, produced=produced)


@pytest.mark.parametrize(
    ("text", "least"),
    [("", 0), ("a", 1), ("The quick brown fox jumps over the lazy dog", 9), ('{"a":1,"b":[2,3]}', 5), ("退款政策是什么", 7)],
)
def test_a_text_is_counted_rather_too_high(text, least):
    assert tokens.of_text(text) >= least


def test_messages_calls_and_tools_all_count():
    call = {"id": "c", "type": "function", "function": {"name": "search", "arguments": '{"q": "refunds"}'}}
    with_call = ModelRequest([*HELLO.messages, {"role": "assistant", "content": "", "tool_calls": [call]}], (), 50)
    with_tool = ModelRequest(with_call.messages, (ToolOffer("search", "Finds.", {"type": "object"}),), 50)
    counts = [tokens.estimate(request) for request in (ModelRequest([], (), 50), HELLO, with_call, with_tool)]
    assert counts == sorted(set(counts)) and counts[0] >= 1


@pytest.mark.parametrize("content", [None, "", "\ud800\x00", [{"type": "text", "text": "x"}], 7, {"a": object()}])
def test_odd_content_is_counted_too(content):
    assert tokens.estimate(ModelRequest([{"role": "user", "content": content}], (), 1)) >= 1


def test_a_believable_count_is_taken_as_it_is():
    assert judge((123, 45)) == (123, 45, False)
    assert judge((123.0, 45.0)) == (123, 45, False)


@pytest.mark.parametrize("usage", [(None, None), ([], {}), ("12", "7"), (None, "7")])
def test_an_absent_count_is_replaced_by_ours(usage):
    assert judge(usage) == (tokens.estimate(HELLO), 10, True)


@pytest.mark.parametrize("wrong", [-1, 0, 10**9, 10**400, True, 1.5, math.nan, math.inf, "12", None, [1], {}])
def test_each_side_that_cannot_be_true_is_replaced_by_ours(wrong):
    assert judge((wrong, 45)) == (tokens.estimate(HELLO), 45, True)
    assert judge((123, wrong)) == (123, 10, True)


def test_nothing_produced_may_be_counted_as_nothing():
    assert judge((123, 0), produced=0) == (123, 0, False)


@pytest.mark.parametrize(
    ("parts", "sum_"),
    [
        ((), 0),
        ((7, None, None), 7),
        ((7, 20, 300), 327),
        ((7.0, 1), 8),
        ((7, -1), None),
        ((7, True), None),
        ((7, "1"), None),
        ((7, 10**400), None),
        ((math.nan,), None),
    ],
)
def test_counts_that_come_apart_are_added_unless_one_is_none(parts, sum_):
    assert tokens.total(*parts) == sum_


@given(st.text())
def test_an_estimate_is_at_least_a_third_of_the_bytes(text):
    assert tokens.of_text(text) * 3 >= len(text.encode("utf-8", "surrogatepass"))
