"""Each limit of a run, met by a real run: its record says which one, its value and where, and its rung is taken."""

from typing import Any

import pytest

from runs.models import ModelDefinition

from .world import TICKET, World, call


def searches(count: int, text: str = "I am looking.") -> list[dict[str, Any]]:
    return [call("search_docs", query=f"question {n}") | {"text": text} for n in range(count)]


LIMITS: list[tuple[str, dict[str, Any], list[dict[str, Any]], str]] = [
    ("max_steps", {"max_steps": 3}, searches(9), "step_limit"),
    ("max_tool_calls", {"max_tool_calls": 2}, searches(9), "budget_exceeded"),
    ("max_writes", {"max_writes": 0}, [call("create_ticket", **TICKET)], "budget_exceeded"),
    ("max_input_tokens", {"max_input_tokens": 900}, searches(9), "budget_exceeded"),
    ("max_output_tokens", {"max_output_tokens": 60}, searches(9), "budget_exceeded"),
    ("max_cost_usd", {"max_cost_usd": "0.002"}, searches(9), "budget_exceeded"),
]


@pytest.mark.mission("P5.1", "P5.2", "P4.1")
@pytest.mark.parametrize(("limit", "budget", "turns", "outcome"), LIMITS, ids=[case[0] for case in LIMITS])
async def test_the_record_of_a_run_that_meets_a_limit_says_which_value_and_where(
    world: World, limit: str, budget: dict[str, Any], turns: list[dict[str, Any]], outcome: str
) -> None:
    await world.agent(budget=budget)
    run = await world.script(*turns)
    await world.engine()
    done = await world.until(run)
    assert (done.state, done.outcome) == ("failed", outcome)
    assert done.stop is not None and done.stop["limit"] == limit and done.stop["step"] >= 1
    assert done.stop["value"] == float(budget[limit]) and done.stop["used"] > done.stop["value"]
    used = {"max_steps": done.step, "max_tool_calls": done.tool_calls, "max_writes": done.writes, "max_input_tokens": done.tokens_in,
            "max_output_tokens": done.tokens_out, "max_cost_usd": done.cost_micro / 1e6}  # fmt: skip
    assert used[limit] <= float(budget[limit])
    exceeded = [e.payload["data"] for e in await world.events(run) if e.kind == "budget_exceeded"]
    assert exceeded == [done.stop]


@pytest.mark.mission("P5.2", "P6.1")
@pytest.mark.parametrize(("limit", "budget", "turns", "outcome"), LIMITS, ids=[case[0] for case in LIMITS])
async def test_a_run_that_meets_a_limit_takes_its_rung(
    world: World, limit: str, budget: dict[str, Any], turns: list[dict[str, Any]], outcome: str
) -> None:
    await world.agent(budget=budget, ladder=[{"on": "budget_exceeded", "do": "retrieval_only"}, {"on": "budget_exceeded", "do": "stop"}])
    run = await world.script(*turns)
    await world.engine()
    done = await world.until(run)
    read_something = any(c.state == "done" and c.ord for c in await world.calls(run))
    assert (done.state, done.outcome) == (("succeeded", "completed_degraded") if read_something else ("failed", outcome))
    assert [r["do"] for r in done.rungs if not r.get("missed")] == (["retrieval_only"] if read_something else ["stop"])
    assert done.rungs[0]["limit"] == limit


@pytest.mark.mission("P5.1")
async def test_a_model_that_the_caller_does_not_allow_is_not_asked(world: World) -> None:
    models = {"planner": {"model": "primary", "fallback": ["spare"]}}
    await world.agent(models=models, budget={"allowed_models": ["primary", "spare"]})
    run = await world.script({"status": 500}, {"text": "ok"}, {"repeat": True}, budget={"allowed_models": ["primary"]})
    await world.engine()
    done = await world.until(run)
    assert {c.name for c in await world.calls(run)} == {"primary"} and done.outcome == "model_error"
    second = await world.script({"text": "ok"}, budget={"allowed_models": ["spare"]})
    assert (await world.until(second)).outcome == "completed"
    assert {c.name for c in await world.calls(second)} == {"spare"}
    none = await world.script({"text": "ok"}, budget={"allowed_models": ["another"]})
    stop = (await world.until(none)).stop
    assert stop is not None and (stop["limit"], stop["by"]) == ("allowed_models", "primary")


@pytest.mark.mission("P5.1")
async def test_an_unknown_price_makes_the_cost_partial_also_where_the_answer_was_lost(world: World) -> None:
    await ModelDefinition.objects.filter(name="primary").aupdate(price_input=None, price_output=None, model="sim-script")
    await world.agent()
    run = await world.script({"text": "free?"})
    await world.engine()
    done = await world.until(run)
    assert done.outcome == "completed" and done.unpriced
