"""A receiver of telemetry from PyPI and Prometheus from Debian, each in a folder of its own. They fail, and never skip, where they
cannot be had."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from console import ports

OTELTAP = "oteltap==1.0.0"
DEBIAN = "Debian's package prometheus is needed here (apt-get install prometheus), or apt-get download must reach it."
PATIENCE_S = 60


def eventually(look: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {seconds} s", pytrace=False)
        time.sleep(0.1)
    return found


@dataclass
class Tap:
    """The receiver prints each span that it understood as a line of JSON."""

    url: str
    log: Path

    def spans(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in of.get("attributes", [])}


@pytest.fixture(scope="session")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tap]:
    place = tmp_path_factory.mktemp("oteltap")
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True, timeout=120)
    made = subprocess.run(
        [str(place / "venv/bin/pip"), "install", "--quiet", OTELTAP], capture_output=True, text=True, timeout=300, check=False
    )
    if made.returncode:
        pytest.fail(f"pip could not install {OTELTAP}: {made.stderr[-500:]}", pytrace=False)
    port, log = ports.free(), place / "log"
    command = [str(place / "venv/bin/python"), "-u", "-m", "oteltap", "--port", str(port)]
    with log.open("wb") as out:
        program = subprocess.Popen(command, stdout=out, stderr=out, cwd=place)
    try:
        eventually(lambda: "Listening" in log.read_text() or program.poll() is not None, "the receiver starts")
        yield Tap(f"http://127.0.0.1:{port}", log)
    finally:
        program.terminate()
        program.wait(20)


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `prometheus` and `promtool`."""
    if found := shutil.which("promtool"):
        return Path(found).parent
    place = tmp_path_factory.mktemp("prometheus")
    if shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "download", "prometheus"], cwd=place, env=environment, capture_output=True, timeout=300, check=False)
    for package in place.glob("prometheus_*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(place / "root")], check=True, timeout=120)
    if not (place / "root/usr/bin/promtool").exists():
        pytest.fail(DEBIAN, pytrace=False)
    return place / "root/usr/bin"
