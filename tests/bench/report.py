"""The rows of `make bench`: each is printed when it is measured, kept in the file BENCH_ROWS, and all of them make docs/performance.md."""

import json
import os
import time
from pathlib import Path

HEAD = """# Speed, as measured

Written by `make bench` (with `PERFORMANCE=docs/performance.md`); nothing here is typed by hand. {machine}; {date}; {size}. Other work
wanted {load:.1f} processes' worth of the machine in the last five minutes. Absolute figures wander with the machine: read the last column,
which is the figure divided by its goal (1.00 and less meets it; for runs a second, the goal divided by the figure).

The workload is an agent of four model and three tool calls against servers on loopback that cost almost nothing, PostgreSQL with fsync
and synchronous commit on, everything on the same cores. Rows that compare several systems were measured in turns, and are medians.

| id | what | figure | goal | of the goal |
|---|---|---|---|---:|
"""
TAIL = """
S11 is told in [reliability](reliability.md), T14, together with what happens to the runs.

## How pages stay fast

- Figures of a period are never counted from runs: `console/rollups.py` keeps them by the hour, `console/stored_hours.py` adds up in
  PostgreSQL what nobody tells apart, and each process remembers the hours it read until they are counted anew.
- The hour that runs now is read as background jobs counted it last, while that is at most 20 seconds old.
- Runs that are not over are found by tenant and state, for which there is an index; spend is the sum of hours, and of rehearsals.
- Lists go by the key of the last row, never by its number. A text search looks at a bounded number of the newest runs and offers to go on.

## What stands in the way

- S1, S2: the profile of an engine is flat. Of its processor time about 40 % is HTTP (httpx's request and headers, aiohttp's client),
  25 % the journal (packing arrays, sending them), the rest the loop, JSON, schemas and the rulings of policy. PostgreSQL, the fake servers
  and the engine share the same two cores, so an engine alone on a core does better than these rows.
- S4: a host that an engine has not met is asked ten calls at once, and twice as many with each answer's time. That pace spares hosts that
  come back from an outage, and it is why the row of an unknown host is not at the goal.
- S6: a model is sent its whole conversation at every step. Each message is encoded once, but the bytes on the wire still grow with it.
- S9: between the yes and the request lie a wake-up, a claim, the reading of the run's rows and the transaction that looks at the approval
  once more and uses it up, one after another.
- Series of 30 days read 720 hours of every agent and tool before they are added up in Python.
- `/metrics` adds up all hours that are kept, however old: its time grows with the age of the installation.
"""


def tell(name: str, what: str, figure: str, goal: str = "", share: float | None = None) -> None:
    print(f"{name:5}{what:74}{figure:>24}{goal:>14}" + ("" if share is None else f"{share:8.2f}"), flush=True)
    if path := os.environ.get("BENCH_ROWS"):
        with Path(path).open("a") as file:
            file.write(json.dumps([name, what, figure, goal, share]) + "\n")


def document(rows: list[str], size: str) -> str:
    pages, unit, cores = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE"), os.cpu_count()
    head = HEAD.format(
        machine=f"{cores} cores, {pages * unit / 2**30:.0f} GB",
        date=time.strftime("%-d %B %Y", time.gmtime()),
        size=size,
        load=os.getloadavg()[1],
    )
    told = sorted((json.loads(line) for line in rows if line.strip()), key=lambda row: int(row[0][1:]))
    lines = (
        f"| {name} | {what} | {figure} | {goal} | {'' if share is None else f'{share:.2f}'} |\n" for name, what, figure, goal, share in told
    )
    return head + "".join(lines) + TAIL
