"""The figures of a rollout in words: what each guard measured, how far it moved, what is tolerated. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JSON = Mapping[str, Any]
VERDICTS = {  # of a guard or a rollout -> (icon, word, tone)
    "wait": ("clock", "Too early", "idle"),
    "go": ("circle-check", "Within", "ok"),
    "hold": ("circle-pause", "Beyond its limit", "wait"),
    "roll_back": ("octagon-alert", "Worse", "fail"),
}
UNKNOWN = ("circle-dashed", "Not looked at", "idle")
SHARES = ("success", "fallback", "policy_violations", "approvals_rejected")


@dataclass(frozen=True, slots=True)
class Line:
    """One guard as people read it."""

    title: str
    baseline: str
    candidate: str
    change: str
    limit: str
    n: int
    confidence: str
    look: tuple[str, str, str]


def lines(verdict: JSON) -> list[Line]:
    return [line(guard) for guard in verdict.get("guards", ())]


def line(guard: JSON) -> Line:
    return Line(
        guard["title"], figure(guard["name"], guard["baseline"]), figure(guard["name"], guard["candidate"]), change(guard), limit(guard),
        guard["n"], sure(guard["confidence"]), VERDICTS.get(guard["verdict"], UNKNOWN),
    )  # fmt: skip


def figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in SHARES:
        return percent(value)
    if name == "cost_per_success":
        return f"${value / 1_000_000:,.4f}"
    return f"{value:,.1f} s" if name == "latency" else f"{value:,.2f}"


def percent(value: float) -> str:
    return f"{value * 100:.1f}%".replace(".0%", "%")


def change(guard: JSON) -> str:
    """How much worse or better, in the unit of its limit."""
    worse = guard["worse"]
    if worse is None:
        return "–"
    if abs(worse) < 0.0005:
        return "the same"
    return f"{amount(guard, abs(worse))} {'worse' if worse > 0 else 'better'}"


def limit(guard: JSON) -> str:
    return f"{amount(guard, guard['limit'])} worse"


def amount(guard: JSON, value: float) -> str:
    """Points of a share, a number of a mean, a part of the baseline's else."""
    if guard["kind"] == "mean":
        return f"{value:.2f}"
    return f"{value * 100:.1f}".removesuffix(".0") + (" points" if guard["kind"] == "share" else "%")


def sure(confidence: float) -> str:
    """That it is worse than its limit. Never 100%: a test is no proof."""
    return "–" if confidence <= 0 else ">99.9%" if confidence > 0.999 else percent(confidence)


def guard_words(guard: JSON) -> str:
    told = line(guard)
    certain = "" if told.confidence == "–" else f", {told.confidence} sure"
    return f"{told.title} {told.candidate} against {told.baseline} ({told.n} runs{certain})"


def look_of(verdict: JSON) -> tuple[str, str, str]:
    return VERDICTS.get(str(verdict.get("verdict", "")), UNKNOWN)
