"""What changed that runs are decided by: one ordered list from the audit trail, for the page, the charts and incidents.

A tenant's list holds its own changes and those to what everybody shares (models, rules without a tenant, switches over all) or to tools
and agents that it sees. Values of credentials are in no entry.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q, QuerySet, TextField, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce
from django.urls import NoReverseMatch, reverse

from runs.models import Agent, Release
from runs.switches import seen
from tenants.ids import decode
from tenants.models import AuditEntry, Tenant
from tenants.scope import installation_wide
from tools.models import Tool

from .change_words import ALIASES, KINDS, MOVES, kind_of, label, told
from .metrics import Scope

MOST = 200
MARKS = 30  # on one chart
WIDE = 600  # pixels of a chart, about
SYSTEM = "Signalbox"
SHARED = ("permission", "rule", "policy", "policyversion", "model", "modeldefinition", "switch", "ceiling", "release")
EVERY = "-"  # how the page of a rule names the scope of all tenants
PAGES = {"tool": "tool", "model": "model", "switch": "switch", "rule": "rule", "channel": "channel"}


@dataclass(frozen=True, slots=True)
class Change:
    """`sentence`: what was done, beginning with who did it. `tenant`: None where it is the installation's."""

    id: int
    at: datetime
    kind: str
    icon: str
    who: str
    sentence: str
    why: str
    label: str
    url: str
    tenant: str | None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Only:
    """What to leave out of the list. `before`: the id of the entry that the last page ended with."""

    kinds: Collection[str] = ()
    agent: str = ""
    tool: str = ""
    before: int | None = None


@installation_wide()
def between(
    scope: Scope,
    since: datetime | None,
    until: datetime | None,
    kinds: Collection[str] | None = None,
    limit: int = MOST,
    only: Only = Only(),
) -> list[Change]:
    """Newest first. `scope`: a tenant's list, or everybody's. `until` is not in it any more."""
    rows = visible(scope).select_related("tenant").filter(of_kinds(kinds or only.kinds), about(only))
    rows = rows.filter(at__gte=since) if since else rows
    rows = rows.filter(at__lt=until) if until else rows
    if only.before is not None:
        last = AuditEntry.objects.filter(pk=only.before).values_list("at", flat=True).first()
        rows = rows.filter(Q(at__lt=last) | Q(at=last, id__lt=only.before)) if last else rows.none()
    found = list(rows.order_by("-at", "-id")[:limit])
    names = releases_of(found)
    return [change(entry, names) for entry in found]


def last_good_changes(scope: Scope, moment: datetime, hours: float = 24, limit: int = 20) -> list[Change]:
    """What changed in the hours before something went wrong, newest first: the first places to look."""
    return between(scope, moment - timedelta(hours=hours), moment, limit=limit)


def visible(scope: Scope) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.annotate(of_agent=named_in("agent"), of_tool=named_in("tool"))
    if scope is None:
        return rows
    tenant = Tenant.objects.filter(pk=scope).first()
    agents, tools = list(seen(Agent, tenant)), list(seen(Tool, tenant))
    named = Q(object_kind="agent", object_id__in=agents) | Q(object_kind="tool", object_id__in=tools)
    shared = Q(object_kind__in=SHARED, of_agent__in=["", *agents], of_tool__in=["", *tools])
    return rows.filter(Q(tenant=scope) | Q(tenant=None) & (named | shared))


def named_in(key: str) -> Coalesce:
    """What an entry says of the agent or the tool that it is about; empty: nothing, or all of them."""
    return Coalesce(KeyTextTransform(key, "after"), KeyTextTransform(key, "before"), Value(""), output_field=TextField())


def of_kinds(kinds: Collection[str]) -> Q:
    """Nothing named: every kind that runs are decided by."""
    wanted = set(kinds) or set(KINDS)
    stored = wanted | {name for name, kind in ALIASES.items() if kind in wanted}
    moves = Q(action__startswith=MOVES)
    plain = Q(object_kind__in=stored - {"release"}) & ~moves
    return plain | moves if "release" in wanted else plain


def about(only: Only) -> Q:
    found = Q()
    for kind, name in (("agent", only.agent), ("tool", only.tool)):
        if name:
            found &= Q(object_kind=kind, object_id=name) | Q(**{f"of_{kind}": name})
    return found


def releases_of(entries: Iterable[AuditEntry]) -> dict[str, str]:
    """The releases that the entries name: id -> `r3`."""
    ids = {str((facts or {}).get("release", "")) for entry in entries for facts in (entry.before, entry.after) if isinstance(facts, dict)}
    found = Release.objects.filter(id__in=[decode("rel", one) for one in ids if one.startswith("rel_")]).only("id", "agent_id", "number")
    return {release.release_id: f"r{release.number}" for release in found}


def change(entry: AuditEntry, releases: dict[str, str]) -> Change:
    kind = kind_of(entry.object_kind, entry.action)
    before, after = (facts if isinstance(facts, dict) else None for facts in (entry.before, entry.after))
    who = SYSTEM if entry.actor == "system" else entry.actor
    said = told(kind, entry.action, entry.object_id, before, after, releases)
    return Change(
        entry.pk, entry.at, kind, KINDS[kind][1], who, f"{who} {said}", entry.reason,
        label(kind, entry.action, entry.object_id, before, after), page_of(kind, entry, after or before or {}),
        entry.tenant.slug if entry.tenant else None, entry.request_id,
    )  # fmt: skip


def page_of(kind: str, entry: AuditEntry, facts: dict[str, Any]) -> str:
    """Where the thing is; else its place in the list of changes: it is gone, or has no page, or a name that no page has."""
    kind, name = ("tool", facts["tool"]) if kind == "permission" and facts.get("tool") else (kind, entry.object_id)
    try:
        if kind in PAGES and entry.after is not None:
            scope = urlencode({"tenant": entry.tenant.slug if entry.tenant else EVERY})
            return reverse(PAGES[kind], args=[name]) + (f"?{scope}" if kind == "rule" else "")
    except NoReverseMatch:
        pass
    return f"{reverse('changes')}#c{entry.pk}"


def markers(scope: Scope, since: datetime, until: datetime) -> list[tuple[datetime, str, str]]:
    """For `charts.marked`: (at, label, url), oldest first. Those that would stand on one another are one, and there are at most thirty."""
    found = between(scope, since, until)[::-1]
    apart = (until - since) / WIDE
    groups = together(found, apart)
    while len(groups) > MARKS:
        apart *= 2
        groups = together(found, apart)
    return [(group[0].at, group[0].label if len(group) == 1 else f"{len(group)} changes", place(group)) for group in groups]


def together(found: list[Change], apart: timedelta) -> list[list[Change]]:
    groups: list[list[Change]] = []
    for one in found:
        if groups and one.at - groups[-1][0].at < apart:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def place(group: list[Change]) -> str:
    until = group[-1].at + timedelta(milliseconds=1)
    return f"{reverse('changes')}?{urlencode({'since': group[0].at.isoformat(), 'until': until.isoformat()})}"
