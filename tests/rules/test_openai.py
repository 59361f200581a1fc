"""The wire of a model, against a provider on loopback that answers whatever a test tells it to."""

import asyncio
import json
import socket
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from runs.inference import tokens
from runs.inference.openai import body_of
from runs.inference.providers import complete
from runs.inference.types import ModelEndpoint, ModelFailure, ModelReply, ModelRequest, Price, ToolAsk, ToolOffer
from runs.inference.wire import retry_after
from tools.definitions import Credential, ErrorClass, RetryPolicy
from tools.egress import Egress

SEARCH = ToolOffer("search_docs", "Finds documents.", {"type": "object", "properties": {"q": {"type": "string"}}})
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the refund policy?"}]
REQUEST = ModelRequest(QUESTION, (SEARCH,), max_tokens=200)
USAGE = {"prompt_tokens": 31, "completion_tokens": 7}
BOUND = (tokens.estimate(REQUEST), REQUEST.max_tokens)


@dataclass
class Provider:
    """Answers every POST with `status`, `headers` and `body`, and keeps what it received."""

    port: int = 0
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    got: list = field(default_factory=list)  # (path, headers, decoded body)

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((request.path, request.headers, json.loads(await request.read())))
        self.arrived.set()
        await asyncio.sleep(self.delay_s)
        return web.Response(status=self.status, headers=self.headers, body=self.body)

    def says(self, value, status=200, **headers):
        self.body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.status, self.headers = status, {name.replace("_", "-"): text for name, text in headers.items()}


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def egress():
    made = Egress()
    yield made
    await made.aclose()


def endpoint_at(port, **changes):
    made = ModelEndpoint(
        name="primary",
        provider="openai",
        base_url=f"http://127.0.0.1:{port}/v1/",
        model="sim-small",
        credential=None,
        price=Price(Decimal("0.15"), Decimal("0.6")),
        timeout_s=5,
        retry=RetryPolicy(),
    )
    return replace(made, **changes)


async def ask(port, egress, request=REQUEST, *, timeout_s=5.0, allow=None, traceparent=None, **changes):
    allow = frozenset({f"127.0.0.1:{port}"}) if allow is None else allow
    endpoint = endpoint_at(port, **changes)
    return await complete(endpoint, request, egress, allow=allow, timeout_s=timeout_s, traceparent=traceparent)


def chat(content="Thirty days.", finish="stop", usage=USAGE, **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "model": "sim-small-1", "choices": [choice], "usage": usage}


def call(name="search_docs", arguments='{"q":"refund"}', **more):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}} | more


# What is sent


async def test_a_request_is_what_the_wire_says(provider, egress):
    provider.says(chat())
    credential = Credential("key", "bearer", "s3cret")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = await ask(provider.port, egress, credential=credential, traceparent=trace)
    assert isinstance(reply, ModelReply)
    ((path, headers, body),) = provider.got
    assert path == "/v1/chat/completions"
    assert (headers["Authorization"], headers["traceparent"]) == ("Bearer s3cret", trace)
    function = {"name": "search_docs", "description": "Finds documents.", "parameters": dict(SEARCH.input_schema)}
    assert body == {
        "model": "sim-small",
        "messages": QUESTION,
        "max_tokens": 200,
        "tools": [{"type": "function", "function": function}],
    }


async def test_temperature_and_tools_are_sent_only_when_there_are_any(provider, egress):
    provider.says(chat())
    await ask(provider.port, egress, replace(REQUEST, tools=(), temperature=0.0))
    body = provider.got[0][2]
    assert body["temperature"] == 0.0 and "tools" not in body


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        (Credential("k", "header", "s3cret", "X-Api-Key"), "X-Api-Key", "s3cret"),
        (Credential("k", "basic", "me:s3cret"), "Authorization", "Basic bWU6czNjcmV0"),
    ],
)
async def test_each_kind_of_credential_goes_where_it_belongs(provider, egress, credential, header, value):
    provider.says(chat())
    await ask(provider.port, egress, credential=credential)
    assert provider.got[0][1][header] == value


@pytest.mark.parametrize("content", [None, "", "I look."])
def test_an_assistant_message_with_calls_has_text_and_never_null(content):
    asked = {"role": "assistant", "content": content, "tool_calls": [call()]}
    messages = [*QUESTION, asked, {"role": "tool", "tool_call_id": "c1", "content": "{}"}]
    sent = json.loads(body_of(endpoint_at(1), replace(REQUEST, messages=messages)))["messages"]
    assert sent[2] == asked | {"content": content or ""}
    assert sent[3] == messages[3]


