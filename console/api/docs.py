"""The API's reference as a page of our own: readable without scripts, so the strict policy stays."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.generators import SchemaGenerator


def page(request: HttpRequest) -> HttpResponse:
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    calls = [
        {"method": method.upper(), "path": path, "about": call.get("description", ""), "name": call["operationId"],
         "parameters": call.get("parameters", []), "answers": sorted(call.get("responses", {}))}
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    ]  # fmt: skip
    return render(request, "pages/api_docs.html", {"calls": calls, "title": schema["info"]["title"]})
