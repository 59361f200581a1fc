"""Who the server runs as. PostgreSQL refuses root, so root gets a system user that owns the server's files and nothing else."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass

from .errors import EmbeddedPostgresError

SYSTEM_USER = "signalbox-pg"
ELSEWHERE = "or set DATABASE_URL to a PostgreSQL of yours (15 or newer)"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system. `switch` is true when we are root and must become it."""

    name: str
    uid: int
    gid: int
    switch: bool


def server_account() -> Account:
    """The user of this process, or the system user when this process is root."""
    if os.geteuid() == 0:
        entry = _system_user()
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {os.geteuid()} has no entry in the passwd file, and PostgreSQL needs one. "
            f"Add one with useradd, run as another user, {ELSEWHERE}."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=False)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _make_system_user()
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made. "
            f"Make it with `useradd --system {SYSTEM_USER}`, run as a plain user, {ELSEWHERE}."
        ) from None


def _make_system_user() -> None:
    # Two starts may both try: the loser's failure is answered by the look-up that follows.
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        return
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    subprocess.run([*command, "--shell", "/usr/sbin/nologin", SYSTEM_USER], capture_output=True, check=False)
