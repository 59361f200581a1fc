"""The filter bar of the list of runs: what the address asks for, and the menus that change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone

from console import filter_values, status
from console.api.registry import seen_by
from console.api.run_filters import LONGEST_Q, is_id
from console.filter_values import Values
from runs.models import Agent, Release
from runs.states import TERMINAL, RunState
from tenants.actors import Actor
from tenants.errors import Refused
from tools.models import Tool

FILTERS = ("q", "state", "agent", "outcome", "mode", "tool", "release", "tenant", "since", "until", "degraded", "cost_gt")
CHOICES = ("state", "agent", "outcome", "mode", "tool", "release", "tenant")  # of several values
OTHERS = ("until", "degraded", "cost_gt")  # without a menu: links of other pages set them
SINCE = {"1h": ("Last hour", 1), "24h": ("Last 24 hours", 24), "7d": ("Last 7 days", 24 * 7), "30d": ("Last 30 days", 24 * 30)}
OPEN = ",".join(state.value for state in RunState if state not in TERMINAL)
PEOPLE = ",".join(("waiting_approval", "waiting_budget", "needs_reconciliation", "quarantined", "paused"))
STATES = {OPEN: "Live", PEOPLE: "Needs a person", **{state: look.label for state, look in status.RUN.items()}}
ANY = "any"
MODES = {
    ANY: "Any, rehearsals too", "shadow": "Shadow", "eval": "Evaluation", "fork": "Fork", "read_only": "Read only", "draft": "Draft",
}  # fmt: skip
REAL = "normal,read_only,draft"  # a list without a choice shows no rehearsals
OPTIONS = 30  # of one menu


@dataclass(frozen=True, slots=True)
class Option:
    label: str
    url: str
    current: bool


@dataclass(frozen=True, slots=True)
class Chip:
    """`open`: its menu is, because something in it was just chosen. `turn`: to "is not", or back."""

    name: str
    shown: str  # what is chosen, for people; empty when nothing is
    clear: str
    options: list[Option]
    turn: str = ""
    none_of: bool = False
    open: bool = False


def asked(given: Mapping[str, str]) -> dict[str, str]:
    """The filters that are set. Refuses bad_<filter> 400."""
    values = {name: given.get(name, "").strip() for name in FILTERS}
    for name, value in values.items():
        longest = LONGEST_Q if name == "q" else filter_values.LONGEST if name in CHOICES else 100
        if len(value) > longest:
            cure = "search for a shorter part" if name == "q" else "name fewer values" if name in CHOICES else "shorten it"
            raise Refused(f"bad_{name}", f"{name} must have at most {longest:,} characters: {cure}.", 400)
        if "\0" in value:
            raise Refused(f"bad_{name}", f"{name} must not hold a NUL character: take it out.", 400)
        if name in CHOICES:
            filter_values.read(name, value)
    return {name: value for name, value in values.items() if value}


def readable(given: Mapping[str, str]) -> dict[str, str]:
    """Those filters that can be read, for the links of a page that says what cannot."""
    found: dict[str, str] = {}
    for name in FILTERS:
        with suppress(Refused):
            found |= asked({name: given.get(name, "")})
    return found


def wanted(query: dict[str, str]) -> dict[str, str]:
    """The filters as the API has them."""
    since = SINCE.get(query.get("since", ""))
    moment = (timezone.now() - timedelta(hours=since[1])).isoformat() if since else query.get("since", "")
    mode = query.get("mode") or (ANY if is_id(query.get("q", "")) else REAL)
    return {**query, "since": moment, "mode": "" if ANY in mode.split(",") else mode}


def same(query: Mapping[str, str]) -> dict[str, object]:
    """Equal for queries that ask for the same."""
    return {name: filter_values.read(name, value).key if name in CHOICES else value for name, value in query.items()}


def address(query: Mapping[str, str], **more: str) -> str:
    values = QueryDict(mutable=True)
    values.update({name: value for name, value in {**query, **more}.items() if value})
    return reverse("runs") + (f"?{values.urlencode(safe=',!')}" if values else "")


def agents_of(actor: Actor) -> list[str]:
    seen = Agent.objects.filter(seen_by(actor)).order_by("name")
    return list(seen.values_list("name", flat=True))


def chips(actor: Actor, query: dict[str, str], agents: list[str], opened: str = "") -> list[Chip]:
    """`query`: what `filter_values.read` has read before, and `cols`."""
    chosen = {name: filter_values.read(name, query.get(name, "")) for name in CHOICES}
    known = {
        "state": STATES,
        "agent": {name: name for name in agents[:OPTIONS]},
        "outcome": {name: look.label for name, look in status.OUTCOME.items()},
        "mode": MODES,
        "tool": {name: name for name in tools_of(actor)},
        "release": releases_of(agents, chosen["agent"]),
        **({"tenant": {name: name for name in chosen["tenant"].names}} if chosen["tenant"] else {}),
    }
    made = [chip(query, name, chosen[name], options, opened) for name, options in known.items()]
    return [*made, since(query, opened)]


def tools_of(actor: Actor) -> Iterable[str]:
    return Tool.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True)[:OPTIONS]


def releases_of(agents: list[str], chosen: Values) -> dict[str, str]:
    """The newest, of the agents that are chosen."""
    among = [name for name in agents if name in chosen.names] if chosen and not chosen.none_of else []
    newest = Release.objects.filter(agent__in=among or agents).order_by("-id").only("id", "agent_id", "number")[:OPTIONS]
    return {release.release_id: str(release) for release in newest}


def chip(query: dict[str, str], name: str, chosen: Values, known: dict[str, str], opened: str) -> Chip:
    """Each option puts itself in or takes itself out, and leaves the menu open."""
    options = [
        Option(label, address(query, **{name: after(chosen, value).text, "open": name}), bool(chosen) and chosen.has(value.split(",")))
        for value, label in {**known, **{value: value for value in chosen.names if not _offered(value, known)}}.items()
    ]
    turn = address(query, **{name: chosen.turned().text, "open": name}) if chosen and ANY not in chosen.names else ""
    shown = filter_values.words(chosen, known)
    return Chip(name, shown, address(query, **{name: ""}), options, turn, chosen.none_of, opened == name)


def after(chosen: Values, value: str) -> Values:
    """What is chosen once `value` was picked: any mode and a mode exclude each other."""
    if value == ANY:
        return Values() if ANY in chosen.names else Values((ANY,))
    return Values(tuple(name for name in chosen.names if name != ANY), chosen.none_of).toggled(value.split(","))


def _offered(value: str, known: dict[str, str]) -> bool:
    return any(value in names.split(",") for names in known)


def since(query: dict[str, str], opened: str) -> Chip:
    chosen = query.get("since", "")
    options = [Option(words, address(query, since=name), name == chosen) for name, (words, _) in SINCE.items()]
    return Chip("since", SINCE.get(chosen, (chosen,))[0], address(query, since=""), options, open=opened == "since")


def others(query: dict[str, str]) -> list[Chip]:
    """Of filters that only links of other pages set: to be taken away."""
    return [Chip(name.replace("_gt", " over"), query[name], address(query, **{name: ""}), []) for name in OTHERS if query.get(name)]
