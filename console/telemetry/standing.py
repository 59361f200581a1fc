"""How telemetry fares, for people."""

from dataclasses import dataclass
from datetime import datetime

from console.models import TelemetryExport

from . import progress
from .exporter import configured


@dataclass(frozen=True, slots=True)
class Standing:
    """`wrong`: a setting that cannot be used, in words. `error`: what the receiver did with the last batch; empty: it took it."""

    wrong: str = ""
    error: str = ""
    pending: int = 0
    sent: int = 0
    sent_at: datetime | None = None
    dropped: int = 0


def standing() -> Standing | None:
    """None: nothing is exported."""
    try:
        to = configured()
    except ValueError as wrong:
        return Standing(wrong=str(wrong))
    if to is None:
        return None
    row = TelemetryExport.objects.filter(name=progress.NAME).first()
    if row is None:
        return Standing()
    return Standing("", row.last_error, progress.pending(), row.sent, row.sent_at, row.dropped)
