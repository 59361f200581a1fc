"""OpenAPI documents: read within limits, references put in place, never fetched. Pure."""

from collections.abc import Iterator
from typing import Any, Final

import yaml
from openapi_pydantic import parse_obj
from pydantic import ValidationError

from tenants.errors import Refused
from tools.canonical import check_depth, clean, loads_limited

JSON = dict[str, Any]
MAX_BYTES: Final = 2 << 20
MAX_DEPTH: Final = 64
MAX_NODES: Final = 20_000  # of one operation, its references put in place
MAX_HOPS: Final = 16  # from reference to reference


class Unresolvable(ValueError):
    """A reference that leads nowhere, elsewhere, or to too much; the text says which."""


def read(raw: bytes) -> JSON:
    """JSON or YAML -> the document, checked against its standard. Refuses document_too_large 413; bad_openapi, not_supported 422."""
    if len(raw) > MAX_BYTES:
        raise Refused("document_too_large", "An OpenAPI document may be 2 MiB at most.", 413, limit_bytes=MAX_BYTES)
    try:
        value = loads_limited(raw, MAX_DEPTH) if raw.lstrip()[:1] == b"{" else from_yaml(raw)
        check_depth(value, MAX_DEPTH)
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise bad(f"it cannot be read: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(value, dict):
        raise bad("it must be an object")
    document: JSON = clean(value)[0]
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")):
        raise Refused("not_supported", "Only OpenAPI 3.0 and 3.1 are read: `openapi: 3.1.0` at the top.", key="openapi")
    try:
        parse_obj(document)
    except (ValidationError, RecursionError) as error:
        raise bad(f"it is not valid OpenAPI: {first_of(error)}") from None
    return document


def first_of(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    one = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in one['loc'] if not str(part).startswith('3.'))}: {one['msg']}"[:300]


def from_yaml(raw: bytes) -> Any:
    """Safe, without aliases (they multiply), and with every key a text."""
    depth = 0
    for event in yaml.parse(raw, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases are not read")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return as_json(yaml.load(raw, yaml.CSafeLoader))


def as_json(value: Any) -> Any:
    """What YAML has a type for and JSON has not (dates, the number 200 as a key) becomes text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


class Resolver:
    """Puts references in place for one operation. `notes` says what was cut."""

    def __init__(self, document: JSON) -> None:
        self.document = document
        self.left = MAX_NODES
        self.notes: set[str] = set()

    def one(self, value: Any) -> Any:
        """The object itself, or what its reference leads to; its inside stays as it is. Raises Unresolvable."""
        for _ in range(MAX_HOPS):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            value = self.target(value["$ref"])
        raise Unresolvable("references lead in a circle")

    def whole(self, value: Any, above: tuple[str, ...] = ()) -> Any:
        """A schema that stands alone. One that holds itself is cut where it begins again."""
        self.left -= 1
        if self.left < 0:
            raise Unresolvable(f"its schemas come to more than {MAX_NODES} parts")
        if isinstance(value, list):
            return [self.whole(item, above) for item in value]
        if not isinstance(value, dict):
            return value
        ref = value.get("$ref")
        if not isinstance(ref, str):
            return {key: self.whole(item, above) for key, item in value.items()}
        if ref in above:
            self.notes.add(f"{ref.rpartition('/')[2]} holds itself and is cut there")
            return {}
        if len(above) >= MAX_HOPS:
            raise Unresolvable("references go too deep")
        found = self.whole(self.target(ref), (*above, ref))
        beside = {key: self.whole(item, above) for key, item in value.items() if key in ("description", "default")}
        return {**found, **beside} if isinstance(found, dict) else found

    def target(self, ref: str) -> Any:
        if not ref.startswith("#/"):
            raise Unresolvable(f"{ref[:80]} is another document, and none is fetched")
        found: Any = self.document
        for part in ref[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise Unresolvable(f"{ref[:80]} leads nowhere")
            found = found[key]
        return found


def operations(document: JSON) -> Iterator[tuple[str, str, JSON, JSON]]:
    """(path, METHOD, operation, path item) of all of them, in the order of the document."""
    for path, item in (document.get("paths") or {}).items():
        if isinstance(item, dict):
            for method in ("get", "head", "post", "put", "patch", "delete"):
                if isinstance(item.get(method), dict):
                    yield path, method.upper(), item[method], item


def bad(why: str) -> Refused:
    return Refused("bad_openapi", f"The OpenAPI document cannot be used: {why}.")
