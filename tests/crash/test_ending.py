"""Ending what is under way: a person's cancel at every point, and tools that never end by themselves."""

import asyncio
import os
import threading
import time
from collections import Counter

from django.db import connections

from runs import failpoints, lifecycle
from runs.models import Call, Event, Run
from tests.runtime.world import World, call

from .figures import figure
from .load import EFFECTS, TOOL, Load, arguments, put_python
from .nursery import Nursery
from .test_failpoints import approve_pending

CHAOS = bool(os.environ.get("CHAOS"))

CANCEL_AT = {  # point: whether a write may still be made after a cancel that was durable there
    "after_claim": False, "before_model_intent": False, "after_model_intent": False, "before_model_socket": False,
    "after_model_answer": False, "before_dispatch_commit": False, "after_dispatch_commit": True, "before_socket": True,
    "after_answer": True, "before_end": True, "after_end": True, "before_ask": False, "after_ask": False, "before_consume": False,
    "after_consume": True, "before_approved_socket": True, "after_approved_answer": True,
}  # fmt: skip
ASKED = {"before_ask", "after_ask", "before_consume", "after_consume", "before_approved_socket", "after_approved_answer"}


async def test_a_cancel_at_any_point_lets_nothing_start_after_it(world: World) -> None:
    """In process: the cancel is a person's transaction that commits exactly while the engine is there."""
    began = time.monotonic()
    cases = [(point, effect) for point in CANCEL_AT for effect in (EFFECTS if CHAOS else ("unkeyed",))]
    await Load(world, None).open()  # type: ignore[arg-type]
    await world.engine()
    stopped = 0
    try:
        for asked in (False, True):
            for tool in TOOL.values():
                await world.permit(tool, "ask" if asked else "allow", loosen=True)
            for point, effect in (case for case in cases if (case[0] in ASKED) == asked):
                stopped += await cancel_at(world, point, effect)
    finally:
        failpoints.arm("")
    figure("T26", "cancels at every point, nothing is sent after one that was there before the dispatch", n=len(cases),
           seconds=time.monotonic() - began, cancelled=stopped, ended_before=len(cases) - stopped)  # fmt: skip


async def cancel_at(world: World, point: str, effect: str) -> int:
    before = len(await world.ledger())

    def cancel() -> None:
        newest = Run.objects.order_by("-created_at").first()
        assert newest
        lifecycle.cancel(world.people["operator"], newest.id)
        connections.close_all()

    def act() -> None:
        """A person's own transaction, in a thread of its own, over before the engine goes on."""
        person = threading.Thread(target=cancel)
        person.start()
        person.join()

    failpoints.put(point, act)
    run = await world.script(call(TOOL[effect], **arguments(effect, f"{point} {effect}")), {"text": "Done."})
    end = time.monotonic() + 20
    while (state := (await Run.objects.aget(id=run.id)).state) not in ("succeeded", "cancelled", "failed") and time.monotonic() < end:
        await approve_pending(world)
        await asyncio.sleep(0.02)
    made = len(await world.ledger()) - before
    assert state == "cancelled" or (state == "succeeded" and point in ("before_end", "after_end")), f"{point} {effect}: {state}"
    assert made == 0 or CANCEL_AT[point], f"{point} {effect}: {made} effects after the cancel"
    return int(state == "cancelled")


async def test_hung_tools_end_at_their_deadline(world: World, nursery: Nursery) -> None:
    await put_python(world, "spin")
    load = Load(world, nursery)
    await load.open()
    await world.agent("hung", (*TOOL.values(), "spin"), deadlines={"tool_call_s": 0.5, "step_s": 30, "run_s": 60})
    await world.fault("search_docs", "hang", times=-1)
    await world.fault("create_ticket", "slow_drip", times=-1)
    await world.fault("send_email", "hang", times=-1)
    many = 20 if CHAOS else 1
    for number in range(many):
        turns = [call(tool, **arguments(effect, f"run {number}")) for effect, tool in TOOL.items()]
        for turn in [call("spin", tag=f"run {number}"), *turns]:
            load.runs.append(await world.script(turn, {"text": "Done."}, agent="hung"))
    load.start(1)
    await load.rest()
    over = [ms async for ms in Call.objects.filter(ord__gt=0, latency_ms__isnull=False).values_list("latency_ms", flat=True)]
    failed = Counter([e.payload["tool"] async for e in Event.objects.filter(kind="tool_call_failed")])
    assert set(failed) >= {"search_docs", "send_email", "spin"} and max(over) < 10_000, (failed, over)
    counters = await load.counters()
    figure("T27", "tools that hang: silence, one byte at a time, a Python loop without end (deadline 500 ms)", n=len(load.runs),
           seconds=load.seconds, longest_send_ms=max(over), **counters)  # fmt: skip
