"""Are people reading what they approve? Pure: decisions and requests in, figures and findings out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

QUICK_S = 2.0  # nobody reads arguments in less
ENOUGH = 10  # decisions before a share says anything
NEVER = 50  # of a tool, all approved: people add nothing
OFTEN = 0.3  # rejected: the agent proposes what it should not
UNANSWERED = 0.2
QUICKLY = 5  # quick decisions of a person that are worth a question


@dataclass(frozen=True, slots=True)
class Said:
    """One verdict. `opened_at`: when this person first had the request on their screen; None: not known."""

    person: str
    tool: str
    effect: str
    approved: bool
    asked_at: datetime
    at: datetime
    opened_at: datetime | None = None
    edited: bool = False
    break_glass: bool = False

    @property
    def took_s(self) -> float:
        """From the request to the verdict."""
        return max((self.at - self.asked_at).total_seconds(), 0.0)

    @property
    def looked_s(self) -> float:
        """From its first opening to the verdict; from the request where that is not known."""
        opened = self.opened_at if self.opened_at and self.opened_at <= self.at else self.asked_at
        return max((self.at - opened).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Missed:
    """A request that nobody decided in time."""

    tool: str


@dataclass(frozen=True, slots=True)
class Line:
    """Of one person, or of one tool (`effect` is that of a tool). Seconds are from the request to the verdict."""

    name: str
    decided: int
    rejected: int
    edited: int
    quick: int
    expired: int
    broke_glass: int
    p50_s: float | None
    p95_s: float | None
    effect: str = ""

    @property
    def rejection_rate(self) -> float | None:
        return self.rejected / self.decided if self.decided else None


@dataclass(frozen=True, slots=True)
class Finding:
    """`code`: never_rejected, often_rejected, unanswered (of a tool) or too_quick (of a person)."""

    code: str
    subject: str
    n: int
    text: str


def by_person(said: Iterable[Said]) -> list[Line]:
    return lines(list(said), (), lambda one: one.person)


def by_tool(said: Iterable[Said], missed: Iterable[Missed]) -> list[Line]:
    return lines(list(said), list(missed), lambda one: one.tool)


def lines(said: Sequence[Said], missed: Sequence[Missed], name: Callable[[Said], str]) -> list[Line]:
    """Those with the most decisions first."""
    grouped: dict[str, list[Said]] = {}
    for one in said:
        grouped.setdefault(name(one), []).append(one)
    for gone in missed:
        grouped.setdefault(gone.tool, [])
    made = [line(key, group, sum(gone.tool == key for gone in missed)) for key, group in grouped.items()]
    return sorted(made, key=lambda each: (-each.decided, each.name))


def line(name: str, group: Sequence[Said], expired: int) -> Line:
    took = sorted(one.took_s for one in group)
    return Line(
        name=name, decided=len(group), rejected=sum(not one.approved for one in group), edited=sum(one.edited for one in group),
        quick=sum(one.looked_s < QUICK_S for one in group), expired=expired, broke_glass=sum(one.break_glass for one in group),
        p50_s=quantile(took, 0.5), p95_s=quantile(took, 0.95), effect=group[0].effect if group else "",
    )  # fmt: skip


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """The least value that at least this part of them does not exceed."""
    return round(ordered[max(ceil(len(ordered) * part), 1) - 1], 1) if ordered else None


def findings(people: Iterable[Line], tools: Iterable[Line]) -> list[Finding]:
    return [found for each in tools for found in of_tool(each)] + [found for each in people for found in of_person(each)]


def of_tool(tool: Line) -> Iterable[Finding]:
    if tool.decided >= NEVER and not tool.rejected and not tool.edited:
        cure = "a rule for the dangerous ones" if tool.effect == "irreversible" else "a rule, or give a standing grant"
        yield Finding(
            "never_rejected", tool.name, tool.decided, f"{tool.name} was never rejected in {tool.decided} decisions: write {cure}."
        )
    rate = tool.rejection_rate or 0.0
    if tool.decided >= ENOUGH and rate >= OFTEN:
        yield Finding(
            "often_rejected", tool.name, tool.rejected, f"{rate:.0%} of {tool.name} are rejected: fix the agent that proposes them."
        )
    asked = tool.decided + tool.expired
    if asked >= ENOUGH and tool.expired / asked >= UNANSWERED:
        text = f"{tool.expired} of {asked} requests for {tool.name} expired: name a group that answers, or give them more time."
        yield Finding("unanswered", tool.name, tool.expired, text)


def of_person(person: Line) -> Iterable[Finding]:
    if person.quick >= QUICKLY:
        text = f"{person.quick} decisions under two seconds by {person.name}: are they read?"
        yield Finding("too_quick", person.name, person.quick, text)
