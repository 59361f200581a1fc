"""The simulated model on the wire, and the turns that a test writes for it."""

import json
from typing import Any

import pytest

from .sandbox_desk import TICKET, Client, desk, request, script, user

__all__ = ["desk"]


async def test_the_model_says_that_it_is_simulated_and_counts_its_tokens(desk: Client) -> None:
    _, body = await desk.chat("Hello!", model="sim-small")
    text = body["choices"][0]["message"]["content"]
    assert body["model"] == "sim-small (simulated)" and text.endswith("This answer is simulated.")
    assert body["usage"]["completion_tokens"] == -(-len(text) // 4)
    assert body["usage"]["total_tokens"] == sum(body["usage"][k] for k in ("prompt_tokens", "completion_tokens"))
    assert (await desk.chat("Hello!", model="sim-small"))[1] == body


async def test_the_models_are_listed(desk: Client) -> None:
    _, body = await desk.send("GET", "/v1/models")
    assert [model["id"] for model in body["data"]] == ["sim-small", "sim-medium", "sim-large", "sim-script", "sim-looping"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (request([user("hi")], stream=True), 400),
        (request([user("hi")], model="other"), 404),
        (request([]), 400),
        ({"model": "sim-small", "messages": "hi"}, 400),
        ([], 400),
        (request([user("#sim {oops")]), 400),
        (request([user('#sim {"turns": [{"txet": "hi"}]}')]), 400),
        (request([user('#sim {"turns": [{"calls": [{"nmae": "x"}]}]}')]), 400),
    ],
)
async def test_a_request_the_model_cannot_take_is_an_error_in_its_shape(desk: Client, body: Any, status: int) -> None:
    got, answer = await desk.post("/v1/chat/completions", body)
    assert got == status and set(answer["error"]) == {"message", "type", "param", "code"}


async def test_an_answer_longer_than_allowed_is_cut_and_says_so(desk: Client) -> None:
    _, body = await desk.chat("hello", max_tokens=5)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("model", ["sim-small", "sim-medium", "sim-large", "sim-script", "sim-looping"])
async def test_scripted_turns_come_in_order_for_every_model(desk: Client, model: str) -> None:
    first = {"calls": [{"name": "create_ticket", "arguments": TICKET}, {"name": "nope", "arguments_raw": "not json"}]}
    messages = [user("before"), {"role": "assistant", "content": "x"}, user(script(first, {"text": "done"}))]
    texts = []
    for _ in range(3):
        _, body = await desk.post("/v1/chat/completions", request(messages, (), model))
        messages.append(body["choices"][0]["message"])
        texts.append(messages[-1]["content"])
    calls = messages[3]["tool_calls"]
    assert [c["function"]["name"] for c in calls] == ["create_ticket", "nope"]
    assert json.loads(calls[0]["function"]["arguments"]) == TICKET and calls[1]["function"]["arguments"] == "not json"
    assert calls[0]["id"] != calls[1]["id"]
    assert texts == [None, "done", "The script is over."]


async def test_a_script_can_break_every_rule_of_the_wire(desk: Client) -> None:
    async def choice(**turn: Any) -> Any:
        return (await desk.chat(script(turn)))[1]["choices"][0]

    cut = await choice(text="cut", finish_reason="length")
    assert (cut["message"]["content"], cut["finish_reason"]) == ("cut", "length")
    assert (await choice(empty=True))["message"]["content"] is None
    assert (await choice(text="no", refusal="I will not"))["message"]["refusal"] == "I will not"
    assert (await desk.chat(script({"no_choices": True})))[1]["choices"] == []
    assert "usage" not in (await desk.chat(script({"text": "x", "usage": None})))[1]
    assert (await desk.chat(script({"text": "x", "usage": {"prompt_tokens": -5}})))[1]["usage"] == {"prompt_tokens": -5}
    assert (await desk.chat(script({"status": 500})))[0] == 500
    assert (await desk.chat(script({"text": "late", "latency_ms": 20})))[0] == 200
    ids = [{"name": "a", "id": "same"}, {"name": "b", "id": "same"}, {"name": "c", "id": None}]
    assert [c.get("id") for c in (await choice(calls=ids))["message"]["tool_calls"]] == ["same", "same", None]


async def test_a_script_can_answer_html_and_name_a_time_to_come_back(desk: Client) -> None:
    url = desk.url + "/v1/chat/completions"
    async with desk.session.post(url, json=request([user(script({"raw": "<html>busy"}))])) as response:
        assert (response.status, await response.text()) == (200, "<html>busy")
    async with desk.session.post(url, json=request([user(script({"status": 429, "retry_after": 3}))])) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")


@pytest.mark.parametrize("alone", [False, True])
async def test_a_repeated_turn_never_ends(desk: Client, alone: bool) -> None:
    call = {"calls": [{"name": "search_docs", "arguments": {"query": "again"}}]}
    turns = [{"text": "never"}, call, {"repeat": True}] if alone else [{"text": "never"}, call | {"repeat": True}]
    messages = [user(script(*turns)), *({"role": "assistant", "content": "x"} for _ in range(7))]
    _, body = await desk.post("/v1/chat/completions", request(messages))
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "search_docs"
