"""T45: a tenant's people walk every address of the installation with the ids of another tenant, and learn nothing of it.

Two tenants have something of everything, full of a word of their own. What belongs to the other one answers exactly like what does
not exist, and neither its word nor an id of its rows stands in any answer: API, pages, admin, streams, the live channel.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from websockets.sync.client import connect

from console.row_security import GUARDED, Own
from tests.conftest import ground

from .crawl import FURNISH, ULID, Caller, Route, Sample, marks, of_admin, routes, samples
from .stack import Stack

pytestmark = pytest.mark.mission("P13.1")
ROLES = ("viewer", "operator", "approver", "admin")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FORMS = ("GET", "POST")  # what pages and the admin tell apart
REASON = {"reason": "crawl"}
BODIES: dict[str, dict[str, Any]] = {  # the end of the address -> what it takes; else nothing
    "/decision": {"verdict": "approve", "digest": "d" * 64, "reason": "crawl"},
    "/resolve": {"result": "applied", "evidence": "crawl"},
    "/lift": REASON, "/revoke": REASON, "/restore": REASON, "/carry-out": REASON, "/dismiss": REASON, "/extend": {"add": {"max_steps": 1}},
    "/reviewed": {"note": "crawl"}, "breakers/": {"action": "open", "reason": "crawl"}, "/promote": REASON, "/cancel": {}, "/retry": {},
}  # fmt: skip
# Not walked with a body: they end the session that walks, or change the sandbox for everybody else's tests.
ONLY_READ = ("/sign-out/", "/demo/", "/admin/logout/")


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, django_db_setup: None) -> Iterator[Stack]:
    """An installation of its own: the doctor, whom others ask, finds rows faulty that only stand for something."""
    made = Stack(request.config.stash[ground].urls)
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def two(stack: Stack) -> tuple[dict[str, Any], dict[str, Any]]:
    a, b = (each | {"admin": of_admin(each)} for each in json.loads(stack.python(FURNISH).splitlines()[-1]))
    owner, deadline = Caller(stack.base_url, b["access"]["admin"]), time.monotonic() + 60
    while any(json.loads(owner("GET", f"/api/v1/runs/{run}").text.partition("\n\n")[2])["state"] in MOVING for run in b["typed"]["run"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return a, b


MOVING = ("queued", "running")


@pytest.fixture(scope="module")
def walked(two: Any) -> list[Route]:
    found = routes()
    assert len(found) > 150, "the URLconf was not read"
    return found


@pytest.fixture(scope="module")
def taken(stack: Stack, two: Any, walked: list[Route]) -> dict[Route, tuple[str, ...]]:
    """The methods that a route answers; the others are refused before anybody is looked at, and asked as an admin only."""
    admin, found = Caller(stack.base_url, two[0]["access"]["admin"]), {}
    for route in walked:
        found[route] = FORMS
        if route.area == "api":
            said = admin("OPTIONS", samples(route, two[1])[0].path).text.partition("Allow: ")[2].partition("\n")[0]
            found[route] = tuple(said.split(", ")) if said else METHODS
    return found


def body_of(sample: Sample) -> dict[str, Any]:
    return next((body for end, body in BODIES.items() if sample.path.endswith(end) or (f"/{end}" in sample.path and end.endswith("/"))), {})


def ask(caller: Caller, sample: Sample, method: str, path: str) -> Any:
    return caller(method, path, body_of(sample), session=sample.route.area != "api")


def rows_of(stack: Stack, tenant: str) -> dict[str, list[Any]]:
    """Everything the tenant has, as the owner reads it."""
    with psycopg.connect(stack.urls.owner) as owner:
        found = {}
        for table, guard in GUARDED.items():
            if isinstance(guard, Own):
                found[table] = owner.execute(
                    f"select it::text from {table} it where tenant_id = %s order by 1".encode(), [tenant]
                ).fetchall()
        return found


def at_once(work: Any, items: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, items))


def test_the_web_process_serves_as_the_role_that_sees_by_tenant(stack: Stack) -> None:
    with psycopg.connect(stack.urls.owner) as owner:
        asked = "select distinct usename from pg_stat_activity where datname = current_database() and query = 'listen signalbox_moved'"
        stack.api("GET", "/runs")
        assert "signalbox_engine" not in {name for (name,) in owner.execute(asked)}
        pooled = "select count(*) from pg_stat_activity where datname = current_database() and usename = 'signalbox_web'"
        assert owner.execute(pooled).fetchone()[0] >= 2  # type: ignore[index]


def test_every_address_has_a_sample_and_its_owner_finds_it(stack: Stack, two: Any, walked: list[Route]) -> None:
    """Without this the crawl could walk past everything."""
    b = two[1]
    owner = Caller(stack.base_url, b["access"]["admin"])
    foreign = [sample for route in walked for sample in samples(route, b) if sample.foreign]
    answers = at_once(lambda sample: (sample, ask(owner, sample, "GET", sample.path), ask(owner, sample, "GET", sample.nobodys)), foreign)
    lost = {s.route.pattern for s, got, _ in answers if got.status == 404} - {s.route.pattern for s, got, _ in answers if got.status == 200}
    assert lost == set(), "the owner does not find these"
    seen = {sample.route.pattern for sample, got, nobody in answers if got.status == 200 and b["word"] in got.text and nobody.status != 200}
    assert len(seen) > 25, sorted(seen)


@pytest.mark.parametrize("role", ROLES)
def test_what_is_foreign_answers_like_what_does_not_exist(
    stack: Stack, two: Any, walked: list[Route], taken: dict[Route, tuple[str, ...]], role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = two
    caller, forbidden, before = Caller(stack.base_url, a["access"][role]), marks(b), rows_of(stack, b["tenant"])
    asked = [(sample, method) for sample, method in questions(walked, b) if role == "admin" or method in taken[sample.route]]

    def walk(question: tuple[Sample, str]) -> list[str]:
        sample, method = question
        got = ask(caller, sample, method, sample.path)
        found = [f"{method} {sample.path} answered {got.status}"] if got.status >= 500 and sample.path != "/readyz" else []
        found += [f"{method} {sample.path} shows {mark}" for mark in got.leaks(forbidden, sample.ids)]
        if sample.foreign:
            nothing = nobodys.get((method, sample.nobodys)) or told(ask(caller, sample, method, sample.nobodys))
            nobodys[method, sample.nobodys] = nothing
            if told(got) != nothing:
                found.append(f"{method} {sample.path}: {told(got)}, but {nothing} where nothing is")
            statuses[got.status] += 1
        return found

    statuses: Counter[int] = Counter()
    nobodys: dict[tuple[str, str], tuple[int, str]] = {}
    wrong = [line for lines in at_once(walk, asked) for line in lines]
    assert not wrong, "\n".join(wrong)
    assert rows_of(stack, b["tenant"]) == before, "a walk of another tenant changed rows"
    covered = {sample.route.pattern for sample, _ in asked}
    assert covered == {route.pattern for route in walked}
    foreign = sum(sample.foreign for sample, _ in asked)
    with capsys.disabled():
        print(f"\ncrawl as {role}: {len(covered)} of {len(walked)} routes, {len(asked)} questions, {foreign} foreign, {dict(statuses)}")


def questions(walked: list[Route], other: dict[str, Any]) -> Iterator[tuple[Sample, str]]:
    for route in walked:
        for number, sample in enumerate(samples(route, other)):
            only_read = number > 0 or sample.path.startswith(ONLY_READ)  # each id is read, the first one written to
            for method in METHODS if route.area == "api" else FORMS:
                if method == "GET" or not only_read:
                    yield sample, method


def told(got: Any) -> tuple[int, str]:
    """What distinguishes answers: the status and the code of a problem."""
    found = got.text.partition('"code": "')[2].partition('"')[0] if "problem+json" in got.text else ""
    return got.status, found


WORDS: list[tuple[str, str, Any]] = [  # names of the other tenant in queries and bodies, {0}: its word, {1}: a run of it
    ("GET", "/runs?agent={0}-agent", None), ("GET", "/runs?cursor={1}", None), ("GET", "/runs?q={0}", None), ("GET", "/runs?q={1}", None),
    ("GET", "/runs?tool={0}_tool", None), ("GET", "/runs?session={0}", None), ("GET", "/approvals?run_id={1}", None),
    ("GET", "/approvals?agent={0}-agent", None), ("GET", "/drafts?cursor={1}.1.1&state=all", None), ("GET", "/unknowns?run_id={1}", None),
    ("GET", "/permissions?tenant={0}", None), ("GET", "/rules?tenant={0}", None), ("GET", "/policy/versions?tenant={0}", None),
    ("GET", "/ceilings?tenant={0}", None), ("GET", "/switches?tenant={0}", None), ("GET", "/breakers?tenant={0}", None),
    ("POST", "/runs", {"agent": "{0}-agent", "input": "x"}),
    ("POST", "/switches", {"scope": "tenant", "tenant": "{0}", "then": "stop", "reason": "x"}),
    ("POST", "/switches", {"scope": "agent", "agent": "{0}-agent", "then": "stop", "reason": "x"}),
    ("POST", "/switches", {"scope": "tool", "tool": "{0}_tool", "then": "stop", "reason": "x"}),
    ("POST", "/delegations", {"to": "otto-{0}", "until": "2099-01-01T00:00:00Z"}),
    ("POST", "/grants", {"agent": "{0}-agent", "tool": "{0}_tool", "most": 1, "expires_at": "2099-01-01T00:00:00Z", "reason": "x"}),
    ("PUT", "/groups/mine", {"people": ["otto-{0}"], "reason": "x"}),
    ("PUT", "/rules/mine", {"tenant": "{0}", "decision": "deny", "when": "true"}),
    ("POST", "/policy/backtests", {"proposal": {"kind": "rule", "name": "{0}", "tenant": "{0}", "decision": "deny", "when": "true"}}),
    ("POST", "/policy/versions/1/restore", {"tenant": "{0}", "reason": "x"}),
]  # fmt: skip


def filled(value: Any, *words: str) -> Any:
    text = json.dumps(value)
    for number, word in enumerate(words):
        text = text.replace(f"{{{number}}}", word)
    return json.loads(text)


@pytest.mark.parametrize("role", ("operator", "admin"))
def test_a_foreign_name_in_a_query_or_a_body_is_a_name_that_nobody_has(stack: Stack, two: Any, role: str) -> None:
    a, b = two
    caller, forbidden, before = Caller(stack.base_url, a["access"][role]), marks(b), rows_of(stack, b["tenant"])
    run, wrong = b["typed"]["run"][0], []
    for method, path, body in WORDS:
        theirs = caller(method, "/api/v1" + filled(path, "bravo", run), filled(body, "bravo", run))
        nobodys = caller(method, "/api/v1" + filled(path, "nobody", f"agt_{ULID}"), filled(body, "nobody", f"agt_{ULID}"))
        if told(theirs) != told(nobodys) or theirs.status >= 500:
            wrong.append((method, path, body, told(theirs), told(nobodys)))
        wrong += [(method, path, mark) for mark in theirs.leaks(forbidden, ("bravo", run, run.partition("_")[2]))]
    for page in ("/runs/?q=bravo", f"/runs/?q={run}", "/runs/?agent=bravo-agent", "/?agent=bravo-agent", "/spend/?tenant=bravo"):
        got = caller("GET", page, session=True)
        wrong += [(page, mark) for mark in got.leaks(forbidden, ("bravo", run, run.partition("_")[2]))]
    theirs, nobodys = (caller("POST", "/tenant/", {"tenant": slug}, session=True) for slug in ("bravo", "nobody"))
    assert (theirs.status, nobodys.status) == (403, 403)
    assert wrong == []
    assert rows_of(stack, b["tenant"]) == before


# what streams -----------------------------------------------------------------------------------------------------------------


def heard(stack: Stack, access: dict[str, Any], topics: list[str], meanwhile: Any) -> str:
    """What a socket that follows these topics was told while something happened."""
    address = stack.base_url.replace("http", "ws") + "/ws"
    headers = {"Cookie": f"sessionid={access['session']}"}
    said = []
    with connect(address, origin=stack.base_url, additional_headers=headers) as socket:  # type: ignore[arg-type]
        socket.send(json.dumps({"op": "sub", "topics": topics}))
        socket.send(json.dumps({"op": "ping"}))
        while "pong" not in (said or [""])[-1]:
            said.append(str(socket.recv(timeout=15)))
        meanwhile()
        quiet = time.monotonic() + 0.8
        while (left := quiet - time.monotonic()) > 0:
            try:
                said.append(str(socket.recv(timeout=left)))
            except TimeoutError:
                break
    return "\n".join(said)


def test_sockets_and_streams_tell_nothing_of_another_tenant(stack: Stack, two: Any) -> None:
    a, b = two
    theirs, run = Caller(stack.base_url, b["access"]["operator"]), b["typed"]["run"][0]
    topics = ["runs", "approvals", *(f"run:{one}" for one in b["typed"]["run"])]

    def happens() -> None:
        assert theirs("POST", "/api/v1/runs", {"agent": "bravo-agent", "input": "bravo goes on"}).status == 202

    mine = heard(stack, b["access"]["operator"], topics, happens)
    assert "bravo-agent" in mine and mine.count("unknown_topic") == 0
    for role in ROLES:
        told_them = heard(stack, a["access"][role], topics, happens)
        for one in topics:
            told_them = told_them.replace(one.removeprefix("run:"), "") if one.startswith("run:") else told_them
        assert [mark for mark in marks(b) if mark in told_them] == [], role
        assert told_them.count("unknown_topic") == len(topics) - 2, role
        stream = {"Accept": "text/event-stream"}
        caller = Caller(stack.base_url, a["access"][role])
        assert caller("GET", f"/api/v1/runs/{run}/events", **stream).status == 404
        assert caller("GET", f"/api/v1/runs/{run}/events", session=True, **stream).status == 404
    assert "event: run_accepted" in theirs("GET", f"/api/v1/runs/{run}/events", Accept="text/event-stream").text


def test_a_waiting_submission_and_a_finished_stream_answer_under_row_security(stack: Stack, two: Any) -> None:
    """They go on after the request's own statements: each read opens its scope anew."""
    mine = Caller(stack.base_url, two[0]["access"]["operator"])
    got = mine("POST", "/api/v1/runs", {"agent": "alpha-agent", "input": "alpha waits"}, Prefer="wait=30")
    assert got.status == 200 and "Preference-Applied: wait=30" in got.text
    run = json.loads(got.text.partition("\n\n")[2])["run_id"]
    assert "event: run_completed" in mine("GET", f"/api/v1/runs/{run}/events", Accept="text/event-stream").text