def test_an_empty_list_of_calls_is_left_out():
    messages = [*QUESTION, {"role": "assistant", "content": "Yes.", "tool_calls": []}]
    sent = json.loads(body_of(endpoint_at(1), replace(REQUEST, messages=messages)))["messages"]
    assert sent[2] == {"role": "assistant", "content": "Yes."}


async def test_a_name_that_the_wire_refuses_goes_and_comes_back_changed(provider, egress):
    provider.says(chat(None, "tool_calls", tool_calls=[call("desk_find")]))
    earlier = {"role": "assistant", "content": "", "tool_calls": [call("no such tool!", id="c0")]}
    request = replace(REQUEST, messages=[*QUESTION, earlier], tools=(replace(SEARCH, name="desk.find"),))
    reply = await ask(provider.port, egress, request)
    body = provider.got[0][2]
    assert body["tools"][0]["function"]["name"] == "desk_find"
    assert body["messages"][2]["tool_calls"][0]["function"]["name"] == "no_such_tool_"
    assert reply.calls[0].name == "desk.find"


async def test_two_tools_that_would_have_one_name_are_never_offered_together(provider, egress):
    tools = (replace(SEARCH, name="desk.find"), replace(SEARCH, name="desk_find"))
    failure = await ask(provider.port, egress, replace(REQUEST, tools=tools))
    assert (failure.error_class, failure.tokens_in, provider.got) == (ErrorClass.VALIDATION, 0, [])


def test_what_json_cannot_say_is_cleaned_before_it_is_sent():
    messages = [{"role": "user", "content": "a\ud800b"}, {"role": "user", "content": "ü", "score": float("nan")}]
    sent = json.loads(body_of(endpoint_at(1), replace(REQUEST, messages=messages)))["messages"]
    assert (sent[0]["content"], sent[1]) == ("a\ufffdb", {"role": "user", "content": "ü", "score": "NaN"})


@pytest.mark.parametrize(
    "changes",
    [{"base_url": "http://[::1"}, {"base_url": ""}, {"base_url": "ftp://x"}, {"base_url": "http://u:p@127.0.0.1"}],
)
async def test_an_address_that_cannot_be_used_is_a_failure_and_no_fault(egress, changes):
    failure = await ask(1, egress, **changes)
    assert failure.error_class in (ErrorClass.VALIDATION, ErrorClass.POLICY, ErrorClass.NOT_SENT)
    assert (failure.tokens_in, failure.tokens_out) == (0, 0)


@pytest.mark.parametrize(
    ("messages", "credential"),
    [
        ([{"role": "user", "content": object()}], None),
        (["hello"], None),
        ([{"role": "assistant", "tool_calls": [{}]}], None),
        (QUESTION, Credential("k", "header", "s3cret")),
        (QUESTION, Credential("k", "bearer", "s3cret\u2028ü")),
    ],
)
async def test_a_request_that_cannot_be_built_is_a_failure_that_tells_no_secret(provider, egress, messages, credential):
    failure = await ask(provider.port, egress, replace(REQUEST, messages=messages), credential=credential)
    assert failure.error_class == ErrorClass.VALIDATION
    assert "s3cret" not in failure.message
    assert provider.got == []


# What a status and the line mean


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, "rate_limit"),
        *((status, "authorization") for status in (401, 403)),
        *((status, "transient_upstream") for status in (408, 409, 425, 500, 502, 503, 504, 520, 529, 599)),
        *((status, "validation") for status in (400, 402, 404, 405, 410, 413, 418, 422, 451, 499)),
        *((status, "validation") for status in (300, 301, 302, 303, 305, 307, 308)),
    ],
)
async def test_each_status_has_a_class_and_is_asked_once(provider, egress, status, error):
    provider.says({"error": {"message": "no"}}, status=status, Location="/v1/chat/completions")
    failure = await ask(provider.port, egress)
    assert isinstance(failure, ModelFailure)
    assert (failure.error_class, failure.status, len(provider.got)) == (error, status, 1)
    assert (failure.tokens_in, failure.tokens_out) == (BOUND if status in (408, 502, 504, 520) else (0, 0))


async def test_what_the_provider_complains_of_is_told_without_the_key(provider, egress):
    provider.says({"error": {"message": "Incorrect key s3cret\x00 " + "x" * 5000}}, status=401)
    failure = await ask(provider.port, egress, credential=Credential("k", "bearer", "s3cret"))
    assert failure.message.startswith("the provider answered 401: Incorrect key [credential]\ufffd xxx")
    assert len(failure.message) < 350


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 7}', b'{"error": {"message": []}}', b"\xff", b"[" * 5000])
async def test_an_error_without_a_readable_text_has_its_class_all_the_same(provider, egress, body):
    provider.says(body, status=503)
    failure = await ask(provider.port, egress)
    assert (failure.error_class, failure.message) == (ErrorClass.TRANSIENT_UPSTREAM, "the provider answered 503")


