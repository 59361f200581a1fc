"""T58: who may do what. Every role at every address of the API and the pages, by every method, as the committed table says.

`RIGHTS=write make test TESTS=tests/console/test_rights.py` writes the table anew; read the difference before you commit it. The admin
has rules of its own (`tests/console/test_tenant_admin.py`), and so has what is one person's own (a run's starter, a group's members).
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import resolve

from console.csp import HEADERS
from tenants.actors import Actor
from tenants.roles import SCOPES, may
from tests.acceptance.crawl import PLACE, Route, put, routes
from tests.runtime.waiting import World, make_world, person

from .callers import key_of
from .test_api_errors import others

TABLE = Path(__file__).with_name("rights.json")
CHAOS = bool(os.environ.get("CHAOS"))
WRITE = os.environ.get("RIGHTS") == "write"
ROLES = ("nobody", "viewer", "operator", "approver", "admin", "platform")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PROBES = ("/healthz", "/readyz", "/api/v1/docs/")  # they read, whatever the method says
# A way in or out, the streams that never end, and what needs nobody: told by tests of their own.
LEFT_OUT = ("/sign-in/", "/sign-out/", "/static/", "/accounts/")


@dataclass(frozen=True, slots=True)
class Seat:
    role: str
    client: Client
    headers: dict[str, str]


def wanted() -> list[Route]:
    return [route for route in routes() if route.area != "admin" and not route.pattern.startswith(LEFT_OUT)]


@pytest.fixture
def ground(db: None) -> tuple[list[Seat], dict[str, str]]:
    from .test_api_errors import UnknownWrite, add_call, waiting

    world = make_world()
    run, approval = waiting(world)
    add_call(run, 2, state="blocked", args=b"{}", error_class="drafted", result={"ok": False, "message": "kept"})
    case = UnknownWrite.objects.create(tenant_id=run.tenant_id, run_id=run.id, step=1, ord=1, tool="create_ticket")
    names = {
        "run_id": run.run_id, "approval_id": approval.approval_id, "release_id": run.release.release_id, "name": "support-triage",
        "verb": "promote", "unknown_id": case.unknown_id, "draft_id": f"{run.run_id}.1.2", "entry_id": "1", "line_id": "1",
    }  # fmt: skip
    people = people_of(world)
    return [seat(role, people.get(role)) for role in ROLES], names | others(world, people["platform"])


def people_of(world: World) -> dict[str, Actor]:
    made = {role: person(world.tenant, f"{role}-of-table", role) for role in ("viewer", "operator", "approver", "admin")}
    return made | {"platform": person(world.tenant, "platform-of-table", "admin", platform=True)}


def seat(role: str, actor: Actor | None) -> Seat:
    client = Client(raise_request_exception=False)
    if actor is None:
        return Seat(role, client, {})
    client.force_login(actor.user)
    key = key_of(actor, *(scope for scope in SCOPES if may(actor.role, scope)))
    return Seat(role, client, {"Authorization": f"Bearer {key}"})


def address_of(route: Route, names: dict[str, str]) -> str:
    found = route.pattern
    for place in route.places:
        found = put(found, place, names.get(place, "x"))
    assert not PLACE.search(found)
    return found


def ask(one: Seat, route: Route, method: str, address: str) -> Any:
    """The answer; whatever it did is undone."""
    headers = one.headers if route.area == "api" else {}
    with transaction.atomic():
        answer = one.client.generic(method, address, b"{}" if route.area == "api" else b"", **kind(route), headers=headers)
        transaction.set_rollback(True)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, (method, address)
    return answer


def kind(route: Route) -> dict[str, str]:
    return {"content_type": "application/json" if route.area == "api" else "application/x-www-form-urlencoded"}


def verdict(answer: Any) -> str:
    """`y`: done or shown. `-`: refused to this person. `n`: refused for its own sake (no such thing, not now, not well said)."""
    status, path = answer.status_code, answer.wsgi_request.path
    assert WRITE or status < 500 or path == "/readyz", (path, answer.content)
    if status in (401, 403) or answer.headers.get("Location", "").startswith("/sign-in/"):
        return "-"
    return "y" if status < 400 or path == "/readyz" else "n"


def methods_of(route: Route, address: str, known: dict[str, Any]) -> Iterator[str]:
    """Those of the API from its views; those of pages from the table, or tried where it is written."""
    view = getattr(resolve(address.partition("?")[0]).func, "cls", None)
    if view is not None:
        yield from (method for method in METHODS if hasattr(view, method.lower()))
    else:
        yield from METHODS if WRITE else known


def asked(row: str) -> list[int]:
    """The roles on both sides of the border: a more trusted one may do what a less trusted one may. All of them in the long form."""
    if WRITE or CHAOS or len(row) != len(ROLES):
        return list(range(len(ROLES)))
    first = next((n for n, letter in enumerate(row) if letter != "-"), len(ROLES))
    return [n for n in (first - 1, first) if 0 <= n < len(ROLES)]


def test_every_role_may_do_at_every_address_what_the_table_says(ground: tuple[list[Seat], dict[str, str]]) -> None:
    seats, names = ground
    known = json.loads(TABLE.read_text())["rights"] if TABLE.exists() else {}
    found: dict[str, dict[str, str]] = {}
    for route in wanted():
        address, rows = address_of(route, names), {}
        for method in methods_of(route, address, known.get(route.pattern, {})):
            row = list(known.get(route.pattern, {}).get(method, "-" * len(ROLES)))
            answers = {n: ask(seats[n], route, method, address) for n in asked("".join(row))}
            for n, answer in answers.items():
                row[n] = verdict(answer)
            if 405 not in {answer.status_code for answer in answers.values()}:
                rows[method] = "".join(row)
        found[route.pattern] = rows
    if WRITE:
        TABLE.write_text(json.dumps({"roles": ROLES, "rights": found}, indent=1) + "\n")
    differ = {pattern: (found.get(pattern), known.get(pattern)) for pattern in found | known if found.get(pattern) != known.get(pattern)}
    assert WRITE or differ == {}, "read the difference (found, table); RIGHTS=write writes the table anew"


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("/api/v1/audit", {"GET": "----yy"}),
        ("/api/v1/config/apply", {"POST": "-----y"}),
        ("/api/v1/runs", {"GET": "-yyyyy", "POST": "--nnnn"}),
        ("/api/v1/switches", {"GET": "-yyyyy", "POST": "--nnnn"}),
    ],
)
def test_the_table_says_what_the_contract_says(pattern: str, rows: dict[str, str]) -> None:
    table = json.loads(TABLE.read_text())
    assert tuple(table["roles"]) == ROLES and table["rights"][pattern] == rows


def test_nobody_may_change_anything_and_a_more_trusted_role_may_do_what_a_less_trusted_one_may() -> None:
    for pattern, rights in json.loads(TABLE.read_text())["rights"].items():
        for method, row in rights.items():
            assert "-" not in row.lstrip("-"), (pattern, method, row)
            assert method == "GET" or row[0] != "y" or pattern in PROBES, (pattern, method, row)
