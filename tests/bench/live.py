"""From the commit of an event to its arrival at every open socket: `python -m tests.bench.live [sockets] [events]`.

The sockets follow ten runs, as pages do. The clock starts just before COMMIT is sent, in the process that also receives, so that one
clock measures both ends. One line is printed; nothing here asserts on time.
"""

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from websockets.asyncio.client import connect

from console.postgres import Cluster
from tenants.ids import decode
from tests.acceptance.stack import Stack
from tests.bench.report import tell

RUNS = 10
PAUSE_S = 0.02
NUMBERED = "update run set seq = seq + 1 where id = %s returning seq, tenant_id"
TOLD = "insert into event (run_id, seq, tenant_id, kind, payload) values (%s, %s, %s, 'plan_decided', '{\"step_id\": 1, \"v\": 1}')"


def main() -> None:
    sockets, events = (int(word) for word in [*sys.argv[1:], *("100", "500")[len(sys.argv) - 1 :]][:2])
    home = Path(tempfile.mkdtemp(prefix="sbx-live-"))
    cluster = Cluster(home)
    stack = Stack(cluster.start())
    try:
        stack.up()
        runs = [stack.submit("URGENT: I was charged twice on acct_1001") for _ in range(RUNS)]
        for run in runs:
            stack.until(run, "waiting_approval")
        (session,) = stack.sessions("operator")
        found = sorted(asyncio.run(measure(stack, runs, session, sockets, events)))
        p50, p95, worst = statistics.median(found), found[int(len(found) * 0.95)], found[-1]
        goal = 20 if sockets <= 100 else 200
        shown = f"p50 {p50:.1f}, p95 {p95:.1f}, worst {worst:.1f} ms"
        tell(
            "S10",
            f"commit -> received by {sockets} open pages, {events} commits {PAUSE_S * 1000:.0f} ms apart",
            shown,
            f"p95 {goal} ms",
            p95 / goal,
        )
    finally:
        stack.down()
        cluster.destroy()
        shutil.rmtree(home, ignore_errors=True)


async def measure(stack: Stack, runs: list[str], session: str, sockets: int, events: int) -> list[float]:
    """Milliseconds of each message at each socket. Every event must come to every socket that follows its run."""
    began: dict[tuple[str, int], float] = {}
    took: list[float] = []
    ready = asyncio.Semaphore(0)
    url = stack.base_url.replace("http", "ws") + "/ws"
    headers = {"Cookie": f"sessionid={session}"}

    async def follow(number: int) -> None:
        topic = f"run:{runs[number % RUNS]}"
        async with connect(url, origin=stack.base_url, additional_headers=headers, max_queue=None) as socket:
            await socket.send(json.dumps({"op": "sub", "topics": [topic, "approvals"]}))
            await socket.send(json.dumps({"op": "ping"}))
            left = events // RUNS
            while left:
                message = json.loads(await socket.recv())
                arrived = time.perf_counter()
                if message.get("op") == "pong":
                    ready.release()
                elif message.get("t") == topic:
                    took.append((arrived - began[topic, message["seq"]]) * 1000)
                    left -= 1

    followers = [asyncio.create_task(follow(number)) for number in range(sockets)]
    for _ in followers:
        await ready.acquire()
    await write(stack.urls.engine, runs, events, began)
    await asyncio.wait_for(asyncio.gather(*followers), 60)
    return took


async def write(url: str, runs: list[str], events: int, began: dict[tuple[str, int], float]) -> None:
    """One commit after the other, as the journal makes them: number, event, hint."""
    connection: Any = await psycopg.AsyncConnection.connect(url, prepare_threshold=1)
    async with connection:
        for number in range(events // RUNS * RUNS):
            run = runs[number % RUNS]
            key = decode("agt", run)
            seq, tenant = await (await connection.execute(NUMBERED, [key])).fetchone()
            await connection.execute(TOLD, [key, seq, tenant])
            await connection.execute("select pg_notify('signalbox_moved', %s)", [key.hex])
            began[f"run:{run}", seq] = time.perf_counter()
            await connection.commit()
            await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
