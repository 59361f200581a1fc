"""Other people's programs, installed from their registries into a temporary folder and run on free loopback ports."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import world

__all__ = ["world"]
EVERYTHING = "@modelcontextprotocol/server-everything@2026.8.31"
CURE = "npm and Node.js 20 or newer are needed here (Debian: apt-get install nodejs npm)."
PATIENCE_S = 60


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the reference MCP server. Fails, and never skips, where it cannot be installed."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.fail(CURE, pytrace=False)
    place: Path = tmp_path_factory.mktemp("everything")
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    made = subprocess.run([npm, "install", *quiet, "--prefix", str(place), EVERYTHING], capture_output=True, text=True, timeout=300)
    if made.returncode:
        pytest.fail(f"npm could not install {EVERYTHING}: {made.stderr[-500:]} {CURE}", pytrace=False)
    port = free_port()
    program = place / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "PORT": str(port)}
    with (place / "log").open("wb") as log:
        server = subprocess.Popen([node, str(program), "streamableHttp"], env=environment, stdout=log, stderr=log, cwd=place)
    try:
        wait_for(f"http://127.0.0.1:{port}/mcp", server, place / "log")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.terminate()
        server.wait(20)


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only that a GET is not how one begins
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the MCP server did not start: {log.read_text()[-500:]}", pytrace=False)
