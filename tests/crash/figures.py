"""Figures of the crash tests: each test prints one line, `python -m tests.crash.figures FILE` makes docs/reliability.md of them."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

COMMAND = "make chaos"


def figure(name: str, title: str, *, n: int, seconds: float, seed: int | None = None, **counters: Any) -> None:
    """Print a figure, and keep it in the file that SIGNALBOX_FIGURES names. `counters` show that it was not vacuous."""
    line = json.dumps({"id": name, "title": title, "n": n, "seed": seed, "seconds": round(seconds, 1), "counters": counters})
    print(f"\nFIGURE {line}", flush=True)
    if path := os.environ.get("SIGNALBOX_FIGURES"):
        with Path(path).open("a") as file:
            file.write(line + "\n")
