"""What else somebody should know before they decide a request: what this tool did lately, how it went, and how the request came about."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from approvals.models import Approval
from runs.models import Call, RunInput
from runs.states import CallState, RunState
from tenants.ids import encode, first_at
from tenants.models import User
from tools.models import Permission, Rule, ToolVersion

from . import argument_rows, metrics
from .argument_schema import Hidden, masked
from .readings import Cut

JSON = dict[str, Any]
State = Approval.State
DAY, WEEK, MONTH = timedelta(hours=24), timedelta(days=7), timedelta(days=30)
SENT = (CallState.DISPATCHED, CallState.DONE, CallState.UNKNOWN)
LONGEST = 20  # requests of one chain
REQUEST = 6000  # characters of the run's own text


def radius(found: Approval) -> JSON:
    """What this tool changed in this tenant in the last 24 hours: calls, and runs that made them."""
    since = timezone.now() - DAY
    writes = Call.objects.filter(~Q(effect="read"), tenant_id=found.tenant_id, dispatched_at__gte=since, name=found.tool, state__in=SENT)
    return writes.aggregate(calls=Count("ord"), runs=Count("run_id", distinct=True))


def history(found: Approval) -> JSON:
    """How people decided this agent's requests for this tool in 30 days; `granted`: by a standing grant."""
    since = timezone.now() - MONTH
    same = Approval.objects.filter(
        id__gte=first_at(since), tenant_id=found.tenant_id, agent=found.agent, tool=found.tool, kind=found.kind, created_at__gte=since
    )  # fmt: skip
    yes = Q(state__in=(State.APPROVED, State.CONSUMED))
    return same.exclude(pk=found.pk).aggregate(
        approved=Count("pk", filter=yes & Q(grant=None)),
        granted=Count("pk", filter=yes & ~Q(grant=None)),
        rejected=Count("pk", filter=Q(state=State.REJECTED)),
    )


def record(found: Approval) -> JSON:
    """How the agent's runs in this tenant ended in 7 days. `rate`: of 100; None when none ended."""
    now = timezone.now()
    made = metrics.summary(Cut(found.tenant_id, found.agent), now - WEEK, now)[""]
    good = made.states.get(RunState.SUCCEEDED, 0)
    return {"runs": made.ended, "good": good, "rate": round(100 * good / made.ended) if made.ended else None}


def policy(found: Approval) -> JSON:
    """Which policy asked, as the call's own record has it: words, the page of its row, and the steps that made the call unsafe."""
    rows = Call.objects.filter(run_id=found.run_id, step=found.step, ord=found.ord).values_list("decision", flat=True)
    decision: JSON = (found.kind == Approval.Kind.CALL and rows.first()) or {}
    words, url = source(str(decision.get("by") or ""), found)
    because = decision.get("because")
    steps = [one for one in because if isinstance(one, dict)] if isinstance(because, list) else []
    return {"words": words, "url": url, "because": steps}


def source(by: str, found: Approval) -> tuple[str, str]:
    kind, _, name = by.partition(":")
    mine = Q(tenant=None) | Q(tenant_id=found.tenant_id)
    if kind == "rule":
        rule = Rule.objects.select_related("tenant").filter(mine, name=name).order_by("id").first()
        where = urlencode({"tenant": rule.tenant.slug if rule.tenant else "-"}) if rule else ""
        return f"Rule {name}", f"{reverse('rule', args=[name])}?{where}" if rule else ""
    if kind == "permission" and name.isdigit():
        row = Permission.objects.select_related("tenant").filter(mine, pk=int(name)).first()
        if row is None:
            return "A permission that is gone", ""
        place = {"tenant": row.tenant.slug if row.tenant else "-", "tool": row.tool_id, "agent": row.agent, "row": str(row.pk)}
        of = f" for {row.agent}" if row.agent else ""
        return f"Permission of {row.tool_id}{of}", f"{reverse('matrix')}?{urlencode(place)}"
    return (f"The run's mode: {name}" if kind == "mode" else ""), ""  # of a default, `why` says it all


def asked_text(found: Approval) -> JSON:
    """What the run was asked to do, as somebody typed it."""
    text = RunInput.objects.filter(pk=found.run_id).values_list("text", flat=True).first() or ""
    return {"asked": text[:REQUEST], "asked_cut": len(text) > REQUEST}


# how it came about ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """One request that another took the place of. `editor`: who wrote the new arguments, None where it was asked anew."""

    approval_id: str
    editor: User | None
    changed: list[argument_rows.Row]
    voices: list[str]  # who had approved the old one: that no longer counts
    reason: str
    at: Any


def chain(found: Approval, schema: Any) -> list[Link]:
    """From the first request to this one. Empty when it is the first."""
    if found.replaces is None:
        return []
    place = Approval.objects.filter(run_id=found.run_id, step=found.step, ord=found.ord, kind=found.kind)
    known = {one.pk: one for one in place.select_related("edited_by").prefetch_related("decisions__user")}
    links: list[Link] = []
    new = known.get(found.pk, found)
    while new.replaces in known and len(links) < LONGEST:
        old = known[new.replaces]
        links.append(link(old, new, schema))
        new = old
    return links[::-1]


def link(old: Approval, new: Approval, schema: Any) -> Link:
    edited = old.void_reason.endswith(" edited the arguments.") and new.edited_by is not None
    before, after = (json.loads(bytes(one.args)) for one in (old, new))
    yeses = [one.user.username for one in old.decisions.all() if one.verdict == "approve" and one.user_id != new.edited_by_id]
    changed = argument_rows.changes(schema, before, after)
    return Link(old.approval_id, new.edited_by if edited else None, changed, yeses, old.void_reason, old.decided_at)


def replaced_by(found: Approval) -> Approval | None:
    """The request that took its place: edited from it, or asked anew."""
    if found.state != State.VOID:
        return None
    place = Approval.objects.filter(run_id=found.run_id, step=found.step, ord=found.ord, kind=found.kind, pk__gt=found.pk)
    rows = place.only("id", "state", "edited_by", "replaces", "created_at").order_by("id")
    return rows.filter(replaces=found.pk).first() or rows.last()


def schemas_of(versions: Iterable[UUID | None]) -> dict[UUID | None, JSON]:
    """The schemas of tool versions, those that are known. One query, and none for none."""
    wanted = {version for version in versions if version}
    return dict(ToolVersion.objects.filter(pk__in=wanted).values_list("pk", "input_schema")) if wanted else {}


def told(args: bytes | memoryview, schema: Any) -> Any:
    """Arguments as a sentence may use them: what nobody is shown is not among them."""
    value = masked(schema, json.loads(bytes(args)))
    return {name: part for name, part in value.items() if not isinstance(part, Hidden)} if isinstance(value, dict) else value


def grant_of(found: Approval) -> JSON | None:
    """The standing grant that approved it."""
    grant = found.grant
    return {"url": reverse("grant", args=[encode("grt", grant.pk)]), "by": grant.created_by, "reason": grant.reason} if grant else None
