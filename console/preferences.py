"""How a person wants the console shown, and the only writer of it. It comes with their session, so no page asks for it.

It changes what one person sees and nothing else, so the audit log does not hold it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import UTC as UTC_ZONE
from datetime import datetime, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.db.models import TextChoices

from tenants.errors import Refused
from tenants.models import User

from .models import Preference

UTC, LOCAL = "UTC", "local"  # `local`: the zone of the reader's browser, which only the browser knows
AREAS = ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific", "Etc")


@dataclass(frozen=True, slots=True)
class Choice:
    """As `console.models.Preference` has it."""

    own_zone: str = LOCAL
    in_utc: bool = True
    clock: str = "24"
    times: str = "relative"
    density: str = "comfortable"
    theme: str = "auto"
    single_keys: bool = True
    title_count: bool = False
    desktop_notices: bool = False

    @property
    def zone(self) -> str:
        return UTC if self.in_utc else self.own_zone


USUAL = Choice()
ALLOWED: dict[str, type[TextChoices]] = {
    "clock": Preference.Clock,
    "times": Preference.Times,
    "density": Preference.Density,
    "theme": Preference.Theme,
}
NAMES = tuple(field.name for field in fields(Choice))
_shown: ContextVar[Choice] = ContextVar("choice", default=USUAL)


def of(session: Any) -> Choice:
    """What the person of this session chose. No query: `console.entry.sessions` reads it with the session."""
    row = getattr(session, "row", None)
    kept = getattr(row.user, "preference", None) if row is not None and row.user_id else None
    return Choice(**{name: getattr(kept, name) for name in NAMES}) if kept else USUAL


def save(user: User, **changes: Any) -> None:
    """Refuses 422: bad_zone, bad_preference."""
    if "zone" in changes:
        changes |= split(changes.pop("zone"))
    for name, allowed in ALLOWED.items():
        if name in changes and changes[name] not in allowed.values:
            raise Refused("bad_preference", f"{name} is one of {', '.join(allowed.values)}.", 422, field=name)
    Preference.objects.update_or_create(user=user, defaults=changes)


def split(zone: str) -> dict[str, Any]:
    """UTC leaves the person's own zone as it is, for the button that goes back to it."""
    if zone == UTC:
        return {"in_utc": True}
    if zone != LOCAL and zone not in known_zones():
        raise Refused("bad_zone", "There is no such time zone here. Choose one of the list, such as Europe/Berlin.", 422, field="zone")
    return {"in_utc": False, "own_zone": zone}


@cache
def known_zones() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if name.partition("/")[0] in AREAS and "/" in name)


# what is being rendered -------------------------------------------------------------------------------------------------------


@contextmanager
def shown_as(choice: Choice) -> Iterator[None]:
    """Inside, moments are written as this person wants them."""
    token = _shown.set(choice)
    try:
        yield
    finally:
        _shown.reset(token)


def shown() -> Choice:
    return _shown.get()


def in_zone(at: datetime) -> datetime:
    """In the reader's zone; in UTC where only the browser knows it, or nobody knows it any more."""
    return at.astimezone(zone_of(shown().zone))


@cache
def zone_of(name: str) -> tzinfo:
    try:
        return UTC_ZONE if name in (UTC, LOCAL) else ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC_ZONE
