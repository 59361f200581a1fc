"""What every page's frame needs: navigation, counts, the tenant, and who is at it.

All of it is lazy: a page without the frame (errors, the admin, the API's reference) asks the database nothing.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from console import preferences, switch_words
from console.live.rows import OPEN
from runs import switches
from tenants.actors import Actor
from tenants.models import Tenant
from tenants.roles import Role

JSON = dict[str, Any]
COUNTS = """
select (select count(*) from tenants_tenant t, lateral (select from run where tenant_id = t.id and state = any(%(open)s) offset 0) r
         where {its} true),
       (select count(*) from approvals_approval where {tenant} state = 'pending'),
       (select count(*) from runs_unknownwrite where {tenant} result = ''), (select count(*) from runs_switch where lifted_at is null),
       (select count(*) from console_incident where {tenant} state in ('open', 'acknowledged'))
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One link of the navigation. `name`: of the URL. `tone`: "hot" where a person must act, "bad" where something went wrong.

    `rare`: only there while its count is not zero.
    """

    label: str
    name: str
    icon: str
    count: str = ""
    count_label: str = ""
    tone: str = ""
    rare: bool = False


OPERATE = (
    Item("Overview", "overview", "gauge"),
    Item("Runs", "runs", "activity", "runs", "live"),
    Item("Approvals", "approvals", "hand", "approvals", "waiting", "hot"),
    Item("Incidents", "incidents", "siren", "incidents", "live", "bad"),
    Item("Agents", "agents", "bot"),
    Item("Tools", "tools", "wrench"),
    Item("Models", "models", "sparkles"),
    Item("Spend", "spend", "wallet"),
    Item("Unknown writes", "unknowns", "circle-question-mark", "unknowns", "open", "bad", rare=True),
    Item("Kill switches", "switches", "power-off", "switches", "on", "bad"),
)
IMPROVE = (Item("Releases", "releases", "rocket"), Item("Evals", "evals", "list-checks"), Item("Memory", "memory", "database"))
ADMIN = Item("Admin", "admin:index", "shield")
AUDIT = Item("Audit log", "audit", "scroll-text")
GOVERN = (
    Item("Changes", "changes", "history"),
    Item("Standing grants", "grants", "list-checks"),
    Item("Channels", "channels", "bell"),
    Item("First steps", "welcome", "rocket"),
    Item("API docs", "api-docs", "book-open"),
    Item("Settings", "settings", "settings"),
)
DEMO = (Item("Demo", "demo", "flask-conical"),)


def context(request: HttpRequest) -> JSON:
    """For every template. `tenants` are those to switch to, empty when there is no choice."""
    actor: Actor | None = getattr(request, "actor", None)
    frame: JSON = {"environment": "demo" if settings.DEMO else "production", "zone": preferences.UTC}
    if actor is None:
        return frame
    counts = cache(lambda: live_counts(actor))
    choice: preferences.Choice = getattr(request, "choice", preferences.USUAL)
    return frame | {
        "zone": choice.zone,
        "single_keys": choice.single_keys,
        "choice": choice,
        "nav": SimpleLazyObject(lambda: navigation(request, actor, counts())),
        "switches": SimpleLazyObject(lambda: switches_on(actor, counts())),
        "member_title": member_title(actor),
        "may_open_incident": actor.can("incidents:write"),
        "may_manage": actor.can("config:write"),
        "tenant": actor.tenant,
        "tenants": SimpleLazyObject(lambda: tenants_of(actor)),
    }


def member_title(actor: Actor) -> str:
    return f"{'Platform admin' if actor.platform_admin else Role(actor.role).name.capitalize()} · {actor.tenant.slug}"


def navigation(request: HttpRequest, actor: Actor, counts: dict[str, int]) -> list[JSON]:
    """The groups of the sidebar; those with nothing in them are left out."""
    mine = ((ADMIN, actor.user.is_staff), (AUDIT, actor.can("audit:read")))
    kept = tuple(item for item, shown_to in mine if shown_to)
    groups = (
        ("Operate", OPERATE),
        ("Improve", IMPROVE),
        ("Govern", (*kept, *GOVERN)),
        ("Demo", DEMO if settings.DEMO else ()),
    )
    return [
        {"title": title, "items": [shown(request.path, item, counts) for item in items if counts.get(item.count) or not item.rare]}
        for title, items in groups
        if items
    ]


def shown(path: str, item: Item, counts: dict[str, int]) -> JSON:
    url = reverse(item.name)
    return {
        "label": item.label,
        "url": url,
        "icon": item.icon,
        "count": counts.get(item.count),
        "count_label": item.count_label,
        "tone": item.tone,
        "current": path == url or (url != "/" and path.startswith(url)),
    }


def live_counts(actor: Actor) -> dict[str, int]:
    """Runs that are not over, approvals that wait, writes whose outcome is unknown, incidents, and switches that are on.

    A platform admin's are everybody's. One query. The live channel counts runs, approvals and incidents in the same way.
    """
    tenant, its = ("", "") if actor.platform_admin else ("tenant_id = %(tenant)s and", "t.id = %(tenant)s and")
    with connection.cursor() as cursor:
        cursor.execute(COUNTS.format(tenant=tenant, its=its), {"tenant": actor.tenant.id, "open": OPEN})
        runs, approvals, unknowns, on, incidents = cursor.fetchone()
    switches_here = len(switches.concerning(actor)) if on else 0
    return {"runs": runs, "approvals": approvals, "unknowns": unknowns, "switches": switches_here, "incidents": incidents}


def switches_on(actor: Actor, counts: dict[str, int]) -> list[JSON]:
    """For the bar of every page. No query while nothing is on."""
    return [switch_words.shown(switch) for switch in switches.concerning(actor)] if counts["switches"] else []


def tenants_of(actor: Actor) -> list[Tenant]:
    """The tenants this person may act in, when there are several."""
    active = Tenant.objects.filter(active=True).order_by("slug")
    found = list(active if actor.platform_admin else active.filter(members__user=actor.user))
    return found if len(found) > 1 else []
