"""What a step costs late in a long run beside an early one: `python -m tests.bench.long_run URL`. Prints one JSON line.

Eight runs of 500 steps (one model and one tool call each) go side by side through one engine in this process; the server behind URL has
to be started with TOOL_TURNS=499. CPU is this process's, by entries of the journal; bytes are those of the rows that steps leave behind.
"""

import asyncio
import json
import sys
from itertools import pairwise
from typing import Any

from tests.bench.engine import _cpu, prepare, queue  # sets Django up

import uvloop  # isort: skip
from django.conf import settings  # isort: skip
from django.db import connection  # isort: skip
from runs.engine.engine import Engine  # isort: skip
from runs.releases import create, promote  # isort: skip
from tenants.scope import ALL, tenant_scope  # isort: skip

RUNS, STEPS = 8, 500
EARLY, LATE = (5, 35), (465, 495)
BYTES = """
select sum(pg_column_size(c.*)) + (select sum(pg_column_size(e.*)) from event e join run r on r.id = e.run_id
                                    where (e.payload ->> 'step_id')::int between %(first)s and %(last)s and r.step >= 500)
  from call c join run r on r.id = c.run_id where c.step between %(first)s and %(last)s and r.step >= 500
"""


@tenant_scope(ALL)
def long_runs(url: str) -> None:
    actor = prepare(url, 0)
    budget = {"max_steps": STEPS, "max_tool_calls": STEPS, "max_input_tokens": 10**9, "max_output_tokens": 10**8, "max_cost_usd": 10_000}
    release = create(None, "bench", {
        "instructions": "Look up, then answer.", "tools": ["lookup"], "models": {"planner": {"model": "fake"}}, "budget": budget,
        "deadlines": {"run_s": 3600, "step_s": 600, "model_call_s": 120, "tool_call_s": 120},
    })  # fmt: skip
    promote(None, release)
    queue(actor, RUNS)


async def measure() -> list[tuple[int, float]]:
    """(entries of the journal, CPU seconds), sampled until all runs have ended."""
    engine = Engine(settings.ENGINE_URL, slots=RUNS)
    task = asyncio.create_task(engine.run())
    samples = []
    while engine.ended < RUNS:
        samples.append((engine.services.journal.entries, _cpu()))
        await asyncio.sleep(0.005)
    samples.append((engine.services.journal.entries, _cpu()))
    engine.stop()
    await task
    return samples


def between(samples: list[tuple[int, float]], first: int, last: int) -> float:
    """CPU ms of a step of one run, while the runs were at these steps."""
    total = samples[-1][0]
    low, high = first / STEPS * total, last / STEPS * total
    inside = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(samples) if low <= a[0] and b[0] <= high]
    entries, cpu = sum(n for n, _ in inside), sum(used for _, used in inside)
    return cpu / entries * total / (STEPS * RUNS) * 1000


@tenant_scope(ALL)
def stored(first: int, last: int) -> float:
    """Bytes that one step of one run left behind."""
    with connection.cursor() as cursor:
        cursor.execute(BYTES, {"first": first, "last": last})
        (total,) = cursor.fetchone()
    return float(total) / ((last - first + 1) * RUNS)


def main(url: str) -> dict[str, Any]:
    long_runs(url)
    samples = uvloop.run(measure())
    return {"cpu_ms_early": between(samples, *EARLY), "cpu_ms_late": between(samples, *LATE), 
            "bytes_early": stored(*EARLY), "bytes_late": stored(*LATE)}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
