"""The messages wire of Anthropic: what is sent, against a provider on loopback, and the door that picks the wire."""

import json
from dataclasses import replace

import pytest
from aiohttp import web

from runs.inference import tokens
from runs.inference.anthropic import body_of
from runs.inference.providers import complete
from runs.inference.types import ModelFailure, ModelReply, ModelRequest, ToolOffer
from tools.definitions import Credential, ErrorClass
from tools.egress import Egress

from .test_openai import Provider, endpoint_at

SEARCH = ToolOffer("search_docs", "Finds documents.", {"type": "object", "properties": {"q": {"type": "string"}}})
SYSTEM, QUESTION = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the refund policy?"}
REQUEST = ModelRequest([SYSTEM, QUESTION], (SEARCH,), max_tokens=200)
BOUND = (tokens.estimate(REQUEST), REQUEST.max_tokens)
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "sim-small-1",
    "content": [{"type": "text", "text": "Thirty days."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 31, "output_tokens": 7},
}


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/v1/messages", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def egress():
    made = Egress()
    yield made
    await made.aclose()


async def ask(port, egress, request=REQUEST, *, timeout_s=5.0, traceparent=None, **changes):
    endpoint = endpoint_at(port, **{"provider": "anthropic", **changes})
    allow = frozenset({f"127.0.0.1:{port}"})
    return await complete(endpoint, request, egress, allow=allow, timeout_s=timeout_s, traceparent=traceparent)


def sent(*messages, **changes):
    """The body for these messages."""
    return json.loads(body_of(endpoint_at(1), replace(REQUEST, messages=list(messages), **changes)))


def call(id="c1", name="search_docs", arguments='{"q":"refund"}'):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def asks(*calls, content=""):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id="c1", content='{"ok":true}'):
    return {"role": "tool", "tool_call_id": id, "content": content}


def use(id="c1", name="search_docs", **given):
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def told(id="c1", content='{"ok":true}'):
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def text(words):
    return {"type": "text", "text": words}


# What is sent


async def test_a_request_is_what_the_wire_says(provider, egress):
    provider.says(ANSWER)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = await ask(provider.port, egress, credential=Credential("key", "bearer", "s3cret"), traceparent=trace)
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.finish, reply.tokens_in, reply.tokens_out, reply.estimated) == ("Thirty days.", "stop", 31, 7, False)
    ((path, headers, body),) = provider.got
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-version"], headers["traceparent"]) == ("s3cret", "2023-06-01", trace)
    assert "Authorization" not in headers
    assert body == {
        "model": "sim-small",
        "max_tokens": 200,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [text("What is the refund policy?")]}],
        "tools": [{"name": "search_docs", "description": "Finds documents.", "input_schema": dict(SEARCH.input_schema)}],
    }


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (Credential("k", "header", "Bearer s3cret", "Authorization"), "Authorization", "Bearer s3cret"),
        (Credential("k", "basic", "me:s3cret"), "Authorization", "Basic bWU6czNjcmV0"),
    ],
)
async def test_other_kinds_of_credential_are_not_sent_as_a_key(provider, egress, credential, header, value):
    provider.says(ANSWER)
    await ask(provider.port, egress, credential=credential)
    headers = provider.got[0][1]
    assert headers[header] == value and "x-api-key" not in headers


@pytest.mark.parametrize(("wanted", "said"), [(0.0, 0.0), (0.7, 0.7), (1.0, 1.0), (1.9, 1.0), (-1.0, 0.0)])
def test_the_temperature_stays_on_the_scale_of_the_wire(wanted, said):
    assert sent(QUESTION, temperature=wanted)["temperature"] == said
    assert "temperature" not in sent(QUESTION, temperature=None)


def test_what_the_system_says_is_told_apart_and_no_blank_is_told():
    body = sent(SYSTEM, QUESTION, {"role": "system", "content": "And kind."})
    assert body["system"] == "Be brief.\n\nAnd kind." and len(body["messages"]) == 1
    assert "system" not in sent({"role": "system", "content": "  "}, QUESTION)


def test_the_results_of_one_turn_are_one_message_of_the_user():
    asked = asks(call("a"), call("b", arguments='{"q":"x","n":[1]}'), content="I look.")
    body = sent(SYSTEM, QUESTION, asked, result("a"), result("b", "[]"), asks(call("c")), result("c"))
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [text("I look."), use("a", q="refund"), use("b", q="x", n=[1])]},
        {"role": "user", "content": [told("a"), told("b", "[]")]},
        {"role": "assistant", "content": [use("c", q="refund")]},
        {"role": "user", "content": [told("c")]},
    ]


def test_words_of_the_user_after_results_come_behind_them_in_the_same_message():
    body = sent(QUESTION, asks(call()), result(), {"role": "user", "content": "Go on."})
    assert body["messages"][-1] == {"role": "user", "content": [told(), text("Go on.")]}


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_text_of_nothing_is_never_sent(content):
    body = sent(QUESTION, asks(call(), content=content), result(), {"role": "assistant", "content": content})
    assert body["messages"][1:] == [{"role": "assistant", "content": [use(q="refund")]}, {"role": "user", "content": [told()]}]


