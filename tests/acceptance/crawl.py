"""Every address of the installation, from its URLconf, with the ids that a foreign tenant has for each: what the crawl walks."""

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

TOKEN = "c" * 32  # of the CSRF check: cookie and header agree
PLACE = re.compile(r"<(?:\w+:)?(\w+)>")
ULID = "01M84NVW2ARRGAAF26N9XW52ZZ"

# What makes two tenants with something of everything, in the installation's own database, and tells what they have.
FURNISH = """
import json
from datetime import timedelta
from django.db import transaction
from django.db.models.functions import Now
from django.test import Client
from approvals.models import Approval
from tenants import keys
from tenants.ids import encode
from tenants.models import Member
from tenants.roles import SCOPES, may
from tests.runtime.furnished import furnish, models
PREFIX = {"run": "agt", "approvals_approval": "apr", "runs_unknownwrite": "unk", "runs_switch": "swi", "console_delivery": "msg",
          "approvals_standinggrant": "grt", "console_policybacktest": "pbt", "runs_evaluation": "evl",
          "runs_memoryitem": "mem", "console_incident": "inc", "console_bulk": "blk",
          "console_savedview": "viw"}
def told(made):
    people = {"viewer": made.viewer, "operator": made.world.operator, "approver": made.world.approver, "admin": made.admin}
    access = {}
    for role, actor in people.items():
        client = Client()
        client.force_login(actor.user)
        member = Member.objects.get(tenant=actor.tenant, user=actor.user)
        key = keys.issue(member, "crawl", [scope for scope in SCOPES if may(role, scope)])[1]
        access[role] = {"session": client.cookies["sessionid"].value, "key": key, "user": actor.user.pk, "member": member.pk}
    rows = {}
    for table, model in models().items():
        known = made.known[model]
        found = [known] if not hasattr(known, "tenant_id") else made.rows(table)
        rows[table] = [str(row.pk) for row in found if not isinstance(row.pk, tuple)]
    typed = {table: [encode(prefix, one.pk) for one in made.rows(table)] for table, prefix in PREFIX.items()}
    return {"word": made.word, "tenant": str(made.world.tenant.id), "access": access, "rows": rows, "typed": typed,
            "release": made.world.agent.live.release_id, "keys": [k.split("_")[1] for k in (a["key"] for a in access.values())]}
with transaction.atomic():
    made = [furnish(word) for word in ("alpha", "bravo")]
    Approval.objects.filter(tenant__slug__in=["alpha", "bravo"]).update(expires_at=Now() + timedelta(hours=1))
print(json.dumps([told(one) for one in made]))
"""


@dataclass(frozen=True, slots=True)
class Route:
    """`pattern`: as the URLconf has it, groups of regular expressions written like converters."""

    pattern: str
    area: str  # api, page, admin

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(PLACE.findall(self.pattern))


def routes() -> list[Route]:
    return [Route(pattern, area_of(pattern)) for pattern in sorted(set(_walk(get_resolver("console.urls"), "/")))]


def _walk(resolver: URLResolver, before: str) -> Iterator[str]:
    for each in resolver.url_patterns:
        here = before + plain(str(each.pattern))
        if isinstance(each, URLPattern):
            yield here
        else:
            yield from _walk(each, here)


def plain(pattern: str) -> str:
    return re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", pattern).removeprefix("^").removesuffix("$")


def area_of(pattern: str) -> str:
    return "api" if pattern.startswith("/api/") else "admin" if pattern.startswith("/admin/") else "page"


# ids --------------------------------------------------------------------------------------------------------------------------

