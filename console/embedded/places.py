"""Where the files of one embedded PostgreSQL lie."""

import fcntl
import hashlib
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .account import Account
from .errors import EmbeddedPostgresError

SHARED = Path("/var/lib/signalbox")
PORT = 5432  # only a part of the socket's name


@dataclass(frozen=True, slots=True)
class Places:
    """`base` belongs to whoever starts the server, `data` and `socket` to the account that it runs as."""

    home: Path
    base: Path
    socket: Path

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def key_mark(self) -> Path:
        """Says which keys file the data was made with."""
        return self.base / "made-with"

    @property
    def keys(self) -> Path:
        return self.home / "postgres.json"

    @property
    def lock(self) -> Path:
        return self.home / "postgres.lock"

    @property
    def in_use(self) -> Path:
        return self.home / "postgres.in-use"

    @property
    def log(self) -> Path:
        return self.home / "logs" / "postgres.log"

    @property
    def socket_file(self) -> Path:
        return self.socket / f".s.PGSQL.{PORT}"


def places(home: Path, *, root: bool) -> Places:
    """Root's server may not be able to reach `home` at all, so its data lies in /var/lib.

    A plain user's socket lies in /tmp on purpose: its path must be shorter than 107 bytes, and the runtime folder of a login
    session goes away with the session while the server does not."""
    home = home.resolve()
    if root:
        base = SHARED / digest(home)
        return Places(home, base, base / "run")
    return Places(home, home / "postgres", short_folder(home))


def short_folder(home: Path) -> Path:
    """A short path for the sockets of this home; `private` makes it."""
    return Path("/tmp") / f"sbx-{os.geteuid()}-{digest(home.resolve())}"


def digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:12]


def private(folder: Path, account: Account | None = None) -> None:
    """Make `folder` with mode 0700 for `account` (default: this process's user), or make sure that it is so already."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    uid = account.uid if account else os.geteuid()
    if account and account.switch and status.st_uid == 0:
        os.chown(folder, account.uid, account.gid)
    elif folder.is_symlink() or status.st_uid != uid:
        raise EmbeddedPostgresError(f"{folder} belongs to {user_name(status.st_uid)}, not to {user_name(uid)}. Remove it and start again.")
    folder.chmod(0o700)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


@contextmanager
def writable(home: Path) -> Iterator[None]:
    """Say what to do when the state folder cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        yield
    except PermissionError as failure:
        owner = user_name(home.stat().st_uid) if home.exists() else "another user"
        raise EmbeddedPostgresError(
            f"Cannot write {failure.filename}: {home} belongs to {owner}. Run as {owner}, or set SIGNALBOX_HOME to a folder of your own."
        ) from failure


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait for whoever has it. The lock ends with the process, however that ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
