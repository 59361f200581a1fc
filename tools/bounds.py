"""How much work a JSON Schema can make, reckoned before it is used. Pure.

A schema is a program that a stranger may have written, and once the validator runs it cannot be stopped. So references that go
round or leave the schema are refused, and what each value may cost at most is counted: `tools.schemas` holds values to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from tools import patterns

MAX_REFS: Final = 50
MAX_PATTERNS: Final = 100
MAX_WEIGHT: Final = 1000
MAX_SLOW: Final = 1000
_FREE: Final = 40  # states of a pattern that cost nothing to speak of, even on a megabyte
_COMBINED: Final = ("allOf", "anyOf", "oneOf")
_CONDITIONS: Final = ("not", "if", "then", "else")
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
_BELOW: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames", "contains", "unevaluatedItems", "additionalItems")
_DYNAMIC: Final = ("$dynamicRef", "$recursiveRef")
Node = Mapping[str, Any]


class Unbounded(ValueError):
    """The schema can make too much work. `code` names the finding, `path` is a JSON pointer into the schema."""

    def __init__(self, code: str, path: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.path = path
        self.message = message


@dataclass(frozen=True, slots=True)
class Bounds:
    """`weight`: subschemas that may be tried on one value. `slow`: states of the slowest pattern, 0 where none matters.

    `branching`: holds anyOf or oneOf, whose failures are told branch by branch.
    """

    weight: int = 1
    slow: int = 0
    branching: bool = False


@dataclass(frozen=True, slots=True)
class _Load:
    """Subschemas tried on the value itself, and at most on a value inside it."""

    here: int
    below: int

    @property
    def most(self) -> int:
        return max(self.here, self.below)


def measure(schema: Any) -> Bounds:
    """Raises Unbounded. Expects JSON of limited depth."""
    if not isinstance(schema, Mapping):
        return Bounds()
    reckoning = _Reckoning(schema)
    try:
        load = reckoning.load(schema, "")
    except RecursionError:
        raise Unbounded("too_deep", "", "references make it too deep") from None
    if load.most > MAX_WEIGHT:
        raise Unbounded("fan_out", "", f"up to {load.most} subschemas are tried on one value, and {MAX_WEIGHT} may be")
    return Bounds(load.most, reckoning.slow if reckoning.slow > _FREE else 0, reckoning.branching)


def resolve(root: Node, ref: str) -> Any:
    """What `#/…` points at; None where there is nothing."""
    found: Any = root
    for part in ref[1:].split("/")[1:]:
        step = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


class _Reckoning:
    """One pass over one schema. Each subschema is measured once, however often it is referred to."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.refs = 0
        self.slow = 0
        self.branching = False
        self._patterns: set[str] = set()
        self._known: dict[int, _Load | None] = {}  # None: being measured, so to meet it again is to go round

    def load(self, node: Any, path: str) -> _Load:
        if not isinstance(node, Mapping):
            return _Load(1, 0)
        if id(node) in self._known:
            if (known := self._known[id(node)]) is None:
                raise Unbounded("recursive_ref", path, "the reference goes round: write the schema out as deep as it is needed")
            return known
        self._known[id(node)] = None
        self._look(node, path)
        beside = [self.load(part, where) for where, part in self._same_value(node, path)]
        child = self._child(node, path)
        twice = 2 if "unevaluatedProperties" in node or "unevaluatedItems" in node else 1
        here = 1 + _choices(node.get("enum")) + twice * sum(part.here for part in beside)
        load = self._known[id(node)] = _Load(here, child + sum(part.below for part in beside))
        for key in ("$defs", "definitions"):  # counted where they are referred to, looked at in any case
            for where, part in _members(node, key, path):
                self.load(part, where)
        return load

    def _same_value(self, node: Node, path: str) -> Iterator[tuple[str, Any]]:
        for key in _COMBINED:
            yield from _members(node, key, path)
        for key in _CONDITIONS:
            if key in node:
                yield f"{path}/{key}", node[key]
        yield from _members(node, "dependentSchemas", path)
        yield from _members(node, "dependencies", path)
        if isinstance(ref := node.get("$ref"), str):
            yield f"{path}/$ref", self._target(ref, path)

    def _target(self, ref: str, path: str) -> Any:
        if ref != "#" and not ref.startswith("#/"):
            raise Unbounded("remote_ref", f"{path}/$ref", f"schemas are not fetched: {ref[:200]}; refer to #/$defs/…")
        self.refs += 1
        if self.refs > MAX_REFS:
            raise Unbounded("many_refs", f"{path}/$ref", f"more than {MAX_REFS} references: put what is referred to in their place")
        return resolve(self.root, ref)

    def _child(self, node: Node, path: str) -> int:
        """The most that is tried on one value inside: one named property or one item, and all that is tried beside it."""
        named = max((self.load(part, where).most for where, part in _members(node, "properties", path)), default=0)
        placed = [part for key in ("prefixItems", "items") for part in _members(node, key, path)]
        items = max((self.load(part, where).most for where, part in placed), default=0)
        matched = sum(self.load(part, where).most for where, part in _members(node, "patternProperties", path))
        others = sum(self.load(node[key], f"{path}/{key}").most for key in _BELOW if isinstance(node.get(key), Mapping))
        return max(named, items) + matched + others

    def _look(self, node: Node, path: str) -> None:
        for key in _DYNAMIC:
            if key in node:
                raise Unbounded("dynamic_ref", f"{path}/{key}", f"{key} is not supported: use $ref")
        if path and any(isinstance(node.get(key), str) for key in ("$id", "id")):
            raise Unbounded("embedded_id", path, "a schema inside a schema may not have an id of its own")
        self.branching = self.branching or "anyOf" in node or "oneOf" in node
        if isinstance(pattern := node.get("pattern"), str):
            self._pattern(pattern, f"{path}/pattern")
        for where, _ in _members(node, "patternProperties", path):
            self._pattern(unescape(where.rpartition("/")[2]), where)

    def _pattern(self, pattern: str, path: str) -> None:
        found = patterns.cost(pattern)
        if found.nested:
            raise Unbounded("nested_quantifier", path, "a repetition of repetitions can take for ever: repeat one thing once")
        if found.slow > MAX_SLOW:
            raise Unbounded("slow_pattern", path, "the pattern counts too far: anchor it with ^ and $, and bound length by maxLength")
        self.slow = max(self.slow, found.slow)
        self._patterns.add(pattern)
        if len(self._patterns) > MAX_PATTERNS:
            raise Unbounded("many_patterns", path, f"more than {MAX_PATTERNS} patterns")


def _members(node: Node, key: str, path: str) -> Iterator[tuple[str, Any]]:
    """The subschemas under a keyword, be they named, listed, or one."""
    part = node.get(key)
    if isinstance(part, Mapping) and key not in _NAMED:
        yield f"{path}/{key}", part
    elif isinstance(part, Mapping):
        for name, inner in part.items():
            yield f"{path}/{key}/{escape(name)}", inner
    elif isinstance(part, list):
        for index, inner in enumerate(part):
            yield f"{path}/{key}/{index}", inner


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _choices(values: Any) -> int:
    """Texts and whole numbers are looked up; everything else is compared one by one, fractions at ten times the price."""
    if not isinstance(values, list) or all(isinstance(v, str) for v in values) or all(type(v) is int for v in values):
        return 0
    return len(values) * (10 if any(isinstance(v, float) for v in values) else 1)
