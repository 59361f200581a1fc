"""T42: the disk under the database is full: first tables cannot grow, then the log cannot. Long form only (CHAOS=1), as root, with mount.

A tmpfs of 256 MB holds the data of an embedded PostgreSQL of its own; a ballast file takes the rest of it, again and again.
"""

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from console.embedded import binaries
from console.embedded.account import server_account
from console.embedded.places import SHARED
from console.postgres import Cluster, EmbeddedPostgresError
from tests.acceptance.stack import Stack
from tests.acceptance.test_spine import AGENTS, call, script

from .figures import figure
from .load import EFFECTS, TOOL, arguments
from .oracle import HELD

pytestmark = [
    pytest.mark.skipif(not (os.environ.get("CHAOS") and os.geteuid() == 0), reason="long: CHAOS=1, as root, with the right to mount"),
    pytest.mark.timeout(400),
]
MB = 2**20
DISK_MB = 256
BEFORE, RUNS = 120, 200
TABLES_FULL_S, LOG_FULL_S, PATIENCE_S = 8, 8, 90
# A call that neither the database nor a person answers ends with the pool's patience, long before this.
ANSWERED_S = 30
CHECK = """
from collections import Counter
import json, urllib.request
from django.conf import settings
from django.db import connection
from console import doctor
from console.sandbox.world import args_sha256
from runs.models import Call, Event, Run
from tenants.scope import ALL, tenant_scope
from tests.crash.oracle import compare
from tests.history import faults
def ask(path):
    return json.load(urllib.request.urlopen({url!r} + path))
ledger, received = ask("/ledger")["effects"], ask("/received")["requests"]
with tenant_scope(ALL):
    wrong = compare(ledger, received)
    kinds = Counter(Event.objects.values_list("kind", flat=True))
    arrived = {{(one["target"], one["args_sha256"]) for one in received}}
    unknown = list(Call.objects.filter(state="unknown"))
    sent = sum((call.name, args_sha256(json.loads(bytes(call.args)))) in arrived for call in unknown)
    states = dict(Counter(Run.objects.values_list("state", flat=True)))
found = [one.name for one in doctor.examine(connection) if not one.warning]
effects = Counter((e["tool"], e["args_sha256"]) for e in ledger)
print(json.dumps(dict(wrong=wrong, doctor=found, faults=faults(), states=states, effects=len(ledger), sent=sent,
                      twice=sum(n > 1 for n in effects.values()), takeovers=kinds["run_taken_over"], unknown=kinds["tool_call_unknown"])))
"""


class Disk:
    """The small disk, mounted where a cluster keeps its data."""

    def __init__(self, place: Path) -> None:
        self.place, self.over = place, threading.Event()
        self.ballast = place / "ballast"
        self.thread = threading.Thread(target=self.fill)

    def mount(self) -> None:
        self.place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            self.place.rmdir()
            pytest.skip(f"no right to mount: {done.stderr.strip()}")

    def unmount(self) -> None:
        self.over.set()
        subprocess.run(["umount", str(self.place)], check=False, timeout=30)
        if os.path.ismount(self.place):
            subprocess.run(["umount", "--lazy", str(self.place)], check=True, timeout=30)
        self.place.rmdir()

    def fill(self) -> None:
        """All the room there is, and what is given up meanwhile."""
        with self.ballast.open("ab", buffering=0) as file:
            while not self.over.is_set():
                try:
                    file.write(bytes(MB if self.free() >= MB else 4096))
                except OSError:
                    self.over.wait(0.01)

    def free(self) -> int:
        return os.statvfs(self.place).f_bavail * 4096

    def full(self) -> None:
        self.thread.start()
        until(lambda: self.free() == 0, 30)

    def make_room(self) -> None:
        self.over.set()
        self.thread.join(30)
        self.ballast.unlink()


