"""T28, T29: no run ends late whatever its tools and models do; an engine whose clock is wrong takes and ends nothing early."""

import asyncio
import signal
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models import ExpressionWrapper, F, FloatField, Max
from django.db.models.functions import Extract

from approvals.models import Approval
from runs.models import Engine, Event, Run
from runs.states import TERMINAL
from tests.runtime.world import TICKET, World, call

from .figures import figure
from .load import Load
from .nursery import Nursery
from .test_chaos import size

HOUR, DAY = 3600.0, 86400.0
CLOCKS = {
    "an hour ahead": (HOUR,),
    "an hour behind": (-HOUR,),
    "a day ahead": (DAY,),
    "a day behind": (-DAY,),
    "stepping": (HOUR, -DAY, 0.0),
}
LATE = timedelta(seconds=5)

# What goes wrong, by a word in the question: target and fault, and the call the run makes over and over.
TROUBLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slow-tool": ("search_docs", "latency", {"ms": 900}),
    "hanging-tool": ("search_docs", "hang", {}),
    "dripping-tool": ("search_docs", "slow_drip", {}),
    "failing-tool": ("search_docs", "500", {}),
    "slow-model": ("model", "latency", {"ms": 900}),
    "hanging-model": ("model", "hang", {}),
    "dripping-model": ("model", "slow_drip", {}),
    "slow-write": ("create_ticket", "latency", {"ms": 1200}),
    "none": ("", "", {}),
}


def turns_of(trouble: str, number: int) -> list[dict[str, Any]]:
    """No two alike, so that nobody takes it for a loop."""
    tags = [f"{trouble} {number}.{turn}" for turn in range(40)]
    if trouble == "slow-write":
        return [call("create_ticket", **{**TICKET, "summary": tag}) for tag in tags]
    return [call("search_docs", query=tag) for tag in tags]


async def troubled(world: World, count: int, run_s: float) -> list[Run]:
    """Runs that would go on for long, each kind of trouble in turn."""
    for word, (target, fault, more) in TROUBLES.items():
        if target:
            await world.fault(target, fault, times=-1, match=f"{word} ", **more)
    kinds = list(TROUBLES)
    made = []
    for number in range(count):
        word = kinds[number % len(kinds)]
        made.append(await world.script(*turns_of(word, number), {"text": "Done."}, session=word, budget={"run_s": run_s}))
    return made


def lateness() -> dict[str, float]:
    """Kind of trouble -> seconds between the deadline and the end of its latest run."""
    late = ExpressionWrapper(Extract(F("ended_at") - F("deadline_at"), "epoch"), output_field=FloatField())
    rows = Run.objects.filter(state__in=TERMINAL).values_list("asked__session").annotate(late=Max(late))
    return {word: round(float(seconds), 2) for word, seconds in rows}


async def over(seconds: float) -> None:
    end = time.monotonic() + seconds
    while left := await Run.objects.exclude(state__in=TERMINAL).acount():
        assert time.monotonic() < end, f"{left} runs never ended: {Counter([r.state async for r in Run.objects.all()])}"
        await asyncio.sleep(0.1)


@pytest.mark.mission("P4.1")
async def test_no_run_ends_later_than_its_deadline_and_five_seconds(world: World, nursery: Nursery) -> None:
    count, began = size(500, 60), time.monotonic()
    budget = {"max_steps": 900, "max_tool_calls": 900, "max_writes": 900, "max_input_tokens": 10**9, "max_cost_usd": "999"}
    await world.agent(deadlines={"model_call_s": 1.5, "tool_call_s": 1.5, "step_s": 20, "run_s": 60}, budget=budget)
    await world.permit("create_ticket", "allow", loosen=True)
    for _ in range(2):
        nursery.start(lease=5.0, slots=size(300, 40))
    await troubled(world, count, run_s=size(15, 8))
    await over(180)
    late = await sync_to_async(lateness)()
    ends = Counter([run.outcome async for run in Run.objects.all()])
    faults = await world.http("GET", "/faults")
    hits: Counter[str] = Counter()  # a breaker opens before long, and then most runs wait for it: that counts in their time too
    for fault in faults["faults"]:
        hits[fault["fault"]] += fault["hits"]
    assert set(late) == set(TROUBLES) and ends["deadline_exceeded"] > count / 2 and min(hits.values()) > 0, f"vacuous: {ends}, {hits}"
    assert await Run.objects.filter(ended_at__gt=F("deadline_at") + LATE).acount() == 0, late
    title = "runs under slow, hanging, dripping and failing tools and models: none ends later than its deadline and 5 s"
    shown = {f"hit_by_{name}": times for name, times in hits.items()} | dict(sorted(ends.items()))
    figure("T29", title, n=count, seconds=time.monotonic() - began, latest_s=max(late.values()), **shown, late=0)