async def test_retry_after_is_read_from_the_answer(provider, egress):
    provider.says({}, status=429, Retry_After="17")
    assert (await ask(provider.port, egress)).retry_after_s == 17


NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("2.5", 2.5),
        (" 3 ", 3),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0),
        ("Sun, 01 Mar 2026 12:00:10 -0000", None),
        ("-3", None),
        ("1e999", None),
        ("soon", None),
        ("3 days", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_raises(value):
    assert (retry_after(value, NOW) or 0) >= 0


async def test_a_provider_that_is_not_there_was_sent_nothing(egress):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        failure = await ask(held.getsockname()[1], egress)
    assert (failure.error_class, failure.tokens_in, failure.tokens_out) == (ErrorClass.NOT_SENT, 0, 0)


async def test_a_provider_that_is_not_allowed_is_never_reached(provider, egress):
    failure = await ask(provider.port, egress, allow=frozenset())
    assert (failure.error_class, failure.tokens_in, provider.got) == (ErrorClass.POLICY, 0, [])


@pytest.mark.mission("P4.1")
@pytest.mark.parametrize("limits", [(0.1, 60), (60, 0.1)], ids=["the call's", "the endpoint's"])
async def test_a_slow_provider_is_a_timeout_that_may_have_been_billed(provider, egress, limits):
    provider.delay_s = 5
    endpoint, allow = endpoint_at(provider.port, timeout_s=limits[1]), frozenset({f"127.0.0.1:{provider.port}"})
    failure = await complete(endpoint, REQUEST, egress, allow=allow, timeout_s=limits[0])
    assert (failure.error_class, failure.status, failure.tokens_in, failure.tokens_out) == (ErrorClass.TIMEOUT, None, *BOUND)
    assert len(provider.got) == 1


@pytest.fixture
async def raw_server():
    """A server that reads the request, answers with the bytes it is given, and closes."""
    hits, answer = [], [b""]

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        hits.append(await reader.readexactly(size))
        writer.write(answer[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], hits, answer
    server.close()
    await server.wait_closed()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n"


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "transient_upstream"),
        (HEAD + b"\r\n" + b'{"choices"', "transient_upstream"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n{}", "invalid_output"),
        (HEAD + b"Content-Encoding: br\r\n\r\nxx", "invalid_output"),
        (b"not http at all\r\n\r\n", "transient_upstream"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 2000000\r\n\r\n{}", "authorization"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 90\r\n\r\n{}", "transient_upstream"),
    ],
)
async def test_an_answer_that_breaks_off_is_never_asked_for_twice(raw_server, egress, answer, error):
    port, hits, answers = raw_server
    answers[0] = answer
    failure = await ask(port, egress)
    assert (failure.error_class, len(hits)) == (error, 1)
    refused = failure.status in (401, 503)
    assert (failure.tokens_in, failure.tokens_out) == ((0, 0) if refused else BOUND)


async def test_a_cancelled_call_stays_cancelled(provider, egress):
    provider.delay_s = 5
    waiting = asyncio.create_task(ask(provider.port, egress))
    await provider.arrived.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_answer_is_read(provider, egress):
    provider.says(chat())
    reply = await ask(provider.port, egress)
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.calls, reply.finish) == ("Thirty days.", (), "stop")
    assert (reply.tokens_in, reply.tokens_out, reply.estimated, reply.reported_model) == (31, 7, False, "sim-small-1")


async def test_calls_are_read_as_the_model_sent_them(provider, egress):
    calls = [call(arguments='{"q": "refund"', id="a"), call("invented", "[1]", id="b")]
    provider.says(chat(None, "tool_calls", tool_calls=calls))
    reply = await ask(provider.port, egress)
    assert reply.calls == (ToolAsk("a", "search_docs", '{"q": "refund"'), ToolAsk("b", "invented", "[1]"))
    assert (reply.text, reply.finish) == ("", "tool_calls")


@pytest.mark.parametrize("body", [b"", b"<html><body>Bad gateway</body></html>", b'{"choices": []}', b"[" * 100_000])
async def test_a_reply_that_cannot_be_used_is_a_failure_and_asked_for_once(provider, egress, body):
    provider.says(body)
    failure = await ask(provider.port, egress)
    assert isinstance(failure, ModelFailure)
    assert (failure.error_class, failure.status, len(provider.got)) == (ErrorClass.INVALID_OUTPUT, 200, 1)
    assert (failure.tokens_in, failure.tokens_out) == BOUND


async def test_a_reply_without_content_is_unusable(provider, egress):
    provider.says(b"", status=204)
    assert (await ask(provider.port, egress)).error_class == ErrorClass.INVALID_OUTPUT
