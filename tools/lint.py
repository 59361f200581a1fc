"""The lint of tools: what a definition leaves open to a model, or hides from a person. Pure.

Findings are for a read; the same finding on a write (or on what cannot be undone) is one level up. Looseness is shown and never
keeps a tool out, with two exceptions on irreversible tools: an open object, and an unbounded text as an argument of its own.
What is dangerous whatever the effect keeps it out (`REFUSED`): schemas that do not compile, that refer to themselves or to
elsewhere, that can make more work than `tools.bounds` allows, patterns that can take for ever, names that look like other names.
A version that is registered already is never refused: only new ones are.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tools import lookalikes, patterns, schemas
from tools.bounds import escape, resolve
from tools.definitions import Effect
from tools.spec import ToolSpec

Severity = Literal["info", "warning", "error"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")
_REFERENCES: Final = {"remote_ref", "recursive_ref", "dynamic_ref", "embedded_id", "many_refs"}
_PATTERNS: Final = {"many_patterns", "slow_pattern", "nested_quantifier"}
_STRUCTURE: Final = {"does_not_compile", "too_large", "too_deep", "fan_out", "not_an_object"} | _REFERENCES | _PATTERNS
_LOOKALIKES: Final = {"name_lookalike", "argument_lookalike"}
REFUSED: Final = frozenset(_STRUCTURE | _LOOKALIKES | {"irreversible_open_object", "irreversible_unbounded_text"})
MAX_FINDINGS: Final = 50
WIDE_ENUM: Final = 50
LONG_DESCRIPTION: Final = 1000
_UP: Final[dict[Severity, Severity]] = {"info": "warning", "warning": "error", "error": "error"}
_SECRET: Final = re.compile(r"(^|_)(password|passwd|secret|token|api_?key|credential)s?($|_)", re.IGNORECASE)
_FREE_FORM: Final = re.compile(r"^(url|uri|host|sql|query|command|cmd|code|script|path|callback)$", re.IGNORECASE)
_ID: Final = re.compile(r"(^|_)(id|ID)$|[a-z]I[dD]$")
_ORDERS: Final = re.compile(
    r"\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|above|prior|earlier|other|all|any)\b"
    r"|\byou (must|should|shall|need to|have to|are (required|now))\b|\b(new|updated) instructions?\b"
    r"|</?\s{0,3}(system|important|instructions?)\b|(^|\n)[ \t#*]{0,9}(system|assistant|developer)[ \t*]{0,9}:"
    r"|\b(do not|don't|never) (tell|mention|reveal|inform|show|ask)\b"
    r"|\b(before|after|instead of) (using|calling) (this|any|other|another)\b|\bwithout (asking|telling|confirm\w*|approval)\b",
    re.IGNORECASE | re.DOTALL,
)
_ARGUMENT: Final = re.compile(r"/input_schema/properties/[^/]*(/(any|one)Of/\d+)*")
_DESCRIBED: Final = ("type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "not")
_NAMED_VALUES: Final = ("enum", "const")
_UNREAD: Final = frozenset({"pattern", "$ref", "$schema", "$id", "type", "format"})  # texts of a schema that are no prose


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark. `path`: JSON pointer into the block of the tool, such as `/input_schema/properties/note`."""

    code: str
    severity: Severity
    path: str
    message: str


def findings(name: str, spec: ToolSpec) -> tuple[Finding, ...]:
    """Everything there is to say on a tool by itself, errors first; `twin` says what its name looks like."""
    broken = [*_structure(spec.input_schema, "/input_schema"), *_structure(spec.output_schema, "/output_schema")]
    found = [*broken, *_name(name), *_prose(spec.description, "/description"), *_long(spec.description)]
    if not any(each.path.startswith("/input_schema") for each in broken):
        found += _arguments(spec)
    if spec.output_schema is None:
        found.append(Finding("no_output_schema", "info", "/output_schema", "results are not checked: say what they look like"))
    if spec.effect is not Effect.READ:
        found = [Finding(each.code, _UP[each.severity], each.path, each.message) for each in found]
    return _sorted(found)


def refusing(found: Iterable[Finding]) -> list[Finding]:
    """Those that keep a new version out."""
    return [each for each in found if each.code in REFUSED]


