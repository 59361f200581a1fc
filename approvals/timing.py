"""When people who wait to be asked again are asked again. Pure."""

from dataclasses import dataclass
from datetime import datetime

REMIND_AT = (0.25, 0.5, 0.75)  # parts of the time between asking and expiring
ESCALATE_AT = 0.5


@dataclass(frozen=True, slots=True)
class Due:
    """`reminder`: the number of the one to send (1..3); 0: none. Those that were missed are not sent after it."""

    reminder: int
    escalate: bool


def due(created_at: datetime, expires_at: datetime, now: datetime, *, reminders: int, escalated: bool, escalates: bool) -> Due:
    """`reminders`: sent so far. `escalates`: its group names another one. Nothing once it is over."""
    whole = (expires_at - created_at).total_seconds()
    if whole <= 0 or now >= expires_at:
        return Due(0, False)
    part = (now - created_at).total_seconds() / whole
    passed = sum(part >= mark for mark in REMIND_AT)
    return Due(passed if passed > reminders else 0, escalates and not escalated and part >= ESCALATE_AT)
