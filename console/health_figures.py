"""The figures at the top of the overview: what each is, and in words how it changed. Pure."""

from dataclasses import dataclass

from django.urls import reverse

from .chart_words import percent
from .figures import Figures
from .metrics import Standing
from .templatetags.signalbox import duration, micros

STEADY = 0.0005  # a change of a share below this is none


@dataclass(frozen=True, slots=True)
class Figure:
    """Its value with a unit, and its change against the period before in words."""

    name: str
    value: str
    unit: str = ""
    change: str = ""
    icon: str = "minus"
    tone: str = "idle"
    url: str = ""


def health_figures(now: Figures, before: Figures, standing: Standing) -> tuple[Figure, ...]:
    return (*run_figures(now, before), live_figure(standing), share("Budget stops", now.budget_exceeded_rate, before.budget_exceeded_rate))


def run_figures(now: Figures, before: Figures) -> tuple[Figure, ...]:
    """Those that compare two stretches of time."""
    return (
        share("Success rate", now.success_rate, before.success_rate, higher_is="better"),
        duration_figure(now.p95_ms, before.p95_ms),
        cost_figure(now, before),
        share("Tool errors", now.tool_error_rate, before.tool_error_rate),
    )


def share(name: str, now: float | None, before: float | None, higher_is: str = "worse") -> Figure:
    if now is None:
        return Figure(name, "–", change="nothing to count yet")
    value = percent(now).removesuffix("%")
    if before is None:
        return Figure(name, value, "%", "no earlier runs")
    moved = now - before
    if abs(moved) < STEADY:
        return Figure(name, value, "%", "no change")
    worse = (moved > 0) == (higher_is == "worse")
    return Figure(name, value, "%", points(moved), trend(moved), tone_of(worse, abs(moved) >= 0.01))


def points(moved: float) -> str:
    """1.9 pt lower"""
    return f"{abs(moved) * 100:.1f} pt {'higher' if moved > 0 else 'lower'}"


def duration_figure(now: float | None, before: float | None) -> Figure:
    """Of milliseconds."""
    name = "p95 duration"
    if now is None:
        return Figure(name, "–", change="no run has ended yet")
    value = duration(now / 1000)
    if not before:
        return Figure(name, value, change="no earlier runs")
    moved = now / before - 1
    if abs(moved) < 0.01:
        return Figure(name, value, change="no change")
    return Figure(name, value, "", pace(moved), trend(moved), tone_of(moved > 0, abs(moved) >= 0.2))


def pace(moved: float) -> str:
    """0.38 -> 38% slower, 11 -> 12 times slower: a percentage of four digits says nothing."""
    return f"{times(1 + moved)} slower" if moved > 0 else f"{-moved * 100:.0f}% faster"


def times(factor: float) -> str:
    return f"{(factor - 1) * 100:.0f}%" if factor < 5 else f"{factor:.0f} times"


def cost_figure(now: Figures, before: Figures) -> Figure:
    name, paid, was = "Cost per success", now.cost_per_success, before.cost_per_success
    if paid is None:
        return Figure(name, "–", change="nothing succeeded yet")
    value, unit = micros(paid), "or more" if now.partial else ""
    if was is None:
        return Figure(name, value, unit, "no earlier runs")
    moved = paid - was
    if abs(moved) < max(was * 0.005, 1):
        return Figure(name, value, unit, "no change")
    words = f"{micros(abs(moved))} {'more' if moved > 0 else 'less'}"
    return Figure(name, value, unit, words, trend(moved), "wait" if moved > was * 0.1 else "idle")


def live_figure(standing: Standing) -> Figure:
    """Runs that are not over; in words how many wait for a person, which is where the link leads."""
    name, value = "Live runs", f"{standing.live:,}"
    if not standing.waiting:
        words = "none waits for a person" if standing.live else "nothing runs now"
        return Figure(name, value, change=words, icon="check", url=reverse("runs"))
    if standing.waiting_soon:
        words = f"{standing.waiting_soon} expire{'s' if standing.waiting_soon == 1 else ''} in 10 min"
        return Figure(name, value, change=words, icon="timer", tone="wait", url=reverse("approvals"))
    return Figure(name, value, change=f"{standing.waiting:,} waiting", icon="hand", tone="wait", url=reverse("approvals"))


def trend(moved: float) -> str:
    return "trending-up" if moved > 0 else "trending-down"


def tone_of(worse: bool, much: bool) -> str:
    return "fail" if worse and much else "idle"
