"""The charts of tools: which fail, and of one tool how its calls went. Pure."""

from collections.abc import Mapping, Sequence

from . import charts
from .chart_words import counted, course, parts, peak, percent
from .charts import Chart, bars, line, over
from .histograms import quantile
from .metrics import ToolHealth
from .run_charts import RETRY_LOOKS, Drawn, in_percent
from .templatetags.signalbox import milliseconds
from .windows import iso

WORST = 6
HIGH = 5.0  # percent
NOT_CALLED = "it was not called"


def errors_by_tool(drawn: Drawn, tools: Sequence[ToolHealth], tool_urls: str) -> Chart:
    """The worst tools, the highest rate on top; each leads to the runs that called it."""
    shown = sorted(tools, key=lambda tool: (-tool.error_rate, tool.name))[:WORST]
    title, writes = "Tool error rate", drawn.window.writes
    if not shown:
        return Chart("tool-errors", title, charts.nothing("No tool was called"), f"{title}: no tool was called.", "–", "worst")
    rates = [round(tool.error_rate * 100, 1) for tool in shown]
    period = {"since": iso(drawn.window.since)}
    links = [charts.address(tool_urls, {**drawn.query, "tool": tool.name, **period}) for tool in shown]
    colours = ["--c5" if rate >= HIGH else "--c6" for rate in rates]
    figure = charts.ranked([tool.name for tool in shown], rates, colours, links, "Errors in percent")
    worst = shown[0]
    words = f"{title}: the highest is {percent(worst.error_rate)} of {worst.name}, {worst.errors:,} of {counted(worst.calls, 'call')}."
    return Chart("tool-errors", title, figure, words, percent(worst.error_rate), "worst", writes=writes)


def calls(drawn: Drawn) -> Chart:
    """Calls that were answered, failed, and were denied, a bar for each stretch."""
    kinds = (
        ("Answered", [one.figures.tool_calls - one.figures.tool_errors for one in drawn.stretches], "--c3", ""),
        ("Failed", [one.figures.tool_errors for one in drawn.stretches], "--c5", "/"),
        ("Denied", [one.figures.denied for one in drawn.stretches], "--c4", "x"),
    )
    most = max((sum(one) for one in zip(*(counts for _, counts, _, _ in kinds), strict=True)), default=0)
    shown = [kind for kind in kinds if kind is kinds[0] or any(kind[1])]
    data = [bars(drawn.window, counts, name, colour, pattern) for name, counts, colour, pattern in shown]
    figure = over(drawn.window, data, barmode="stack", **charts.whole(most)) if most else charts.nothing("It was not called")
    said = parts([(name, sum(counts)) for name, counts, _, _ in kinds])
    words = peak("Calls", drawn.points(lambda made: made.tool_calls + made.denied), lambda n: f"{n:,.0f}", said)
    return drawn.chart("calls", "Calls", figure, words, f"{drawn.whole.tool_calls:,}", "sent", legend=True)


def errors(drawn: Drawn, by_class: Mapping[str, Sequence[float]]) -> Chart:
    """Error rate by class, in percent of the calls of each stretch: `by_class` has a number for each."""
    title = "Errors by class"
    rates = in_percent(drawn.points(lambda made: made.tool_error_rate))
    data = [
        bars(drawn.window, numbers, name.replace("_", " ").capitalize(), colour, pattern)
        for (name, numbers), (colour, pattern) in zip(by_class.items(), RETRY_LOOKS, strict=False)
    ]
    counted_calls = counted(drawn.whole.tool_calls, "call")
    words = course("Error rate", drawn.points(lambda made: made.tool_error_rate), percent, 0.02, counted_calls, NOT_CALLED)
    rate = drawn.whole.tool_error_rate
    none = "No call failed" if any(value is not None for value in rates) else "It was not called"
    figure = over(drawn.window, data, barmode="stack", yaxis={"ticksuffix": "%"}) if data else charts.nothing(none)
    value = percent(rate) if rate is not None else "–"
    return drawn.chart("errors", title, figure, words, value, "of calls", legend=True)


def classes_of(drawn: Drawn) -> dict[str, list[float]]:
    """For each of the commonest classes its share of the calls of each stretch in percent."""
    known = sorted(drawn.whole.classes.items(), key=lambda pair: (-pair[1], pair[0]))[: len(RETRY_LOOKS)]
    return {
        name: [
            round(100 * one.figures.classes.get(name, 0) / one.figures.tool_calls, 2) if one.figures.tool_calls else 0.0
            for one in drawn.stretches
        ]
        for name, _ in known
    }


def latency(drawn: Drawn) -> Chart:
    slow = drawn.points(lambda made: quantile_s(made.latency_ms, 0.95))
    known = [value for _, value in slow if value is not None]
    enough, sent = 0.2 * max(known, default=0), counted(drawn.whole.tool_calls, "call")
    words = course("95th percentile of the latency", slow, lambda s: milliseconds(s * 1000), enough, sent, NOT_CALLED)
    middle = drawn.points(lambda made: quantile_s(made.latency_ms, 0.5))
    data = [
        line(drawn.window, [y for _, y in slow], "p95", "--c2"),
        line(drawn.window, [y for _, y in middle], "median", "--c1", "dot"),
    ]
    whole = quantile_s(drawn.whole.latency_ms, 0.95)
    value = "–" if whole is None else milliseconds(whole * 1000)
    return drawn.chart(
        "latency", "Latency", drawn.lines(data, "It was not called", yaxis={"ticksuffix": "s"}), words, value, "p95", legend=True
    )


def repeats(drawn: Drawn) -> Chart:
    """Share of the calls that were sent more than once."""
    points = drawn.points(lambda made: made.retry_rate)
    words = course("Calls sent again", points, percent, 0.02, counted(drawn.whole.calls, "call"), NOT_CALLED)
    rate = drawn.whole.retry_rate
    data = [line(drawn.window, in_percent(points), "Sent again", "--c4")]
    figure = drawn.lines(data, "It was not called", yaxis={"ticksuffix": "%"})
    return drawn.chart("repeats", "Retries", figure, words, percent(rate) if rate is not None else "–", "of calls sent again")


def quantile_s(histogram: dict[str, int], q: float) -> float | None:
    return charts.seconds(quantile(histogram, q))
