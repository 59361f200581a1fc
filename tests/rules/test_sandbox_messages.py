"""The simulated model's other face: the messages wire of Anthropic, strict about what that wire forbids."""

import json
from typing import Any

import pytest

from .sandbox_desk import TOOLS, Client, desk, script, use

__all__ = ["desk"]

VERSION = {"anthropic-version": "2023-06-01"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def offered(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "description": "", "input_schema": {"type": "object"}} for name in names]


async def say(desk: Client, *messages: Any, headers: dict[str, str] = VERSION, **more: Any) -> tuple[int, Any]:
    body = {"model": "sim-medium", "max_tokens": 500, "messages": list(messages), **more}
    async with desk.session.post(desk.url + "/v1/messages", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


CALL = {"type": "tool_use", "id": "a", "name": "lookup", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "{}"}


async def test_a_story_is_the_same_on_both_wires(desk: Client) -> None:
    text, tools = "URGENT: acct_1004 was charged twice this month!", ("search_docs", "fetch_account", "create_ticket")
    messages, called = [user(text)], []
    for turn in range(10):
        status, body = await say(desk, *messages, system="You are the desk.", tools=offered(*tools))
        assert status == 200, body
        if body["stop_reason"] != "tool_use":
            break
        (block,) = body["content"]
        called.append(block["name"])
        result = await use(desk, block["name"], block["input"], f"{turn}")
        told = {"type": "tool_result", "tool_use_id": block["id"], "content": json.dumps(result)}
        messages += [assistant(block), user([told])]
    assert called == ["fetch_account", "search_docs", "create_ticket"] and set(called) <= set(TOOLS)
    assert body["stop_reason"] == "end_turn" and "tkt_" in body["content"][0]["text"]
    assert set(body["usage"]) == {"input_tokens", "output_tokens"} and min(body["usage"].values()) > 0
    assert body["model"] == "sim-medium (simulated)" and body["type"] == "message"
    assert [effect["tool"] for effect in await desk.effects()] == ["create_ticket"]


@pytest.mark.parametrize(
    ("messages", "more", "says"),
    [
        ([user("hi")], {"headers": {}}, "anthropic-version"),
        ([user("hi")], {"headers": {"anthropic-version": "2020-01-01"}}, "anthropic-version"),
        ([user("hi")], {"max_tokens": 0}, "max_tokens"),
        ([user("hi")], {"max_tokens": None}, "max_tokens"),
        ([user("hi")], {"temperature": 1.5}, "temperature"),
        ([user("hi")], {"temperature": "hot"}, "str"),
        ([user("hi")], {"stream": True}, "stream"),
        ([], {}, "first"),
        ([{"role": "system", "content": "x"}], {}, "first"),
        ([user("hi"), {"role": "tool", "content": "x"}], {}, "roles"),
        ([assistant({"type": "text", "text": "x"})], {}, "first"),
        ([user(" ")], {}, "empty"),
        ([user([])], {}, "empty"),
        ([user("hi"), assistant(CALL)], {"tools": offered("lookup")}, "no results"),
        ([user("hi"), assistant(CALL), user("and?")], {"tools": offered("lookup")}, "tool_result"),
        ([user("hi"), assistant(CALL), user([{"type": "text", "text": "first"}, RESULT])], {"tools": offered("lookup")}, "tool_result"),
        ([user("hi"), assistant(CALL), user([RESULT, RESULT])], {"tools": offered("lookup")}, "tool_result"),
        ([user("hi"), user([RESULT])], {}, "tool_result"),
        ([user("hi"), assistant(CALL), user([RESULT])], {}, "tools"),
        ([user("hi"), assistant(CALL | {"id": "a.b"}), user([RESULT])], {"tools": offered("lookup")}, "letters"),
        ([user("hi"), assistant(CALL | {"name": "look up"}), user([RESULT])], {"tools": offered("lookup")}, "letters"),
        ([user("#sim {oops")], {}, "#sim"),
        ("hi", {}, "string indices"),
    ],
)
async def test_what_the_wire_forbids_is_an_error_in_its_shape(desk: Client, messages: Any, more: dict[str, Any], says: str) -> None:
    status, body = await say(desk, *messages, **more)
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert says in body["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"7"])
async def test_a_body_that_is_no_object_is_an_error_in_the_shape_of_the_wire(desk: Client, body: bytes) -> None:
    async with desk.session.post(desk.url + "/v1/messages", data=body, headers=VERSION) as response:
        assert (response.status, (await response.json())["type"]) == (400, "error")


async def test_a_model_that_is_not_there_is_not_found(desk: Client) -> None:
    status, body = await say(desk, user("hi"), model="other")
    assert (status, body["error"]["type"]) == (404, "not_found_error")


async def test_a_script_breaks_the_rules_of_this_wire_too(desk: Client) -> None:
    async def turn(**scripted: Any) -> Any:
        return (await say(desk, user(script(scripted))))[1]

    cut = await turn(text="cut", finish_reason="length")
    assert (cut["content"], cut["stop_reason"]) == ([{"type": "text", "text": "cut"}], "max_tokens")
    assert (await turn(text="x", finish_reason="pause_turn"))["stop_reason"] == "pause_turn"
    refused = await turn(text="no", refusal="I will not")
    assert (refused["content"][0]["text"], refused["stop_reason"]) == ("I will not", "refusal")
    assert (await turn(empty=True))["content"] == []
    assert "content" not in await turn(no_choices=True)
    assert "usage" not in await turn(text="x", usage=None)
    assert (await turn(text="x", usage={"prompt_tokens": -5}))["usage"] == {"input_tokens": -5}
    calls = await turn(
        calls=[{"name": "a", "id": "same"}, {"name": "b", "id": "same", "arguments_raw": "{oops"}, {"name": "c", "id": None}]
    )
    assert [(block.get("id"), block["input"]) for block in calls["content"]] == [("same", {}), ("same", "{oops"), (None, {})]
    assert calls["stop_reason"] == "tool_use"


async def test_a_scripted_error_keeps_its_status_and_its_time_to_come_back(desk: Client) -> None:
    body = {"model": "sim-small", "max_tokens": 5, "messages": [user(script({"status": 529, "retry_after": 3}))]}
    async with desk.session.post(desk.url + "/v1/messages", json=body, headers=VERSION) as response:
        assert (response.status, response.headers["Retry-After"]) == (529, "3")
        assert (await response.json())["error"]["type"] == "overloaded_error"
    assert (await say(desk, user(script({"raw": "[1]"}))))[1] == [1]


async def test_faults_of_the_model_reach_this_wire(desk: Client) -> None:
    await desk.fault("model", "429")
    assert (await say(desk, user("hi")))[0] == 429
    assert [request["target"] for request in await desk.received()] == ["model"]
