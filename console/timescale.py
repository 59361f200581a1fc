"""A run's time on a line of 100 percent. Long idle times are shortened, so that bursts stay readable. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

IDLE_S = 30.0  # an idle time longer than this is shortened
GAP_SHARE = 20.0  # percent of the line for one shortened time
GAPS_SHARE = 40.0  # for all of them together
TICKS = 6
NICE_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, slots=True)
class Tick:
    x: float  # percent
    at_s: float  # seconds since the run was accepted


@dataclass(frozen=True, slots=True)
class Gap:
    x: float
    width: float
    idle_s: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Piece:
    start: float
    end: float
    x: float
    width: float
    idle: bool


class Scale:
    """Seconds since the run was accepted -> percent of the line, in pieces of constant speed."""

    def __init__(self, busy: Iterable[tuple[float, float]], total: float) -> None:
        """`busy`: when something was sent and not yet answered, in any order. `total`: seconds to the end or to now."""
        self.total = max(total, 0.001)
        self.pieces = pieces(busy, self.total)

    def x(self, at: float) -> float:
        at = min(max(at, 0.0), self.total)
        for piece in self.pieces:
            if at <= piece.end:
                share = (at - piece.start) / (piece.end - piece.start)
                return round(piece.x + share * piece.width, 3)
        return 100.0

    @property
    def gaps(self) -> list[Gap]:
        return [Gap(p.x, p.width, p.end - p.start) for p in self.pieces if p.idle]

    def ticks(self) -> list[Tick]:
        """Round times outside the gaps, at most TICKS of them, none so close that their words would meet."""
        active = sum(p.end - p.start for p in self.pieces if not p.idle)
        step: float = next((nice for nice in NICE_S if active / nice <= TICKS), 86400.0)
        found: list[Tick] = []
        for piece in (p for p in self.pieces if not p.idle):
            n = int(-(-piece.start // step))
            while n * step < piece.end and len(found) < 3 * TICKS:
                tick = Tick(self.x(n * step), n * step)
                if tick.x <= 92 and (not found or tick.x - found[-1].x >= 10) and not any(0 <= gap.x - tick.x < 7 for gap in self.gaps):
                    found.append(tick)
                n += 1
        return found


def pieces(busy: Iterable[tuple[float, float]], total: float) -> list[Piece]:
    idle = gaps_between(merged(busy, total), total)
    shortened = sum(end - start for start, end in idle)
    active = total - shortened
    share = min(GAP_SHARE, GAPS_SHARE / len(idle)) if idle else 0.0
    if active <= 0:
        return [Piece(0.0, total, 0.0, 100.0, True)]
    per_second = (100.0 - share * len(idle)) / active
    out: list[Piece] = []
    at = x = 0.0
    for start, end in [*idle, (total, total)]:
        if start > at:
            out.append(Piece(at, start, x, (start - at) * per_second, False))
            x += (start - at) * per_second
        if end > start:
            out.append(Piece(start, end, x, share, True))
            x += share
        at = end
    return out


def merged(busy: Iterable[tuple[float, float]], total: float) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for start, end in sorted((min(max(a, 0.0), total), min(max(b, 0.0), total)) for a, b in busy):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def gaps_between(busy: list[tuple[float, float]], total: float) -> list[tuple[float, float]]:
    edges = [0.0, *(edge for pair in busy for edge in pair), total]
    between = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in between if end - start > IDLE_S]
