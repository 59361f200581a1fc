"""Starts and stops the embedded PostgreSQL of a state folder.

It listens on a unix socket in a closed folder and nowhere else. Everything that starts or stops it holds one lock file, tries to
connect before it removes anything, and trusts a pid only if that process really works on the data.
"""

import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg

from .embedded import binaries, processes, roles
from .embedded.account import Account, server_account
from .embedded.errors import EmbeddedPostgresError
from .embedded.places import SHARED, held, places, private, user_name, writable
from .embedded.roles import DATABASE, Urls

__all__ = ["Cluster", "EmbeddedPostgresError", "Urls"]

logger = logging.getLogger(__name__)
PATIENCE_S = 300.0  # recovery after a power cut may take minutes, and says nothing meanwhile
STOP_S = 60.0
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "cluster_name": "signalbox",
}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Cluster:
    """The server of one state folder. Any number of processes may `start` it; the last one to `stop` ends it.

    `durable=False` is for tests: a power cut loses or breaks the data, a crash of the server does not."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.places = places(home, root=os.geteuid() == 0)
        self.durable = durable
        self._user: int | None = None  # file handle of our shared hold on `in_use`
        self._process: subprocess.Popen[bytes] | None = None

    def urls(self, database: str = DATABASE) -> Urls:
        """The URLs, also before the server runs. Makes the passwords if there are none."""
        with writable(self.places.home), held(self.places.lock):
            return roles.urls(roles.keys(self.places.keys), self.places.socket, database)

    def start(self) -> Urls:
        """Start the server, or join the one that runs. EmbeddedPostgresError names the cure."""
        urls = self.urls()
        with writable(self.places.home), held(self.places.lock):
            if not self._answers():
                account = server_account()
                programs = self._prepare(account)
                self._clear_remains()
                self._initialise(account, programs)
                self._launch(account, programs)
            roles.settle(self.urls_of_boot(), roles.keys(self.places.keys))
            self._join()
        return urls

    def stop(self, *, immediate: bool = False) -> bool:
        """End the server unless others use it. `immediate` skips the shutdown checkpoint. True if no server runs afterwards."""
        with writable(self.places.home), held(self.places.lock):
            if not self._leave():
                return False
            pid = processes.server_of(self.places.data)
            if pid is not None:
                processes.send({pid}, signal.SIGQUIT if immediate else signal.SIGINT)
                self._await_end(pid)
            return True

    def destroy(self) -> bool:
        """Stop the server and remove its data. For tests. False, and nothing is removed, if others use it."""
        if not self.stop(immediate=True):
            return False
        for folder in (self.places.base, self.places.socket):
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def create_database(self, name: str) -> None:
        roles.create_database(self.urls_of_boot(), name)

    def drop_database(self, name: str) -> None:
        roles.drop_database(self.urls_of_boot(), name)

    def urls_of_boot(self) -> str:
        made = roles.keys(self.places.keys)
        return roles.urls(made, self.places.socket, "postgres").boot

    # -- starting -----------------------------------------------------------------------------------------------------

    def _answers(self) -> bool:
        """True once a server answers; False if nothing listens. A server that is still recovering is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while self._listens():
            try:
                psycopg.connect(self.urls_of_boot(), connect_timeout=10).close()
                return True
            except psycopg.OperationalError as failure:
                if "password authentication failed" in str(failure) or time.monotonic() > deadline:
                    raise self._foreign(str(failure)) from failure
            time.sleep(0.03)
        return False

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.places.socket_file))
            except OSError:
                return False
            return True

    def _foreign(self, why: str) -> EmbeddedPostgresError:
        pid = processes.server_of(self.places.data)
        cure = f"Stop it with `kill -INT {pid}`" if pid else f"Remove {self.places.socket}"
        return EmbeddedPostgresError(
            f"A PostgreSQL answers at {self.places.socket} but does not let us in. {cure} and start again. ({why.strip()})"
        )

    def _prepare(self, account: Account) -> Path:
        """The folders around the data. Returns the folder of the programs."""
        if account.switch:
            SHARED.mkdir(parents=True, exist_ok=True)
            SHARED.chmod(0o755)
        self.places.base.mkdir(exist_ok=True)
        self.places.base.chmod(0o755 if account.switch else 0o700)
        self.places.log.parent.mkdir(exist_ok=True)
        private(self.places.socket, account)
        return binaries.programs(account, SHARED)

    def _clear_remains(self) -> None:
        """Nothing listens. Remove what a dead server left, once it is certain that none of its processes lives."""
        data = self.places.data
        if not processes.gone(data, patience_s=5):
            pid = processes.server_of(data)
            if pid is not None and pid in self._pid_in_file():
                raise EmbeddedPostgresError(
                    f"PostgreSQL (process {pid}) runs on {data} but does not listen at {self.places.socket}. "
                    f"Stop it with `kill -INT {pid}` and start again."
                )
            # Children whose server was killed end by themselves when they next wait; these did not.
            processes.send(processes.running_on(data), signal.SIGQUIT)
            if not processes.gone(data, patience_s=10):
                pids = " ".join(map(str, sorted(processes.running_on(data))))
                raise EmbeddedPostgresError(f"Processes of a dead PostgreSQL hold {data}: `kill -9 {pids}`, then start again.")
        for remains in (data / "postmaster.pid", self.places.socket_file, Path(f"{self.places.socket_file}.lock")):
            remains.unlink(missing_ok=True)

    def _pid_in_file(self) -> set[int]:
        try:
            return {int((self.places.data / "postmaster.pid").read_text().split("\n", 1)[0])}
        except (OSError, ValueError):
            return set()

    def _initialise(self, account: Account, programs: Path) -> None:
        made = roles.keys(self.places.keys)
        if self.places.data.exists():
            if self._made_with() == roles.key_mark(made):
                self._check_data(account)
                return
            self._set_aside()
        fresh = self.places.base / "data.new"  # renamed when complete: a start that dies half-way leaves no half data
        shutil.rmtree(fresh, ignore_errors=True)
        private(fresh, account)
        self._run_initdb(account, programs, fresh, made[roles.BOOT])
        self.places.key_mark.write_text(roles.key_mark(made))
        fresh.rename(self.places.data)

    def _made_with(self) -> str:
        return self.places.key_mark.read_text() if self.places.key_mark.exists() else ""

    def _set_aside(self) -> None:
        """The passwords are gone (the state folder was removed): nobody can use this data. It is kept, not deleted."""
        aside = self.places.base / f"data.before-{int(time.time())}"
        self.places.data.rename(aside)
        logger.warning("The passwords of %s are gone; it is kept as %s and a new database begins.", self.places.data, aside)

    def _check_data(self, account: Account) -> None:
        data = self.places.data
        owner = data.stat().st_uid
        if owner != account.uid:
            raise EmbeddedPostgresError(
                f"{data} belongs to {user_name(owner)}, but the server runs as {account.name}. "
                f"Run as {user_name(owner)}, or `chown -R {account.name} '{data}'`."
            )
        found, ours = (data / "PG_VERSION").read_text().strip(), binaries.release().split(".")[0]
        if found != ours:
            raise EmbeddedPostgresError(
                f"{data} was made by PostgreSQL {found}, installed is {ours}. "
                f"Dump it with the release of Signalbox that made it, move the folder away, start again and restore the dump."
            )

    def _run_initdb(self, account: Account, programs: Path, data: Path, password: str) -> None:
        key = self.places.base / "initdb.key"
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
        try:
            if account.switch:
                os.chown(key, account.uid, account.gid)
            # The builtin locale sorts alike on every machine, whatever its C library.
            command = [str(programs / "initdb"), "-D", str(data), "-U", roles.BOOT, f"--pwfile={key}"]
            command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
            command += ["--builtin-locale=C.UTF-8", *([] if self.durable else ["--no-sync"])]
            done = subprocess.run(command, **_as(account), capture_output=True, text=True, check=False)
        finally:
            key.unlink()
        if done.returncode:
            raise EmbeddedPostgresError(f"initdb failed in {data}: {(done.stderr or done.stdout).strip()[-600:]}")

    def _launch(self, account: Account, programs: Path) -> None:
        wanted = SETTINGS | ({} if self.durable else NOT_DURABLE)
        command = [str(programs / "postgres"), "-D", str(self.places.data), "-k", str(self.places.socket)]
        for name, value in wanted.items():
            command += ["-c", f"{name}={value}"]
        with self.places.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal must not stop the database before those who use it.
            self._process = subprocess.Popen(
                command, **_as(account), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        while self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.02)
        tail = self.places.log.read_text(errors="replace").strip().splitlines()[-8:]
        raise EmbeddedPostgresError("PostgreSQL ended while it started; its log says:\n  " + "\n  ".join(tail))

    # -- sharing and stopping -----------------------------------------------------------------------------------------

    def _join(self) -> None:
        if self._user is None:
            self._user = os.open(self.places.in_use, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._user, fcntl.LOCK_SH)

    def _leave(self) -> bool:
        """Give up our hold. True if nobody else has one."""
        handle = self._user if self._user is not None else os.open(self.places.in_use, os.O_RDWR | os.O_CREAT, 0o600)
        self._user = None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def _await_end(self, pid: int) -> None:
        deadline = time.monotonic() + STOP_S
        while processes.running_on(self.places.data):
            if self._process is not None:
                self._process.poll()
            if time.monotonic() > deadline:  # a client does not let go: end without a checkpoint, the log replays it
                processes.send({pid}, signal.SIGQUIT)
                deadline += STOP_S
            time.sleep(0.02)
        if self._process is not None:
            self._process.wait(10)


def _as(account: Account) -> dict[str, Any]:
    """Popen arguments: who runs it, and an environment without this process's PG* variables."""
    common: dict[str, Any] = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}}
    if account.switch:
        common |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return common
