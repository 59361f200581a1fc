"""Every place where an engine can die, freeze or lose its database, with a read, a write with a key and a write without one.

`CASES` is the specification. A case is one run in an engine of its own that meets its fate exactly there; then others take over, and
the frozen wake up. In `make test` a part of the table runs (the writes without a key, and what is special); all of it under CHAOS=1.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from approvals.models import Approval
from runs import failpoints, reconcile, signoff
from runs.models import Event, Observation, Run
from tenants.errors import Refused
from tests.runtime.world import World, call

from .figures import figure
from .load import EFFECTS, TOOL, arguments
from .nursery import Forked, Nursery
from .oracle import HELD, violations

ALL = bool(os.environ.get("CHAOS"))
OK, UNKNOWN = "succeeded", "needs_reconciliation"
AT_ONCE = 24  # engines frozen together: each keeps its connections


@dataclass(frozen=True)
class Place:
    """A failpoint at its nth hit. How the run of a write without a key ends when the engine dies there, and when it was only frozen.

    A read and a write with a key succeed whatever happens, and so does every run whose engine only loses its database.
    """

    point: str
    nth: int
    dead: str
    frozen: str
    way: str = "direct"  # asked: a person approves; lost: the answer to the write is lost; slow: the write takes a while
    fates: tuple[str, ...] = ("kill9", "stop", "drop_db")

    def expected(self, fate: str, effect: str) -> str:
        if self.way == "lost":
            return UNKNOWN
        if effect != "unkeyed" or fate == "drop_db":
            return OK
        return self.dead if fate == "kill9" else self.frozen


CASES = [
    Place("after_claim", 1, OK, OK),
    Place("before_model_intent", 1, OK, OK),
    Place("in_flush", 1, OK, OK),  # the intent of the model call is on its way to the database
    Place("after_flush", 1, OK, OK),
    Place("after_model_intent", 1, OK, OK),
    Place("before_model_socket", 1, OK, OK),
    Place("after_model_answer", 1, OK, OK),
    Place("before_dispatch_commit", 1, OK, OK),  # decision and intent are one entry
    Place("in_flush", 2, OK, OK),
    Place("after_flush", 2, UNKNOWN, OK),  # durable, and never sent: indistinguishable from sent, until its engine is awake to say so
    Place("after_dispatch_commit", 1, UNKNOWN, OK),  # awake again, the lease check forbids the send
    Place("before_socket", 1, UNKNOWN, OK),  # awake again, the time of the send is over
    Place("after_answer", 1, UNKNOWN, OK),  # awake again, its answer is late evidence
    Place("before_model_intent", 2, UNKNOWN, OK),  # the result is known, and not committed
    Place("in_flush", 3, UNKNOWN, OK),
    Place("after_flush", 3, OK, OK),
    Place("after_model_intent", 2, OK, OK),  # the result is committed
    Place("before_end", 1, OK, OK),
    Place("in_flush", 4, OK, OK),
    Place("after_flush", 4, OK, OK),
    Place("after_end", 1, OK, OK),
    Place("before_park", 1, UNKNOWN, UNKNOWN, "lost"),
    Place("after_park", 1, UNKNOWN, UNKNOWN, "lost"),
    Place("lease_renewal", 1, UNKNOWN, "either", "slow"),  # with the write in flight
    Place("drain", 1, UNKNOWN, "either", "slow"),
    Place("before_ask", 1, OK, OK, "asked"),
    Place("in_ask", 1, OK, OK, "asked"),
    Place("after_ask", 1, OK, OK, "asked"),
    Place("before_consume", 1, OK, OK, "asked"),
    Place("in_consume", 1, OK, OK, "asked"),
    Place("after_consume", 1, UNKNOWN, OK, "asked"),  # awake again it says that nothing was sent, and people are asked anew
    Place("before_approved_socket", 1, UNKNOWN, OK, "asked"),
    Place("after_approved_answer", 1, UNKNOWN, OK, "asked"),
]  # fmt: skip


@dataclass
class Struck:
    place: Place
    effect: str
    fate: str
    run: Run
    engine: Forked

    @property
    def name(self) -> str:
        return f"{self.place.way}/{self.place.point}@{self.place.nth}/{self.fate}/{self.effect}"


async def prepare(world: World) -> None:
    await world.agent(deadlines={"model_call_s": 2, "tool_call_s": 0.5, "step_s": 20, "run_s": 60})


async def permit_all(world: World, decision: str) -> None:
    for tool in TOOL.values():
        await world.permit(tool, decision, loosen=True)


async def strike(world: World, nursery: Nursery, place: Place, effect: str, fate: str, tag: str) -> Struck:
    """One run in an engine of its own, until that engine is dead, frozen, or has lived through it."""
    tool, args = TOOL[effect], arguments(effect, tag)
    if place.way == "lost":
        await world.fault(tool, "drop_after", match=tag)
    if place.way == "slow":
        await world.fault(tool, "latency", match=tag, ms=400)
    run = await world.script(call(tool, **args), {"text": "Done."})
    action = "lost_answer" if (fate, place.point) == ("drop_db", "after_flush") else fate
    engine = nursery.start(f"{place.point}={action}@{place.nth}", lease=0.8, modest=fate != "drop_db")
    struck = Struck(place, effect, fate, run, engine)
    end, stopped = time.monotonic() + 20, False
    while not await met(struck):
        if time.monotonic() > end:
            state = (await Run.objects.aget(id=run.id)).state
            raise AssertionError(f"{struck.name}: never happened, the run is {state}\n{engine.log.read_text()[-2000:]}")
        if place.way == "asked":
            await approve_pending(world, run_id=run.id)  # another case's run would meet this engine's fate
        if place.point == "drain" and not stopped and [r for r in await world.received() if (r["target"], r["run"]) == (tool, run.run_id)]:
            engine.send(signal.SIGTERM)
            stopped = True
        await asyncio.sleep(0.01)
    if fate == "drop_db":
        engine.send(signal.SIGTERM)
    assert "failpoint" in engine.log.read_text(), f"{struck.name}: the point was not reached"
    return struck


async def met(s: Struck) -> bool:
    if s.fate == "kill9":
        return not s.engine.alive
    if s.fate == "stop":
        return s.engine.frozen
    state = (await Run.objects.aget(id=s.run.id)).state
    if "failpoint" not in s.engine.log.read_text():
        return False
    return state in HELD or (s.place.point == "drain" and not s.engine.alive)


async def approve_pending(world: World, **of: Any) -> None:
    async for one in Approval.objects.filter(state="pending", **of):
        with contextlib.suppress(Refused):  # its run is just being taken over, or ended
            await sync_to_async(signoff.decide)(world.people["approver"], one.id, verdict="approve", digest=one.digest)


async def recover(world: World, nursery: Nursery, struck: list[Struck], seconds: float = 30) -> None:
    """Other engines take over; what was frozen wakes up; everything comes to rest where the table says."""
    for _ in range(2):
        nursery.start(lease=2.0)
    end = time.monotonic() + seconds
    while await Run.objects.exclude(state__in=HELD).aexists():
        await approve_pending(world)
        await asyncio.sleep(0.05)
        if time.monotonic() > end:
            left = [(run.run_id, run.state) async for run in Run.objects.exclude(state__in=HELD)]
            raise AssertionError(f"not at rest: {left}")
    for s in struck:
        if s.fate == "stop":
            assert s.engine.frozen
            s.engine.send(signal.SIGCONT)
    end = time.monotonic() + 8  # cases are opened, and late evidence used, once a second
    while time.monotonic() < end and (await wrong_states(struck) or await violations(world)):
        await approve_pending(world)
        await asyncio.sleep(0.05)
    if any(s.fate == "stop" for s in struck):
        await asyncio.sleep(1.0)  # whatever a woken engine may still try


async def wrong_states(struck: list[Struck]) -> list[str]:
    states = {run.id: run.state async for run in Run.objects.all()}
    wrong = []
    for s in struck:
        expected, state = s.place.expected(s.fate, s.effect), states[s.run.id]
        if state != expected and not (expected == "either" and state in (OK, UNKNOWN)):
            wrong.append(f"{s.name}: {state} instead of {expected}")
    return wrong


def chosen(fate: str, effects: Iterable[str]) -> list[tuple[Place, str]]:
    cases = [(place, effect) for place in CASES if fate in place.fates for effect in effects]
    return [(place, effect) for place, effect in cases if place.way != "lost" or effect == "unkeyed"]


async def sweep(world: World, nursery: Nursery, fate: str, cases: list[tuple[Place, str]]) -> None:
    began = time.monotonic()
    await prepare(world)
    together = AT_ONCE if fate == "stop" else len(cases)
    for first in range(0, len(cases), together):
        struck = await strike_all(world, nursery, fate, cases[first : first + together], first)
        await recover(world, nursery, struck)
        assert not (wrong := await wrong_states(struck)), "\n".join(wrong)
        assert not (wrong := await violations(world)), "\n".join(wrong)
        nursery.end_all()
    kinds = [kind async for kind in Event.objects.values_list("kind", flat=True)]
    counters = {"of": len(chosen(fate, EFFECTS)), "takeovers": kinds.count("run_taken_over"), "unknown": kinds.count("tool_call_unknown")}
    title = f"failpoint sweep, {fate}: every case ends in its specified state, no effect twice"
    late = await Observation.objects.acount()
    figure("T2", title, n=len(cases), seconds=time.monotonic() - began, **counters, late_evidence=late)


async def strike_all(world: World, nursery: Nursery, fate: str, cases: list[tuple[Place, str]], first: int) -> list[Struck]:
    struck = []
    for asked in (False, True):
        await permit_all(world, "ask" if asked else "allow")
        for number, (place, effect) in enumerate(cases, first):
            if (place.way == "asked") == asked:
                struck.append(await strike(world, nursery, place, effect, fate, f"case {number:04d}"))
    return struck


@pytest.mark.mission("P3.5")
async def test_an_engine_killed_at_any_point_leaves_a_specified_state(world: World, nursery: Nursery) -> None:
    await sweep(world, nursery, "kill9", chosen("kill9", EFFECTS if ALL else ["unkeyed"]))


@pytest.mark.mission("P3.5")
async def test_an_engine_frozen_at_any_point_and_awake_again_changes_nothing_it_lost(world: World, nursery: Nursery) -> None:
    cases = chosen("stop", EFFECTS if ALL else ["unkeyed"])
    in_transaction = ("in_ask", "in_consume")  # PostgreSQL ends these after 10 s: not in the short form
    short = [(place, effect) for place, effect in cases[7:] if place.point not in in_transaction]
    await sweep(world, nursery, "stop", cases if ALL else short)


@pytest.mark.mission("P3.5")
async def test_an_engine_whose_database_connections_are_cut_at_any_point_goes_on(world: World, nursery: Nursery) -> None:
    cases = chosen("drop_db", EFFECTS)
    await sweep(world, nursery, "drop_db", cases if ALL else random.Random(5).sample(cases, 8))


@pytest.mark.parametrize("point", ["in_expire", "in_settle"])
@pytest.mark.parametrize("fate", ["kill9", "drop_db"] if ALL else ["kill9"])
async def test_an_engine_that_dies_while_it_closes_what_people_left_open_closes_it_once(
    world: World, nursery: Nursery, point: str, fate: str
) -> None:
    """The rare transactions outside a run's own entries: nothing of them is half done, and the next engine does them."""
    await world.agent(deadlines={"tool_call_s": 0.5, "step_s": 20, "run_s": 60, "approval_s": 0.2})
    await permit_all(world, "ask" if point == "in_expire" else "allow")
    await world.fault("send_email", "drop_after")
    run = await world.script(call("send_email", **arguments("unkeyed", "x")), {"text": "Done."})
    struck = nursery.start(f"{point}={fate}")
    if point == "in_settle":
        held = await world.until(run, "needs_reconciliation")
        seen = {"step": 1, "ord": 1, "attempt": 1, "applied": True, "result": {"ok": True}, "error_class": ""}
        await sync_to_async(reconcile.observe)(held.tenant_id, run.id, held.fence, [seen])
    end = time.monotonic() + 20
    while "failpoint" not in struck.log.read_text() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    nursery.start()
    assert (await world.until(run)).outcome == "completed"
    kinds = await world.kinds(run)
    assert kinds.count("approval_expired" if point == "in_expire" else "tool_call_reconciled") == 1
    assert not (wrong := await violations(world)), "\n".join(wrong)


def test_every_point_in_the_code_is_in_the_table_and_a_wrong_name_is_refused() -> None:
    root = Path(failpoints.__file__).parent
    placed = [name for file in root.rglob("*.py") for name in re.findall(r'^ +fp\("(\w+)"\)$', file.read_text(), re.M)]
    assert sorted(placed) == sorted(failpoints.POINTS), "each point is at one place"
    assert {place.point for place in CASES} | {"in_expire", "in_settle"} == set(failpoints.POINTS)
    for wrong in ("nowhere=kill9", "in_flush=explode", "in_flush"):
        with pytest.raises(ValueError, match="not a failpoint"):
            failpoints.arm(wrong)
    failpoints.arm("")
