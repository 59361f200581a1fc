"""JSON Schemas of tools: compile once, validate quickly and within bounds. What is loose in one, `tools.lint` says.

Draft 2020-12 unless `$schema` says otherwise. Nothing is fetched; patterns never backtrack; formats are asserted. A validation
cannot be stopped once it runs, so its work is reckoned first: of the schema by `tools.bounds`, of the value here.
"""

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from tools.bounds import Bounds, Unbounded, measure
from tools.canonical import dumps, loads_limited

MAX_ERRORS: Final = 5
MAX_BYTES: Final = 256 * 1024
MAX_WORK: Final = 1_000_000  # subschemas tried in one validation, about 0.1 us each
_TELLABLE: Final = 10_000  # so many failures at most are collected, about 10 us each, to tell the first five
_LIGHT: Final = 2  # a schema of this weight stays under MAX_WORK with whatever fits into a megabyte
_STATES_PER_TRY: Final = 22  # steps of a pattern's automaton that cost as much as one subschema
_MAX_CACHED: Final = 4096
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
_compiled: OrderedDict[str, "Validator"] = OrderedDict()


class SchemaError(ValueError):
    """The schema itself is wrong. `path` is a JSON pointer into it, `code` names what is wrong."""

    def __init__(self, path: str, message: str, code: str = "does_not_compile") -> None:
        super().__init__(f"{path or '/'}: {message}")
        self.path = path
        self.message = message
        self.code = code


class Validator:
    """A compiled schema. `sha256` is the digest of its canonical JSON."""

    __slots__ = ("_bounds", "_rules", "sha256")

    def __init__(self, rules: Any, digest: str, bounds: Bounds) -> None:
        self._rules = rules
        self._bounds = bounds
        self.sha256 = digest

    def errors(self, value: Any) -> list[str]:
        """At most five lines `/path: what is wrong`; empty when the value fits. What is too much to check does not fit."""
        try:
            if not self._is_light and work(self._bounds, value, MAX_WORK) > MAX_WORK:
                return ["/: is too large to be checked against this schema"]
            return [] if self._rules.is_valid(value) else self._told(value)
        except (ValueError, RecursionError) as fault:  # lone surrogates and the like: not JSON, so it cannot fit
            return [f"/: not a JSON value ({type(fault).__name__})"]

    @property
    def _is_light(self) -> bool:
        return self._bounds.weight <= _LIGHT and not self._bounds.slow

    def _told(self, value: Any) -> list[str]:
        """The validator collects every failure before it gives the first, so of a large value only one is asked for."""
        if work(self._bounds, value, _TELLABLE) <= _TELLABLE:
            return [_line(error) for error in islice(self._rules.iter_errors(value), MAX_ERRORS)]
        if self._bounds.branching:
            return ["/: does not fit, and is too large to say where"]
        try:
            self._rules.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [_line(error)]
        return ["/: does not fit"]


def work(bounds: Bounds, value: Any, enough: int) -> int:
    """Subschemas that checking this value may try, at most. Counting stops soon after `enough`."""
    each, per_character = bounds.weight, bounds.weight * bounds.slow / _STATES_PER_TRY
    total, level = 0.0, [value]
    while level and total <= enough:
        item = level.pop()
        total += each
        if isinstance(item, str):
            total += len(item) * per_character
        elif isinstance(item, dict):
            total += sum(map(len, item)) * per_character
            level.extend(item.values())
        elif isinstance(item, list | tuple):
            level.extend(item[: enough + 1])
    return int(total)


def compile(schema: Mapping[str, Any] | bool) -> Validator:
    """Compile a schema, once for each content. Raises SchemaError with the path at fault."""
    digest, raw = _identity(schema)
    if (known := _compiled.get(digest)) is not None:
        _compiled.move_to_end(digest)
        return known
    parsed = loads_limited(raw)
    bounds = _reckoned(parsed)  # first: the compiler, too, can be kept busy
    validator = Validator(_build(parsed), digest, bounds)
    _compiled[digest] = validator
    if len(_compiled) > _MAX_CACHED:
        _compiled.popitem(last=False)
    return validator


def _reckoned(schema: Any) -> Bounds:
    try:
        return measure(schema)
    except Unbounded as fault:
        raise SchemaError(fault.path, fault.message, fault.code) from None


def _identity(schema: Mapping[str, Any] | bool) -> tuple[str, bytes]:
    try:
        raw = dumps(schema if isinstance(schema, bool) else dict(schema))
        loads_limited(raw)
    except (ValueError, TypeError) as fault:
        raise SchemaError("", f"is not a JSON object: {fault}") from None
    if len(raw) > MAX_BYTES:
        raise SchemaError("", f"is larger than {MAX_BYTES} bytes", "too_large")
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
