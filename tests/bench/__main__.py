"""`make bench`: every row of the goals of speed, and with PEERS=<folder> the engine beside the shared peers. Interleaved, medians, ratios.

PERFORMANCE=<file> has the rows written there. Read the ratios: absolute figures wander with the machine. Nothing here asserts on time.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console.postgres import Cluster
from tests.bench import pages, report, validation
from tests.bench.report import tell
from tests.crash.figures import figure

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = int(os.environ.get("ROUNDS", "3"))
RUNS, TOGETHER = int(os.environ.get("RUNS", "400")), 16
PEERS = os.environ.get("PEERS", "")
PEER_VARIANTS = (("dbos_peer", "async"), ("langgraph_peer", "async"))
GOALS = {"dbos_peer/async": 8, "langgraph_peer/async": 6}
COLUMNS = ("runs_per_s", "cpu_ms_per_call", "commits_per_call", "rss_mb")


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    os.environ["BENCH_ROWS"] = str(home / "rows")
    cluster = Cluster(home)
    urls = cluster.start()
    environment = os.environ | urls.environment() | {"SIGNALBOX_HOME": str(home), "SIGNALBOX_ROLE": "engine"}
    try:
        run([sys.executable, "manage.py", "migrate", "--database", "owner", "-v0"], environment)
        started(environment)
        with fake_server() as url:
            alone = engines(urls.owner, url, environment)
        together(environment)
        in_flight(environment)
        late_steps(environment)
        approved(environment)
        stored(alone, environment)
        size = pages.measured_in(environment | {"SIGNALBOX_ROLE": "web"})
    finally:
        cluster.destroy()
    validation.main()
    for sockets in ("100", "1000"):
        subprocess.run([sys.executable, "-m", "tests.bench.live", sockets], cwd=ROOT, check=True, timeout=300)
    if target := os.environ.get("PERFORMANCE"):
        (ROOT / target).write_text(report.document((home / "rows").read_text().splitlines(), size))
    shutil.rmtree(home, ignore_errors=True)


def engines(dsn: str, url: str, environment: dict[str, str]) -> list[float]:
    """S1 to S3. -> CPU ms of a call, each round's."""
    figures: dict[str, list[dict[str, Any]]] = {}
    peers = peers_python(dsn) if PEERS else None
    for _ in range(ROUNDS):
        floor = [sys.executable, "-m", "tests.bench.floor", dsn, url, str(RUNS), str(TOGETHER)]
        ours = [sys.executable, "-m", "tests.bench.engine", url, str(RUNS), str(TOGETHER)]
        figures.setdefault("floor (one commit a step)", []).append(run(floor, environment))
        figures.setdefault("signalbox engine", []).append(run(ours, environment))
        for script, variant in PEER_VARIANTS if peers else ():
            figures.setdefault(f"{script}/{variant}", []).append(peer(str(peers), script, variant, dsn, url))
    print(f"\n{RUNS} runs of 4 model and 3 tool calls, {TOGETHER} at once, one process; medians of {ROUNDS}, interleaved")
    print(f"{'':28}" + "".join(f"{name:>18}" for name in COLUMNS) + f"{'engine is':>12}")
    middle = {name: {c: statistics.median(f[c] for f in found) for c in COLUMNS} for name, found in figures.items()}
    ours_rate = middle["signalbox engine"]["runs_per_s"]
    for name, row in middle.items():
        print(f"{name:28}" + "".join(f"{row[c]:18.2f}" for c in COLUMNS) + f"{ours_rate / row['runs_per_s']:11.2f}x")
        if goal := GOALS.get(name):
            ratio = ours_rate / row["runs_per_s"]
            shown = f"{ours_rate:.0f} / {row['runs_per_s']:.0f} = {ratio:.1f}x"
            tell("S1", f"runs a second beside {name}, {TOGETHER} at once", shown, f"{goal}x", goal / ratio)
    row = middle["signalbox engine"]
    step_ms = row["cpu_ms_per_call"] * 7 / 8
    tell(
        "S1",
        "the same loop by hand, one commit a step and no guards, beside the engine",
        f"{middle['floor (one commit a step)']['runs_per_s']:.0f}",
    )
    tell("S2", "processor time of the engine a durable step", f"{step_ms:.2f} ms", "0.45 ms", step_ms / 0.45)
    tell("S3", f"flushes a call, {TOGETHER} at once", f"{row['commits_per_call']:.2f}", "0.3", row["commits_per_call"] / 0.3)
    return [found["cpu_ms_per_call"] for found in figures["signalbox engine"]]


def together(environment: dict[str, str]) -> None:
    """T64: the processes that an installation on this machine has, with every guard on."""
    began, rates = time.monotonic(), {1: list[float](), 2: list[float]()}
    with fake_server() as url:
        for _ in range(ROUNDS):
            for engines, found in rates.items():
                script = [sys.executable, "-m", "tests.bench.two_engines", url, str(RUNS), str(engines)]
                found.append(run(script, environment)["runs_per_s"])
    one, two = (statistics.median(found) for found in rates.values())
    tell("T64", "runs a second of two engine processes, all guards on, beside one", f"{two:.0f} / {one:.0f} = {two / one:.2f}x")
    figure("T64", "runs a second with every guard on, two engine processes on two cores beside servers and database", n=RUNS * ROUNDS * 2,
           seconds=time.monotonic() - began, two_engines=round(two), one_engine=round(one))  # fmt: skip


