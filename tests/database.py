"""The database that tests run on: made, migrated and emptied by the owner's role, used through the plain roles.

Nothing starts before the first test that asks for it. Without DATABASE_URL it is an embedded PostgreSQL in a folder of its own.
"""

import fcntl
import os
import shutil
import tempfile
import time
from graphlib import TopologicalSorter
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from console.postgres import Cluster, Urls

PREFIX = "sbx-test-"
MIGRATED = "_migrated"
TABLES = "select oid::regclass::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
REFERENCES = "select conrelid::regclass::text, confrelid::regclass::text from pg_constraint where contype = 'f'"


class Ground:
    """One database for one run of pytest. `home` becomes SIGNALBOX_HOME."""

    def __init__(self) -> None:
        self.name = f"signalbox_test_{os.getpid()}"
        self.home = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._alive = _hold(self.home)
        self._cluster = None if os.environ.get("DATABASE_URL") else Cluster(self.home, durable=False)
        self._given = _given() if self._cluster is None else None
        self.urls = self._cluster.urls(self.name) if self._cluster else _elsewhere(self._given, self.name)
        self._seeds: dict[str, bytes] = {}

    def create(self) -> None:
        _sweep()
        if self._cluster:
            self._cluster.start()
            self._cluster.create_database(self.name)
        else:
            self._as_owner("drop database if exists {} with (force)", self.name)
            self._as_owner("create database {}", self.name)

    def drop(self) -> None:
        """Also removes the folder. Harmless when `create` was never called."""
        if self._cluster:
            self._cluster.destroy()
        elif self._seeds:
            for name in (self.name, self.name + MIGRATED):
                self._as_owner("drop database if exists {} with (force)", name)
        shutil.rmtree(self.home, ignore_errors=True)

    def _as_owner(self, statement: LiteralString, *names: str) -> None:
        given = self._given.owner if self._given else urlsplit(self.urls.owner)._replace(path="/postgres").geturl()
        with psycopg.connect(given, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def keep(self) -> None:
        """As it is now, for what needs one like it: a copy takes a tenth of a second, migrations seconds. Nobody may be in it."""
        self._as_owner("create database {} template {}", self.name + MIGRATED, self.name)

    def remember_seeds(self) -> None:
        """What the migrations wrote; `empty` brings it back."""
        with psycopg.connect(self.urls.owner) as connection:
            for table in _filled(connection):
                with connection.cursor().copy(f"copy {table} to stdout".encode()) as rows:
                    self._seeds[table] = b"".join(bytes(chunk) for chunk in rows)

    def empty(self) -> None:
        """Remove every row that a test committed. Sequences go on: the seeds' numbers stay theirs."""
        with psycopg.connect(self.urls.owner) as connection:
            # A test that left a transaction open holds its tables: fail with a name instead of waiting for ever.
            connection.execute("set lock_timeout = '15s'")
            filled = _filled(connection)
            if filled:
                connection.execute(f"truncate {', '.join(filled)} cascade".encode())
            for table in _parents_first(connection, self._seeds):
                with connection.cursor().copy(f"copy {table} from stdin".encode()) as rows:
                    rows.write(self._seeds[table])


def _filled(connection: psycopg.Connection) -> list[str]:
    tables = [name for (name,) in connection.execute(TABLES)]
    checks = " union all ".join(f"select '{table}' where exists (select from {table})" for table in tables)
    return [name for (name,) in connection.execute(checks.encode())] if checks else []


def _parents_first(connection: psycopg.Connection, tables: dict[str, bytes]) -> list[str]:
    order: TopologicalSorter[str] = TopologicalSorter({table: set() for table in tables})
    for child, parent in connection.execute(REFERENCES):
        if child in tables and parent in tables and child != parent:
            order.add(child, parent)
    return list(order.static_order())


def _given() -> Urls:
    web = os.environ["DATABASE_URL"]
    return Urls(web, os.environ.get("DATABASE_ENGINE_URL") or web, os.environ.get("DATABASE_OWNER_URL") or web, "")


def _elsewhere(given: Urls | None, name: str) -> Urls:
    assert given is not None
    web, engine, owner = (urlsplit(url)._replace(path=f"/{name}").geturl() for url in (given.web, given.engine, given.owner))
    return Urls(web, engine, owner, "")


def _hold(home: Path) -> int:
    """A lock that lives as long as this process. The handle keeps it."""
    handle = os.open(home / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _sweep() -> None:
    """Stop and remove what a killed run of pytest left behind."""
    for home in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            status = home.stat()
            if status.st_uid != os.geteuid() or status.st_mtime > time.time() - 60:
                continue
            os.close(_hold(home))
        except OSError:
            continue
        Cluster(home, durable=False).destroy()
        shutil.rmtree(home, ignore_errors=True)
