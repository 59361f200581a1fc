"""The charts of a tool's page."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest

from console import tool_charts
from tenants.actors import Actor

from .charted import charted, filters, periods, selection

JSON = dict[str, Any]


def charts_of(actor: Actor, request: HttpRequest, name: str) -> JSON:
    chosen = selection(actor, request.GET, tool=name)
    drawn = charted(chosen).drawn
    return {
        "chosen": chosen,
        "charts": [
            tool_charts.calls(drawn),
            tool_charts.errors(drawn, tool_charts.classes_of(drawn)),
            tool_charts.latency(drawn),
            tool_charts.repeats(drawn),
        ],
        "fragment": f"{request.path}?{urlencode(chosen.address | {'part': ''})}",
        "periods": periods(request.path, chosen),
        "filters": filters(request.path, chosen),
    }
