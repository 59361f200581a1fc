"""JSON Schemas of tools: compile once, validate quickly, and lint before an agent sees them.

Draft 2020-12 unless `$schema` says otherwise. Nothing is fetched; patterns run in linear time; formats are asserted.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, Final, Literal

import jsonschema_rs

from tools.canonical import dumps, loads_limited
from tools.definitions import Effect

MAX_ERRORS: Final = 5
MAX_BYTES: Final = 256 * 1024
_MAX_CACHED: Final = 4096
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
_compiled: OrderedDict[str, "Validator"] = OrderedDict()


class SchemaError(ValueError):
    """The schema itself is wrong. `path` is a JSON pointer into it."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or '/'}: {message}")
        self.path = path
        self.message = message


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of the lint. An `error` keeps a tool out; a `warning` is shown. `path`: JSON pointer."""

    code: str
    severity: Literal["error", "warning"]
    path: str
    message: str


class Validator:
    """A compiled schema. `sha256` is the digest of its canonical JSON."""

    __slots__ = ("_rules", "sha256")

    def __init__(self, rules: Any, digest: str) -> None:
        self._rules = rules
        self.sha256 = digest

    def errors(self, value: Any) -> list[str]:
        """At most five lines `/path: what is wrong`; empty when the value fits."""
        try:
            if self._rules.is_valid(value):
                return []
            return [_line(error) for error in islice(self._rules.iter_errors(value), MAX_ERRORS)]
        except (ValueError, RecursionError) as fault:  # lone surrogates and the like: not JSON, so it cannot fit
            return [f"/: not a JSON value ({type(fault).__name__})"]


def compile(schema: Mapping[str, Any] | bool) -> Validator:
    """Compile a schema, once for each content. Raises SchemaError with the path at fault."""
    digest, raw = _identity(schema)
    if (known := _compiled.get(digest)) is not None:
        _compiled.move_to_end(digest)
        return known
    validator = Validator(_build(loads_limited(raw)), digest)
    _compiled[digest] = validator
    if len(_compiled) > _MAX_CACHED:
        _compiled.popitem(last=False)
    return validator


def _identity(schema: Mapping[str, Any] | bool) -> tuple[str, bytes]:
    try:
        raw = dumps(schema if isinstance(schema, bool) else dict(schema))
        loads_limited(raw)
    except (ValueError, TypeError) as fault:
        raise SchemaError("", f"is not a JSON object: {fault}") from None
    if len(raw) > MAX_BYTES:
        raise SchemaError("", f"is larger than {MAX_BYTES} bytes")
    return sha256(raw).hexdigest(), raw


def _build(schema: Any) -> Any:
    try:
        return jsonschema_rs.validator_for(
            schema, retriever=_refuse, pattern_options=_PATTERNS, validate_formats=True, ignore_unknown_formats=True
        )
    except jsonschema_rs.ValidationError as fault:
        raise SchemaError(_pointer(fault.instance_path), _clip(fault.message)) from None
    except (jsonschema_rs.ReferencingError, ValueError) as fault:
        raise SchemaError("", _clip(str(fault))) from None


def _refuse(uri: str) -> Any:
    raise ValueError(f"schemas are not fetched: {uri}")


def _line(error: Any) -> str:
    return f"{_pointer(error.instance_path) or '/'}: {_clip(error.message)}"


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _clip(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


_SECRET: Final = re.compile(r"(^|_)(password|passwd|secret|token|api_?key|credential)s?($|_)", re.IGNORECASE)
_FREE_FORM: Final = re.compile(r"^(url|uri|host|sql|query|command|cmd|code|script|path|callback)$", re.IGNORECASE)


def lint(schema: Mapping[str, Any], effect: Effect) -> list[Finding]:
    """Remarks on an input schema, errors first. Writes are held to bounded, closed arguments."""
    try:
        compile(schema)
    except SchemaError as fault:
        return [Finding("does_not_compile", "error", fault.path, fault.message)]
    findings = list(_object_findings(schema, effect))
    for path, name, part in _properties(schema, ""):
        findings.extend(_property_findings(path, name, part, effect))
    return sorted(findings, key=lambda finding: finding.severity)


def _object_findings(schema: Mapping[str, Any], effect: Effect) -> Iterator[Finding]:
    if schema.get("type") != "object":
        yield Finding("not_an_object", "error", "/type", "the arguments of a tool must be an object")
        return
    if schema.get("additionalProperties", True) is not False:
        severity: Literal["error", "warning"] = "warning"
        yield Finding("open_object", severity, "/additionalProperties", "unnamed arguments are let through: say false")
    if effect is not Effect.READ and schema.get("properties") and not schema.get("required"):
        yield Finding("nothing_required", "warning", "/required", "a write that requires no argument")


def _properties(schema: Any, path: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every named property with its pointer, through nested objects and arrays (not through $ref)."""
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties")
    for name, part in properties.items() if isinstance(properties, Mapping) else ():
        below = path + "/properties" + _pointer([name])
        if isinstance(part, Mapping):
            yield below, name, part
            yield from _properties(part, below)
    yield from _properties(schema.get("items"), path + "/items")


_DESCRIBED: Final = ("type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf")
_BOUNDS: Final[dict[str, tuple[str, ...]]] = {
    "string": ("maxLength", "pattern", "enum", "const", "format"),
    "array": ("maxItems",),
    "number": ("maximum", "exclusiveMaximum", "enum", "const"),
    "integer": ("maximum", "exclusiveMaximum", "enum", "const"),
}


def _property_findings(path: str, name: str, part: Mapping[str, Any], effect: Effect) -> Iterator[Finding]:
    if _SECRET.search(name):
        yield Finding("secret_argument", "warning", path, "secrets come from a credential, never from a model")
    if not any(key in part for key in _DESCRIBED):
        yield Finding("untyped", "warning", path, "any value is let through: give it a type")
    if effect is Effect.READ:
        return
    if _FREE_FORM.search(name) and "enum" not in part and "const" not in part:
        yield Finding("free_form", "warning", path, "a model chooses where or what to run: use an enum or a pattern")
    kind = part.get("type")
    bounds = _BOUNDS.get(kind) if isinstance(kind, str) else None
    if bounds and not any(key in part for key in bounds):
        yield Finding("unbounded", "warning", path, f"a write takes any {kind}: give it one of {', '.join(bounds)}")