def in_flight(environment: dict[str, str]) -> None:
    """256 and 1,000 runs at once against servers that take 300 ms: the ideal is seven calls of 0.3 s."""
    ours = [sys.executable, "-m", "tests.bench.engine"]
    with fake_server(latency_ms=300) as slow:
        first = run([*ours, slow, "256", "256"], environment)["wall_s"]
        few = run([*ours, slow, "256", "256", "warm"], environment)["wall_s"]
        bare = run([sys.executable, "-m", "tests.bench.floor", "-", slow, "1000", "1000"], environment)["wall_s"]
        many = run([*ours, slow, "1000", "1000", "warm"], environment)
    tell("S4", "256 runs in flight at 300 ms a call, beside the ideal of 2.1 s", f"{few:.2f} s = {few / 2.1:.2f}x", "1.5x", few / 2.1 / 1.5)
    tell("S4", "the same at a host that the engine has not met before", f"{first:.2f} s = {first / 2.1:.2f}x")
    ratio = many["wall_s"] / bare
    tell("S5", "1,000 runs in flight, beside aiohttp alone", f"{many['wall_s']:.2f} / {bare:.2f} s = {ratio:.2f}x", "2x", ratio / 2)
    tell("S5", "1,000 runs in flight, memory of the engine", f"{many['rss_mb']:.0f} MB", "200 MB", many["rss_mb"] / 200)


def late_steps(environment: dict[str, str]) -> None:
    with fake_server(turns=499) as url:
        found = run([sys.executable, "-m", "tests.bench.long_run", url], environment)
    ratio = found["cpu_ms_late"] / found["cpu_ms_early"]
    tell("S6", "processor time of steps 465-495 beside steps 5-35 of a run of 500",
         f"{found['cpu_ms_late']:.2f} / {found['cpu_ms_early']:.2f} ms = {ratio:.2f}x", "1.15x", ratio / 1.15)  # fmt: skip
    grown = found["bytes_late"] / found["bytes_early"]
    tell("S6", "bytes that these steps leave behind", f"{found['bytes_late']:.0f} / {found['bytes_early']:.0f} = {grown:.2f}x", "1x", grown)


def stored(alone: list[float], environment: dict[str, str]) -> None:
    """The same runs once more, beside a past of many."""
    pages.fill(environment)
    with fake_server() as url:
        ours = [sys.executable, "-m", "tests.bench.engine", url, str(RUNS), str(TOGETHER)]
        beside = statistics.median(run(ours, environment)["cpu_ms_per_call"] for _ in range(ROUNDS))
    ratio = beside / statistics.median(alone)
    tell("S7", f"processor time a call with {pages.RUNS:,} runs stored, beside none",
         f"{beside:.2f} / {statistics.median(alone):.2f} ms = {ratio:.2f}x", "1.3x", ratio / 1.3)  # fmt: skip


def started(environment: dict[str, str]) -> None:
    latency("S8", "a run is accepted -> the first request leaves for the model, idle", "starts", (15, 40), environment)


def approved(environment: dict[str, str]) -> None:
    latency("S9", "a person's yes is committed -> the request leaves for the tool", "approvals", (10, 25), environment)


def latency(name: str, what: str, script: str, goals: tuple[int, int], environment: dict[str, str]) -> None:
    found = run([sys.executable, "-m", f"tests.bench.{script}", "200"], environment | {"SIGNALBOX_ROLE": "web"})
    for part, goal in zip(("p50", "p95"), goals, strict=True):
        tell(name, f"{what}, {part} of 200", f"{found[f'{part}_ms']:.1f} ms", f"{goal} ms", found[f"{part}_ms"] / goal)


def peers_python(dsn: str) -> Path:
    """A virtual environment of the peers' own, kept between calls."""
    place = ROOT / ".signalbox" / "peers"
    python = place / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        run([*uv, "venv", str(place)], dict(os.environ), quiet=True)
        run([*uv, "pip", "install", "-q", "-p", str(python), "-r", f"{PEERS}/requirements.txt"], dict(os.environ), quiet=True)
    return python


def peer(python: str, script: str, variant: str, dsn: str, url: str) -> dict[str, Any]:
    uri = dsn.replace("/signalbox?", f"/bench_{script.split('_')[0]}?")
    subprocess.run(["psql", dsn, "-qc", f"create database bench_{script.split('_')[0]}"], capture_output=True, check=False)
    command = [python, f"{PEERS}/{script}.py", "--db-uri", uri, "--model-url", f"{url}/v1", "--tools-url", f"{url}/tools"]
    found = run([*command, "--variant", variant, "--http", "aiohttp", "--runs", "100", "--concurrency", str(TOGETHER)], dict(os.environ))
    return found | {"cpu_ms_per_call": found["cpu_ms_per_step"] * 8 / 7, "commits_per_call": found["commits_per_step"] * 8 / 7}


def run(command: list[str], environment: dict[str, str], quiet: bool = False) -> dict[str, Any]:
    """The last line of what it prints, read as JSON. A failure shows its own words."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")
    lines = done.stdout.strip().splitlines()
    return {} if quiet or not lines else dict(json.loads(lines[-1]))


@contextmanager
def fake_server(latency_ms: float = 0, turns: int = 3) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"TOOL_TURNS": str(turns)}
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.fake_server", str(port), str(latency_ms)], cwd=ROOT, env=environment)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    main()
