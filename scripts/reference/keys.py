"""docs/reference/configuration.md: every key of the configuration document, from its models."""

from collections.abc import Iterator
from typing import Any

from console.document import Document
from scripts.reference import HEAD, cell

JSON = dict[str, Any]
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "{} characters at least",
    "maxLength": "{} characters at most",
    "minItems": "{} at least",
    "maxItems": "{} at most",
    "pattern": "`{}`",
}


def written() -> str:
    schema = Document.model_json_schema(ref_template="{model}")
    definitions = schema.get("$defs", {})
    parts = []
    for section, node in schema["properties"].items():
        rows = "\n".join(lines(section, node, definitions))
        parts.append(f"\n## {section}\n\n| key | what | |\n|---|---|---|\n{rows}")
    body = "\n".join(parts)
    return f"""{HEAD}
# Every key of the configuration document

What they mean, with an example of each: [configuration](../configuration.md). `[]` is one of a list, `.*` a name of your choice.
**Required** where the thing around it is given; else the default is told.
{body}
"""


def lines(path: str, node: JSON, definitions: JSON, seen: tuple[str, ...] = ()) -> Iterator[str]:
    """One row of each leaf, the parts of an object one after the other."""
    for branch in branches(node, definitions):
        inner, at = branch, path
        if branch.get("type") == "array" and "items" in branch:
            inner, at = resolved(branch["items"], definitions), f"{path}[]"
        named = inner.get("title", "")
        if "properties" in inner and named not in seen:
            required = set(inner.get("required", ()))
            for key, each in inner["properties"].items():
                child = f"{at}.{key}"
                if not leads_on(each, definitions):
                    yield f"| `{child}` | {cell(kind(each, definitions))} | {standing(key in required, each)} |"
                yield from lines(child, each, definitions, (*seen, named))
        elif isinstance(inner.get("additionalProperties"), dict) and leads_on(inner["additionalProperties"], definitions):
            yield from lines(f"{at}.*", inner["additionalProperties"], definitions, seen)


def branches(node: JSON, definitions: JSON) -> list[JSON]:
    node = resolved(node, definitions)
    return [resolved(each, definitions) for each in node.get("anyOf", node.get("oneOf", [node]))]


def leads_on(node: JSON, definitions: JSON) -> bool:
    """Whether there are keys under it."""
    found = branches(node, definitions)
    return any("properties" in each or "properties" in resolved(each.get("items", {}), definitions) for each in found)


def resolved(node: JSON, definitions: JSON) -> JSON:
    while "$ref" in node:
        node = definitions[node["$ref"]] | {key: value for key, value in node.items() if key != "$ref"}
    return node


def kind(node: JSON, definitions: JSON) -> str:
    return " or ".join(dict.fromkeys(one_kind(each, definitions) for each in branches(node, definitions)))


def one_kind(node: JSON, definitions: JSON) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    name = {"array": "list", "object": "object", "null": "null", "boolean": "true or false"}.get(
        node.get("type", ""), node.get("type", "any")
    )
    if node.get("type") == "array" and "items" in node:
        name += f" of {kind(node['items'], definitions)}"
    bounds = [words.format(plain(node[key])) for key, words in BOUNDS.items() if key in node]
    return name + (f" ({', '.join(bounds)})" if bounds else "")


def plain(value: Any) -> Any:
    """Without the nought that a decimal brings."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def standing(required: bool, node: JSON) -> str:
    if required:
        return "**required**"
    default = node.get("default")
    return "" if default in (None, "", [], {}) else f"default `{default}`"
