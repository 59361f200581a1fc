"""Reading what a model answered on the messages wire, down to anything at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.inference import tokens
from runs.inference.anthropic_reply import parse
from runs.inference.reply import CUT, MAX_TEXT
from runs.inference.types import ModelFailure, ModelRequest, ToolAsk, ToolOffer
from tools.definitions import ErrorClass

from .test_openai_reply import ANYTHING, SCALARS, WORDS, is_sound, perhaps, some_of

SEARCH = ToolOffer("search_docs", "Finds documents.", {"type": "object", "properties": {"q": {"type": "string"}}})
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the refund policy?"}]
REQUEST = ModelRequest(QUESTION, (SEARCH,), max_tokens=200)
USAGE = {"input_tokens": 31, "output_tokens": 7}
BOUND = (tokens.estimate(REQUEST), REQUEST.max_tokens)


def message(*blocks, reason="end_turn", usage=USAGE, **more):
    fixed = {"id": "m", "type": "message", "role": "assistant", "model": "sim-small-1"}
    return fixed | {"content": list(blocks), "stop_reason": reason, "usage": usage} | more


def text(words="Thirty days."):
    return {"type": "text", "text": words}


def use(id="c1", name="search_docs", input=None, **more):
    return {"type": "tool_use", "id": id, "name": name, "input": {"q": "refund"} if input is None else input} | more


def read(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse(raw, REQUEST, sent_bytes=500, latency_ms=3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Bad gateway</body></html>",
        b"\xff\xfe",
        b'{"content": [',
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"content": null}',
        b'{"content": 7}',
        b'{"content": {"type": "text", "text": "a"}}',
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
        b'{"choices": [{"message": {"content": "the other wire"}}]}',
        *(
            json.dumps(message(block)).encode()
            for block in (
                {"type": "text"},
                {"type": "text", "text": 7},
                {"type": "text", "text": ["a"]},
                *(use(name=name) for name in ("", 7, ["search_docs"], {"a": 1}, True)),
                {"type": "tool_use", "id": "c1"},
                use(input={"q": "x" * MAX_TEXT}),
                use(input="x" * (MAX_TEXT + 1)),
            )
        ),
    ],
)
def test_a_reply_that_cannot_be_used_is_invalid_output_and_paid_for(body):
    failure = read(body)
    assert isinstance(failure, ModelFailure)
    assert (failure.error_class, failure.status) == (ErrorClass.INVALID_OUTPUT, 200)
    assert (failure.tokens_in, failure.tokens_out) == ((31, 7) if b"input_tokens" in body else BOUND)


def test_a_flood_of_calls_is_invalid_output():
    assert len(read(message(*(use(f"c{n}") for n in range(64)))).calls) == 64
    failure = read(message(*(use(f"c{n}") for n in range(65))))
    assert (failure.error_class, failure.tokens_in, failure.tokens_out) == (ErrorClass.INVALID_OUTPUT, 31, 7)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([], ""),
        ([text("")], ""),
        ([text("a"), text("b")], "ab"),
        ([text("a\x00b\ud800")], "a\ufffdb\ufffd"),
        ([{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "redacted_thinking", "data": "y"}, text("a")], "a"),
        ([{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, {"type": "tomorrow"}, text("a")], "a"),
        ([None, 7, "loose", [], {}, {"type": ["text"]}, {"type": None, "text": "no"}, text("a")], "a"),
    ],
)
def test_text_is_read_and_blocks_that_we_do_not_know_are_passed_over(blocks, words):
    reply = read(message(*blocks))
    assert (reply.text, reply.calls, reply.finish) == (words, (), "stop")


def test_a_content_that_is_a_text_is_read_as_one():
    assert read(message(content="Thirty days.")).text == "Thirty days."


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"q": "ü", "n": [1, 2.5, None]}, '{"q":"ü","n":[1,2.5,null]}'),
        ({}, "{}"),
        ('{"q": 1}', '{"q": 1}'),
        ("not json", "not json"),
        ("", "{}"),
        ([1], "[1]"),
        (7, "7"),
        ({"q": "a\x00"}, '{"q":"a\ufffd"}'),
        ({"q": 2**70}, '{"q":"1180591620717411303424"}'),
        ({"q": float("nan")}, '{"q":"NaN"}'),
    ],
)
def test_the_input_of_a_call_becomes_text(given, arguments):
    assert read(message(use(input=given))).calls == (ToolAsk("c1", "search_docs", arguments),)


def test_a_call_without_input_or_id_is_mended_and_a_name_that_nobody_offered_is_kept():
    asked = {"type": "tool_use", "name": "drop_tables"}
    assert read(message(asked)).calls == (ToolAsk("call_1", "drop_tables", "{}"),)


@pytest.mark.parametrize(
    ("sent", "ids"),
    [
        (["a", "a", "a"], ["a", "call_2", "call_3"]),
        ([None, "", 7, {}], ["call_1", "call_2", "call_3", "call_4"]),
        (["x" * 129], ["call_1"]),
    ],
)
def test_call_ids_are_unique(sent, ids):
    assert [asked.id for asked in read(message(*(use(given) for given in sent))).calls] == ids


@pytest.mark.parametrize(
    ("reason", "calls", "finish", "kept"),
    [
        ("end_turn", 0, "stop", 0),
        ("end_turn", 1, "tool_calls", 1),
        ("stop_sequence", 0, "stop", 0),
        ("tool_use", 2, "tool_calls", 2),
        ("tool_use", 0, "stop", 0),
        (None, 1, "tool_calls", 1),
        ("tomorrow", 0, "stop", 0),
        (7, 0, "stop", 0),
        ([], 0, "stop", 0),
        ("max_tokens", 0, "length", 0),
        ("model_context_window_exceeded", 0, "length", 0),
        ("pause_turn", 0, "length", 0),
        ("refusal", 1, "refusal", 0),
    ],
)
def test_why_the_model_stopped_is_told(reason, calls, finish, kept):
    reply = read(message(text(), *[use()] * calls, reason=reason))
    assert (reply.finish, len(reply.calls)) == (finish, kept)


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_call_that_was_being_said_when_the_answer_was_cut_off_is_not_made(reason):
    reply = read(message(use("a"), use("b", input={"amount": 1}), reason=reason))
    assert ([asked.id for asked in reply.calls], reply.finish) == (["a"], "length")
    whole = read(message(use("a"), text("and"), reason=reason))
    assert [asked.id for asked in whole.calls] == ["a"]


@pytest.mark.parametrize(
    ("usage", "tokens_in", "estimated"),
    [
        ({"input_tokens": 31, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 7}, 351, False),
        ({"input_tokens": 31, "cache_creation_input_tokens": None, "output_tokens": 7}, 31, False),
        ({"input_tokens": 0, "cache_read_input_tokens": 300, "output_tokens": 7}, 300, False),
        ({"input_tokens": 31, "cache_read_input_tokens": -300, "output_tokens": 7}, BOUND[0], True),
        ({"input_tokens": 31, "cache_read_input_tokens": "300", "output_tokens": 7}, BOUND[0], True),
        ({"input_tokens": 31, "cache_read_input_tokens": 10**9, "output_tokens": 7}, BOUND[0], True),
        ({"input_tokens": -1, "cache_read_input_tokens": 40, "output_tokens": 7}, BOUND[0], True),
        ({"output_tokens": 7}, BOUND[0], True),
    ],
)
def test_all_that_was_read_is_input_and_counts_that_cannot_be_true_are_ours(usage, tokens_in, estimated):
    reply = read(message(text(), usage=usage))
    assert (reply.tokens_in, reply.tokens_out, reply.estimated) == (tokens_in, 7, estimated)


@pytest.mark.parametrize("usage", [None, [], "many", {}, {"input_tokens": -3, "output_tokens": 10**30}])
def test_usage_that_is_none_is_counted_by_us(usage):
    reply = read(message(text("x" * 30), usage=usage))
    assert (reply.tokens_in, reply.tokens_out, reply.estimated) == (BOUND[0], 10, True)


def test_a_long_text_is_cut_with_a_mark():
    cut = read(message(text("ü" * (MAX_TEXT // 2)), text(".")))
    assert (cut.finish, len(cut.text.encode())) == ("length", MAX_TEXT + len(CUT))


# Anything at all

STOPS = st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal", "pause_turn"])
KINDS = st.sampled_from(["text", "tool_use", "thinking"])
BLOCKS = st.lists(perhaps(some_of(type=KINDS, text=st.text(), id=WORDS, name=WORDS, input=ANYTHING)), max_size=70)
COUNTS = some_of(
    input_tokens=st.integers(), output_tokens=st.integers(), cache_read_input_tokens=SCALARS, cache_creation_input_tokens=SCALARS
)
REPLIES = some_of(model=st.text(), content=BLOCKS, stop_reason=STOPS, usage=COUNTS)


@given(perhaps(REPLIES))
def test_no_json_reply_raises(value):
    is_sound(read(value))


@given(st.binary())
def test_no_bytes_raise(raw):
    is_sound(read(raw))


@given(perhaps(REPLIES), st.integers(min_value=0), st.integers(min_value=1, max_value=0x10FF))
def test_no_damaged_reply_raises(value, place, letter):
    raw = json.dumps(value)
    at = place % (len(raw) + 1)
    is_sound(read((raw[:at] + chr(letter) + raw[at + 1 :]).encode()))
