"""Looks at the facts of every tenant every few seconds, and opens, reopens and resolves incidents. Any number may look at once."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from console import rollups
from console.models import Detector, Incident
from tenants.errors import Refused
from tenants.models import Tenant

from . import moves, settings
from .detectors import Finding, Looked, Reading, Rule, Subject, fingerprint_of, judge
from .evidence import Place, examples, frozen
from .facts import READ, Window
from .followed import of_look
from .kinds import KINDS, OUTSIDE
from .moves import Opening
from .past import Histories, Past, compared, least_of

log = logging.getLogger(__name__)
AGAIN = timedelta(days=1)  # within it, what comes back is the same incident
Key = tuple[UUID | None, str]  # tenant, fingerprint
PAST = Past()


@dataclass
class Look:
    """One look, and what came of it."""

    now: datetime
    tenants: Mapping[UUID, str]
    opened: list[Incident] = field(default_factory=list)
    reopened: int = 0
    resolved: int = 0


def round() -> Look:
    """What the watchman calls."""
    return look(rollups.database_now(), PAST)


def look(now: datetime, past: Past | None = None) -> Look:
    """Every enabled detector over every tenant. One that is set wrongly keeps none of the others from their turn."""
    made = Look(now, dict(Tenant.objects.filter(active=True).values_list("id", "slug")))
    window, past = Window(now, list(made.tenants)), past or Past()
    live = {(one.tenant_id, one.fingerprint): one for one in Incident.objects.filter(state__in=Incident.LIVE).exclude(fingerprint="")}
    for row in settings.listed().filter(enabled=True).exclude(kind__in=OUTSIDE):
        try:
            rule = settings.rule_of(row)
        except Refused as refused:
            log.warning("incidents: the detector %s does not look: %s", row.name, refused.message)
            continue
        for tenant, readings in readings_of(row, rule, window, made.tenants, past).items():
            settle(made, row, rule, tenant, judge(rule, readings), live)
    return made


def readings_of(row: Detector, rule: Rule, window: Window, slugs: Mapping[UUID, str], past: Past) -> dict[UUID | None, list[Reading]]:
    """For every tenant it looks at, and for the installation, those without a reading too: they may be over."""
    found: dict[UUID | None, list[Reading]] = {tenant: [] for tenant, slug in slugs.items() if settings.looks_at(row, slug)}
    found[None] = []
    for tenant, reading in READ[rule.kind](window, rule.parameters.window_minutes):
        if tenant in found:
            found[tenant].append(reading)
    if needs_past(rule) and any(found.values()):
        held = past.of(window.now, rule.parameters.baseline_days)
        return {tenant: [with_past(rule, tenant, one, held, window.now) for one in readings] for tenant, readings in found.items()}
    return found


def needs_past(rule: Rule) -> bool:
    return KINDS[rule.kind].history and (KINDS[rule.kind].by != "level" or rule.parameters.k > 0)


def with_past(rule: Rule, tenant: UUID | None, reading: Reading, held: Histories, now: datetime) -> Reading:
    points = held.get((tenant, rule.kind), {}).get(reading.subject, []) if tenant else []
    since = rollups.hour_of(now) - timedelta(days=rule.parameters.baseline_days)
    until = rollups.hour_of(now - timedelta(minutes=rule.parameters.window_minutes))  # none that the window lies in
    values = compared(points, since, until, least_of(rule.parameters.minimum))
    return Reading(reading.subject, reading.value, reading.n, values, reading.certain, reading.note)


# what comes of it -------------------------------------------------------------------------------------------------------------


def settle(made: Look, row: Detector, rule: Rule, tenant: UUID | None, looked: Looked, live: Mapping[Key, Incident]) -> None:
    firing = {finding.fingerprint for finding in looked.findings}
    for finding in looked.findings:
        held = live.get((tenant, finding.fingerprint))
        if held is None or not moves.still(held, finding.value, made.now):
            arise(made, row, rule, tenant, finding)
    for (owner, fingerprint), incident in live.items():
        if owner == tenant and incident.detector == row.name and fingerprint not in firing:
            value = of_look(looked, fingerprint, KINDS[rule.kind].unit)
            calm_down(made, rule, incident, value, holding=fingerprint in looked.holding)


def arise(made: Look, row: Detector, rule: Rule, tenant: UUID | None, finding: Finding) -> None:
    """The same as one of the last day that nobody but the machine resolved, or a new one."""
    before = last_of(tenant, finding.fingerprint)
    if before is not None and before.resolved_at is not None:
        if before.resolved_by_id is not None and made.now < before.resolved_at + timedelta(minutes=rule.parameters.window_minutes):
            return  # a person said it is over, and the window still sees what was before
        if before.resolved_by_id is None and made.now < before.resolved_at + AGAIN:
            made.reopened += moves.back(before, finding.sentence, finding.value, made.now)
            return
    place = Place(tenant, rule.kind, finding.subject)
    evidence, runs = frozen(place, finding, rule.parameters.window_minutes, made.now)
    opening = Opening(
        tenant=tenant, title=finding.title, severity=finding.severity, text=finding.sentence, subject=subject_of(finding.subject),
        detector=row.name, fingerprint=finding.fingerprint, runbook=row.runbook, evidence=evidence, runs=tuple(runs),
        value=finding.value,
    )  # fmt: skip
    incident = moves.begin(opening, made.now)
    if incident is not None:
        made.opened.append(incident)


def last_of(tenant: UUID | None, fingerprint: str) -> Incident | None:
    rows = Incident.objects.filter(tenant=None) if tenant is None else Incident.objects.filter(tenant_id=tenant)
    return rows.filter(fingerprint=fingerprint).order_by("-resolved_at").first()


def calm_down(made: Look, rule: Rule, incident: Incident, value: float | None, *, holding: bool) -> None:
    """Over once it looked over for `hold_minutes` without a break."""
    if holding:
        moves.not_cleared(incident)
        moves.followed(incident, value, made.now)
        return
    if incident.clear_since is None and moves.cleared(incident, made.now):
        incident.clear_since = made.now
    if incident.clear_since and incident.clear_since <= made.now - timedelta(minutes=rule.parameters.hold_minutes):
        made.resolved += moves.over(incident, made.now, value)
        return
    moves.followed(incident, value, made.now)


def subject_of(subject: Subject) -> dict[str, str]:
    return {subject[0]: subject[1]} if subject[0] else {}


# from outside -----------------------------------------------------------------------------------------------------------------


def open_for(
    tenant: UUID | None, kind: str, subject: dict[str, str], sentence: str, *, value: float, threshold: float,
    baseline: dict[str, float] | None = None, runs: Iterable[tuple[UUID, float]] = (), now: datetime | None = None,
    more: Mapping[str, object] | None = None,
) -> Incident | None:  # fmt: skip
    """For what is measured elsewhere, such as a release under watch (kind `release_guard`, subject {release, agent}).
    `more`: of its evidence.

    None: the detector is off or does not look at this tenant, or the same is open already.
    """
    now, about = now or rollups.database_now(), KINDS[kind]
    row = settings.listed().filter(kind=kind, enabled=True).first()
    slug = Tenant.objects.filter(pk=tenant).values_list("slug", flat=True).first() if tenant else None
    if row is None or (slug is not None and not settings.looks_at(row, slug)):
        return None
    key, found = (about.about, subject.get(about.about, "")), list(runs)
    evidence = {
        "metric": about.metric, "unit": about.unit, "sentence": sentence, "threshold": threshold, "baseline": baseline,
        "window": None, "series": [], "runs": examples(found), "changes": [], "value": value, **(more or {}),
    }  # fmt: skip
    opening = Opening(
        tenant=tenant, title=about.title.format(of=subject.get("agent") or key[1]), severity=row.severity, text=sentence, subject=subject,
        detector=row.name, fingerprint=fingerprint_of(row.name, key), runbook=row.runbook, evidence=evidence, runs=tuple(found),
        value=value,
    )  # fmt: skip
    return moves.begin(opening, now)
