"""Which processes run on a data folder, told by where they stand: the pid in a file may belong to somebody else by now."""

import os
import subprocess
import sys
import time
from pathlib import Path


def running_on(data: Path) -> set[int]:
    """Pids of the server and its children: PostgreSQL's processes all have the data folder as their working folder."""
    if not sys.platform.startswith("linux"):
        return _listed_with(data)
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                place = (entry / "cwd").readlink()
            except OSError:  # gone, a zombie, or somebody else's
                continue
            if place == data:
                found.add(int(entry.name))
    return found


def _listed_with(data: Path) -> set[int]:
    listing = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False).stdout
    lines = (line.strip().partition(" ") for line in listing.splitlines())
    return {int(pid) for pid, _, command in lines if f" -D {data} " in f"{command} "}


def server_of(data: Path) -> int | None:
    """Pid of the server itself, or None. Both the pid file and the process must say so."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return _without_pid_file(data)
    return pid if pid in running_on(data) else None


def _without_pid_file(data: Path) -> int | None:
    """The pid file is empty or gone: the server is the one whose parent is not one of them."""
    pids = running_on(data)
    if not sys.platform.startswith("linux"):
        return min(pids, default=None)
    return next((pid for pid in sorted(pids) if _parent(pid) not in pids), None)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def gone(data: Path, patience_s: float) -> bool:
    """Wait until no process runs on `data`; False if some still do after `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while running_on(data):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def send(pids: set[int], signal: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            continue
