"""What the console itself remembers."""

from .backtest import PolicyBacktest
from .channel import Channel, Delivery
from .entry import ConsoleSession, Guess, Invitation
from .examination import Examination
from .incident import Detector, Incident, IncidentEntry, IncidentRun, Severity
from .rollup import CallHour, FoldedHour, RunHour
from .runbook import Runbook, RunbookVersion
from .telemetry import TelemetryExport, TelemetrySent

__all__ = [
    "CallHour",
    "Channel",
    "ConsoleSession",
    "Delivery",
    "Detector",
    "Examination",
    "FoldedHour",
    "Guess",
    "Incident",
    "IncidentEntry",
    "IncidentRun",
    "Invitation",
    "PolicyBacktest",
    "RunHour",
    "Runbook",
    "RunbookVersion",
    "Severity",
    "TelemetryExport",
    "TelemetrySent",
]
