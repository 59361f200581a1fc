"""Where the arguments of an HTTP tool go: the path, the query, a header or the body. Pure.

A value that goes into the path stays inside its segment: it can neither add, remove nor climb segments, nor reach the host.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from tools.canonical import dumps

NAME: Final = re.compile(r"\{([^{}]*)\}")
HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
QUERY_METHODS: Final = frozenset({"GET", "HEAD"})  # what is not placed goes into the query
# Headers that say who we are, what the body is, or how the connection goes: never for an argument.
OURS: Final = re.compile(
    r"(authorization|cookie.*|host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|forwarded|via|date|origin|referer"
    r"|user-agent|accept.*|idempotency-key|traceparent|tracestate|x-signalbox-.*|x-forwarded-.*|x-api-key|x-auth.*|proxy-.*|sec-.*)",
    re.IGNORECASE,
)
SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})


class Unplaceable(ValueError):
    """A value that cannot go where its argument goes; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Placed:
    """`body` None: no body is sent."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None


def check(url: str, method: str, place: Mapping[str, str]) -> None:
    """Raises ValueError where the template and the places do not agree."""
    parts = urlsplit(url)
    names = NAME.findall(parts.path)
    beside = url.replace(parts.path, "", 1) if parts.path else url
    if "{" in beside or "}" in beside or "{" in NAME.sub("", parts.path) or "}" in NAME.sub("", parts.path):
        raise ValueError("url: {names} belong in the path, each whole")
    in_path = {name for name, where in place.items() if where == "path"}
    if len(names) != len(set(names)) or set(names) != in_path:
        raise ValueError("place: the arguments that go into the path are those that the url names in braces, each once")
    for name, where in place.items():
        if where == "header" and (not HEADER.fullmatch(name) or OURS.fullmatch(name)):
            raise ValueError(f"place: {name} is not a header that an argument may fill")
        if where == "body" and method in QUERY_METHODS:
            raise ValueError(f"place: a {method} has no body")


def check_arguments(place: Mapping[str, str], schema: Mapping[str, Any]) -> None:
    """Every place is an argument's; what goes into the path is required and a plain value. Raises ValueError."""
    properties = schema.get("properties")
    known: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required") or []
    for name, where in place.items():
        if name not in known:
            raise ValueError(f"place: no argument is called {name}")
        if where == "path" and (name not in required or not is_plain(known[name])):
            raise ValueError(f"place: {name} goes into the path, so it must be required and a text, a number or a boolean")


def is_plain(schema: Any) -> bool:
    """Whether only texts, numbers and booleans fit, as far as a type or a list of values says."""
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type")
    named = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    return bool(named and set(named) <= SCALARS) or "enum" in schema or "const" in schema


def put(url: str, method: str, place: Mapping[str, str], args: bytes, parsed: Mapping[str, Any]) -> Placed:
    """The request's parts. `args`: the bytes that were decided on, sent as they are where all of them go into the body.

    Raises Unplaceable."""
    unsaid = "query" if method in QUERY_METHODS else "body"
    if not place and unsaid == "body":
        return Placed(url, {}, args)
    by_place: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}, "body": {}}
    for name, value in parsed.items():
        by_place[place.get(name, unsaid)][name] = value
    target = with_query(in_path(url, by_place["path"]), by_place["query"])
    headers = {name: header(name, value) for name, value in by_place["header"].items() if value is not None}
    if unsaid == "query" or (place and not by_place["body"] and method == "DELETE"):
        return Placed(target, headers, None)
    return Placed(target, headers, args if len(by_place["body"]) == len(parsed) else dumps(by_place["body"]))


def in_path(url: str, values: Mapping[str, Any]) -> str:
    if "{" not in url:
        return url
    start = url.index("/", url.index("//") + 2)
    segments = url[start:].split("/")
    return url[:start] + "/".join(segment(one, values) for one in segments)


def segment(template: str, values: Mapping[str, Any]) -> str:
    if "{" not in template:
        return template
    filled = NAME.sub(lambda found: quote(plain(found[1], values.get(found[1])), safe=""), template)
    if filled in ("", ".", ".."):
        raise Unplaceable(f"{template} may be neither empty nor dots alone")
    return filled


def plain(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else scalar(name, value)
    if any(mark in "/\\" or not mark.isprintable() for mark in text):
        raise Unplaceable(f"{name} goes into the path: it may hold neither a slash nor a control character")
    return text


def scalar(name: str, value: Any) -> str:
    if not isinstance(value, bool | int | float):
        raise Unplaceable(f"{name} must be a text, a number or a boolean")
    return dumps(value).decode()


def header(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else scalar(name, value)
    if not text.isascii() or not text.isprintable() or len(text) > 2000:
        raise Unplaceable(f"{name} goes into a header: printable ASCII, 2,000 characters at most")
    return text


def with_query(url: str, values: Mapping[str, Any]) -> str:
    pairs = [
        (name, item if isinstance(item, str) else dumps(item).decode())
        for name, value in values.items()
        for item in (value if isinstance(value, list) else [value])
        if item is not None
    ]
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}" if pairs else url
