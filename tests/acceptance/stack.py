"""A whole installation of its own on free ports: database, demo, and the processes that `make run` starts, as our children."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from console import ports
from console.postgres import Urls
from console.supervision import programs
from tests.database import MIGRATED

ROOT = Path(__file__).resolve().parent.parent.parent
READY_S = 90
SESSIONS = """
from django.test import Client
from tenants.models import User
for name in {!r}:
    client = Client()
    client.force_login(User.objects.get(username=name))
    print(client.cookies["sessionid"].value)
"""
# As `make run` does it: hashed names, not compressed. Nobody's edit of a file reaches a stack that runs.
STATIC = """
from django.conf import settings
from django.core.management import call_command
settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
call_command("collectstatic", interactive=False, verbosity=0)
"""
numbers = count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any  # parsed JSON, or the text
    headers: Any


class Stack:
    """`urls` name a database whose owner may create others. `environment` is added to that of every process.

    Processes by name: sandbox, web, engine-1 and so on, jobs when asked for. `dev` is what the demo wrote down: base_url,
    sandbox_url, people with username and password, keys."""

    root = ROOT  # the checkout that runs; `tests.crash.test_upgrade` lets another one

    def __init__(self, urls: Urls, *, engines: int = 1, jobs: bool = False, model_latency_ms: int = 150, **environment: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sbx-stack-"))
        self.logs = self.home / "logs"
        self.logs.mkdir()
        self.database = f"{urlsplit(urls.owner).path[1:]}_stack_{next(numbers)}"
        self.maintenance = urls.owner
        self.urls = Urls(*(urlsplit(url)._replace(path=f"/{self.database}").geturl() for url in (urls.web, urls.engine, urls.owner)), "")
        self.port, self.sandbox_port = ports.free(), ports.free()
        self.base_url, self.sandbox_url = f"http://{ports.HOST}:{self.port}", f"http://{ports.HOST}:{self.sandbox_port}"
        self.environment = os.environ | self.urls.environment() | self._settings() | environment
        self.commands = self._commands(engines, jobs, model_latency_ms)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.dev: dict[str, Any] = {}

    def _settings(self) -> dict[str, str]:
        return {
            "SIGNALBOX_HOME": str(self.home),
            "SIGNALBOX_DEMO": "1",
            "SIGNALBOX_MANIFEST": "1",
            "PORT": str(self.port),
            "PUBLIC_URL": self.base_url,
            "SANDBOX_URL": self.sandbox_url,
            "PYTHONWARNINGS": "ignore",
        }

    def _commands(self, engines: int, jobs: bool, model_latency_ms: int) -> dict[str, tuple[list[str], dict[str, str]]]:
        """Name -> command and environment, as `make run` has them."""
        found = {}
        for program in programs(port=self.port, engines=engines, jobs=jobs, sandbox_port=self.sandbox_port):
            command = list(program.command)
            if program.name == "sandbox":
                command += ["--model-latency-ms", str(model_latency_ms)]
            for number in range(1, program.copies + 1):
                several = program.name == "engine"
                found[f"{program.name}-{number}" if several else program.name] = command, dict(program.environment)
        return found

    def up(self) -> None:
        """Raises RuntimeError with the ends of the logs when it does not come up; nothing is left running then."""
        try:
            if not self._copied():
                self.manage("migrate", "--database", "owner", "-v0")
            self.manage("demo")
            self.python(STATIC)
            self.dev = json.loads((self.home / "dev.json").read_text())
            for name in self.commands:
                self.start(name)
            self.await_ready()
        except BaseException:
            self.down()
            raise

    def _copied(self) -> bool:
        """The database is a copy of the migrated one, where there is one and this checkout runs; else it is empty."""
        name, migrated = sql.Identifier(self.database), urlsplit(self.maintenance).path[1:] + MIGRATED
        with psycopg.connect(self.maintenance, autocommit=True) as connection:
            kept = self.root == ROOT and connection.execute("select from pg_database where datname = %s", [migrated]).fetchone() is not None
            template = sql.SQL(" template {}").format(sql.Identifier(migrated)) if kept else sql.SQL("")
            connection.execute(sql.SQL("create database {}").format(name) + template)
        return kept

    def down(self) -> None:
        """Every process we started ends, by its pid; then database and folder go."""
        living = [process for process in self.processes.values() if process.poll() is None]
        for process in living:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in living:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        with psycopg.connect(self.maintenance, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self.database)))
        shutil.rmtree(self.home, ignore_errors=True)

    def manage(self, *words: str) -> str:
        """What `manage.py <words>` said. Raises RuntimeError when it fails."""
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def python(self, text: str) -> str:
        """What a few lines of Python print in the installation."""
        return self.manage("shell", "--no-imports", "-v0", "-c", text)

    # processes --------------------------------------------------------------------------------------------------------

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        command, environment = self.commands[name]
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.root, env=self.environment | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.processes[name]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Returns when the process is gone."""
        self.processes[name].send_signal(number)
        self.processes[name].wait(40)

    def restart(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill, start again, and wait until the whole is ready."""
        self.kill(name, number)
        self.start(name)
        self.await_ready()

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            answers = [self.call("GET", url) for url in (f"{self.base_url}/readyz", f"{self.sandbox_url}/healthz")]
            if all(answer.status == 200 for answer in answers):
                return
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(f"Not ready: {[a.body for a in answers]}; ended: {dead}\n{self.tails()}")
            time.sleep(0.05)

    def tails(self, lines: int = 40) -> str:
        """The end of every log, for people."""
        parts = []
        for path in sorted(self.logs.glob("*.log")):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"--- {path.name}\n" + "\n".join(text))
        return "\n".join(parts)

    # talking ----------------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, *, key: str = "api_key", **headers: str) -> Answer:
        """`/api/v1` + path with the API key that `dev` has under that name. Header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            named["Authorization"] = f"Bearer {self.dev[key]}"
        return self.call(method, f"{self.base_url}/api/v1{path}", body, named)

    def sandbox(self, method: str, path: str, body: Any = None) -> Any:
        return self.call(method, self.sandbox_url + path, body).body

    def call(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Any status is an answer; no answer at all is status 0."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=75) as response:
                return Answer(response.status, parsed(response), response.headers)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, parsed(refusal), refusal.headers)
        except OSError as error:
            return Answer(0, str(error), {})

    def sessions(self, *usernames: str) -> list[str]:
        """A signed-in console session of each, as the value of the cookie `sessionid`."""
        return self.python(SESSIONS.format(usernames)).split()

    def submit(self, text: str, agent: str = "support-triage", **order: Any) -> str:
        """The id of a new run, started by the demo's operator."""
        answer = self.api("POST", "/runs", {"agent": agent, "input": text, **order})
        assert answer.status == 202, answer
        return str(answer.body["run_id"])

    def until(self, run_id: str, *states: str, seconds: float = 30) -> dict[str, Any]:
        """The run's record once it is in one of `states` (default: over)."""
        deadline = time.monotonic() + seconds
        while True:
            record: dict[str, Any] = self.api("GET", f"/runs/{run_id}", key="admin_api_key").body
            if record["state"] in (states or ("succeeded", "failed", "cancelled")):
                return record
            assert time.monotonic() < deadline, f"{run_id} is {record['state']}, not {states}: {record['last_error']}"
            time.sleep(0.05)

    def approval_of(self, run_id: str) -> dict[str, Any]:
        """The run's pending approval."""
        items = self.api("GET", f"/approvals?state=pending&run_id={run_id}", key="admin_api_key").body["items"]
        assert len(items) == 1, items
        return dict(items[0])


def parsed(response: Any) -> Any:
    raw = response.read()
    return json.loads(raw) if "json" in response.headers.get("Content-Type", "") else raw.decode(errors="replace")