# parameter -> (table, and the shape of one that nobody has)
IDS = {
    "run_id": "run", "approval_id": "approvals_approval", "unknown_id": "runs_unknownwrite", "switch_id": "runs_switch",
    "delivery_id": "console_delivery", "grant_id": "approvals_standinggrant", "backtest_id": "console_policybacktest",
    "evaluation_id": "runs_evaluation",
    "incident_id": "console_incident", "memory_id": "runs_memoryitem", "bulk_id": "console_bulk",
    "view_id": "console_savedview",
}  # fmt: skip
NUMBERS = {
    "delegation_id": "approvals_delegation", "breaker_id": "tools_breaker", "entry_id": "tenants_auditentry",
    "line_id": "console_incidententry",
}  # fmt: skip
NAMES = {  # beginning of the address -> the name that the furnished tenant has there
    "/api/v1/tools/": "{word}_tool", "/tools/-/rules/of/": "{word}", "/tools/": "{word}_tool", "/api/v1/agents/": "{word}-agent",
    "/agents/": "{word}-agent",
    "/api/v1/groups/": "{word}", "/api/v1/channels/": "{word}", "/channels/": "{word}", "/api/v1/rules/": "{word}",
    "/api/v1/detectors/": "tool_errors", "/detectors/": "tool_errors", "/runbooks/": "tool-timeouts", "/incidents/": "go_read_only",
    "/api/v1/suites/": "{word}", "/evals/suites/": "{word}",
}  # fmt: skip
ASKED_WITH = {"/api/v1/rules/<": "?tenant={word}", "/tools/-/rules/of/<": "?tenant={word}"}  # a name that holds in one scope
INSTALLATION = ("/api/v1/models/", "/models/")  # everybody's: there is no foreign one
# Words that are nobody's: numbers count anew in each run and tenant.
WORDS = {
    "act": ("promote", "rollback"), "verb": ("pause", "promote"), "app_label": ("tenants", "runs"), "secret": ("nobody",),
    "step": ("1",),
    "ord": ("2",), "number": ("1",), "kind": ("csv",),
}  # fmt: skip
ADMIN_IDS = ("object_id", "id")


@dataclass(frozen=True, slots=True)
class Sample:
    """One address. `foreign`: the same with what the other tenant has, and with what nobody has."""

    route: Route
    path: str
    nobodys: str
    ids: tuple[str, ...] = ()

    @property
    def foreign(self) -> bool:
        return bool(self.ids)


def samples(route: Route, owner: dict[str, Any]) -> list[Sample]:
    """KeyError: nobody has said what stands for a parameter of this route."""
    query = next((query for beginning, query in ASKED_WITH.items() if route.pattern.startswith(beginning)), "")
    made = [Sample(route, route.pattern + query.format(word=owner["word"]), route.pattern + query.format(word="nobody"))]
    for place in route.places:
        values = values_of(route, place, owner)
        made = [
            Sample(route, put(one.path, place, value), put(one.nobodys, place, nobody), one.ids + ((value,) if value != nobody else ()))
            for one in made
            for value, nobody in values
        ]
    return made


def put(path: str, place: str, value: str) -> str:
    return re.sub(rf"<(?:\w+:)?{place}>", lambda _: quote(value, safe=""), path, count=1)


def values_of(route: Route, place: str, owner: dict[str, Any]) -> list[tuple[str, str]]:
    if place in IDS:
        found = owner["typed"][IDS[place]]
        return [(one, one[:4] + ULID) for one in found]
    if place in NUMBERS:
        return [(one, "999999999") for one in owner["rows"][NUMBERS[place]]]
    if place == "draft_id":
        return [(f"{run}.1.1", f"agt_{ULID}.1.1") for run in owner["typed"]["run"]]
    if place in ("release_id", "other_id"):
        return [(owner["release"], f"rel_{ULID}")]
    if place == "rollout_id":  # of an agent, whose releases are told apart above
        return [(f"rol_{ULID}", f"rol_{ULID}")]
    if place == "key_id":
        return [(one, nobody(one)) for one in owner["keys"]]
    if place in WORDS:
        return [(one, one) for one in WORDS[place]]
    if route.area == "admin":
        return admin_values(route, place, owner)
    if place == "key":
        return [(owner["word"], "nobody")]
    if place == "name":
        return names(route.pattern, owner["word"])
    raise KeyError(f"{route.pattern}: no sample for <{place}>")


