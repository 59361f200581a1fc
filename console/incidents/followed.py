"""How the figure of a live incident goes on after it opened: points of its chart, few enough to keep. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from .detectors import Looked

JSON = dict[str, Any]
EVERY = timedelta(minutes=1)
SHARE = 30  # an incident of so many minutes has a point for each; a longer one has them further and further apart


def of_look(looked: Looked, fingerprint: str, unit: str) -> float | None:
    """What a look found of an incident's subject. None: it found nothing that the figure is of; a count is then zero."""
    return looked.values.get(fingerprint, 0.0 if unit in ("count", "minutes") else None)


def noted(evidence: JSON, at: datetime, value: float | None, *, last: bool) -> JSON | None:
    """The evidence with one more point. None: it would say nothing new. `last`: the incident is over."""
    points = evidence.get("since") or []
    if not (last or due(points, at, value, evidence.get("threshold"))):
        return None
    told = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**evidence, "since": [*points, {"at": told, "value": value}]}


def due(points: Sequence[JSON], at: datetime, value: float | None, threshold: float | None) -> bool:
    if not points:
        return True
    first, latest = (datetime.fromisoformat(point["at"]) for point in (points[0], points[-1]))
    if at - latest >= max(EVERY, (at - first) / SHARE):
        return True
    return beyond(value, threshold) != beyond(points[-1]["value"], threshold)


def beyond(value: float | None, threshold: float | None) -> bool:
    return value is not None and threshold is not None and value >= threshold
