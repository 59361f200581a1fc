"""Two stretches of time side by side, and two runs step by step."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from console import argument_rows, changes, run_charts, windows
from console.charts import Chart, address
from console.comparisons import compared
from console.figures import Figures
from console.readings import read
from console.run_charts import Drawn
from console.run_comparison import MOST, Move, lines, tally
from console.windows import HOUR, LONGEST, Window, iso
from runs.models import Call, Run, Step
from tenants.actors import Actor
from tenants.errors import NotFound, Refused
from tools.models import ToolVersion

from . import run_facts
from .charted import Selection, figures_of, filters, selection, stretches
from .run_detail import args_value, parsed
from .session import signed_in

JSON = dict[str, Any]
WORDS = {  # kind of a row -> (icon, word, tone, word after a number)
    "same": ("check", "Same", "idle", "same"),
    "changed": ("pencil", "Changed", "wait", "changed"),
    "left": ("minus", "Only in A", "fail", "only in A"),
    "right": ("plus", "Only in B", "ok", "only in B"),
}


# two stretches of time --------------------------------------------------------------------------------------------------------


@require_safe
@signed_in
def page(request: HttpRequest) -> HttpResponse:
    """`?a=START/END&b=START/END`, moments like 2026-01-31T12:00:00Z or days; without them the last day and the one before."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("config:read")
    now, chosen = timezone.now(), selection(actor, request.GET)
    usual = presets(now)[0]
    a, b = (asked(request.GET.get(name) or usual[name], now, name) for name in ("a", "b"))
    sides = [half(chosen, "a", a), half(chosen, "b", b)]
    kept = {name: request.GET[name] for name in ("a", "b") if request.GET.get(name)}
    context: JSON = {
        "chosen": chosen,
        "sides": [{"name": name.upper(), "window": one, "span": span(one)} for name, one in (("a", a), ("b", b))],
        "rows": compared(*(figures for figures, _ in sides)),
        "pairs": list(zip(*(charts for _, charts in sides), strict=True)),
        "charts": [chart for _, charts in sides for chart in charts],
        "presets": [one | {"url": address(request.path, {**chosen.filters, "a": one["a"], "b": one["b"]})} for one in presets(now)],
        "filters": [keeping(menu, kept) for menu in filters(request.path, chosen)],
    }
    return render(request, "pages/compare.html", context)


def asked(text: str, now: datetime, name: str) -> Window:
    """Refuses bad_a or bad_b 400."""
    since, _, until = text.partition("/")
    start, end = moment(since), moment(until)
    if start is None or end is None or not HOUR <= end - start <= LONGEST:
        example = "2026-01-31T12:00:00Z/2026-02-01T12:00:00Z"
        raise Refused(f"bad_{name}", f"{name} is a start and an end like {example}, an hour to {LONGEST.days} days apart.", 400)
    return windows.stretch(start, end, now)


def moment(text: str) -> datetime | None:
    """A day is its first moment in UTC; so is a moment without a zone."""
    text = text.strip()
    try:
        found = parse_datetime(text if "T" in text else f"{text}T00:00:00")
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def span(window: Window) -> str:
    return f"{iso(window.since)}/{iso(window.since + window.whole if window.every == HOUR else window.until)}"


def presets(now: datetime) -> list[JSON]:
    """Pairs that people ask for, the usual one first."""
    hour, today = windows.floor(now, HOUR) + HOUR, windows.floor(now, windows.DAY)
    return [
        pair("Last 24 hours and the 24 before", hour - timedelta(hours=48), hour - timedelta(hours=24), hour),
        pair("Yesterday and today", today - windows.DAY, today, today + windows.DAY),
        pair("Last 7 days and the 7 before", hour - timedelta(days=14), hour - timedelta(days=7), hour),
        pair("Last hour and the one before", hour - 2 * HOUR, hour - HOUR, hour),
    ]


def pair(label: str, first: datetime, middle: datetime, last: datetime) -> JSON:
    return {"label": label, "a": f"{iso(first)}/{iso(middle)}", "b": f"{iso(middle)}/{iso(last)}"}


def keeping(menu: JSON, kept: dict[str, str]) -> JSON:
    """The links of a menu, with both stretches as they are."""
    extra = address("", kept).removeprefix("?")

    def more(url: str) -> str:
        return f"{url}{'&' if not url.endswith('?') else ''}{extra}" if extra else url

    return menu | {"clear": more(menu["clear"]), "options": [one | {"url": more(one["url"])} for one in menu["options"]]}