def names(pattern: str, word: str) -> list[tuple[str, str]]:
    if pattern.startswith(INSTALLATION):
        return [("primary", "primary")]
    for beginning, name in NAMES.items():
        if pattern.startswith(beginning):
            return [(name.format(word=word), name.format(word="nobody"))]
    raise KeyError(f"{pattern}: no sample for <name>")


def admin_values(route: Route, place: str, owner: dict[str, Any]) -> list[tuple[str, str]]:
    if place == "url":
        return [("1", "1")]
    if place not in ADMIN_IDS:
        raise KeyError(f"{route.pattern}: no sample for <{place}>")
    table = "_".join(route.pattern.split("/")[2:4])
    found = owner["admin"].get(table)
    if not found:
        return [("1", "1")]  # of the installation
    return [(one, nobody(one)) for one in found]


def nobody(key: str) -> str:
    """A key of the same shape that no row has."""
    return "999999999" if key.isdigit() else f"{key[:14]}0000-0000-000000000000" if len(key) == 36 else "Z" * len(key)


def of_admin(owner: dict[str, Any]) -> dict[str, list[str]]:
    """Address of a model in the admin (app_model) -> keys of the tenant's rows."""
    renamed = {"run": "runs_run", "call": "runs_call", "event": "runs_event", "step": "runs_step", "controls": "tenants_controls"}
    found = {renamed.get(table, table): keys for table, keys in owner["rows"].items()}
    access = owner["access"].values()
    return found | {
        "tenants_tenant": [owner["tenant"]],
        "tenants_user": [str(one["user"]) for one in access],
        "tenants_member": [str(one["member"]) for one in access],
        "tenants_apikey": owner["keys"],
        "tools_tool": [f"{owner['word']}_tool"],
        "runs_agent": [f"{owner['word']}-agent"],
    }


def marks(owner: dict[str, Any]) -> tuple[str, ...]:
    """What must stand in no answer to anybody else: the tenant's word, and every id of its rows in each spelling."""
    uuids = {key for keys in owner["rows"].values() for key in keys if len(key) == 36} | {owner["tenant"]}
    typed = {one.partition("_")[2] for ones in owner["typed"].values() for one in ones} | {owner["release"].partition("_")[2]}
    return tuple(sorted({owner["word"], *uuids, *(one.replace("-", "") for one in uuids), *typed, *owner["keys"]}))


# asking -----------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Got:
    status: int
    text: str

    def leaks(self, found: tuple[str, ...], asked: tuple[str, ...]) -> list[str]:
        """Marks in the answer that the question did not have."""
        text = self.text
        for each in sorted(asked, key=len, reverse=True):
            text = text.replace(each, "")
        return [mark for mark in found if mark in text]


@dataclass
class Caller:
    """One person of a tenant: the key for the API, the session for pages."""

    base_url: str
    access: dict[str, Any]
    open: list[http.client.HTTPConnection] = field(default_factory=list)

    def __call__(self, method: str, path: str, body: Any = None, *, session: bool = False, **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if session:
            named |= {"Cookie": f"sessionid={self.access['session']}; csrftoken={TOKEN}", "X-CSRFToken": TOKEN, "Origin": self.base_url}
        else:
            named["Authorization"] = f"Bearer {self.access['key']}"
        data = None
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            form = session and not path.startswith("/api/")
            data = form_of(body) if form else json.dumps(body or {}).encode()
            named["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
        return self._send(method, path, data, named)

    def _send(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Got:
        place = urlsplit(self.base_url)
        connection = self.open.pop() if self.open else http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = f"{answer.headers}\n{answer.read().decode(errors='replace')}"
        except (http.client.HTTPException, ConnectionError):
            connection.close()
            raise
        self.open.append(connection)
        return Got(answer.status, text)


def form_of(body: Any) -> bytes:
    return "&".join(f"{quote(str(name))}={quote(str(value))}" for name, value in (body or {}).items()).encode()