class Keeper:
    """What a service manager does: a process that ended starts again, a second later."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.over, self.again = stack, threading.Event(), Counter[str]()
        self.thread = threading.Thread(target=self.work)

    def work(self) -> None:
        while not self.over.wait(1):
            for name, process in list(self.stack.processes.items()):
                if process.poll() is not None:
                    self.again[name] += 1
                    self.stack.start(name)

    def __enter__(self) -> "Keeper":
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join(30)


class Callers:
    """Ask and start runs while the disk is full; each answer with its seconds, and what was accepted."""

    def __init__(self, stack: Stack, accepted: list[str], together: int = 4) -> None:
        self.stack, self.accepted, self.over = stack, accepted, threading.Event()
        self.answers = list[tuple[str, int, str, float]]()
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(together)]

    def work(self, number: int) -> None:
        asked = 0
        while not self.over.is_set():
            asked += 1
            body = order(f"caller {number} {asked}", EFFECTS[asked % 3])
            for method, path, data in (
                ("POST", "/runs", body),
                ("GET", "/runs?limit=20", None),
                ("GET", f"/runs/{self.accepted[0]}", None),
            ):
                began = time.monotonic()
                answer = self.stack.api(method, path, data)
                code = "" if answer.status < 400 else answer.body["code"] if isinstance(answer.body, dict) else str(answer.body)
                self.answers.append((method, answer.status, code, time.monotonic() - began))
                if answer.status == 202:
                    self.accepted.append(answer.body["run_id"])
            self.over.wait(0.3)

    def __enter__(self) -> "Callers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(90)


def order(tag: str, effect: str) -> dict[str, str]:
    turns = [call(TOOL[effect], **arguments(effect, f"{tag} {turn}")) for turn in ("first", "second")]
    return {"agent": "clerk", "input": script(*turns, {"text": "Done."})}


def until(what: Any, seconds: float = PATIENCE_S, said: Any = str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, said()
        time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "home")
    disk = Disk(made.places.base)
    disk.mount()
    try:
        made.start()
        with psycopg.connect(made.urls_of_boot(), autocommit=True) as connection:
            for setting in ("max_wal_size = '64MB'", "min_wal_size = '32MB'"):
                connection.execute(f"alter system set {setting}".encode())
            connection.execute("select pg_reload_conf()")
        made.disk = disk  # type: ignore[attr-defined]
        yield made
    finally:
        disk.over.set()
        disk.ballast.unlink(missing_ok=True)
        with suppress(EmbeddedPostgresError):
            made.destroy()
        disk.unmount()


@pytest.fixture
def stack(cluster: Cluster, lease_s: int) -> Iterator[Stack]:
    limits: dict[str, Any] = {f"SIGNALBOX_RATE_{name}": "100000" for name in ("READ", "WRITE", "START")}
    made = Stack(cluster.urls(), model_latency_ms=600, SIGNALBOX_LEASE_TTL_S=str(lease_s), **limits)
    made.up()
    try:
        yield made
    finally:
        with suppress(psycopg.OperationalError):
            made.down()


def fill_the_log(cluster: Cluster) -> bool:
    """Write log without tables until it has no room. True: the server fell."""
    try:
        with psycopg.connect(cluster.urls_of_boot(), autocommit=True) as connection:
            for _ in range(300):
                with suppress(psycopg.errors.DiskFull):
                    connection.execute("select pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))")
    except psycopg.OperationalError:
        return True
    return False


def revive(cluster: Cluster) -> None:
    """Join the server that lives, start the one that fell. One whose recovery found no room may stay and let nobody in: end it first."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with suppress(psycopg.OperationalError):
            psycopg.connect(cluster.urls_of_boot(), connect_timeout=5).close()
            break
        time.sleep(0.2)
    else:
        cluster.stop(immediate=True)
    cluster.start()


def corruption(cluster: Cluster, stack: Stack) -> str:
    """What PostgreSQL's own check says of every table and index, read whole. Empty: nothing."""
    programs = binaries.programs(server_account(), SHARED)
    where = conninfo_to_dict(cluster.urls_of_boot())
    given = {"PGHOST": str(where["host"]), "PGUSER": str(where["user"]), "PGPASSWORD": str(where["password"])}
    command = [str(programs / "pg_amcheck"), "--install-missing", "--heapallindexed", "-d", stack.database]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 2), done.stderr
    return done.stdout + done.stderr


