"""A small value that fits a schema, to begin with. Pure; where a schema asks for more than its types say, a person goes on from it."""

from collections.abc import Mapping
from typing import Any

PLAIN: Mapping[str, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None}


def example(schema: Mapping[str, Any], depth: int = 0) -> Any:
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" and depth < 6:
        named: Mapping[str, Any] = schema.get("properties", {})
        wanted = schema.get("required", list(named))
        return {name: example(named.get(name, {}), depth + 1) for name in wanted}
    if kind in ("integer", "number"):
        return smallest(schema)
    return PLAIN.get(kind, "text")


def smallest(schema: Mapping[str, Any]) -> Any:
    """The least number that is allowed, from 1 on."""
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return min(max(least, 1), schema.get("maximum", least if least > 1 else 1))
