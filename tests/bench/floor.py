"""The floor: the same loop by hand, asyncio and aiohttp, one commit for each durable step, on the same database.

No lease, no fence, no policy, no schemas, no events beyond one row a step: what durability alone costs when nobody batches.
With "-" for the DSN nothing is kept at all: what HTTP costs. Prints one JSON line.  python -m tests.bench.floor DSN URL RUNS CONCURRENCY
"""

import asyncio
import json
import resource
import sys
import time
import uuid

import aiohttp
import uvloop
from psycopg_pool import AsyncConnectionPool

TABLES = """
create table if not exists floor_run(id uuid primary key, state text not null, step int not null default 0);
create table if not exists floor_step(run uuid, step int, kind text, output jsonb, at timestamptz default now(), primary key (run, step));
"""
STEP = """
with s as (insert into floor_step(run, step, kind, output) values (%(run)s, %(step)s, %(kind)s, %(output)s))
update floor_run set step = %(step)s, state = %(state)s where id = %(run)s
"""
LOOKUP = {"type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer"}}, "required": ["q"]}
TOOLS = [{"type": "function", "function": {"name": "lookup", "description": "Look an item up", "parameters": LOOKUP}}]


async def main(dsn: str, url: str, runs: int, concurrency: int) -> None:
    kept = dsn != "-"
    async with (
        AsyncConnectionPool(
            dsn, min_size=min(concurrency, 16) if kept else 0, max_size=16, kwargs={"autocommit": True}, timeout=300
        ) as pool,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        if kept:
            async with pool.connection() as connection:
                await connection.execute(TABLES)

        async def execute(sql: str, params: dict[str, object]) -> None:
            if not kept:
                return
            async with pool.connection() as connection:
                await connection.execute(sql, params, prepare=True)

        async def post(path: str, body: object) -> dict[str, object]:
            async with session.post(url + path, json=body) as answer:
                return dict(await answer.json())

        async def one(number: int) -> None:
            run, step = uuid.uuid4(), 0
            messages: list[dict[str, object]] = [{"role": "system", "content": "Look up, then answer."},
                                                 {"role": "user", "content": f"ticket {number}"}]  # fmt: skip
            await execute("insert into floor_run(id, state) values (%(run)s, 'running')", {"run": run})
            while True:
                reply = await post("/v1/chat/completions", {"model": "fake", "messages": messages, "tools": TOOLS})
                message = reply["choices"][0]["message"]  # type: ignore[index]
                messages.append(message)
                step += 1
                calls = message.get("tool_calls") or []
                state = "running" if calls else "done"
                await execute(STEP, {"run": run, "step": step, "kind": "model", "output": json.dumps(message), "state": state})
                if not calls:
                    return
                for call in calls:
                    result = await post("/tools/lookup", json.loads(call["function"]["arguments"]))
                    step += 1
                    await execute(STEP, {"run": run, "step": step, "kind": "tool", "output": json.dumps(result), "state": "running"})
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})

        numbers = iter(range(runs))

        async def worker() -> None:
            for number in numbers:
                await one(number)

        await asyncio.gather(*(one(-n - 1) for n in range(8)))
        cpu, began = _cpu(), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        wall, used = time.perf_counter() - began, _cpu() - cpu
        print(json.dumps({"runs_per_s": runs / wall, "cpu_ms_per_call": used * 1000 / (runs * 7), "commits_per_call": 8 / 7,
                          "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "wall_s": wall}))  # fmt: skip


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
