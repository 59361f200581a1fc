"""Values made from a JSON Schema: some that fit it, some that are broken in one place or two. For Hypothesis."""

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

JSON = Any
# Without line breaks: for Python `$` also matches before the last one, for JSON Schema it does not.
PLAIN = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
SCALARS: st.SearchStrategy[JSON] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9, allow_nan=False), PLAIN
)
JUNK = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3), max_leaves=4)


def fitting(schema: JSON, root: Mapping[str, JSON]) -> st.SearchStrategy[JSON]:
    """Values meant to fit. Keywords that cannot be aimed at (not, if, contains) are left to luck."""
    if not isinstance(schema, Mapping):
        return JUNK
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            rest = {name: part for name, part in schema.items() if name != key}
            return st.one_of([fitting(merged(rest, branch, root), root) for branch in schema[key]])
    if "allOf" in schema:
        whole = {name: part for name, part in schema.items() if name != "allOf"}
        for branch in schema["allOf"]:
            whole = merged(whole, branch, root)
        return fitting(whole, root)
    kinds = schema.get("type", ["object"] if "properties" in schema else [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of([of_type(kind, schema, root) for kind in kinds]) if kinds else JUNK


def merged(one: Mapping[str, JSON], other: JSON, root: Mapping[str, JSON]) -> dict[str, JSON]:
    if not isinstance(other, Mapping):
        return dict(one)
    if "$ref" in other:
        other = root["$defs"][other["$ref"].rpartition("/")[2]]
    both = {**one, **other}
    both["properties"] = {**one.get("properties", {}), **other.get("properties", {})}
    both["required"] = [*one.get("required", []), *other.get("required", [])]
    return {key: part for key, part in both.items() if part != {} and part != []}


def of_type(kind: str, schema: Mapping[str, JSON], root: Mapping[str, JSON]) -> st.SearchStrategy[JSON]:
    if kind == "string":
        return texts(schema)
    if kind in ("integer", "number"):
        return numbers(kind, schema)
    if kind == "array":
        least, most = schema.get("minItems", 0), min(schema.get("maxItems", 4), 6)
        unique = repr if schema.get("uniqueItems") else None
        return st.lists(fitting(schema.get("items", True), root), min_size=least, max_size=most, unique_by=unique)
    if kind == "object":
        parts = {name: fitting(part, root) for name, part in schema.get("properties", {}).items()}
        required = [name for name in schema.get("required", []) if name in parts]
        return st.fixed_dictionaries(
            {name: parts[name] for name in required}, optional={name: part for name, part in parts.items() if name not in required}
        )
    return st.booleans() if kind == "boolean" else st.none()


def texts(schema: Mapping[str, JSON]) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: text.isprintable() and least <= len(text) <= most)
    at_the_edge = st.sampled_from([least, most]).map(lambda length: "é" * length)
    return st.one_of(PLAIN.filter(lambda text: least <= len(text) <= most), at_the_edge)


def numbers(kind: str, schema: Mapping[str, JSON]) -> st.SearchStrategy[JSON]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1000) + ("exclusiveMinimum" in schema))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1000) - ("exclusiveMaximum" in schema))
    step = schema.get("multipleOf", 1)
    whole = st.integers(-(-int(low) // step), int(high) // step).map(lambda number: number * step)
    return whole if kind == "integer" or step != 1 else st.one_of(whole, st.floats(low, high, allow_nan=False), st.just(low), st.just(high))


@st.composite
def broken(draw: st.DrawFn, schema: JSON, root: Mapping[str, JSON]) -> JSON:
    """A fitting value with one or two places changed: taken away, put in, replaced, doubled, or moved past its end."""
    value = copy.deepcopy(draw(fitting(schema, root)))
    for _ in range(draw(st.integers(1, 2))):
        value = changed(draw, value)
    return value


def changed(draw: st.DrawFn, value: JSON) -> JSON:
    spots = list(places(value))
    if not spots:
        return draw(JUNK)
    holder, key = draw(st.sampled_from(spots))
    match draw(st.sampled_from(["junk", "remove", "add", "nudge", "double"])):
        case "remove":
            del holder[key]
        case "add" if isinstance(holder, dict):
            holder[draw(PLAIN)] = draw(JUNK)
        case "double" if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        case "nudge":
            holder[key] = nudged(draw, holder[key])
        case _:
            holder[key] = draw(JUNK)
    return value


def places(value: JSON) -> list[tuple[JSON, JSON]]:
    """Every spot inside: its holder, and its name or number there."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in pairs] + [spot for _, part in pairs for spot in places(part)]


def nudged(draw: st.DrawFn, value: JSON) -> JSON:
    """Nearly the same: the other spelling of a number, one beyond, one character more or less."""
    if isinstance(value, bool) or value is None:
        return draw(st.sampled_from([0, 1, 0.0, "", "true", None, True, False]))
    if isinstance(value, int | float):
        return draw(st.sampled_from([value + 1, value - 1, float(value), value + 0.5, -value, str(value), value * 1000]))
    if isinstance(value, str):
        return draw(st.sampled_from([value + "x", value[:-1], value.upper(), " " + value, value * 40, "\u200b" + value, value + "é"]))
    return [value] if isinstance(value, dict) else draw(JUNK)