def half(chosen: Selection, name: str, window: Window) -> tuple[Figures, list[Chart]]:
    reading = read(chosen.cut, window.since, window.until)
    whole, marks = figures_of(reading, chosen.cut), changes.markers(chosen.cut.scope, window.since, window.until)
    drawn = Drawn(window, stretches(reading, chosen.cut, window), whole, reverse("runs"), chosen.query, marks)
    made = (run_charts.outcomes(drawn), run_charts.success(drawn), run_charts.durations(drawn), run_charts.costs(drawn))
    return whole, [replace(chart, key=f"{name}-{chart.key}", title=f"{chart.title}, {name.upper()}") for chart in made]


# two runs ---------------------------------------------------------------------------------------------------------------------


@require_safe
@signed_in
def runs(request: HttpRequest) -> HttpResponse:
    """`?a=agt_…&b=agt_…`; `args=3.1-4.1` shows the arguments of two calls. `run` twice is what the list of runs sends."""
    actor: Actor = request.actor  # type: ignore[attr-defined]
    actor.need("runs:read")
    picked = [*request.GET.getlist("run"), "", ""]
    ids = [request.GET.get(name, "").strip() or picked[n] for n, name in enumerate(("a", "b"))]
    if not all(ids):
        return render(request, "pages/compare_pick.html", {"a": ids[0] or ids[1], "run": known(actor, ids[0] or ids[1])})
    left, right = (run_facts.find(actor, one) for one in ids)
    sides = (moves(left), moves(right))
    found = lines(*sides)
    context = {
        "runs": [{"name": name, "run": run, "title": title(run), "took_s": took(run)} for name, run in (("A", left), ("B", right))],
        "rows": [{"line": line, "look": WORDS[line.what]} for line in found],
        "tally": [{"number": number, "look": WORDS[what]} for what, number in tally(found) if number],
        "here": address(request.path, {"a": left.run_id, "b": right.run_id}),
        "swapped": address(request.path, {"a": right.run_id, "b": left.run_id}),
        "diff": arguments(left, right, request.GET.get("args", "")),
        "cut": MOST if any(len(side) >= MOST for side in sides) else 0,
    }
    return render(request, "pages/compare_runs.html", context)


def known(actor: Actor, run_id: str) -> JSON | None:
    """The run that was named already, if one was. NotFound where it is none that the actor sees."""
    run = run_facts.find(actor, run_id) if run_id else None
    return {"run": run, "title": title(run)} if run else None


def title(run: Run) -> str:
    return run_facts.title_of(run.asked.text)


def took(run: Run) -> float:
    return ((run.ended_at or timezone.now()) - run.created_at).total_seconds()


def moves(run: Run) -> list[Move]:
    """What the run did, in its order, as far as a page can show it."""
    roles = dict(Step.objects.filter(run_id=run.id).values_list("step", "role"))
    names = ("step", "ord", "name", "state", "args", "error_class", "latency_ms", "cost_micro")
    rows = Call.objects.filter(run_id=run.id).order_by("step", "ord").values_list(*names)[:MOST]
    return [
        Move(step, ord_, roles.get(step, ""), name, state, digest(args) if ord_ else "", error or "", latency, cost)
        for step, ord_, name, state, args, error, latency, cost in rows
    ]


def digest(args: Any) -> str:
    """Of arguments as JSON has them: neither the order of their names nor blanks make a difference."""
    raw = bytes(args or b"")
    with suppress(ValueError, RecursionError):
        raw = json.dumps(json.loads(raw), sort_keys=True).encode()
    return sha256(raw).hexdigest()


def arguments(left: Run, right: Run, places: str) -> JSON | None:
    """The arguments of two calls of one tool, field by field; hidden fields stay hidden. None: nothing was asked for."""
    a, _, b = places.partition("-")
    calls = [Call.objects.filter(run_id=run.id, step=at[0], ord=at[1]).first() for run, at in ((left, parsed(a)), (right, parsed(b))) if at]
    if len(calls) < 2 or not all(call and call.ord for call in calls):
        if places:
            raise NotFound("call")
        return None
    one, other = calls[0], calls[1]
    assert one is not None and other is not None
    was, will = (argument_rows.given(schema_of(call), args_value(call)) for call in (one, other))
    rows = [argument_rows.row(was.get(path), will.get(path)) for path in dict.fromkeys([*will, *was])]
    return {"rows": rows, "tool": other.name, "a": a, "b": b}


def schema_of(call: Call) -> JSON:
    """Which of its fields are hidden is said there."""
    if call.tool_version_id is None:
        return {}
    return ToolVersion.objects.filter(pk=call.tool_version_id).values_list("input_schema", flat=True).first() or {}
