"""Who this process is, so that engines on the same machine can tell a dead neighbour from a living one."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    boot_id: str

    @classmethod
    def here(cls) -> "Host":
        boot = Path("/proc/sys/kernel/random/boot_id")
        return cls(socket.gethostname(), boot.read_text().strip() if boot.exists() else "")


def started(pid: int) -> int | None:
    """Start time in clock ticks since boot (a pid may be used again, this pair is not). None: no such process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _unknown(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _unknown(pid: int) -> int | None:
    """Without /proc: alive counts as the same process; the lease decides in the end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
