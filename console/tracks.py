"""What a run's events say about each of its calls: attempts, waits for people, back-offs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the call table without its content. `ord` 0 is the model call of the step."""

    step: int
    ord: int
    name: str
    effect: str
    state: str
    error: str | None = None
    decision: Mapping[str, Any] | None = None
    tokens: int = 0
    asked: int = 0  # tool calls that this model call asked for

    @property
    def kind(self) -> str:
        return "model" if self.ord == 0 else "read" if self.effect == "read" else "write"


@dataclass(frozen=True, slots=True)
class Event:
    seq: int
    kind: str
    at: datetime
    payload: Mapping[str, Any]


@dataclass(slots=True)
class Send:
    """One attempt. Seconds since the run was accepted; `end` is None while no answer came."""

    n: int
    start: float
    name: str
    end: float | None = None
    error: str | None = None
    status: int | None = None
    ok: bool = False


@dataclass(slots=True)
class Track:
    """What the events say about one call. `waits`: for people; `pending`: a retry is scheduled and not begun."""

    sends: list[Send] = field(default_factory=list)
    waits: list[tuple[float, float | None]] = field(default_factory=list)
    decided: float | None = None
    pending: bool = False


def read(events: Iterable[Event], began: datetime) -> dict[tuple[int, int], Track]:
    """(step, ord) -> what happened to that call. An answer's own latency is truer than the time its event was committed."""
    tracks: dict[tuple[int, int], Track] = {}
    for event in events:
        step = event.payload.get("step_id")
        if step is None:
            continue
        track = tracks.setdefault((step, event.payload.get("ord", 0)), Track())
        note(track, event, (event.at - began).total_seconds())
    return tracks


def note(track: Track, event: Event, at: float) -> None:
    payload, data = event.payload, event.payload.get("data") or {}
    if event.kind in ("model_call_started", "tool_call_started"):
        track.sends.append(Send(data.get("attempt") or len(track.sends) + 1, at, payload.get("model") or payload.get("tool") or ""))
        track.pending = False
    elif event.kind.endswith(("_call_completed", "_call_failed")) and track.sends and track.sends[-1].end is None:
        close(track.sends[-1], payload, data, at)
    elif event.kind == "retry_scheduled":
        track.pending = True
    elif event.kind == "policy_decided":
        track.decided = at if track.decided is None else track.decided
    elif event.kind == "approval_requested":
        track.waits.append((at, None))
    elif event.kind.startswith("approval_") and track.waits and data.get("state") != "pending":
        track.waits[-1] = (track.waits[-1][0], at)


def close(send: Send, payload: Mapping[str, Any], data: Mapping[str, Any], at: float) -> None:
    latency = payload.get("latency_ms")
    send.end = at if latency is None else min(at, send.start + latency / 1000)
    send.ok, send.error, send.status = payload.get("result") == "ok", payload.get("error_type"), data.get("status")


def state_of(call: Call, track: Track, over: bool) -> str:
    if call.error == "drafted":
        return "drafted"
    if track.pending and not over and call.state in ("failed_not_applied", "dispatched"):
        return "retrying"
    return call.state


def span(tracks: Sequence[Track], total: float) -> float | None:
    """Seconds from the first send or wait to the last end; None when nothing began."""
    starts = [s.start for t in tracks for s in t.sends] + [start for t in tracks for start, _ in t.waits]
    ends = [total if s.end is None else s.end for t in tracks for s in t.sends]
    ends += [total if end is None else end for t in tracks for _, end in t.waits]
    return max(ends) - min(starts) if starts else None
