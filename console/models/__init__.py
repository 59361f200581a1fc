"""What the console itself remembers."""

from .backtest import PolicyBacktest
from .bulk import Bulk, BulkItem
from .channel import Channel, Delivery
from .entry import ConsoleSession, Guess, Invitation
from .examination import Examination
from .incident import Detector, Incident, IncidentEntry, IncidentRun, Severity
from .preference import KeyAllowlist, Preference
from .rollup import CallHour, FoldedHour, RunHour
from .runbook import Runbook, RunbookVersion
from .saved_view import SavedView
from .telemetry import TelemetryExport, TelemetrySent

__all__ = [
    "Bulk",
    "BulkItem",
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
    "KeyAllowlist",
    "PolicyBacktest",
    "Preference",
    "RunHour",
    "Runbook",
    "RunbookVersion",
    "SavedView",
    "Severity",
    "TelemetryExport",
    "TelemetrySent",
]
