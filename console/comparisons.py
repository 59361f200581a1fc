"""Two stretches of time side by side: each figure with its change in words, and how many runs it is of. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from .chart_words import percent
from .figures import Figures
from .health_figures import pace, points, tone_of, trend
from .templatetags.signalbox import duration, micros

FEW = 30  # runs, under which a change may be chance


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure in both. `a_of`, `b_of`: how many runs or calls it is of. `few`: too few to tell chance from change."""

    name: str
    a: str
    b: str
    a_of: int
    b_of: int
    change: str
    icon: str = "minus"
    tone: str = "idle"

    @property
    def few(self) -> bool:
        return 0 < min(self.a_of, self.b_of) < FEW


Value = Callable[[Figures], float | None]
Count = Callable[[Figures], int]
RATES: tuple[tuple[str, Value, Count, bool], ...] = (  # name, value, of how many, whether higher is better
    ("Success rate", lambda made: made.success_rate, lambda made: made.ended, True),
    ("Tool errors", lambda made: made.tool_error_rate, lambda made: made.tool_calls, False),
    ("Calls sent again", lambda made: made.retry_rate, lambda made: made.calls, False),
    ("Budget exceeded", lambda made: made.budget_exceeded_rate, lambda made: made.ended, False),
    ("Fell back", lambda made: made.fallback_rate, lambda made: made.ended, False),
    ("Policy violated", lambda made: made.policy_violation_rate, lambda made: made.ended, False),
)


def compared(a: Figures, b: Figures) -> list[Compared]:
    """From `a` to `b`."""
    rates = [shares(name, value(a), value(b), (of(a), of(b)), better) for name, value, of, better in RATES]
    ended = (a.ended, b.ended)
    sizes = [
        sized("p50 duration", ms(a.p50_ms), ms(b.p50_ms), duration, ended, slower=True),
        sized("p95 duration", ms(a.p95_ms), ms(b.p95_ms), duration, ended, slower=True),
        sized("Steps per run", a.steps_per_run, b.steps_per_run, lambda n: f"{n:.1f}", ended),
        sized("Cost per success", a.cost_per_success, b.cost_per_success, micros, (a.succeeded, b.succeeded)),
    ]
    return [counts(a, b), rates[0], *sizes, *rates[1:]]


def counts(a: Figures, b: Figures) -> Compared:
    moved = b.runs - a.runs
    change = "no change" if not moved else f"{abs(moved):,} {'more' if moved > 0 else 'fewer'}"
    return Compared("Runs", f"{a.runs:,}", f"{b.runs:,}", a.runs, b.runs, change, trend(moved) if moved else "minus")


def shares(name: str, a: float | None, b: float | None, of: tuple[int, int], higher_is_better: bool) -> Compared:
    left, right = ("–" if one is None else percent(one) for one in (a, b))
    if a is None or b is None:
        return Compared(name, left, right, *of, "nothing to compare")
    moved = b - a
    if abs(moved) < 0.0005:
        return Compared(name, left, right, *of, "no change")
    return Compared(name, left, right, *of, points(moved), trend(moved), tone_of((moved > 0) != higher_is_better, abs(moved) >= 0.01))


def sized(
    name: str, a: float | None, b: float | None, shown: Callable[[float], str], of: tuple[int, int], *, slower: bool = False
) -> Compared:
    """Where more is worse."""
    left, right = ("–" if one is None else shown(one) for one in (a, b))
    if not a or b is None:
        return Compared(name, left, right, *of, "nothing to compare")
    moved = b / a - 1
    if abs(moved) < 0.01:
        return Compared(name, left, right, *of, "no change")
    words = pace(moved) if slower else f"{abs(moved) * 100:.0f}% {'more' if moved > 0 else 'less'}"
    return Compared(name, left, right, *of, words, trend(moved), tone_of(moved > 0, abs(moved) >= 0.2))


def ms(value: float | None) -> float | None:
    return None if value is None else value / 1000
