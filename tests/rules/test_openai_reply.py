"""Reading what a model answered, down to anything at all."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.inference import tokens
from runs.inference.openai_reply import parse
from runs.inference.reply import MAX_TEXT
from runs.inference.types import ModelFailure, ModelReply, ModelRequest, ToolAsk, ToolOffer
from tools.definitions import ErrorClass

SEARCH = ToolOffer("search_docs", "Finds documents.", {"type": "object", "properties": {"q": {"type": "string"}}})
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the refund policy?"}]
REQUEST = ModelRequest(QUESTION, (SEARCH,), max_tokens=200)
USAGE = {"prompt_tokens": 31, "completion_tokens": 7}
BOUND = (tokens.estimate(REQUEST), REQUEST.max_tokens)


def chat(content="Thirty days.", finish="stop", usage=USAGE, **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "sim-small-1", "choices": [choice], "usage": usage}


def call(name="search_docs", arguments='{"q":"refund"}', **more):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}} | more


def read(value, request=REQUEST):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse(raw, request, sent_bytes=500, latency_ms=3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Bad gateway</body></html>",
        b"\xff\xfe",
        b'{"choices": [',
        b"[" * 100_000,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"1" * 5000,
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": "stop"}',
        b'{"choices": [null]}',
        b'{"choices": [[]]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": "hi"}]}',
        b'{"choices": [{"message": []}]}',
        b'{"error": {"message": "overloaded"}}',
        *(
            json.dumps(chat(**message)).encode()
            for message in (
                {"content": 7},
                {"content": True},
                {"content": {"text": "hi"}},
                {"content": [7]},
                {"content": [{"type": "text", "text": 7}]},
                {"content": [{"type": "image_url", "image_url": {}}]},
                {"tool_calls": {}},
                {"tool_calls": "none"},
                {"tool_calls": [None]},
                {"tool_calls": [7]},
                {"tool_calls": [{}]},
                {"tool_calls": [{"function": None}]},
                {"tool_calls": [{"function": []}]},
                *({"tool_calls": [call(name)]} for name in (None, "", 7, ["search_docs"], {"a": 1}, True)),
                {"tool_calls": [call(arguments="x" * (MAX_TEXT + 1))]},
            )
        ),
    ],
)
def test_a_reply_that_cannot_be_used_is_invalid_output_and_paid_for(body):
    failure = read(body)
    assert isinstance(failure, ModelFailure)
    assert (failure.error_class, failure.status) == (ErrorClass.INVALID_OUTPUT, 200)
    counted = (31, 7) if b"prompt_tokens" in body else BOUND
    assert (failure.tokens_in, failure.tokens_out) == counted


def test_a_flood_of_calls_is_invalid_output():
    assert len(read(chat(tool_calls=[call(id=f"c{n}") for n in range(64)])).calls) == 64
    failure = read(chat(tool_calls=[call(id=f"c{n}") for n in range(65)]))
    assert (failure.error_class, failure.tokens_in, failure.tokens_out) == (ErrorClass.INVALID_OUTPUT, 31, 7)


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_provider_broke_off_is_transient(reason):
    assert read(chat(finish=reason)).error_class == ErrorClass.TRANSIENT_UPSTREAM


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
        ([{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}, "c", {"text": "d"}], "abcd"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}], "a"),
    ],
)
def test_text_is_read_in_each_form_it_comes_in(content, text):
    assert read(chat(content)).text == text


@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_may_be_said_in_several_ways(calls):
    assert (read(chat(tool_calls=calls)).calls, read(chat(finish="tool_calls", tool_calls=calls)).finish) == ((), "stop")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ('{"q": 1}', '{"q": 1}'),
        ("not json", "not json"),
        ({"q": "ü", "n": [1, 2.5, None]}, '{"q":"ü","n":[1,2.5,null]}'),
        ({}, "{}"),
        ([1], "[1]"),
        (7, "7"),
        (None, "{}"),
        ("", "{}"),
        (" \n", "{}"),
        ('{"q": "a\x00"}', '{"q": "a\ufffd"}'),
        ({"q": 2**70}, '{"q":"1180591620717411303424"}'),
    ],
)
def test_arguments_come_as_text_or_as_an_object(sent, text):
    assert read(chat(tool_calls=[call(arguments=sent)])).calls[0].arguments == text


@pytest.mark.parametrize(
    ("sent", "ids"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "call_2", "call_3"]),
        ([None, "", 7, ["a"], {}], ["call_1", "call_2", "call_3", "call_4", "call_5"]),
        (["call_2", "call_2"], ["call_2", "call_3"]),
        (["x" * 129, "x" * 128], ["call_1", "x" * 128]),
    ],
)
def test_call_ids_are_unique_and_made_the_same_way_each_time(sent, ids):
    value = chat(tool_calls=[call(id=given) for given in sent])
    assert [asked.id for asked in read(value).calls] == [asked.id for asked in read(value).calls] == ids


def test_a_missing_call_id_is_made():
    asked = call()
    del asked["id"]
    assert read(chat(tool_calls=[asked])).calls[0].id == "call_1"


def test_a_call_id_of_an_earlier_turn_is_not_used_again():
    earlier = [*QUESTION, {"role": "assistant", "content": "", "tool_calls": [call(id="call_0"), call(id="call_1")]}]
    reply = read(chat(tool_calls=[call(id="call_0"), call(id="new")]), replace(REQUEST, messages=earlier))
    assert [asked.id for asked in reply.calls] == ["call_3", "new"]


def test_a_name_is_kept_within_what_a_row_holds():
    assert read(chat(tool_calls=[call("x" * 5000)])).calls[0].name == "x" * 128


@pytest.mark.parametrize(
    ("reason", "calls", "finish", "kept"),
    [
        ("stop", 0, "stop", 0),
        ("stop", 1, "tool_calls", 1),
        ("tool_calls", 1, "tool_calls", 1),
        (None, 1, "tool_calls", 1),
        (None, 0, "stop", 0),
        ("eos", 0, "stop", 0),
        (7, 0, "stop", 0),
        ([], 0, "stop", 0),
        ("length", 0, "length", 0),
        ("length", 1, "length", 1),
        ("max_tokens", 0, "length", 0),
        ("content_filter", 1, "content_filter", 0),
        ("refusal", 1, "refusal", 0),
    ],
)
def test_why_the_model_stopped_is_told(reason, calls, finish, kept):
    reply = read(chat(finish=reason, tool_calls=[call()] * calls))
    assert (reply.finish, len(reply.calls)) == (finish, kept)


@pytest.mark.parametrize(
    "message",
    [{"content": None, "refusal": "I will not."}, {"content": [{"type": "refusal", "refusal": "I will not."}]}],
)
def test_a_refusal_is_told_and_none_of_its_calls_is_made(message):
    reply = read(chat(**message, tool_calls=[call()]))
    assert (reply.text, reply.finish, reply.calls) == ("I will not.", "refusal", ())


@pytest.mark.parametrize("refusal", [None, "", 7, []])
def test_an_empty_refusal_is_none(refusal):
    assert read(chat(refusal=refusal)).finish == "stop"


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": -3, "completion_tokens": 10**30}, {"prompt_tokens": 0}])
def test_usage_that_cannot_be_true_is_counted_by_us(usage):
    reply = read(chat("x" * 30, usage=usage))
    assert (reply.tokens_in, reply.tokens_out, reply.estimated) == (BOUND[0], 10, True)


def test_our_own_count_includes_the_calls():
    reply = read(chat(None, usage=None, tool_calls=[call("search_docs", "x" * 289)]))
    assert (reply.tokens_out, reply.estimated) == (100, True)


def test_a_long_text_is_whole_up_to_256_kib_and_then_cut_with_a_mark():
    whole = read(chat("ü" * (MAX_TEXT // 2)))
    assert (len(whole.text.encode()), whole.finish) == (MAX_TEXT, "stop")
    cut = read(chat("ü" * (MAX_TEXT // 2) + "."))
    assert cut.finish == "length"
    assert cut.text == "ü" * (MAX_TEXT // 2) + "\n[cut: the answer was longer than 256 KiB]"


def test_what_was_changed_to_be_storable_is_counted():
    reply = read(chat("a\x00", tool_calls=[call("b\x00", "\ud800", id="c\x00")]))
    assert reply.sanitized == 4
    assert reply.calls == (ToolAsk("c\ufffd", "b\ufffd", "\ufffd"),)


@pytest.mark.parametrize(("model", "told"), [(None, ""), (7, ""), ("m" * 999, "m" * 200)])
def test_the_reported_model_is_text_or_nothing(model, told):
    assert read(chat() | {"model": model}).reported_model == told


# Anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
WORDS = st.sampled_from(["text", "refusal", "stop", "length", "error", "search_docs", "call_1", "output_text"])
ANYTHING = st.recursive(SCALARS | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def perhaps(strategy):
    return strategy | ANYTHING


def some_of(**fields):
    return st.fixed_dictionaries({}, optional={name: perhaps(strategy) for name, strategy in fields.items()})


CALLS = st.lists(perhaps(some_of(id=WORDS, function=some_of(name=WORDS, arguments=st.text()))), max_size=70)
PARTS = st.lists(perhaps(some_of(type=WORDS, text=st.text(), refusal=st.text())), max_size=4)
MESSAGES = some_of(content=st.text() | PARTS, refusal=st.text(), tool_calls=CALLS)
REPLIES = some_of(
    model=st.text(),
    choices=st.lists(perhaps(some_of(message=MESSAGES, finish_reason=WORDS)), max_size=2),
    usage=some_of(prompt_tokens=st.integers(), completion_tokens=st.integers()),
)


def is_sound(result):
    assert isinstance(result, ModelReply | ModelFailure)
    assert 0 <= result.tokens_in < 2**31 and 0 <= result.tokens_out < 2**31
    if isinstance(result, ModelReply):
        ids = [asked.id for asked in result.calls]
        assert len(set(ids)) == len(ids) <= 64
        assert all(0 < len(asked.id) <= 128 and 0 < len(asked.name) <= 128 and asked.arguments for asked in result.calls)
        whole = "".join([result.text, result.reported_model, *(f"{a.id}{a.name}{a.arguments}" for a in result.calls)])
        assert "\x00" not in whole
        whole.encode()  # raises on a lone surrogate


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