# clocks ---------------------------------------------------------------------------------------------------------------


async def taken_early() -> int:
    """Runs that were taken from an engine before its lease was over, by the clock of the database."""
    leases = {engine.id: engine.lease_until async for engine in Engine.objects.all()}
    early = 0
    async for event in Event.objects.filter(kind="run_taken_over"):
        early += not any(until <= event.at for until in leases.values())
    return early


async def asked_too_early() -> int:
    """Approvals that expired before their time, by the clock of the database."""
    expired = Event.objects.filter(kind="approval_expired")
    return sum([event.at < (await Approval.objects.aget(run_id=event.run_id)).expires_at async for event in expired])


async def beside(world: World, nursery: Nursery, clocks: dict[str, tuple[float, ...]], count: int) -> dict[str, Any]:
    """Engines with these clocks and one with the right one share the work; one of them is frozen beyond its lease."""
    load = Load(world, nursery, seed=28, lease=2.0, slots=10)
    await world.fault("model", "hang", times=-1, match="please hang")  # the oldest fault that fits is the one that happens
    await load.open(slow_ms=150)
    await world.agent("hasty", deadlines={"model_call_s": 9, "tool_call_s": 9, "step_s": 30, "run_s": 2})
    await world.agent("asking", deadlines={"run_s": 60, "approval_s": 1.5})
    await world.permit("delete_account", "ask")
    await load.submit(count)
    for number in range(6):
        load.runs.append(await world.submit(f"please hang {number}", agent="hasty"))
        ask = call("delete_account", account_id=f"acct_{number}")
        load.runs.append(await world.script(ask, {"text": "Nobody answered."}, agent="asking"))
    for clock in ((), *clocks.values()):
        load.engines.append(nursery.start(lease=2.0, slots=10, clock=clock))
    await asyncio.sleep(1.0)
    quiet = await Event.objects.filter(kind="run_taken_over").acount()
    assert quiet == 0, "an engine took a run from a neighbour that lives"
    frozen = await load.strike(signal.SIGSTOP)
    await load.rest(90)
    if frozen:
        frozen.send(signal.SIGCONT)
    for engine, clock in zip(nursery.children[1:], clocks.values(), strict=True):
        wrong_by = int(engine.log.read_text().partition("clock ")[2].split()[0]) - time.time()
        assert abs(wrong_by) > HOUR / 2 or len(clock) > 1, "its clock is right"
    counters = await load.counters()
    hasty = [run async for run in Run.objects.filter(agent_id="hasty")]
    assert {run.outcome for run in hasty} == {"deadline_exceeded"}
    too_soon = [run for run in hasty if run.ended_at and run.ended_at < run.deadline_at - timedelta(seconds=0.2)]
    too_late = [run for run in hasty if run.ended_at and run.ended_at > run.deadline_at + LATE]
    expired = await Event.objects.filter(kind="approval_expired").acount()
    assert expired == 6 and counters["takeovers"] > 0, f"vacuous: {expired}, {counters}"
    return {
        **counters,
        "expired": expired,
        "early_takeovers": await taken_early(),
        "early_expiries": await asked_too_early(),
        "deadlines_missed": len(too_soon) + len(too_late),
    }


@pytest.mark.mission("P3.5")
async def test_engines_with_wrong_clocks_take_nothing_over_early_and_end_nothing_early(world: World, nursery: Nursery) -> None:
    began, count = time.monotonic(), size(60, 15)
    found = await beside(world, nursery, CLOCKS, count)
    assert (found["early_takeovers"], found["early_expiries"], found["deadlines_missed"]) == (0, 0, 0), found
    figure("T28", f"engines whose wall clock is wrong ({', '.join(CLOCKS)}) beside one that is right, one frozen beyond its lease",
           n=count + 12, seconds=time.monotonic() - began, **found)  # fmt: skip
