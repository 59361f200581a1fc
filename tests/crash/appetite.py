"""How much memory one engine takes. Prints one JSON line.  python -m tests.crash.appetite URL queue|steps|bombs HOW_MANY

`URL` is a server of `tests.bench.fake_server` for `steps`, of `tests.crash.bombs` for `bombs`. `queue` only puts so many runs
in the queue for `steps`: the memory that accepting them takes is another process's.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
import django

django.setup()

import uvloop  # noqa: E402
from django.conf import settings  # noqa: E402

from runs import intake  # noqa: E402
from runs.engine.engine import Engine  # noqa: E402
from runs.models import ModelDefinition, Run, Step  # noqa: E402
from tenants.actors import Actor  # noqa: E402
from tests.bench.engine import prepare  # noqa: E402

from .bombs import KINDS, PLAIN  # noqa: E402

TOGETHER = 50
PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mb() -> float:
    """What the process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


async def until(engine: Engine, ended: int) -> float:
    """The most it held until so many runs were over."""
    most = rss_mb()
    while engine.ended < ended:
        await asyncio.sleep(0.01)
        most = max(most, rss_mb())
    return most


async def steps(engine: Engine, runs: int) -> dict[str, Any]:
    """What it holds after each tenth of the runs."""
    held = []
    for tenth in range(1, 11):
        await until(engine, runs * tenth // 10)
        held.append(round(rss_mb(), 1))
    return {"held_mb": held, "steps": await Step.objects.acount()}


async def bombs(engine: Engine, actor: Actor, each: int) -> dict[str, Any]:
    """Plain runs first; then, for each kind of bomb, how much more it held than it did."""
    grew, over = {}, 0
    for kind in (PLAIN, *KINDS):
        before = rss_mb()
        for _ in range(each):
            await asyncio.to_thread(intake.submit, actor, intake.Order(agent="bench", input=kind))
        over += each
        grew[kind] = round(await until(engine, over) - before, 1)
    outcomes = {(text, outcome) async for text, outcome in Run.objects.values_list("asked__text", "outcome")}
    return {"grew_mb": grew, "outcomes": sorted(outcomes)}


async def measure(what: str, many: int, actor: Actor) -> dict[str, Any]:
    engine = Engine(settings.ENGINE_URL, slots=TOGETHER)
    task, began = asyncio.create_task(engine.run()), time.monotonic()
    found = await (steps(engine, many) if what == "steps" else bombs(engine, actor, many))
    found |= {"seconds": time.monotonic() - began, "left": await Run.objects.filter(outcome=None).acount()}
    engine.stop()
    await task
    return found


if __name__ == "__main__":
    target, kind_of, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    starter = prepare(target, number if kind_of == "queue" else 0)
    ModelDefinition.objects.filter(name="fake").update(retry={"max_attempts": 1})
    print(json.dumps({} if kind_of == "queue" else uvloop.run(measure(kind_of, number, starter))))
