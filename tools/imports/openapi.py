"""The operations of an OpenAPI document as drafts of tools. Pure.

GET and HEAD are reads, everything else writes. Parameters of path, query and header and the fields of a JSON body become one
flat input schema; `place` of the HTTP adapter puts each back where it belongs.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from tenants.errors import Refused
from tools import places
from tools.spec import destination

from .documents import JSON, Resolver, Unresolvable, operations
from .drafts import Draft, input_of, output_of, spec_of, text_of
from .words import BadName, our_name

READS: Final = frozenset({"GET", "HEAD"})
STYLES: Final = {"path": "simple", "query": "form", "header": "simple"}
ONLY_IN_3_0: Final = ("nullable", "example", "discriminator", "xml", "externalDocs", "exclusiveMinimum", "exclusiveMaximum")


class Unusable(ValueError):
    """An operation that cannot be a tool; the text says why."""


def base_url(document: JSON, given: str = "") -> str:
    """Where the operations are: as given, else the first server of the document. Refuses bad_url 422."""
    url = given
    if not url:
        server: JSON = next(iter(document.get("servers") or []), {})
        url = str(server.get("url", ""))
        for name, variable in (server.get("variables") or {}).items():
            url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    url = url.rstrip("/")
    try:
        destination(url)
        if urlsplit(url).query or "{" in url:
            raise ValueError("it may hold neither a query nor braces")
    except ValueError as error:
        raise Refused("bad_url", f"The address of this API cannot be used: {error}. Give base_url.", key="base_url") from None
    return url


def drafts(document: JSON, prefix: str, *, url: str, credential: str = "", tenants: tuple[str, ...] = ()) -> list[Draft]:
    """Every operation, in order. `url` as `base_url` gives it."""
    made: list[Draft] = []
    names: set[str] = set()
    for path, method, operation, item in operations(document):
        remote = operation_id(path, method, operation)
        one = draft(document, prefix, remote, url, path, method, operation, item, {"credential": credential, "tenants": tenants})
        if one.name and one.name in names:
            one = Draft(one.name, remote, problem=f"another operation is called {one.name} too")
        names.add(one.name)
        made.append(one)
    return made


def operation_id(path: str, method: str, operation: JSON) -> str:
    given = operation.get("operationId")
    return given if isinstance(given, str) and given else f"{method.lower()}_{path.strip('/').replace('/', '_')}"


def draft(document: JSON, prefix: str, remote: str, url: str, path: str, method: str, operation: JSON, item: JSON, more: JSON) -> Draft:
    hints = {"method": method, "path": path, **({"deprecated": True} if operation.get("deprecated") else {})}
    resolver = Resolver(document)
    try:
        name = our_name(prefix, remote)
        schema, place, notes = arguments(resolver, method, operation, item)
        output = result(resolver, operation)
    except (BadName, Unusable, Unresolvable) as why:
        return Draft("", remote, hints=hints, problem=str(why))
    said = "\n\n".join(text for key in ("summary", "description") if isinstance(text := operation.get(key), str) and text.strip())
    description, cut = text_of(said, f"{method} {path}")
    accepts, hidden = input_of(schema)
    gives, broken = output_of(output)
    notes = [*notes, *cut, *hidden, *broken, *sorted(resolver.notes)]
    if not more["credential"] and needs_credential(document, operation):
        notes.append("it asks for a credential, and none is named")
    spec, problem, lint = spec_of(name, {
        "adapter": {"kind": "http", "method": method, "url": url + path, "place": place}, "description": description,
        "effect": "read" if method in READS else "write", "input_schema": accepts, "output_schema": gives, **more,
    })  # fmt: skip
    return Draft(name, remote, spec, hints, (*notes, *lint), problem)


def needs_credential(document: JSON, operation: JSON) -> bool:
    asked = operation.get("security", document.get("security")) or []
    return bool(asked) and {} not in asked


def arguments(resolver: Resolver, method: str, operation: JSON, item: JSON) -> tuple[JSON, dict[str, str], list[str]]:
    """-> (the flat schema, the places, notes). Raises Unusable, Unresolvable."""
    properties: JSON = {}
    place: dict[str, str] = {}
    required: list[str] = []
    notes: list[str] = []
    for parameter in parameters(resolver, operation, item):
        if why := left_out(parameter):
            if parameter.get("required") and parameter["in"] == "cookie":
                raise Unusable(f"{parameter['name']} is required and {why}")
            notes.append(f"{parameter['name']} is left out: {why}")
            continue
        name = str(parameter["name"])
        put(properties, name, with_words(plain(resolver.whole(parameter.get("schema", {}))), parameter))
        place[name] = parameter["in"]
        required += [name] if parameter.get("required") else []
    fields, needed, more = body(resolver, method, operation)
    for name, part in fields.items():
        put(properties, name, part)
        place |= {name: "body"} if place else {}
    schema = {"type": "object", "properties": properties, "required": [*required, *needed], "additionalProperties": False}
    return schema, place, [*notes, *more]


def put(properties: JSON, name: str, part: Any) -> None:
    if name in properties:
        raise Unusable(f"two of its arguments are called {name}")
    properties[name] = part if isinstance(part, dict) else {}


def parameters(resolver: Resolver, operation: JSON, item: JSON) -> list[JSON]:
    """Those of the path and those of the operation, which win."""
    found: dict[tuple[str, str], JSON] = {}
    for given in [*(item.get("parameters") or []), *(operation.get("parameters") or [])]:
        one = resolver.one(given)
        if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("in"), str):
            found[one["in"], one["name"]] = one
    return list(found.values())


def left_out(parameter: JSON) -> str:
    """Why a parameter is no argument; empty: it is one. Raises Unusable for what cannot be written as it asks."""
    where, name = parameter["in"], parameter["name"]
    if where == "cookie":
        return "cookies are never sent"
    if where == "header" and (places.OURS.fullmatch(name) or not places.HEADER.fullmatch(name)):
        return "this header is not a model's to fill"
    if parameter.get("style", STYLES.get(where)) != STYLES.get(where) or parameter.get("explode", where == "query") != (where == "query"):
        raise Unusable(f"{name} is written in a style that is not supported")
    if "content" in parameter:
        raise Unusable(f"{name} is a document inside a parameter, which is not supported")
    return ""


def with_words(schema: Any, parameter: JSON) -> Any:
    said = parameter.get("description")
    return {**schema, "description": said} if isinstance(schema, dict) and isinstance(said, str) and "description" not in schema else schema


def body(resolver: Resolver, method: str, operation: JSON) -> tuple[JSON, list[str], list[str]]:
    """-> (the fields of the JSON body, those that are required, notes)."""
    given = resolver.one(operation.get("requestBody"))
    if not isinstance(given, dict):
        return {}, [], []
    media = json_of(given.get("content"))
    needed = bool(given.get("required"))
    if method in READS or media is None:
        if needed and method not in READS:
            raise Unusable("its body is not JSON")
        return {}, [], ["its body is left out"]
    schema = plain(resolver.whole(media.get("schema", {})))
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(fields, dict):
        raise Unusable("its body is not an object with named fields")
    open_ = [name for name, part in fields.items() if not (isinstance(part, dict) and part.get("readOnly"))]
    listed = [name for name in schema.get("required") or [] if name in open_]
    return {name: fields[name] for name in open_}, listed if needed else [], []


def json_of(content: Any) -> JSON | None:
    for kind, media in (content or {}).items():
        if kind.partition(";")[0].strip().lower() == "application/json" and isinstance(media, dict):
            return media
    return None


def result(resolver: Resolver, operation: JSON) -> Any:
    """The schema of the first good answer, or nothing where it has none."""
    for status, given in sorted((operation.get("responses") or {}).items()):
        if status.startswith("2"):
            answer = resolver.one(given)
            media = json_of(answer.get("content")) if isinstance(answer, dict) else None
            return plain(resolver.whole(media["schema"])) if media and "schema" in media else None
    return None


def plain(schema: Any) -> Any:
    """JSON Schema 2020-12 out of what OpenAPI 3.0 says in its own way; what is only for readers is dropped."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = schema.get("properties")
    made = {
        key: plain(item) for key, item in schema.items() if key not in ONLY_IN_3_0 and key not in ("properties", "enum", "const", "default")
    }
    made |= {key: schema[key] for key in ("enum", "const", "default") if key in schema}
    if isinstance(names, dict):
        made["properties"] = {name: plain(part) for name, part in names.items()}
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        limit = schema.get(key)
        if limit is True and bound in made:
            made[key] = made.pop(bound)
        elif isinstance(limit, int | float) and not isinstance(limit, bool):
            made[key] = limit
    if schema.get("nullable") is True:
        made = nullable(made)
    return made


def nullable(schema: JSON) -> JSON:
    kind = schema.get("type")
    if isinstance(kind, str):
        schema = {**schema, "type": [kind, "null"]}
        return {**schema, "enum": [*schema["enum"], None]} if "enum" in schema and None not in schema["enum"] else schema
    return {"anyOf": [schema, {"type": "null"}]} if schema and kind is None else schema
