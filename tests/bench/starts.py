"""From accepting a run to its first request at the model: `python -m tests.bench.starts [runs]`. Prints one JSON line.

The clock starts when `runs.intake` is called (in this process, as a web process does it) and stops when the first bytes of the model's
request arrive at a server in this same process. Between them: the transaction that accepts, the NOTIFY, the claim by an engine in a
process of its own, the intent's commit, the request. One run at a time, nothing else to do.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

from tests.bench.approvals import PAUSE_S, ROOT, Noting  # sets Django up

from asgiref.sync import sync_to_async  # isort: skip
from runs import intake  # isort: skip
from runs.models import Run  # isort: skip
from tenants.actors import Actor  # isort: skip
from tenants.scope import ALL, tenant_scope  # isort: skip
from tests.bench.engine import prepare  # isort: skip

ORDER = intake.Order(agent="bench", input="Summarise the three items of the ticket.")


class First(Noting):
    path = b"/v1/chat/"


@tenant_scope(ALL)
def prepared(url: str) -> Actor:
    return prepare(url, 0)


@tenant_scope(ALL)
def start(actor: Actor) -> float:
    began = time.perf_counter()
    intake.submit(actor, ORDER)
    return began


@tenant_scope(ALL)
def idle() -> bool:
    return not Run.objects.filter(state__in=("queued", "running")).exists()


async def measure(runs: int) -> dict[str, Any]:
    First.arrived = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(First, "127.0.0.1", 0, backlog=256)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    actor = await sync_to_async(prepared)(url)
    environment = os.environ | {"SIGNALBOX_ROLE": "engine"}
    engine = await asyncio.create_subprocess_exec(sys.executable, "manage.py", "engine", cwd=ROOT, env=environment)
    took: list[float] = []
    try:
        async with asyncio.timeout(600):
            await one(actor)  # until the engine is up, and its caches are filled
            while len(took) < runs:
                took.append(await one(actor))
    finally:
        engine.terminate()
        await engine.wait()
        server.close()
    took.sort()
    return {"runs": runs, "p50_ms": statistics.median(took), "p95_ms": took[int(len(took) * 0.95)], "worst_ms": took[-1]}


async def one(actor: Actor) -> float:
    """Milliseconds of one run; returns once it has ended."""
    began = await sync_to_async(start)(actor)
    took = (await First.arrived.get() - began) * 1000
    while not await sync_to_async(idle)():
        await asyncio.sleep(PAUSE_S)
    while not First.arrived.empty():
        First.arrived.get_nowait()
    return took


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200))))
