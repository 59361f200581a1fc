"""Figures of the crash tests: each test prints one line, `python -m tests.crash.figures FILE...` makes docs/reliability.md of them."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HEAD = """# Reliability, as measured

Written from what the long forms of the crash tests print (`make chaos`, or a part of it with `ARGS=`); nothing here is typed by hand.
Each row says when it was measured: the newest of its title counts. {machine}; put together {when}.

What an engine drives is killed, frozen, cut off from its database and cancelled at named places and at random. At the end of each row
but T19, T22, T25 and T26 (which look at one thing at a time) the database and what the other side received are compared: no effect twice,
no write without a key sent twice, one key per call, no effect without a durable intent, events without gaps, nothing that has ended still
owned, no open case on a settled call, no deadlock. T20 and T21 also compare every byte that a tool received with the bytes of the one
approval that was used up for it. "Unknown" writes are no failures: they are stopped, shown, and settled by evidence.
Quarantine is a holding state too: three engines in a row died under the run before it moved on.

A zero in N trials says only that the rate is below 3/N (95 %). The sweeps (every place, every kind of call) and the guards (each one
taken away until something goes wrong) say more. The counters show that the faults really happened.

| id | what | N | seed | seconds | counters | measured (UTC) |
|---|---|---:|---:|---:|---|---|
"""


def figure(name: str, title: str, *, n: int, seconds: float, seed: int | None = None, **counters: Any) -> None:
    """Print a figure, and keep it in the file that SIGNALBOX_FIGURES names. `counters` show that it was not vacuous."""
    line = json.dumps({"id": name, "title": title, "n": n, "seed": seed, "seconds": round(seconds, 1), "counters": counters,
                       "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"})  # fmt: skip
    print(f"\nFIGURE {line}", flush=True)
    if path := os.environ.get("SIGNALBOX_FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def document(lines: list[str], when: datetime) -> str:
    """The page, from lines as `figure` writes them."""
    found = (json.loads(line) for line in lines if line.strip())
    newest = {(row["id"], row["title"]): row for row in sorted(found, key=lambda row: row["at"])}
    rows = sorted(newest.values(), key=lambda row: int(row["id"][1:]))
    head = HEAD.format(when=f"{when:%Y-%m-%d %H:%M} UTC", machine=machine())
    return head + "".join(row(r) for r in rows)


def row(r: dict[str, Any]) -> str:
    cells = (r["id"], r["title"], r["n"], "" if r["seed"] is None else r["seed"], r["seconds"], said(r["counters"]), r["at"])
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def said(counters: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counters.items())


def machine() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores, {pages * size / 2**30:.0f} GB, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    Path("docs/reliability.md").write_text(document(lines, datetime.now(UTC)))
    print(f"docs/reliability.md: {len(lines)} figures")
