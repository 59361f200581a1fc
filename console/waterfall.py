"""What a run did, as the rows of a tree beside a line of time: steps, their calls, and under a call its decision and its attempts. Pure.

`draw(calls, roles, events, began=, until=, over=)` -> Waterfall. Order is by step and number of the call, never by time of ending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from runs.inference.tiers import FROM_STORE

from .captions import attempt_title, call_label, spoken, step_kind, step_label, step_title, verdict_words
from .rungs import Stay, stays
from .status import look
from .timescale import Gap, Scale, Tick
from .tracks import Call, Event, Send, Track, read, span, state_of

EQUALS = 5  # more equal calls than this in a row under one step become a group
EVERYTHING_OPEN = 30  # a run with more rows than this opens only the steps that need a look
SHORTEST = 0.5  # percent: no bar is thinner
BARS = 40  # on one lane
LABEL = 44  # characters beside a bar
ICONS = {"done": "check", "failed_not_applied": "x", "retrying": "refresh-cw"}
TROUBLE = ("failed_not_applied", "unknown", "blocked")
# the state of a step or a group is the first of these among its calls
WORST_FIRST = (
    "waiting_approval", "unknown", "retrying", "dispatched", "ready", "drafted", "failed_not_applied", "blocked", "abandoned", "done",
)  # fmt: skip
NOTABLE = WORST_FIRST[:-1]


@dataclass(frozen=True, slots=True)
class Bar:
    """`css`: the kind, "bad", "back", "waitbar" or "pol". Percent of the lane."""

    css: str
    x: float
    width: float

    @property
    def end(self) -> float:
        return round(self.x + self.width, 3)


@dataclass(frozen=True, slots=True)
class Label:
    text: str
    x: float
    before: bool  # it stands left of the bar
    tone: str = ""


@dataclass(slots=True)
class Row:
    """`key`: "9", "9.2", "9.2.policy", "9.2.1" (an attempt) or "9.g3". `call`: the key whose detail the row selects."""

    key: str
    call: str
    level: int
    kind: str
    title: str
    state: str = ""
    bars: tuple[Bar, ...] = ()
    label: Label | None = None
    took_s: float | None = None
    trouble: bool = False
    parent: str = ""
    position: int = 1
    siblings: int = 1
    parts: int = 0  # rows right under it
    open: bool = False
    hidden: bool = False
    waits: bool = False

    @property
    def tone(self) -> str:
        return look("call", self.state).tone if self.state else ""

    @property
    def icon(self) -> str:
        return ICONS.get(self.state) or look("call", self.state).icon

    @property
    def word(self) -> str:
        return look("call", self.state).label

    @property
    def anchor(self) -> str:
        return f"step-{self.key}" if self.level == 1 else f"call-{self.key}"

    @property
    def extent(self) -> Bar:
        """From the first bar's start to the last one's end."""
        start = min(bar.x for bar in self.bars)
        return Bar("step", start, round(max(bar.end for bar in self.bars) - start, 3))


@dataclass(frozen=True, slots=True)
class Waterfall:
    rows: list[Row]
    ticks: list[Tick]
    gaps: list[Gap]
    total_s: float
    steps: int
    calls: int
    retries: int
    fallbacks: int
    ladder: list[Stay]
    default: str  # the key to select: what blocks, else the last failure, else the last step; empty without steps

    @property
    def last_gap(self) -> Gap | None:
        """The idle time that it ends with."""
        return self.gaps[-1] if self.gaps and self.gaps[-1].x + self.gaps[-1].width > 99.9 else None

    @property
    def labels(self) -> list[Tick]:
        """The ticks that have room for a word beside the one at the end."""
        return [tick for tick in self.ticks if tick.x <= (64 if self.last_gap else 80)]


def draw(
    calls: Iterable[Call], roles: Mapping[int, str], events: Sequence[Event], *, began: datetime, until: datetime, over: bool
) -> Waterfall:
    """`until`: when it ended, or now. `over`: the run has ended, so nothing is still on its way."""
    total = max((until - began).total_seconds(), 0.0)
    tracks = read(events, began)
    calls = sorted(calls, key=lambda call: (call.step, call.ord))
    scale = Scale(((s.start, total if s.end is None else s.end) for t in tracks.values() for s in t.sends), total)
    lanes = Lanes(scale, total, over)
    rows: list[Row] = []
    for step, group in groupby(calls, key=lambda call: call.step):
        rows += step_rows(step, list(group), roles.get(step, ""), tracks, lanes)
    name_critiques(rows, events)
    finish(rows)
    retries = sum(max(0, len(track.sends) - 1) for track in tracks.values())
    fallbacks = sum(event.kind == "fallback_activated" for event in events)
    steps = len({call.step for call in calls})
    ladder = stays(events, began, scale, total, over=over)
    return Waterfall(rows, scale.ticks(), scale.gaps, total, steps, len(calls), retries, fallbacks, ladder, chosen(rows))


def name_critiques(rows: Sequence[Row], events: Sequence[Event]) -> None:
    """The step of a critique says its verdict."""
    said = {event.payload.get("step_id"): event.payload.get("data") or {} for event in events if event.kind == "critique_decided"}
    for row in rows:
        if row.level == 1 and (data := said.get(int(row.key))):
            row.title = f"Critique: {verdict_words(str(data.get('verdict')))}"
            row.trouble = row.trouble or data.get("verdict") != "pass"


@dataclass(frozen=True, slots=True)
class Lanes:
    """Times become bars."""

    scale: Scale
    total: float
    over: bool

    def bar(self, css: str, start: float, end: float | None) -> Bar:
        x = min(self.scale.x(start), 100 - SHORTEST)
        width = max(self.scale.x(self.total if end is None else end) - x, SHORTEST)
        return Bar(css, x, round(width, 3))

    def of(self, call: Call, track: Track) -> list[Bar]:
        bars = [self.bar("waitbar", start, end) for start, end in track.waits]
        for at, send in enumerate(track.sends):
            bars.append(self.bar(call.kind if send.ok or send.end is None else "bad", send.start, send.end))
            if send.end is not None and not send.ok and (at + 1 < len(track.sends) or (track.pending and not self.over)):
                after = track.sends[at + 1].start if at + 1 < len(track.sends) else self.total
                bars.append(self.bar("back", send.end, after))
        return bars

    def label(self, bars: Sequence[Bar], text: str, tone: str = "") -> Label | None:
        """Right of the last bar, or left of the first; nothing where it would be cut."""
        if not bars or not text:
            return None
        text = text if len(text) <= LABEL else text[: LABEL - 1] + "…"
        start, end, room = min(b.x for b in bars), max(b.x + b.width for b in bars), len(text) * 1.5
        if 100 - end >= room or 100 - end > start >= 20:
            return Label(text, end, False, tone)
        return Label(text, start, True, tone) if start >= room else None


def step_rows(step: int, calls: list[Call], role: str, tracks: Mapping[tuple[int, int], Track], lanes: Lanes) -> list[Row]:
    """The row of a step, then those of its calls."""
    inner: list[Row] = []
    for name, equal in groupby(calls, key=lambda call: (call.name, call.kind)):
        same = list(equal)
        inner += group_rows(name[0], same, tracks, lanes) if len(same) > EQUALS else rows_of(same, tracks, lanes, str(step), 2)
    own = [row for row in inner if row.level == 2]
    bars = [bar for call in calls for bar in lanes.of(call, track_of(tracks, call))][:BARS]
    state = worst(row.state for row in own)
    summary = step_label(calls, state)
    first = Row(str(step), str(step), 1, step_kind(calls), step_title(calls, role), state, tuple(bars))
    first.label = lanes.label(bars, *summary)
    first.took_s = span([track_of(tracks, call) for call in calls], lanes.total)
    first.trouble = any(row.trouble for row in own)
    first.waits = state == "waiting_approval"
    if role == FROM_STORE:
        for row in (first, *own):
            row.kind = "read"
    return [first, *inner]


def track_of(tracks: Mapping[tuple[int, int], Track], call: Call) -> Track:
    return tracks.get((call.step, call.ord)) or Track()


def rows_of(calls: list[Call], tracks: Mapping[tuple[int, int], Track], lanes: Lanes, parent: str, level: int) -> list[Row]:
    out: list[Row] = []
    for call in calls:
        track = track_of(tracks, call)
        key = f"{call.step}.{call.ord}"
        bars = tuple(lanes.of(call, track)[:BARS])
        row = Row(key, key, level, call.kind, call.name, state_of(call, track, lanes.over), bars, parent=parent)
        row.label = lanes.label(bars, *call_label(call, track, row.state))
        row.took_s = span([track], lanes.total)
        row.trouble, row.waits = row.state in TROUBLE, row.state == "waiting_approval"
        out += [row, *under(row, call, track, lanes)]
    return out


def under(row: Row, call: Call, track: Track, lanes: Lanes) -> list[Row]:
    """The decision on a call, and its attempts where there was more than a single good one."""
    out: list[Row] = []
    if call.ord and call.decision:
        at = track.decided
        bars = (Bar("pol", lanes.scale.x(at), 0.0),) if at is not None else ()
        policy = Row(
            f"{row.key}.policy", row.key, row.level + 1, "pol", f"policy: {call.decision.get('decision')}", "", bars, parent=row.key
        )
        policy.label = lanes.label(bars, f"by {call.decision.get('by')}" if call.decision.get("by") else "")
        out.append(policy)
    if len(track.sends) > 1 or any(send.error for send in track.sends):
        out += [attempt(row, call, send, lanes) for send in track.sends]
    return out


def attempt(row: Row, call: Call, send: Send, lanes: Lanes) -> Row:
    state = "done" if send.ok else "failed_not_applied" if send.end is not None else "abandoned" if lanes.over else "dispatched"
    bar = lanes.bar(call.kind if send.ok or send.end is None else "bad", send.start, send.end)
    made = Row(
        f"{row.key}.{send.n}", row.key, row.level + 1, "attempt", attempt_title(call, send, lanes.over), state, (bar,), parent=row.key
    )
    made.label = lanes.label((bar,), spoken(send.error), "f") if send.error else None
    made.took_s = (lanes.total if send.end is None else send.end) - send.start
    return made


def group_rows(name: str, calls: list[Call], tracks: Mapping[tuple[int, int], Track], lanes: Lanes) -> list[Row]:
    step = str(calls[0].step)
    key = f"{step}.g{calls[0].ord}"
    inner = rows_of(calls, tracks, lanes, key, 3)
    own = [row for row in inner if row.level == 3]
    bars = [bar for row in own for bar in row.bars][:BARS]
    head = Row(
        key, f"{step}.{calls[0].ord}", 2, calls[0].kind, f"{name} ×{len(calls)}", worst(r.state for r in own), tuple(bars), parent=step
    )
    head.label = lanes.label(bars, f"{len(calls)} equal calls")
    head.took_s = span([track_of(tracks, call) for call in calls], lanes.total)
    head.trouble = any(row.trouble for row in own)
    return [head, *inner]


def finish(rows: list[Row]) -> None:
    """Places among siblings, and what is open: everything in a small run, else the steps that need a look."""
    at = {row.key: row for row in rows}
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.parent, []).append(row)
    for parent, family in families.items():
        if parent:
            at[parent].parts = len(family)
        for position, row in enumerate(family, 1):
            row.position, row.siblings = position, len(family)
    steps = families.get("", [])
    small = sum(1 for row in rows if row.level <= 2) <= EVERYTHING_OPEN
    for row in rows:
        attempts = any(part.kind == "attempt" for part in families.get(row.key, ()))
        notable = row.state in NOTABLE or row is steps[-1]
        row.open = bool(row.parts) and (attempts if row.level > 1 else small or notable or row.trouble)
        if row.parent:
            row.hidden = at[row.parent].hidden or not at[row.parent].open


def reveal(rows: list[Row], key: str) -> None:
    """Open whatever the row `key` lies in."""
    at = {row.key: row for row in rows}
    up = at.get(key)
    while up is not None and up.parent:
        up = at[up.parent]
        up.open = True
    for row in rows:
        row.hidden = bool(row.parent) and (at[row.parent].hidden or not at[row.parent].open)


def chosen(rows: list[Row]) -> str:
    blocks = [row for row in rows if row.level > 1 and (row.waits or row.state == "unknown")]
    failures = [row for row in rows if row.level > 1 and row.trouble and row.kind != "attempt" and ".g" not in row.key]
    steps = [row for row in rows if row.level == 1]
    if blocks:
        return blocks[0].call
    return (failures or steps)[-1].call if failures or steps else ""


def worst(states: Iterable[str]) -> str:
    found = list(states)
    return next((state for state in WORST_FIRST if state in found), found[0] if found else "")
