"""The roles, their generated passwords and the connection URLs."""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

BOOT = "signalbox_boot"  # the superuser: makes roles and databases, never serves
OWNER = "signalbox_owner"
WEB = "signalbox_web"
ENGINE = "signalbox_engine"
DATABASE = "signalbox"
RIGHTS = {OWNER: "login createdb", WEB: "login", ENGINE: "login"}


@dataclass(frozen=True, slots=True)
class Urls:
    """libpq URLs over a unix socket: `postgresql://user:password@/database?host=/folder`."""

    web: str
    engine: str
    owner: str
    boot: str

    def environment(self) -> dict[str, str]:
        """What the settings read."""
        return {"DATABASE_URL": self.web, "DATABASE_ENGINE_URL": self.engine, "DATABASE_OWNER_URL": self.owner}


Keys = dict[str, str]  # role -> password


def keys(path: Path) -> Keys:
    """The passwords in `path` (mode 0600); made when the file does not exist. The caller holds the lock."""
    if path.exists():
        found: Keys = json.loads(path.read_text())
        return found
    made = {role: secrets.token_urlsafe(24) for role in (BOOT, OWNER, WEB, ENGINE)}
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(made, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return made


def key_mark(made: Keys) -> str:
    return hashlib.sha256(made[BOOT].encode()).hexdigest()[:16]


def urls(made: Keys, socket: Path, database: str) -> Urls:
    def url(role: str) -> str:
        return f"postgresql://{role}:{made[role]}@/{quote(database)}?host={quote(str(socket))}"

    return Urls(url(WEB), url(ENGINE), url(OWNER), url(BOOT))


def settle(boot: str, made: Keys) -> None:
    """Make the roles and the database that are missing. `boot` is a URL of the superuser."""
    with psycopg.connect(boot, autocommit=True) as connection:
        present = {name for (name,) in connection.execute("select rolname from pg_roles")}
        for role, rights in RIGHTS.items():
            if role not in present:
                statement = f"create role {{}} {rights} password {{}}"
                connection.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(made[role])))
    create_database(boot, DATABASE)


def create_database(boot: str, name: str) -> None:
    """A database of the owner's role; no error if it is there."""
    with psycopg.connect(boot, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is None:
            statement = sql.SQL("create database {} owner {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(OWNER)))


def drop_database(boot: str, name: str) -> None:
    """Ends the connections to it; no error if it is not there."""
    with psycopg.connect(boot, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
