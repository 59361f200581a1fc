"""The incidents' book: what people may do with an incident, and who. Each is one guarded move, a line in the log, an audit entry.

With `moves`, which holds what a detector does, the only writer.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from console.models import Incident, IncidentEntry, Severity
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tenants.ids import decode, encode
from tenants.models import Member, User
from tenants.roles import Role, at_least

from .evidence import Place, of_chart
from .kinds import KINDS
from .moves import JSON, TEXT, Entry, Opening, State, again, begin, fresh, live, log, told

WRITE, READ = "incidents:write", "runs:read"
SUBJECTS = ("tool", "agent", "model", "release")


def visible(actor: Actor) -> "QuerySet[Incident]":
    """Those of the actor's tenant; a platform admin's: all, the installation's own too."""
    rows = Incident.objects.select_related("tenant", "owner", "opened_by", "resolved_by")
    return rows if actor.platform_admin else rows.filter(tenant=actor.tenant)


def find(actor: Actor, incident_id: str) -> Incident:
    """Raises NotFound for another tenant's and for what is no id at all."""
    try:
        found = visible(actor).filter(pk=decode("inc", incident_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("incident")
    return found


# opening ----------------------------------------------------------------------------------------------------------------------


def by_hand(actor: Actor, opening: Opening, at: datetime, chart: str = "") -> Incident:
    """`chart`: the kind of detector whose figure of the subject is the evidence.

    Refuses scope_missing 403, title_missing, bad_severity, bad_subject, bad_chart, text_too_long 422.
    """
    actor.need(WRITE)
    if not opening.title.strip():
        raise Refused("title_missing", "Say in a line what is wrong: it is the incident's title.", 422, field="title")
    checked(opening.severity)
    if strange := sorted(set(opening.subject) - set(SUBJECTS)):
        message = f"An incident is about one of {', '.join(SUBJECTS)}, not about a {strange[0][:40]}."
        raise Refused("bad_subject", message, 422, field="subject")
    fits(opening.text)
    incident = begin(replace(opening, **shown(opening, chart, at)) if chart else opening, at, actor)
    assert incident is not None  # without a fingerprint there is nothing that it could be the same as
    return incident


def shown(opening: Opening, chart: str, at: datetime) -> JSON:
    kind = KINDS.get(chart)
    if kind is None:
        raise Refused("bad_chart", f"The chart is one of {', '.join(KINDS)}.", 422, field="chart")
    name = opening.subject.get(kind.about, "")
    if kind.about and not name:
        raise Refused("bad_subject", f"{kind.metric} is a figure of one {kind.about}: name it in the subject.", 422, field="subject")
    about = (kind.about, name) if kind.about else ("", "")
    evidence, runs = of_chart(Place(opening.tenant, kind.name, about), kind.parameters.window_minutes, at)
    return {"evidence": evidence, "runs": tuple(runs), "runbook": opening.runbook or kind.runbook}


# by people --------------------------------------------------------------------------------------------------------------------


@transaction.atomic
def acknowledge(actor: Actor, incident: Incident) -> Incident:
    """It is the actor's from now on, unless it has an owner. Refuses scope_missing 403, incident_not_open 409."""
    actor.need(WRITE)
    live = Incident.objects.filter(pk=incident.pk, state=State.OPEN)
    if not live.update(state=State.ACKNOWLEDGED, acknowledged_at=Now(), owner=incident.owner or actor.user):
        raise Refused("incident_not_open", "It is not open any more: somebody acknowledged or resolved it.", 409)
    log(incident, Entry.ACKNOWLEDGED, actor)
    told(actor, incident, "acknowledged", {"state": State.OPEN}, {"state": State.ACKNOWLEDGED})
    return fresh(incident)


@transaction.atomic
def assign(actor: Actor, incident: Incident, username: str) -> Incident:
    """Whose it is; empty: nobody's. Refuses scope_missing 403, unknown_person 422, incident_resolved 409."""
    actor.need(WRITE)
    owner = worker(incident, username) if username else None
    if not live(incident).update(owner=owner):
        raise resolved()
    log(incident, Entry.ASSIGNED, actor, data={"to": username or None})
    told(actor, incident, "assigned", {"owner": named(incident.owner)}, {"owner": username or None})
    return fresh(incident)


@transaction.atomic
def note(actor: Actor, incident: Incident, text: str) -> IncidentEntry:
    """Refuses scope_missing 403, text_missing, text_too_long 422."""
    actor.need(WRITE)
    if not text.strip():
        raise Refused("text_missing", "A note says something.", 422, field="text")
    entry = log(incident, Entry.NOTE, actor, fits(text))
    told(actor, incident, "noted", None, {"entry": entry.pk})
    return entry


@transaction.atomic
def change_severity(actor: Actor, incident: Incident, severity: str) -> Incident:
    """Refuses scope_missing 403, bad_severity 422, incident_resolved 409."""
    actor.need(WRITE)
    before = incident.severity
    if before == checked(severity):
        return incident
    if not live(incident).update(severity=severity):
        raise resolved()
    change = {"field": "severity", "before": before, "after": severity}
    log(incident, Entry.CHANGED, actor, data=change)
    told(actor, incident, "severity_changed", {"severity": before}, {"severity": severity})
    return fresh(incident)


@transaction.atomic
def resolve(actor: Actor, incident: Incident, text: str = "") -> Incident:
    """Refuses scope_missing 403, text_too_long 422, incident_resolved 409."""
    actor.need(WRITE)
    if not live(incident).update(state=State.RESOLVED, resolved_at=Now(), resolved_by=actor.user, clear_since=None):
        raise resolved()
    log(incident, Entry.RESOLVED, actor, fits(text))
    told(actor, incident, "resolved", {"state": incident.state}, {"state": State.RESOLVED})
    return fresh(incident)


@transaction.atomic
def reopen(actor: Actor, incident: Incident, text: str = "") -> Incident:
    """Refuses scope_missing 403, text_too_long 422, incident_not_resolved, incident_already_open 409."""
    actor.need(WRITE)
    if not again(incident, Now()):
        other = Incident.objects.filter(tenant=incident.tenant, fingerprint=incident.fingerprint, state__in=Incident.LIVE)
        same = other.exclude(pk=incident.pk).first() if incident.fingerprint else None
        if same is not None:
            raise Refused("incident_already_open", f"The same trouble is open as {same}. Work on that one.", 409, incident=str(same))
        raise Refused("incident_not_resolved", "It is not resolved: there is nothing to reopen.", 409)
    log(incident, Entry.REOPENED, actor, fits(text))
    told(actor, incident, "reopened", {"state": State.RESOLVED}, {"state": State.OPEN})
    return fresh(incident)


@transaction.atomic
def tick(actor: Actor, incident: Incident, step: str, done: bool = True) -> bool:
    """A step of its runbook, done or not done after all. False: it says so already. Refuses scope_missing 403."""
    actor.need(WRITE)
    Incident.objects.select_for_update(no_key=True).get(pk=incident.pk)  # two people tick at once
    held = ticked(incident).get(step)
    if (held is not None) == done:
        return False
    log(incident, Entry.STEP_TICKED, actor, data={"step": step, "done": done})
    told(actor, incident, "step_ticked", None, {"step": step, "done": done})
    return True


def ticked(incident: Incident) -> dict[str, IncidentEntry]:
    """Step -> the line of the log that ticked it, for those that are done."""
    found: dict[str, IncidentEntry] = {}
    for entry in incident.entries.filter(kind=Entry.STEP_TICKED).select_related("actor").order_by("id"):
        found.pop(entry.data["step"], None)
        if entry.data["done"]:
            found[entry.data["step"]] = entry
    return found


def acted(actor: Actor, incident: Incident, action: str, text: str, **data: Any) -> IncidentEntry:
    """Something was done about it from its page. What was done wrote its own audit entry; this is the incident's line.

    Call it inside the transaction of the action, where it has one. Refuses scope_missing 403.
    """
    actor.need(WRITE)
    return log(incident, Entry.ACTION, actor, fits(text), {"action": action, **data})


# parts ------------------------------------------------------------------------------------------------------------------------


def worker(incident: Incident, username: str) -> User:
    """Somebody who may work on it. Refuses unknown_person 422."""
    user = User.objects.filter(username=username, is_active=True).first()
    roles = Member.objects.filter(user=user, tenant=incident.tenant).values_list("role", flat=True) if user and incident.tenant else ()
    if user is None or not (user.is_platform_admin or any(at_least(role, Role.OPERATOR) for role in roles)):
        raise Refused("unknown_person", "No operator of this tenant has that name. Ask an admin to add them.", 422, field="owner")
    return user


def people(incident: Incident) -> "QuerySet[User]":
    """Whom it may be assigned to."""
    may = [role.value for role in Role if at_least(role, Role.OPERATOR)]
    return User.objects.filter(is_active=True, memberships__tenant=incident.tenant, memberships__role__in=may).order_by("username")


def checked(severity: str) -> str:
    if severity not in Severity.values:
        raise Refused("bad_severity", f"The severity is one of {', '.join(Severity.values)}.", 422, field="severity")
    return severity


def fits(text: str) -> str:
    if len(text) > TEXT:
        raise Refused("text_too_long", f"A text has at most {TEXT} characters.", 422, field="text")
    return text


def resolved() -> Refused:
    return Refused("incident_resolved", "It is resolved. Reopen it first.", 409)


def named(user: User | None) -> str | None:
    return user.get_username() if user else None


def run_ids(incident: Incident) -> Iterable[str]:
    return (encode("agt", run) for run in incident.runs.order_by("-value", "-run_id").values_list("run_id", flat=True))
