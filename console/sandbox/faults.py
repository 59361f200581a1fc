"""Fault switches of the demo world: which request goes wrong, how, and how often. Pure: no clock, no network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: Each fault with its default and its longest duration in ms; (0, 0) means that the fault has no duration.
#: Whether a write is applied: latency, drop_after, malformed and slow_drip apply it; 429, 500, drop_before and hang do not.
DURATIONS_MS = {
    "latency": (1500, 120_000),
    "429": (0, 0),
    "500": (0, 0),
    "drop_before": (0, 0),
    "drop_after": (0, 0),
    "malformed": (0, 0),
    "slow_drip": (60_000, 60_000),
    "hang": (120_000, 120_000),
}


@dataclass(slots=True)
class Fault:
    """One armed switch. `times` counts down at each hit, -1 stays for ever; `hits` counts up."""

    target: str
    fault: str
    times: int
    match: str | None
    ms: int
    hits: int = 0


class FaultBoard:
    """The armed faults, oldest first. `targets` are the names that may be armed."""

    def __init__(self, targets: frozenset[str]) -> None:
        self._targets = targets
        self._armed: list[Fault] = []

    def put(self, value: Any) -> Fault:
        """Arms one fault from its JSON form, in place of one with the same target, fault and match.

        Raises ValueError with a sentence for the caller.
        """
        fault = self._parse(value)
        same = (fault.target, fault.fault, fault.match)
        self._armed = [f for f in self._armed if (f.target, f.fault, f.match) != same]
        self._armed.append(fault)
        return fault

    def take(self, target: str, body: bytes) -> Fault | None:
        """The oldest armed fault for this request, counted as used; None when the request goes through."""
        for fault in self._armed:
            if fault.target == target and fault.times and (fault.match is None or fault.match.encode() in body):
                fault.hits += 1
                fault.times -= fault.times > 0
                return fault
        return None

    def clear(self, target: str | None = None) -> None:
        """Disarms everything, or everything of one target."""
        self._armed = [f for f in self._armed if target is not None and f.target != target]

    def as_json(self) -> list[dict[str, Any]]:
        """All faults put since the last clear, spent ones included (`times` 0)."""
        return [asdict(fault) for fault in self._armed]

    def _parse(self, value: Any) -> Fault:
        if not isinstance(value, dict):
            raise ValueError("a fault is an object {target, fault, times, match?, ms?}")
        if unknown := sorted(set(value) - {"target", "fault", "times", "match", "ms"}):
            raise ValueError(f"unknown field: {unknown[0]}")
        target, kind = value.get("target"), str(value.get("fault"))
        if target not in self._targets:
            raise ValueError(f"unknown target: {target!r}; known: {', '.join(sorted(self._targets))}")
        if kind not in DURATIONS_MS:
            raise ValueError(f"unknown fault: {kind!r}; known: {', '.join(DURATIONS_MS)}")
        match = value.get("match")
        if match is not None and not isinstance(match, str):
            raise ValueError("match is a string or absent")
        return Fault(str(target), kind, _times(value.get("times", 1)), match, _duration(kind, value.get("ms")))


def _times(value: Any) -> int:
    if type(value) is not int or (value < 1 and value != -1):
        raise ValueError("times is a whole number from 1, or -1 for until cleared")
    return value


def _duration(kind: str, value: Any) -> int:
    default, longest = DURATIONS_MS[kind]
    if value is None:
        return default
    if not longest:
        raise ValueError(f"{kind} takes no ms")
    if type(value) is not int or not 0 <= value <= longest:
        raise ValueError(f"ms is a whole number from 0 to {longest}")
    return value