@pytest.mark.parametrize(("arguments", "given"), [("", {}), ("{}", {}), ("[1]", {}), ('{"a": {"b": null}}', {"a": {"b": None}})])
def test_the_input_of_a_call_is_always_an_object(arguments, given):
    assert sent(QUESTION, asks(call(arguments=arguments)), result())["messages"][1]["content"][0]["input"] == given


def test_ids_and_names_of_another_wire_are_changed_to_what_this_one_takes_and_still_meet():
    strange = ("call.1|x", "ü", "x" * 128)
    body = sent(QUESTION, asks(*(call(id, "desk.find") for id in strange)), *(result(id) for id in strange))
    used, results = body["messages"][1]["content"], body["messages"][2]["content"]
    ids = [block["id"] for block in used]
    assert [block["tool_use_id"] for block in results] == ids and len(set(ids)) == 3
    assert all(id.isascii() and id.replace("_", "").isalnum() and len(id) <= 64 for id in ids)
    assert used[0]["name"] == "desk_find"


def test_a_conversation_with_calls_names_its_tools_and_forbids_them_when_none_is_offered():
    body = sent(QUESTION, asks(call("a", "desk.find"), call("b")), result("a"), result("b"), tools=())
    assert body["tool_choice"] == {"type": "none"}
    assert [(tool["name"], tool["input_schema"]) for tool in body["tools"]] == [
        ("desk_find", {"type": "object"}),
        ("search_docs", {"type": "object"}),
    ]
    assert not {"tools", "tool_choice"} & set(sent(QUESTION, tools=()))


async def test_a_name_that_the_wire_refuses_comes_back_as_ours(provider, egress):
    provider.says(ANSWER | {"content": [use(name="desk_find")], "stop_reason": "tool_use"})
    reply = await ask(provider.port, egress, replace(REQUEST, tools=(replace(SEARCH, name="desk.find"),)))
    assert (provider.got[0][2]["tools"][0]["name"], reply.calls[0].name) == ("desk_find", "desk.find")


def test_what_json_cannot_say_is_cleaned_before_it_is_sent():
    assert sent({"role": "user", "content": "a\ud800b"})["messages"][0]["content"] == [text("a\ufffdb")]


@pytest.mark.parametrize(
    ("changes", "credential"),
    [
        ({"messages": [{"role": "user", "content": object()}]}, None),
        ({"messages": ["hello"]}, None),
        ({"messages": [{"content": "hello"}]}, None),
        ({"messages": [QUESTION, {"role": "assistant", "tool_calls": [{}]}]}, None),
        ({"messages": [QUESTION, asks(call(arguments="not json")), result()]}, None),
        ({"tools": (replace(SEARCH, name="desk.find"), replace(SEARCH, name="desk_find"))}, None),
        ({}, Credential("k", "header", "s3cret")),
        ({}, Credential("k", "bearer", "s3cret\u2028ü")),
    ],
)
async def test_a_request_that_cannot_be_built_is_a_failure_that_tells_no_secret(provider, egress, changes, credential):
    failure = await ask(provider.port, egress, replace(REQUEST, **changes), credential=credential)
    assert (failure.error_class, failure.tokens_in, provider.got) == (ErrorClass.VALIDATION, 0, [])
    assert "s3cret" not in failure.message


# What comes back when it fails


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "validation"),
        (401, "authorization"),
        (403, "authorization"),
        (404, "validation"),
        (413, "validation"),
        (429, "rate_limit"),
        (500, "transient_upstream"),
        (504, "transient_upstream"),
        (529, "transient_upstream"),
    ],
)
async def test_each_status_has_a_class_and_is_asked_once(provider, egress, status, error):
    provider.says({"type": "error", "error": {"type": "some_error", "message": "no, s3cret"}}, status=status, Retry_After="17")
    failure = await ask(provider.port, egress, credential=Credential("k", "bearer", "s3cret"))
    assert isinstance(failure, ModelFailure)
    assert (failure.error_class, failure.status, failure.retry_after_s, len(provider.got)) == (error, status, 17, 1)
    assert failure.message == f"the provider answered {status}: no, [credential]"
    assert (failure.tokens_in, failure.tokens_out) == (BOUND if status == 504 else (0, 0))


@pytest.mark.mission("P4.1")
async def test_a_slow_provider_is_a_timeout_that_may_have_been_billed(provider, egress):
    provider.delay_s = 5
    failure = await ask(provider.port, egress, timeout_s=0.1)
    assert (failure.error_class, failure.status, failure.tokens_in, failure.tokens_out) == (ErrorClass.TIMEOUT, None, *BOUND)


# The door


async def test_the_wire_is_the_one_that_the_provider_speaks(provider, egress):
    provider.says(ANSWER)
    spoken = await ask(provider.port, egress, provider="openai")
    assert (spoken.error_class, spoken.status, provider.got) == (ErrorClass.VALIDATION, 404, [])  # it asked for another path
    assert isinstance(await ask(provider.port, egress, provider="anthropic"), ModelReply)


@pytest.mark.parametrize("name", ["", "Anthropic", "cohere", "x" * 500])
async def test_a_provider_that_nobody_knows_is_a_failure_that_names_those_we_do(provider, egress, name):
    failure = await ask(provider.port, egress, provider=name)
    assert (failure.error_class, failure.tokens_in, failure.tokens_out, provider.got) == (ErrorClass.VALIDATION, 0, 0, [])
    assert failure.message.endswith("known are openai and anthropic") and len(failure.message) < 150