def twin(name: str, others: Iterable[str]) -> Finding | None:
    """A name that a person could take for that of another tool."""
    mine = lookalikes.skeleton(name)
    other = next((each for each in sorted(others) if each != name and lookalikes.skeleton(each) == mine), None)
    return Finding("name_lookalike", "error", "/name", f"looks like the tool {other}: give it another name") if other else None


def counts(found: Iterable[Finding]) -> dict[Severity, int]:
    """How many there are of each severity."""
    given = [each.severity for each in found]
    return {severity: given.count(severity) for severity in SEVERITIES}


def _sorted(found: list[Finding]) -> tuple[Finding, ...]:
    ordered = sorted(found, key=lambda each: (each.code not in REFUSED, SEVERITIES.index(each.severity)))
    if len(ordered) > MAX_FINDINGS:
        more = len(ordered) - MAX_FINDINGS + 1
        ordered = [*ordered[: MAX_FINDINGS - 1], Finding("and_more", "info", "", f"and {more} more like these")]
    return tuple(Finding(each.code, each.severity, lookalikes.spelled(each.path), lookalikes.spelled(each.message)) for each in ordered)


def _structure(schema: Mapping[str, Any] | None, path: str) -> Iterator[Finding]:
    try:
        if schema is not None:
            schemas.compile(schema)
    except schemas.SchemaError as fault:
        yield Finding(fault.code, "error", path + fault.path, fault.message)


def _name(name: str) -> Iterator[Finding]:
    if seen := lookalikes.hidden(name) or lookalikes.mixed(name):
        yield Finding("name_lookalike", "error", "/name", f"holds what cannot be told apart by eye: {seen}")


def _long(description: str) -> Iterator[Finding]:
    if len(description) > LONG_DESCRIPTION:
        message = f"{len(description)} characters are sent with every turn of a model: {LONG_DESCRIPTION} should do"
        yield Finding("long_description", "info", "/description", message)


def _prose(text: str, path: str) -> Iterator[Finding]:
    """What a model reads as part of the tool, and a person perhaps not."""
    if seen := lookalikes.hidden(text):
        yield Finding("invisible_text", "warning", path, f"holds characters that cannot be seen: {seen[:200]}")
    if word := lookalikes.mixed(text):
        yield Finding("mixed_letters", "warning", path, f"{word[:60]} mixes letters of several alphabets that look alike")
    if order := _ORDERS.search(lookalikes.plain(text)):
        said = " ".join(order.group().split())[:80]
        yield Finding("instructions", "warning", path, f"speaks to the model instead of describing: “{said}”")


def _arguments(spec: ToolSpec) -> Iterator[Finding]:
    schema = spec.input_schema
    if schema.get("type") != "object":
        yield Finding("not_an_object", "error", "/input_schema/type", "the arguments of a tool must be an object")
        return
    for path, text in _texts(schema, "/input_schema"):
        yield from _prose(text, path)
    yield from _object("/input_schema", schema, spec)
    for path, name, part in _parts(schema, "/input_schema"):
        if isinstance(ref := part.get("$ref"), str) and isinstance(target := resolve(schema, ref), Mapping):
            yield from _property(path, name, target, spec)  # what it refers to, under the name it has here
            continue
        yield from _property(path, name, part, spec)
        if _is(part, "object"):
            yield from _object(path, part, spec)


def _object(path: str, part: Mapping[str, Any], spec: ToolSpec) -> Iterator[Finding]:
    if part.get("additionalProperties", True) is not False and part.get("unevaluatedProperties", True) is not False:
        sealed = spec.effect is Effect.IRREVERSIBLE
        severity: Severity = "error" if sealed else "info"
        code = "irreversible_open_object" if sealed else "open_object"
        yield Finding(code, severity, f"{path}/additionalProperties", "unnamed arguments are let through: say false")
    if part.get("properties") and not part.get("required"):
        yield Finding("nothing_required", "info", f"{path}/required", "no argument is required: name those that are")
    yield from _names(path, part.get("properties"))


