"""docs/reference/api.md: every call of the API, from its OpenAPI document and its views."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from drf_spectacular.generators import SchemaGenerator

from console.api import urls
from scripts.reference import HEAD, cell
from tenants.roles import SCOPES

PREFIX = "/api/v1/"
SCOPE = re.compile(f'"({"|".join(SCOPES)})"')
CONSTANT = re.compile(r"\b(?:(\w+)\.)?([A-Z_]{3,})\b")
CALLED = re.compile(r"(?<![.\w])(?:([a-z_]\w*)\.)?([a-z_]\w*)\(")


def written() -> str:
    document: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    views = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", PREFIX + str(each.pattern)): each.callback for each in urls.urlpatterns}
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            groups.setdefault(path.removeprefix(PREFIX).partition("/")[0], []).append(row(path, method, call, views.get(path)))
    tables = "\n".join(f"\n## {name}\n\n| call | scope | what |\n|---|---|---|\n" + "\n".join(rows) for name, rows in groups.items())
    return f"""{HEAD}
# Every call of the API

Base: `{PREFIX.rstrip("/")}`. Bodies and answers in full are in the OpenAPI 3.1 document of an installation, at `{PREFIX}schema/`,
and readable at `{PREFIX}docs/`; how calls are made: [the API, with curl](../api.md). What may be refused: [errors](../errors.md). A key
has some of the scopes of its person's role; what belongs to the whole installation also needs a platform admin.
{tables}
"""


def row(path: str, method: str, call: dict[str, Any], view: Callable[..., Any] | None) -> str:
    query = [one["name"] for one in call.get("parameters", []) if one["in"] == "query"]
    asked = f" `?{', '.join(query)}`" if query else ""
    about = call.get("description") or call["operationId"].replace("_", " ").capitalize() + "."
    scope = ", ".join(f"`{name}`" for name in scopes(view, method)) or "-"
    what = cell(about.partition("\n\n")[0])
    return f"| `{method.upper()} /{path.removeprefix(PREFIX)}`{asked} | {scope} | {what} |"


def scopes(view: Callable[..., Any] | None, method: str) -> list[str]:
    """What the method asks for, itself or in a function that it calls."""
    kind = getattr(view, "cls", None)
    handler = getattr(kind, method, None)
    found = list(asked_in(handler, 2)) if handler else []
    ours = [each for each in kind.__mro__ if each.__module__.startswith("console.")] if kind else []
    return list(dict.fromkeys(found or [scope for each in ours for scope in asked_in(each, 2)]))


def asked_in(function: Callable[..., Any], deep: int) -> Iterator[str]:
    source, module = inspect.getsource(function), inspect.getmodule(function)
    here = SCOPE.findall(source) + [
        value for place, name in CONSTANT.findall(source)
        if (value := getattr(getattr(module, place, None) if place else module, name, None)) in SCOPES
    ]  # fmt: skip
    yield from here
    if here or not deep:
        return
    for place, name in CALLED.findall(source):
        called = getattr(getattr(module, place, None) if place else module, name, None)
        if inspect.isfunction(called):
            yield from asked_in(called, deep - 1)
