"""Models that misbehave, on both wires, through a real engine: each ends in its own outcome, inside the run's limits, and is paid for."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async

from console import records
from runs.models import ModelDefinition, Run
from tenants.models import EgressAllow

from .world import World, call

Reply = dict[str, Any] | bytes


class Model:
    """A model on loopback that answers with `replies` in turn, the last one for ever, whichever wire it is asked on."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[Reply] = []
        self.status = 200
        self.asked: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(json.loads(await request.read()))
        reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
        return web.Response(status=self.status, body=reply if isinstance(reply, bytes) else json.dumps(reply).encode())


@pytest.fixture
async def model(world: World) -> AsyncIterator[Model]:
    """The world's model `primary` is this one; `provider` picks its wire. Price: 1 and 2 USD per million tokens."""
    made, app = Model(), web.Application()
    for path in ("/v1/chat/completions", "/v1/messages"):
        app.router.add_post(path, made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await EgressAllow.objects.acreate(host_port=made.url.split("/")[2])
    await define(base_url=made.url)
    yield made
    await runner.cleanup()


async def define(**changes: Any) -> None:
    await ModelDefinition.objects.filter(name="primary").aupdate(**changes)


async def asked(world: World, text: str = "What is the refund policy?", **agent: Any) -> Run:
    await world.agent(**agent)
    run = await world.submit(text)
    await world.engine()
    return await world.until(run)


def chat(content: Any = "Thirty days.", reason: str = "stop", **more: Any) -> dict[str, Any]:
    """A chat completion. `usage` among `more` replaces a believable one; `calls` are (id, name, arguments)."""
    calls = [{"id": id, "type": "function", "function": {"name": name, "arguments": text}} for id, name, text in more.get("calls", ())]
    message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
    usage = more.get("usage", {"prompt_tokens": 100, "completion_tokens": 20})
    return {"model": "bad", "choices": [{"message": message, "finish_reason": reason}], "usage": usage}


def message(*blocks: dict[str, Any], reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    """A message of the other wire."""
    usage = more.get("usage", {"input_tokens": 100, "output_tokens": 20})
    return {"type": "message", "model": "bad", "content": list(blocks), "stop_reason": reason, "usage": usage}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(id: str | None, name: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


READ = json.dumps({"query": "refunds"})
MEGABYTE = json.dumps({"query": "x" * 1_000_000})
PAST_THE_CAP = json.dumps({"query": "x" * 1_100_000})


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize(
    ("provider", "reply", "outcome", "sends"),
    [
        ("openai", chat(calls=[(f"c{n}", "search_docs", READ) for n in range(200)]), "invalid_output", 2),
        ("openai", chat(calls=[("c", "search_docs", MEGABYTE)]), "invalid_output", 2),
        ("openai", chat(calls=[("c", "search_docs", PAST_THE_CAP)]), "invalid_output", 2),
        ("openai", chat("Thirty", "length"), "truncated", 1),
        ("openai", chat("", "content_filter"), "content_filtered", 1),
        ("openai", chat("", "content_filter", calls=[("c", "search_docs", READ)]), "content_filtered", 1),
        ("openai", chat(None), "empty_answer", 1),
        ("openai", chat(" \n"), "empty_answer", 1),
        ("openai", {"model": "bad", "choices": []}, "invalid_output", 2),
        ("openai", b"<html>busy</html>", "invalid_output", 2),
        ("openai", b"", "invalid_output", 2),
        ("openai", b"[" * 200_000, "invalid_output", 2),
        ("openai", message(text("the other wire")), "invalid_output", 2),
        ("anthropic", message(*(use(f"c{n}", "search_docs", {"query": "x"}) for n in range(200))), "invalid_output", 2),
        ("anthropic", message(use("c", "search_docs", {"query": "x" * 1_000_000})), "invalid_output", 2),
        ("anthropic", message(text("Thirty"), reason="max_tokens"), "truncated", 1),
        ("anthropic", message(use("c", "search_docs", {"query": "x"}), reason="max_tokens"), "truncated", 1),
        ("anthropic", message(text("Thirty"), reason="pause_turn"), "truncated", 1),
        ("anthropic", message(use("c", "search_docs", {"query": "x"}), reason="refusal"), "refused", 1),
        ("anthropic", message(), "empty_answer", 1),
        ("anthropic", message({"type": "thinking", "thinking": "hm"}), "empty_answer", 1),
        ("anthropic", {"type": "message"}, "invalid_output", 2),
        ("anthropic", b"not json", "invalid_output", 2),
        ("anthropic", chat("the other wire"), "invalid_output", 2),
    ],
)
async def test_an_answer_that_is_none_ends_the_run_by_its_own_name_and_costs(
    world: World, model: Model, provider: str, reply: Reply, outcome: str, sends: int
) -> None:
    await define(provider=provider)
    model.replies = [reply]
    done = await asked(world, tools=("search_docs",))
    assert (done.state, done.outcome, len(model.asked)) == ("failed", outcome, sends)
    assert done.cost_micro > 0 and done.tokens_in > 0 and done.reserved_micro == 0
    assert done.cost_micro == sum(c.cost_micro for c in await world.calls(done)) and not done.tool_calls
    assert not [r for r in await world.received() if r["target"] != "model"]


@pytest.mark.parametrize(
    ("provider", "reply"),
    [
        ("openai", chat("", "length", calls=[("c", "search_docs", '{"query": "ref')])),
        ("anthropic", message(use("a", "search_docs", {"query": "x"}), use("b", "search_docs", {}), reason="max_tokens")),
    ],
)
async def test_a_model_that_is_always_cut_off_while_it_calls_ends_at_the_limit_of_steps(
    world: World, model: Model, provider: str, reply: Reply
) -> None:
    await define(provider=provider)
    model.replies = [reply]
    done = await asked(world, tools=("search_docs",), budget={"max_steps": 3})
    assert (done.state, done.outcome, len(model.asked)) == ("failed", "step_limit", 3)


@pytest.mark.mission("P5.1")
@pytest.mark.parametrize(
    ("provider", "usage"),
    [
        ("openai", {"prompt_tokens": -5_000, "completion_tokens": -9}),
        ("openai", {"prompt_tokens": 10**9, "completion_tokens": 10**9}),
        ("openai", {"prompt_tokens": 10**400, "completion_tokens": True}),
        ("openai", None),
        ("anthropic", {"input_tokens": -1, "output_tokens": -1}),
        ("anthropic", {"input_tokens": 3, "cache_read_input_tokens": 10**9, "output_tokens": 10**9}),
        ("anthropic", {"input_tokens": "many", "output_tokens": {}}),
    ],
)
async def test_a_count_that_cannot_be_true_costs_what_we_estimate_and_says_so(
    world: World, model: Model, provider: str, usage: Any
) -> None:
    await define(provider=provider)
    model.replies = [chat("x" * 300, usage=usage) if provider == "openai" else message(text("x" * 300), usage=usage)]
    done = await asked(world, tools=())
    (only,) = await world.calls(done)
    assert done.outcome == "completed" and only.result["estimated"] is True
    assert done.tokens_out == 100 and 10 < done.tokens_in < 200
    assert done.cost_micro == only.cost_micro == done.tokens_in + 2 * done.tokens_out
    assert [e.payload["data"]["estimated"] for e in await world.events(done) if e.kind == "model_call_completed"] == [True]


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_name_that_was_never_offered_is_refused_and_told_to_the_model(world: World, model: Model, provider: str) -> None:
    await define(provider=provider)
    names = ("delete_account", "rm -rf /", "x" * 5000)
    if provider == "openai":
        model.replies = [chat("", calls=[(f"c{n}", name, "{}") for n, name in enumerate(names)]), chat("Sorry.")]
    else:
        model.replies = [message(*(use(f"c{n}", name, {}) for n, name in enumerate(names))), message(text("Sorry."))]
    done = await asked(world, tools=("search_docs",))
    refused = [c for c in await world.calls(done) if c.ord]
    assert done.outcome == "completed" and [c.state for c in refused] == ["blocked"] * 3
    assert [c.name for c in refused] == ["delete_account", "rm -rf /", "x" * 128]
    assert len(results_of(model.asked[1])) == 3
    assert await world.ledger() == [] and not [r for r in await world.received() if r["target"] != "model"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_calls_with_the_same_id_are_two_calls_each_with_its_own_answer(world: World, model: Model, provider: str) -> None:
    await define(provider=provider)
    queries = ("refunds", "retention")
    if provider == "openai":
        model.replies = [chat("", calls=[("same", "search_docs", json.dumps({"query": q})) for q in queries]), chat("Done.")]
    else:
        model.replies = [message(*(use("same", "search_docs", {"query": q}) for q in queries)), message(text("Done."))]
    done = await asked(world, tools=("search_docs",))
    made = [c for c in await world.calls(done) if c.ord]
    assert done.outcome == "completed" and [c.state for c in made] == ["done", "done"]
    assert [c.provider_id for c in made] == ["same", "call_2"] == results_of(model.asked[1])


def results_of(body: dict[str, Any]) -> list[str]:
    """Which calls a request answers, in order. On the messages wire all of a turn are in one message."""
    tools = [m["tool_call_id"] for m in body["messages"] if m["role"] == "tool"]
    return tools or [block["tool_use_id"] for block in body["messages"][-1]["content"]]


@pytest.mark.parametrize("status", [504, 429])
async def test_a_failed_call_costs_where_it_may_have_been_billed_and_nothing_where_it_was_not(
    world: World, model: Model, status: int
) -> None:
    model.status, model.replies = status, [{"error": {"message": "no"}}]
    done = await asked(world, tools=())
    assert done.outcome == "model_error" and not done.unpriced
    assert (done.cost_micro > 0) is (status == 504) and done.cost_micro == sum(c.cost_micro for c in await world.calls(done))


@pytest.mark.mission("P5.1")
@pytest.mark.parametrize("reply", [chat(), b"<html>"])
async def test_an_unknown_price_makes_the_cost_partial(world: World, model: Model, reply: Reply) -> None:
    await define(price_input=None, price_output=None)
    model.replies = [reply]
    done = await asked(world, tools=())
    assert done.unpriced and done.cost_micro == 0 and done.tokens_in > 0
    done = await Run.objects.select_related("tenant", "release", "asked").aget(id=done.id)
    record = await sync_to_async(lambda: records.run_records([done])[0])()
    assert record["cost_partial"] is True and record["usage"]["input_tokens"] == done.tokens_in


# the messages wire, end to end with the simulated model


@pytest.mark.mission("P1.2")
async def test_a_run_over_the_messages_wire_makes_its_call_and_completes(world: World) -> None:
    await define(provider="anthropic")
    done = await asked(world, "What is the plan of acct_1003?", tools=("fetch_account",))
    assert (done.state, done.outcome) == ("succeeded", "completed")
    assert [c.name for c in await world.calls(done)] == ["primary", "fetch_account", "primary"]
    assert "business plan" in await world.answer(done) and done.cost_micro > 0
    assert not [c for c in await world.calls(done) if not c.ord and c.result["estimated"]]


async def test_a_fallback_may_speak_the_other_wire_in_the_middle_of_a_conversation(world: World) -> None:
    await ModelDefinition.objects.filter(name="spare").aupdate(provider="anthropic")
    await world.agent(tools=("search_docs",), models={"planner": {"model": "primary", "fallback": ["spare"]}})
    odd = {"calls": [{"name": "search_docs", "arguments": {"query": "refunds"}, "id": f"call.{n}|x"} for n in range(2)]}
    run = await world.script(odd, {"text": "Done."})
    await world.fault("model", "500", times=2, match="tool_call_id")
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "completed" and "fallback_activated" in await world.kinds(run)
    assert [c.name for c in await world.calls(run)] == ["primary", "search_docs", "search_docs", "spare"]


async def test_a_synthesis_without_tools_reads_a_conversation_with_calls_on_the_messages_wire(world: World) -> None:
    await define(provider="anthropic")
    await world.agent(tools=("search_docs",), models={"planner": {"model": "primary"}, "synthesis": {"model": "primary"}})
    run = await world.script(call("search_docs", query="refunds"), {"text": "Done."})
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "completed", done.last_error
    assert [c.name for c in await world.calls(run)] == ["primary", "search_docs", "primary", "primary"]