def _names(path: str, properties: Any) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for name in properties if isinstance(properties, Mapping) else ():
        if seen := lookalikes.hidden(name) or lookalikes.mixed(name):
            yield Finding("argument_lookalike", "error", f"{path}/properties", f"an argument's name holds {seen}")
        elif (other := taken.setdefault(lookalikes.plain(name), name)) != name:
            yield Finding("argument_lookalike", "error", f"{path}/properties", f"two arguments look like {lookalikes.plain(other)}")


def _parts(schema: Any, path: str, name: str = "") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every named or listed value with its pointer and name, through objects, arrays, alternatives and definitions."""
    if not isinstance(schema, Mapping):
        return
    for key in ("properties", "$defs", "definitions"):
        inner = schema.get(key)
        for each, part in inner.items() if isinstance(inner, Mapping) else ():
            if key == "properties" or (isinstance(part, Mapping) and _is(part, "object")):  # the others, where they are referred to
                yield from _part(part, f"{path}/{key}/{escape(each)}", each if key == "properties" else "")
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(key)
        for index, part in enumerate(inner if isinstance(inner, list) else ()):
            yield from _part(part, f"{path}/{key}/{index}", name)
    yield from _part(schema.get("items"), f"{path}/items", "")


def _part(part: Any, path: str, name: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    if isinstance(part, Mapping):
        yield path, name, part
        yield from _parts(part, path, name)


def _property(path: str, name: str, part: Mapping[str, Any], spec: ToolSpec) -> Iterator[Finding]:
    if not any(key in part for key in _DESCRIBED):
        yield Finding("untyped", "warning", path, "any value is let through: give it a type")
    if len(part.get("enum") or ()) > WIDE_ENUM:
        yield Finding("wide_enum", "info", path, f"{len(part['enum'])} choices: a model picks badly from more than {WIDE_ENUM}")
    if _SECRET.search(name) and not any(key in part for key in _NAMED_VALUES):
        yield Finding("secret_argument", "warning", path, "secrets come from a credential, never from a model")
    if any(key in part for key in _NAMED_VALUES):
        return
    if _is(part, "string"):
        yield from _text(path, name, part, spec)
    if _is(part, "array") and "maxItems" not in part:
        yield Finding("unbounded_list", "info", path, "takes any number of items: give it maxItems")
    if _is(part, "number") or _is(part, "integer"):
        yield from _number(path, part, spec)


def _text(path: str, name: str, part: Mapping[str, Any], spec: ToolSpec) -> Iterator[Finding]:
    pattern = part.get("pattern")
    if _ID.search(name) and pattern is None and "format" not in part:
        yield Finding("free_id", "info", path, "an id is taken as free text: give it a pattern")
    if _FREE_FORM.search(name) and pattern is None and spec.effect is not Effect.READ:
        yield Finding("free_form", "info", path, "a model chooses where or what to run: use an enum or a pattern")
    if "maxLength" in part or "format" in part or (isinstance(pattern, str) and patterns.cost(pattern).bounded):
        return
    if _ARGUMENT.fullmatch(path) and spec.effect is Effect.IRREVERSIBLE:
        yield Finding("irreversible_unbounded_text", "error", path, "what cannot be undone takes a text of any length: give it maxLength")
    else:
        yield Finding("unbounded_text", "info", path, "takes a text of any length: give it maxLength, a pattern that ends or an enum")


def _number(path: str, part: Mapping[str, Any], spec: ToolSpec) -> Iterator[Finding]:
    """Both ends matter where money moves: a negative amount goes the other way."""
    low, high = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
    missing = [side[0] for side in (low, high) if not any(key in part for key in side)]
    if "money" in spec.labels and missing:
        yield Finding("unbounded_amount", "warning", path, f"money moves by this number: give it {' and '.join(missing)}")
    elif "maximum" in missing:
        yield Finding("unbounded_number", "info", path, "takes any number: give it a maximum")


def _is(part: Mapping[str, Any], kind: str) -> bool:
    given = part.get("type")
    return kind in given if isinstance(given, list) else given == kind


def _texts(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a schema that a model is shown: descriptions, choices, defaults, examples."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, Mapping):
        for key, part in node.items():
            if not (key in _UNREAD and isinstance(part, str)):
                yield from _texts(part, f"{path}/{escape(str(key))}")
    elif isinstance(node, list):
        for index, part in enumerate(node):
            yield from _texts(part, f"{path}/{index}")
