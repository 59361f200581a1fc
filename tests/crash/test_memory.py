"""What an engine holds in memory: T43 over many steps, T44 while models and tools answer without end. Long form only (CHAOS=1).

What is cut, and where, is shown for each wire by tests/rules/test_egress.py, test_http_adapter.py and test_mcp_adapter.py.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from console import ports

from .figures import figure
from .nursery import ROOT

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CHAOS"), reason="minutes of work; CHAOS=1 runs it"),
    pytest.mark.timeout(1800),
    pytest.mark.forged("the engine runs in a process of its own, over rows that are thrown away with the database"),
]
RUNS = 5000  # of four steps
EACH = 10  # runs for each kind of bomb


@contextmanager
def serving(module: str) -> Iterator[str]:
    port = ports.free()
    process = subprocess.Popen([sys.executable, "-m", module, str(port)], cwd=ROOT)
    try:
        while True:
            with socket.socket() as knock:
                if knock.connect_ex((ports.HOST, port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.05)
        yield f"http://{ports.HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def appetite(url: str, what: str, many: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.crash.appetite", url, what, str(many)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_an_engine_holds_no_more_after_twenty_thousand_steps(committed_db: None) -> None:
    with serving("tests.bench.fake_server") as url:
        appetite(url, "queue", RUNS)
        found = appetite(url, "steps", RUNS)
    held = found["held_mb"]
    growth = (held[-1] - held[0]) / held[0]
    figure(
        "T43", "steps of one engine, and what it holds in memory", n=found["steps"], seconds=found["seconds"],
        mb_at_10_percent=held[0], mb_at_50_percent=held[4], mb_at_100_percent=held[-1], growth_percent=round(growth * 100, 1),
    )  # fmt: skip
    assert found["left"] == 0 and found["steps"] == RUNS * 4
    assert growth < 0.10, held


def test_answers_without_end_are_cut_and_cost_an_engine_little(committed_db: None) -> None:
    with serving("tests.crash.bombs") as url:
        found = appetite(url, "bombs", EACH)
    grew = {kind: mb for kind, mb in found["grew_mb"].items() if kind != "plain"}
    outcomes = {(text, outcome) for text, outcome in found["outcomes"]}
    figure(
        "T44", "answers of 1 GiB, and of 10 MiB that unpack to 10 GiB, of models and tools", n=EACH * len(grew), seconds=found["seconds"],
        **{f"{kind.replace(' ', '_')}_grew_mb": mb for kind, mb in grew.items()}, runs_that_did_not_end=found["left"],
    )  # fmt: skip
    assert found["left"] == 0
    assert max(grew.values()) < 50, grew
    assert outcomes == {
        ("plain", "completed"), ("tool stream", "completed"), ("tool bomb", "completed"),
        ("model stream", "invalid_output"), ("model bomb", "invalid_output"),
    }  # fmt: skip
