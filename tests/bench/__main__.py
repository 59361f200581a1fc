"""`make bench`: this engine beside the floor and, with PEERS=<folder>, beside the shared peers. Interleaved, medians, ratios.

Read the ratios: absolute figures wander with the machine. Nothing here asserts on time.
"""

import json
import os
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
from tests.bench import validation

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = int(os.environ.get("ROUNDS", "3"))
RUNS, TOGETHER = int(os.environ.get("RUNS", "400")), 16
PEERS = os.environ.get("PEERS", "")
PEER_VARIANTS = (("dbos_peer", "async"), ("langgraph_peer", "async"))
COLUMNS = ("runs_per_s", "cpu_ms_per_call", "commits_per_call", "rss_mb")


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    cluster = Cluster(home)
    urls = cluster.start()
    environment = os.environ | urls.environment() | {"SIGNALBOX_HOME": str(home), "SIGNALBOX_ROLE": "engine"}
    try:
        run([sys.executable, "manage.py", "migrate", "--database", "owner", "-v0"], environment)
        with fake_server() as url:
            engines(urls.owner, url, environment)
            in_flight(url, environment)
        approved(environment)
    finally:
        cluster.destroy()
    validation.main()
    subprocess.run([sys.executable, "-m", "tests.bench.pages"], cwd=ROOT, check=True, timeout=3600)
    for sockets in ("100", "1000"):
        subprocess.run([sys.executable, "-m", "tests.bench.live", sockets], cwd=ROOT, check=True, timeout=300)


def engines(dsn: str, url: str, environment: dict[str, str]) -> None:
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


def in_flight(url: str, environment: dict[str, str]) -> None:
    """256 and 1,000 runs at once against a model that takes 300 ms: the ideal is seven calls of 0.3 s."""
    with fake_server(latency_ms=300) as slow:
        for together in (256, 1000):
            found = run([sys.executable, "-m", "tests.bench.engine", slow, str(together), str(together)], environment)
            print(f"{together} in flight at 300 ms a call: {found['wall_s']:.2f} s, {found['wall_s'] / 2.1:.2f}x ideal, "
                  f"{found['rss_mb']:.0f} MB")  # fmt: skip


def approved(environment: dict[str, str]) -> None:
    """A person's yes, until the tool hears of it. The goal is 10 ms, and 25 for 95 of 100."""
    found = run([sys.executable, "-m", "tests.bench.approvals", "200"], environment | {"SIGNALBOX_ROLE": "web"})
    print(f"approvals: {found['decisions']} decisions one at a time: commit -> request at the tool p50 {found['p50_ms']:.1f} ms, "
          f"p95 {found['p95_ms']:.1f} ms, worst {found['worst_ms']:.1f} ms")  # fmt: skip


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
def fake_server(latency_ms: float = 0) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.fake_server", str(port), str(latency_ms)], cwd=ROOT)
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
