"""The processes of `make run` under supervisor: its configuration, its start, its states, its end.

Supervisor stops groups one after the other, highest priority first, so the priorities below are the order of the end."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import SupervisorTransport

from .embedded.places import private, short_folder

BAD = {"BACKOFF", "FATAL", "UNKNOWN"}


@dataclass(frozen=True, slots=True)
class Program:
    """`priority`: low starts first and stops last. `stop_s`: seconds between SIGTERM and SIGKILL."""

    name: str
    command: tuple[str, ...]
    priority: int
    stop_s: int
    copies: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


def programs(*, port: int, engines: int, jobs: bool, sandbox_port: int | None) -> list[Program]:
    """What `make run` runs."""
    python = (sys.executable, "-u")
    manage = (*python, "manage.py")
    uvicorn = ("-m", "uvicorn", "console.asgi:application", "--host", "127.0.0.1", "--port", str(port))
    live = ("--ws", "websockets-sansio", "--ws-max-size", "65536", "--timeout-graceful-shutdown", "5", "--no-access-log")
    web = Program("web", (*python, *uvicorn, *live), 40, 10, environment={"SIGNALBOX_ROLE": "web", "SIGNALBOX_POOL": "1"})
    engine = Program("engine", (*manage, "engine"), 20, 30, engines, {"SIGNALBOX_ROLE": "engine"})
    found = [web, engine]
    if jobs:
        found.append(Program("jobs", (*manage, "jobs"), 30, 20, environment={"SIGNALBOX_ROLE": "jobs"}))
    if sandbox_port is not None:
        found.append(Program("sandbox", (*manage, "sandbox", "--port", str(sandbox_port)), 10, 5))
    return found


def configuration(home: Path, socket: Path, wanted: list[Program], directory: Path) -> str:
    """The text of supervisord.conf. Secrets are not in it: the programs inherit the environment."""
    logs = home / "logs"
    user = f"user={_plain('root')}\n" if os.geteuid() == 0 else ""
    parts = [
        f"[supervisord]\nnodaemon=true\nsilent=true\n{user}logfile={_plain(logs / 'supervisord.log')}\n"
        f"pidfile={_plain(home / 'supervisord.pid')}\nchildlogdir={_plain(logs)}\nminfds=1024\n",
        f"[unix_http_server]\nfile={_plain(socket)}\nchmod=0700\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
    ]
    parts += [_section(program, logs, directory) for program in wanted]
    return "\n".join(parts)


def _section(program: Program, logs: Path, directory: Path) -> str:
    several = program.copies > 1
    process = "%(program_name)s-%(process_num)d" if several else "%(program_name)s"
    lines = {
        "command": _plain(shlex.join(program.command)),
        "directory": _plain(directory),
        "process_name": process,
        "numprocs": program.copies,
        "numprocs_start": 1,
        "priority": program.priority,
        "environment": ",".join(f'{name}="{_plain(value)}"' for name, value in program.environment.items()),
        "autorestart": "true",
        "startsecs": 1,
        "startretries": 20,
        "stopwaitsecs": program.stop_s,
        # Only the main process hears SIGTERM (django-q2 hangs when all of its processes do); SIGKILL goes to all.
        "stopasgroup": "false",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": f"{_plain(logs)}/{process}.log",
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 2,
    }
    return f"[program:{program.name}]\n" + "".join(f"{name}={value}\n" for name, value in lines.items() if value != "")


def _plain(value: object) -> str:
    return str(value).replace("%", "%%")


class Supervisor:
    """supervisord as a child of this process, in a session of its own: Ctrl-C in the terminal reaches only us."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.logs = home / "logs"
        folder = short_folder(home)
        private(folder)
        self.socket = folder / "supervisor.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()

    def start(self, wanted: list[Program], directory: Path) -> None:
        self.stop_orphan()
        self.logs.mkdir(exist_ok=True)
        file = self.home / "supervisord.conf"
        file.write_text(configuration(self.home, self.socket, wanted, directory))
        command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(file)]
        with (self.logs / "supervisord.out").open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def stop_orphan(self) -> None:
        """A `make run` that was killed leaves its supervisor and programs running: end them in order."""
        try:
            pid = int(cast(Any, self._rpc().supervisor.getPID()))
        except (OSError, HTTPException):
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 90
        while self.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def states(self) -> dict[str, str]:
        """Program -> supervisor's word for its state (STARTING, RUNNING, BACKOFF, FATAL ...); empty while it starts itself."""
        try:
            found = cast(list[dict[str, Any]], self._rpc().supervisor.getAllProcessInfo())
        except (OSError, HTTPException):
            return {}
        self._pids = {int(each["pid"]) for each in found if each["pid"]}
        return {str(each["name"]): str(each["statename"]) for each in found}

    def _rpc(self) -> xmlrpc.client.ServerProxy:
        return xmlrpc.client.ServerProxy("http://127.0.0.1", SupervisorTransport(None, None, f"unix://{self.socket}"))

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def tail(self, program: str, lines: int = 25) -> str:
        path = self.logs / f"{program}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End all programs in order. Returns when they are gone."""
        if self._process is None:
            return
        self.states()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(100)
            except subprocess.TimeoutExpired:
                self.kill()
        else:
            self.kill()

    def kill(self) -> None:
        """End everything now, without order. Safe in a signal handler: uses the pids that were last seen."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