def on_full_disk(cluster: Cluster, stack: Stack, accepted: list[str]) -> tuple[Callers, bool]:
    disk: Disk = cluster.disk  # type: ignore[attr-defined]
    disk.full()
    with Callers(stack, accepted) as callers:
        time.sleep(TABLES_FULL_S)
        fell = fill_the_log(cluster)
        time.sleep(LOG_FULL_S)
        disk.make_room()
        revive(cluster)
        until(lambda: stack.call("GET", f"{stack.base_url}/readyz").status == 200, said=stack.tails)
    return callers, fell


@pytest.mark.mission("P3.5")
@pytest.mark.parametrize("lease_s", [60, 5])
def test_a_full_disk_loses_no_run_and_breaks_no_row(cluster: Cluster, stack: Stack, lease_s: int) -> None:
    assert stack.api("POST", "/config/apply", with_mail(), key="admin_api_key").status == 200
    began, accepted = time.monotonic(), list[str]()

    def submit(upto: int) -> None:
        for number in range(len(accepted), upto):
            answer = stack.api("POST", "/runs", order(f"run {number}", EFFECTS[number % 3]))
            assert answer.status == 202, answer
            accepted.append(answer.body["run_id"])

    submit(BEFORE)
    with Keeper(stack) as keeper:
        callers, fell = on_full_disk(cluster, stack, accepted)
        resumed = time.monotonic()
        submit(RUNS)
        left = set(accepted)

        def ended() -> bool:
            left.difference_update([one for one in left if state(stack, one) in HELD])
            return not left

        until(ended, said=lambda: f"{[(one, state(stack, one)) for one in list(left)[:5]]} of {len(left)}\n{stack.tails()}")
    seconds, rest_s = time.monotonic() - began, time.monotonic() - resumed
    found = checked(stack)
    log = cluster.places.log.read_text(errors="replace")
    statuses = Counter(f"{status} {code}".strip() for _, status, code, _ in callers.answers)
    slowest = max(took for _, _, _, took in callers.answers)
    figure("T42", f"the database's disk is full (256 MB): tables, then the log; a lease of {lease_s} s", n=len(accepted), seconds=seconds,
           **found["states"], answers_meanwhile=len(callers.answers), refused=sum(n for s, n in statuses.items() if s[0] != "2"),
           slowest_answer_s=round(slowest, 1), no_space_in_log=log.count("No space left on device"), panics=log.count("PANIC:"),
           database_fell=int(fell), started_again=sum(keeper.again.values()), takeovers=found["takeovers"],
           unknown_writes=found["unknown"], unknown_and_sent=found["sent"], effects=found["effects"], effects_twice=found["twice"],
           at_rest_s=round(rest_s, 1))  # fmt: skip
    print(statuses, keeper.again)
    assert log.count("No space left on device") > 0
    assert set(statuses) <= {"200", "202", "503 database_unavailable"} and slowest < ANSWERED_S, (statuses, slowest, stack.tails())
    assert (found["wrong"], found["doctor"], found["faults"], found["twice"]) == ([], [], [], 0), found
    assert sum(found["states"].values()) >= len(accepted) and set(found["states"]) == {"succeeded"}, found
    assert corruption(cluster, stack) == ""


def with_mail() -> dict[str, Any]:
    mail = {"tool": "send_email", "agent": "clerk", "decision": "allow", "loosen": True}
    return AGENTS | {"permissions": [*AGENTS["permissions"], mail]}


def state(stack: Stack, run_id: str) -> str:
    return str(stack.api("GET", f"/runs/{run_id}", key="admin_api_key").body["state"])


def checked(stack: Stack) -> dict[str, Any]:
    """The rows against what the other side received, in the installation. Cases are opened and late evidence is used once a second."""
    end = time.monotonic() + 10
    while True:
        text = stack.python(CHECK.format(url=stack.sandbox_url))
        found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        if not (found["wrong"] or found["doctor"]) or time.monotonic() > end:
            return found
