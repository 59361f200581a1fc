"""What a detector would have opened in the last days: the kept hours, one after the other, through the same decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from console import records
from console.rollups import HOUR, hour_of
from tenants.errors import Refused

from .detectors import Finding, Reading, Rule, Subject, fingerprint_of, judge
from .kinds import KINDS
from .past import Point, compared, histories, least_of

DAYS = 14
SHOWN = 100


@dataclass(slots=True)
class Episode:
    """An incident that would have been. `until` None: it would still be open."""

    tenant: UUID
    subject: Subject
    since: datetime
    until: datetime | None
    finding: Finding
    worst: float

    def as_json(self) -> dict[str, Any]:
        return {
            "subject": {self.subject[0]: self.subject[1]} if self.subject[0] else {},
            "opened_at": records.time(self.since),
            "resolved_at": records.time(self.until),
            "value": self.finding.value,
            "worst": self.worst,
            "threshold": self.finding.threshold,
            "n": self.finding.n,
            "sentence": self.finding.sentence,
        }


def backtest(rule: Rule, tenant: UUID | None, now: datetime, days: int = DAYS) -> list[Episode]:
    """The newest first. `tenant` None: of all. Refuses no_history 422 for a kind that the kept hours do not say."""
    if not KINDS[rule.kind].history:
        raise Refused("no_history", f"What {rule.kind} looks at is not kept by the hour: it cannot be tested on the past.", 422)
    until = hour_of(now) + HOUR
    since = until - timedelta(days=days)
    past = histories(since - timedelta(days=rule.parameters.baseline_days), until, tenant)
    found: list[Episode] = []
    for (owner, kind), subjects in past.items():
        if kind == rule.kind:
            found += replay(rule, owner, subjects, since, until)
    return sorted(found, key=lambda episode: episode.since, reverse=True)


def replay(rule: Rule, tenant: UUID, subjects: Mapping[Subject, Sequence[Point]], since: datetime, until: datetime) -> list[Episode]:
    """Pure. Each hour is one window of an hour."""
    found = []
    for subject, points in subjects.items():
        found += of_subject(rule, tenant, subject, list(points), since, until)
    return found


def of_subject(rule: Rule, tenant: UUID, subject: Subject, points: list[Point], since: datetime, until: datetime) -> list[Episode]:
    found: list[Episode] = []
    going: Episode | None = None
    calm = timedelta()
    at_hour, fingerprint = {point.at: point for point in points}, fingerprint_of(rule.name, subject)
    for at in (since + n * HOUR for n in range((until - since) // HOUR)):
        point = at_hour.get(at)
        looked = judge(rule, [reading(rule, subject, point, points)] if point else [])
        if looked.findings:
            if going is None:
                going = Episode(tenant, subject, at, None, looked.findings[0], looked.findings[0].value)
                found.append(going)
            going.worst, calm = max(going.worst, looked.findings[0].value), timedelta()
        elif going is not None and fingerprint in looked.holding:
            calm = timedelta()
        elif going is not None:
            calm += HOUR
            if calm >= timedelta(minutes=rule.parameters.hold_minutes):
                going.until, going, calm = at + HOUR, None, timedelta()
    return found


def reading(rule: Rule, subject: Subject, point: Point, points: list[Point]) -> Reading:
    since = point.at - timedelta(days=rule.parameters.baseline_days)
    return Reading(subject, point.value, point.n, compared(points, since, point.at, least_of(rule.parameters.minimum)))


def as_json(rule: Rule, episodes: Sequence[Episode], days: int) -> dict[str, Any]:
    count = len(episodes)
    words = f"It would have opened {count} incident{'' if count == 1 else 's'} in the last {days} day{'' if days == 1 else 's'}."
    return {"detector": rule.name, "days": days, "count": count, "text": words, "incidents": [one.as_json() for one in episodes[:SHOWN]]}
