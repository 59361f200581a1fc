"""`make run` after the installation: database, migrations, demo, static files, processes; then the address and the logins."""

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from console import ports
from console.embedded.places import writable
from console.postgres import Cluster, EmbeddedPostgresError
from console.runbooks import shelf
from console.supervision import BAD, Supervisor, programs

PREPARED = "SIGNALBOX_UP"
READY_S = 120


class Stopping(BaseException):
    """Ctrl-C or SIGTERM."""


class Command(BaseCommand):
    help = "Start everything: PostgreSQL (unless DATABASE_URL is set), web, engines, jobs and the sandbox. Ctrl-C stops it all."
    requires_system_checks = []

    cluster: Cluster | None = None
    supervisor: Supervisor | None = None
    signals = 0

    def add_arguments(self, parser: ArgumentParser) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parser.add_argument("--engines", type=int, default=min(cores, 2), help="engine processes (default: one per core, two at most)")
        parser.add_argument("--no-jobs", action="store_true", help="no schedules and background work")
        parser.add_argument("--no-demo", action="store_true", help="no demo configuration and no sandbox")

    def handle(self, *args: Any, engines: int, no_jobs: bool, no_demo: bool, **options: Any) -> None:
        self.home = Path(settings.HOME)
        self.port, self.sandbox_port = settings.PORT, None if no_demo else settings.PORT + 1009
        try:
            if not os.environ.get(PREPARED, "").startswith(f"{os.getpid()}:"):
                self.check_ports()
                self.again_with_environment(demo=not no_demo)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self.on_signal)
            self.run(engines, not no_jobs, demo=not no_demo)
        except EmbeddedPostgresError as failure:
            raise CommandError(str(failure)) from failure

    # -- before -------------------------------------------------------------------------------------------------------

    def check_ports(self) -> None:
        Supervisor(self.home).stop_orphan() if not self.somebody_runs() else None
        for port in (self.port, self.sandbox_port):
            if port is not None and ports.in_use(port):
                raise CommandError(f"Port {port} is in use. Stop what uses it, or choose another: `PORT={self.port + 1} make run`.")

    def somebody_runs(self) -> bool:
        with writable(self.home):
            self.lock = os.open(self.home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def again_with_environment(self, *, demo: bool) -> None:
        """The settings read the URLs when they load, so this process begins again with them in its environment."""
        environment = dict(os.environ) | {"SIGNALBOX_MANIFEST": "1"}
        embedded = not environment.get("DATABASE_URL")
        if embedded:
            environment |= Cluster(self.home).urls().environment()
        if demo:
            environment |= {"SIGNALBOX_DEMO": "1", "SANDBOX_URL": f"http://{ports.HOST}:{self.sandbox_port}"}
        environment[PREPARED] = f"{os.getpid()}:{'embedded' if embedded else 'given'}"
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)

    def on_signal(self, number: int, frame: object) -> None:
        self.signals += 1
        if self.signals == 1:
            raise Stopping
        if self.signals == 2 and self.supervisor is not None:
            self.supervisor.kill()

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self, engines: int, jobs: bool, *, demo: bool) -> None:
        if self.somebody_runs():
            raise CommandError(f"Another `make run` works in {self.home}. Stop it, or set SIGNALBOX_HOME to another folder.")
        embedded = os.environ.pop(PREPARED).endswith(":embedded")
        try:
            self.prepare(embedded, demo)
            self.say("processes")
            self.supervisor = Supervisor(self.home)
            wanted = programs(port=self.port, engines=engines, jobs=jobs, sandbox_port=self.sandbox_port)
            self.supervisor.start(wanted, settings.BASE_DIR)
            self.await_ready()
            self.welcome()
            self.watch()
        except Stopping:
            self.stdout.write("\nStopping (again to stop at once) ...")
        finally:
            self.end()

    def say(self, what: str) -> None:
        self.stdout.write(f"  {what} ...")
        self.stdout.flush()

    def prepare(self, embedded: bool, demo: bool) -> None:
        if embedded:
            self.say("PostgreSQL")
            self.cluster = Cluster(self.home)
            self.cluster.start()
        self.say("migrations")
        call_command("migrate", database="owner", interactive=False, verbosity=0)
        shelf.load_files()
        if demo and "demo" in get_commands():
            self.say("demo")
            call_command("demo")
        if not demo:
            call_command("begin")
        self.say("static files")
        self.collect_static()
        connections.close_all()

    def collect_static(self) -> None:
        """Hashed names for long caching, and again only when a file changed.

        Not compressed here: it takes many seconds and gains nothing on loopback. `manage.py collectstatic` by hand does it."""
        settings.STORAGES["staticfiles"]["BACKEND"] = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        seen = hashlib.sha256(str(settings.STORAGES["staticfiles"]).encode())
        for finder in get_finders():
            for path, storage in finder.list(None):
                status = Path(storage.path(path)).stat()
                seen.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        stamp = self.home / "static.stamp"
        if not stamp.exists() or stamp.read_text() != seen.hexdigest():
            call_command("collectstatic", interactive=False, verbosity=0)
            stamp.write_text(seen.hexdigest())

    def await_ready(self) -> None:
        assert self.supervisor is not None
        url = f"http://{ports.HOST}:{self.port}/readyz"
        self.say(f"waiting for {url}")
        deadline, answer = time.monotonic() + READY_S, "no answer"
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except urllib.error.HTTPError as refusal:
                with refusal:
                    answer = f"{refusal.code} {refusal.read(2000).decode(errors='replace')}"
            except OSError:
                pass
            self.fail_on_bad_program()
            time.sleep(0.1)
        raise CommandError(f"{url} was not green after {READY_S} s: {answer}\n{self.supervisor.tail('web')}")

    def fail_on_bad_program(self) -> None:
        assert self.supervisor is not None
        if self.supervisor.ended():
            raise CommandError(f"supervisord ended: see {self.home}/logs/supervisord.out")
        for name, state in self.supervisor.states().items():
            if state in BAD:
                raise CommandError(f"{name} does not start; the end of {self.home}/logs/{name}.log:\n\n{self.supervisor.tail(name)}")

    def welcome(self) -> None:
        place = self.home / "dev.json"
        known: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
        lines = ["", f"  Signalbox is at {known.get('base_url') or settings.PUBLIC_URL}", ""]
        for role in ("operator", "approver", "admin"):
            if role in known:
                lines.append(f"    {role:<9} {known[role]['username']:<12} {known[role]['password']}")
        if "api_key" in known:
            lines.append(f"    {'API key':<9} {known['api_key']}")
        lines += ["", f"  State and logs: {self.home}. Ctrl-C stops everything.", ""]
        self.stdout.write("\n".join(lines))
        self.stdout.flush()

    def watch(self) -> None:
        """Until a signal comes. Programs that die are started again by supervisor; one that never comes up is named once."""
        assert self.supervisor is not None
        named: set[str] = set()
        while not self.supervisor.ended():
            lost = {name for name, state in self.supervisor.states().items() if state == "FATAL"}
            for name in lost - named:
                self.stderr.write(f"{name} does not stay up: see {self.home}/logs/{name}.log")
            named = lost
            time.sleep(2)
        raise CommandError(f"supervisord ended: see {self.home}/logs/supervisord.log")

    def end(self) -> None:
        self.signals = max(self.signals, 1)  # from here a signal means: at once
        if self.supervisor is not None:
            self.supervisor.stop()
        if self.cluster is not None:
            self.cluster.stop(immediate=self.signals > 1)
