"""What pages with charts share: which stretch of time, which agent, release and tenant; read once; with links that keep all of it.

All of it lives in the address: `period`, `agent`, `release`, `tenant` (of a platform admin; everybody else sees their own).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone

from console import changes, metrics, windows
from console.api.registry import seen_by
from console.charts import address
from console.figures import Figures
from console.histograms import quantile
from console.metrics import ToolHealth
from console.readings import Cut, Reading, read
from console.run_charts import Drawn
from console.stored_hours import Apart
from console.windows import SPANS, Window
from runs.models import Agent, Release
from tenants.actors import Actor
from tenants.errors import NotFound
from tenants.ids import decode
from tenants.models import Tenant

JSON = dict[str, Any]
CHOICES = 30


@dataclass(frozen=True, slots=True)
class Selection:
    """`query`: the filters, those too that the page itself is (`fixed`), such as its agent. `cut`: the same for the metrics."""

    actor: Actor
    window: Window
    query: dict[str, str]
    cut: Cut
    fixed: tuple[str, ...] = ()

    @property
    def filters(self) -> dict[str, str]:
        """Those that a reader chose."""
        return {name: value for name, value in self.query.items() if name not in self.fixed}

    @property
    def address(self) -> dict[str, str]:
        """What the page's address says; what is usual is left out."""
        return self.filters | ({} if self.window.key == windows.USUAL else {"period": self.window.key})


@dataclass(frozen=True, slots=True)
class Charted:
    """What was read for a page: this stretch in parts and as a whole, and the whole of the one before. `reading`: of both."""

    reading: Reading
    drawn: Drawn
    now: Figures
    before: Figures
    tools: list[ToolHealth]


def selection(actor: Actor, given: QueryDict, **fixed: str) -> Selection:
    """`fixed`: what the page itself says, such as its agent. NotFound for a release or a tenant that cannot be."""
    query = {name: given.get(name, "").strip()[:64] for name in ("agent", "release", "tenant")} | fixed
    if not actor.platform_admin:
        query["tenant"] = ""
    tenant = Tenant.objects.filter(slug=query["tenant"]).first() if query["tenant"] else None
    if query["tenant"] and tenant is None:
        raise NotFound("tenant")
    cut = Cut(tenant.id if tenant else metrics.scope_of(actor), query["agent"], release_id(query["release"]), tool=query.get("tool", ""))
    window = windows.window(given.get("period", ""), timezone.now())
    return Selection(actor, window, {k: v for k, v in query.items() if v}, cut, tuple(fixed))


def release_id(text: str) -> Any:
    if not text:
        return None
    try:
        return decode("rel", text)
    except ValueError:
        raise NotFound("release") from None


def charted(chosen: Selection, *, marked: bool = True, apart: tuple[Apart, ...] = ()) -> Charted:
    """One reading for both stretches. `marked`: with what changed meanwhile, which figures alone do not need."""
    window, cut = chosen.window, chosen.cut
    reading = read(cut, window.before.since, window.until, apart=apart)
    now, before = split(reading, window.since)
    whole, marks = figures_of(now, cut), changes.markers(cut.scope, window.since, window.until) if marked else ()
    drawn = Drawn(window, stretches(now, cut, window), whole, reverse("runs"), chosen.query, marks)
    return Charted(reading, drawn, whole, figures_of(before, cut), tools_of(now, cut))


def stretches(reading: Reading, cut: Cut, window: Window) -> list[metrics.Stretch]:
    return metrics.stretches(reading, cut, window.since, window.since + window.whole, window.every)


def split(reading: Reading, middle: datetime) -> tuple[Reading, Reading]:
    """(from `middle` on, before it)"""
    now = Reading([r for r in reading.runs if r.hour >= middle], [c for c in reading.calls if c.hour >= middle], reading.as_of)
    return now, Reading([r for r in reading.runs if r.hour < middle], [c for c in reading.calls if c.hour < middle], reading.as_of)


def figures_of(reading: Reading, cut: Cut) -> Figures:
    return metrics.figures_of(reading.runs, reading.calls, cut)


def tools_of(reading: Reading, cut: Cut) -> list[ToolHealth]:
    """The tools that were called, the worst first."""
    made = metrics.grouped(reading, cut, "tool")
    found = [
        ToolHealth(name, one.tool_calls, one.tool_errors, quantile(one.latency_ms, 0.95)) for name, one in made.items() if one.tool_calls
    ]
    return sorted(found, key=lambda tool: (-tool.error_rate, tool.name))


# what there is to choose ------------------------------------------------------------------------------------------------------


def periods(path: str, chosen: Selection) -> list[JSON]:
    """The switch of the period. What is chosen besides stays."""
    keys = {key: {} if key == windows.USUAL else {"period": key} for key in SPANS}
    return [{"key": key, "url": address(path, chosen.filters | own), "current": key == chosen.window.key} for key, own in keys.items()]


def filters(path: str, chosen: Selection) -> list[JSON]:
    """The menus: {name, shown, clear, options [{label, url, current}]}."""
    actor, query = chosen.actor, chosen.query
    agents = list(Agent.objects.filter(seen_by(actor)).order_by("name").values_list("name", flat=True)[:CHOICES])
    menus = [] if "agent" in chosen.fixed else [menu(path, chosen, "agent", {name: name for name in agents})]
    if query.get("agent") in agents and "release" not in chosen.fixed:
        newest = Release.objects.filter(agent=query["agent"]).order_by("-number").only("id", "agent_id", "number")[:CHOICES]
        menus.append(menu(path, chosen, "release", {release.release_id: str(release) for release in newest}))
    if actor.platform_admin:
        slugs = list(Tenant.objects.filter(active=True).order_by("slug").values_list("slug", flat=True)[:CHOICES])
        menus.append(menu(path, chosen, "tenant", {slug: slug for slug in slugs}))
    return menus


def menu(path: str, chosen: Selection, name: str, known: dict[str, str]) -> JSON:
    value = chosen.query.get(name, "")
    rest = {key: one for key, one in chosen.address.items() if key != name and not (name == "agent" and key == "release")}
    options = [{"label": label, "url": address(path, rest | {name: key}), "current": key == value} for key, label in known.items()]
    return {"name": name, "shown": known.get(value, value), "clear": address(path, rest), "options": options}
