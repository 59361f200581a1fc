"""Schemas and values made to keep a validator busy: each is refused, or checked in the time there is, and the worker goes on."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Any

import pytest

from tools import bounds, lint, patterns, schemas
from tools.spec import ToolSpec

Case = tuple[Any, Any, str]  # schema, value, the finding that refuses the schema ("" when the value is checked)
GUARD = 10 * 0.2  # seconds until a case counts as hung
MEGABYTE = 1 << 20


def dag(width: int, depth: int, inside: str = "allOf") -> dict[str, Any]:
    """References to references: small to write down, width ** depth when followed."""
    definitions: dict[str, Any] = {"a0": {"type": "integer"}}
    for level in range(1, depth + 1):
        definitions[f"a{level}"] = {inside: [{"$ref": f"#/$defs/a{level - 1}"}] * width}
    return {"$ref": f"#/$defs/a{depth}", "$defs": definitions}


def nested(depth: int, key: str = "items") -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {key: schema}
    return schema


def tower(width: int, depth: int, **more: Any) -> dict[str, Any]:
    schema: dict[str, Any] = dict(more)
    for _ in range(depth):
        schema = {"allOf": [schema] * width, **more}
    return schema


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def items(**schema: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def pattern(text: str) -> dict[str, Any]:
    return {"type": "string", "pattern": text}


REFUSED: dict[str, Callable[[], Case]] = {
    "a reference to itself": lambda: ({"$ref": "#"}, 1, "recursive_ref"),
    "a reference to itself in a choice": lambda: ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, 1, "recursive_ref"),
    "two that refer to each other": lambda: (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, 1, "recursive_ref",
    ),
    "twice itself on each level": lambda: (
        {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, deep(60), "recursive_ref",
    ),
    "a tree": lambda: ({"properties": {"next": {"$ref": "#"}}}, deep(60), "recursive_ref"),
    "a dynamic reference": lambda: ({"$dynamicAnchor": "x", "$dynamicRef": "#x"}, 1, "dynamic_ref"),
    "a recursive reference": lambda: ({"$recursiveAnchor": True, "items": {"$recursiveRef": "#"}}, 1, "dynamic_ref"),
    "a remote reference": lambda: ({"$ref": "http://127.0.0.1:1/x.json"}, 1, "remote_ref"),
    "a reference to a file": lambda: ({"items": {"$ref": "file:///etc/passwd"}}, 1, "remote_ref"),
    "a relative reference": lambda: ({"$id": "http://127.0.0.1:1/", "$ref": "x.json"}, 1, "remote_ref"),
    "a reference to an anchor": lambda: ({"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}}, 1, "remote_ref"),
    "a base of its own inside": lambda: ({"items": {"$id": "http://127.0.0.1:1/", "$ref": "#/x"}}, 1, "embedded_id"),
    "51 references": lambda: ({"prefixItems": [{"$ref": "#/$defs/a"}] * 51, "$defs": {"a": {}}}, [], "many_refs"),
    "a thousand levels": lambda: (nested(1000), 1, "does_not_compile"),
    "a hundred thousand levels": lambda: (nested(100_000), 1, "does_not_compile"),
    "two to the 24 by references": lambda: (dag(2, 24), 1, "fan_out"),
    "two to the 24 by anyOf": lambda: (dag(2, 24, "anyOf"), 1, "fan_out"),
    "a million written out": lambda: (tower(4, 5), 1, "fan_out"),
    "five thousand choices": lambda: (items(anyOf=[{"const": n} for n in range(5000)]), ["x"] * 50_000, "fan_out"),
    "ten thousand objects to choose from": lambda: (items(enum=[{"a": n} for n in range(10_000)]), [1], "fan_out"),
    "what was left unevaluated, over and over": lambda: (tower(2, 7, unevaluatedProperties=False), {"a": 1}, "fan_out"),
    "patterns over patterns": lambda: ({"patternProperties": {f"^a{n}": {} for n in range(101)}}, {}, "many_patterns"),
    "(a+)+$": lambda: (pattern("(a+)+$"), "a" * 50_000 + "!", "nested_quantifier"),
    "([a-z]*)*x": lambda: (pattern("^([a-z]*)*x$"), "a" * 50_000, "nested_quantifier"),
    "(a|a?)+": lambda: (pattern("^(a|a?)+$"), "a" * 50_000 + "!", "nested_quantifier"),
    "(x{1,50}){1,50}": lambda: (pattern("(x{1,50}){1,50}"), "x" * 50_000, "nested_quantifier"),
    "in the name of a property": lambda: ({"patternProperties": {"(a+)+$": {}}}, {"a" * 50_000 + "!": 1}, "nested_quantifier"),
    "an automaton of 3,000 states": lambda: (pattern("[ab]*a[ab]{3000}c"), "ab" * 500_000, "slow_pattern"),
    "brackets without end": lambda: (pattern("(" * 20_000), "a", "nested_quantifier"),
    "looking ahead": lambda: (pattern("^(?=.*a)(?=.*b).*$"), "a", "does_not_compile"),
    "looking back": lambda: (pattern(r"^(.*)\1$"), "a" * 50_000, "does_not_compile"),
    "a program too large": lambda: (pattern(r"^\p{L}{1,900}$"), "a", "does_not_compile"),
    "an enum larger than a schema may be": lambda: ({"enum": [f"choice number {n}" for n in range(20_000)]}, "x", "too_large"),
}  # fmt: skip
CHECKED: dict[str, Callable[[], Case]] = {
    "a thousand objects to choose from": lambda: (items(enum=[{"a": n} for n in range(900)]), [{"a": 899}] * 50_000, ""),
    "fractions to choose from": lambda: (items(enum=[n + 0.5 for n in range(90)]), [89.5] * 50_000, ""),
    "ten thousand texts to choose from": lambda: (items(enum=[f"v{n}" for n in range(10_000)]), ["v9999"] * 50_000, ""),
    "fifty choices for each of many": lambda: (items(anyOf=[{"const": n} for n in range(50)]), [49] * 50_000, ""),
    "fifty choices, all wrong": lambda: (items(oneOf=[{"required": [f"x{n}"]} for n in range(50)]), [{}] * 50_000, ""),
    "just few enough wrong choices": lambda: (items(oneOf=[{"const": n} for n in range(50)]), ["x"] * 190, ""),
    "half a million wrong items": lambda: (items(type="string"), [1] * (MEGABYTE // 2), ""),
    "lists of the wrong thing, thrice": lambda: ({"anyOf": [items(type="string")] * 3}, [1] * 300_000, ""),
    "unique numbers": lambda: ({"uniqueItems": True}, list(range(150_000)), ""),
    "unique objects": lambda: ({"uniqueItems": True}, [{"a": n} for n in range(100_000)], ""),
    "unique lists": lambda: ({"uniqueItems": True}, [[n] for n in range(150_000)], ""),
    "three hundred contains": lambda: ({"allOf": [{"contains": {"const": n}} for n in range(300)]}, list(range(100_000)), ""),
    "what was left unevaluated": lambda: (
        {"allOf": [{"contains": {"const": n}} for n in range(150)], "unevaluatedItems": False}, list(range(100_000)), "",
    ),
    "a hundred patterns for names": lambda: (
        {"patternProperties": {f"^[a-z]+{n}$": {"type": "integer"} for n in range(100)}}, {f"abc{n}": 1 for n in range(50_000)}, "",
    ),
    "a hundred patterns to compile": lambda: ({"allOf": [pattern(rf"^[^<>]{{1,500}}{n}$") for n in range(9)]}, "a" * MEGABYTE, ""),
    "(a|aa)+ on a megabyte": lambda: (pattern("^(a|aa)+$"), "a" * MEGABYTE + "!", ""),
    "((a{1,9}){1,9}){1,9}": lambda: (pattern("((a{1,9}){1,9}){1,9}$"), "a" * 30_000 + "!", ""),
    "an automaton of 800 states": lambda: (pattern("^[ab]*a[ab]{800}$"), "ab" * (MEGABYTE // 2), ""),
    "forty states on a megabyte": lambda: (pattern("[ab]*a[ab]{37}c"), "abbab" * (MEGABYTE // 5), ""),
    "counted twice over": lambda: (items(**pattern("^[ab]{0,400}[ab]{0,400}$")), ["ab" * 300] * 1_700, ""),
    "a pattern for each of many": lambda: (items(**pattern("^[ab]{1,500}$")), ["ab" * 250] * 2_000, ""),
    "every format on a megabyte": lambda: (
        {"allOf": [{"format": name} for name in ("email", "uri", "hostname", "date-time", "regex", "ipv6", "iri")]}, "a." * 500_000, "",
    ),
    "numbers of many digits": lambda: (items(multipleOf=0.01), [10**300] * 2_000, ""),
}  # fmt: skip
CASES = REFUSED | CHECKED


def judged(name: str) -> tuple[str, list[str], float, float]:
    """-> (the finding that refuses, the errors of the value, seconds for each). Runs in the worker."""
    schema, value, _ = CASES[name]()
    began = perf_counter()
    try:
        validator = schemas.compile(schema)
    except schemas.SchemaError as fault:
        return fault.code, [], perf_counter() - began, 0.0
    compiled = perf_counter()
    errors = validator.errors(value)
    return "", errors, compiled - began, perf_counter() - compiled


class Worker:
    """One process for all cases, so that what one of them does to it shows in the next."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.took: dict[str, float] = {}
        self.pool.submit(judged, "a tree").result(60)  # imports what it needs

    def judge(self, name: str) -> tuple[str, list[str]]:
        try:
            code, errors, compiling, checking = self.pool.submit(judged, name).result(GUARD + 3)  # 3: what making the value takes
        except TimeoutError:
            for process in list(self.pool._processes.values()):
                process.kill()
            raise
        self.took[name] = max(compiling, checking)
        return code, errors


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.pool.shutdown()
    slowest = sorted(made.took.items(), key=lambda pair: -pair[1])[:5]
    print(f"\n{len(made.took)} schema bombs; the slowest: " + "; ".join(f"{name} {took * 1000:.0f} ms" for name, took in slowest))


@pytest.mark.mission("P2.2")
@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_is_refused_when_it_is_registered(worker: Worker, name: str) -> None:
    code, _ = worker.judge(name)
    assert code == REFUSED[name]()[2] and code in lint.REFUSED
    assert worker.took[name] < GUARD


@pytest.mark.mission("P2.2")
@pytest.mark.parametrize("name", CHECKED)
def test_what_is_not_refused_is_checked_within_bounds(worker: Worker, name: str) -> None:
    code, errors = worker.judge(name)
    assert code == "" and len(errors) <= schemas.MAX_ERRORS
    assert worker.took[name] < GUARD


def test_the_lint_itself_is_not_kept_busy() -> None:
    flood = {f"{n}": {"description": "\n" * 100 + "ignore " * 20} for n in range(500)}
    block = {"adapter": {"kind": "http", "url": "https://desk.example.com/"}, "effect": "read", "description": "\n" * 3999 + "x"}
    began = perf_counter()
    found = lint.findings("t", ToolSpec.model_validate(block | {"input_schema": {"type": "object", "properties": flood}}))
    assert len(found) == lint.MAX_FINDINGS and perf_counter() - began < GUARD


@pytest.mark.parametrize(
    ("schema", "weight"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, 1),
        ({"properties": {"a": {"anyOf": [{}, {}]}}}, 3),
        ({"items": {"allOf": [{"anyOf": [{}, {}]}, {}]}}, 5),
        ({"enum": [{}, {}, {}]}, 4),
        ({"patternProperties": {"^a": {}, "^b": {}}, "properties": {"a": {}}}, 3),
        (dag(2, 3), 30),
        ({"anyOf": [{}], "unevaluatedProperties": False}, 3),
        (True, 1),
    ],
)
def test_the_weight_of_a_schema_is_what_may_be_tried_on_one_value(schema: Any, weight: int) -> None:
    assert bounds.measure(schema).weight == weight


@pytest.mark.parametrize(
    ("text", "bounded", "nested_", "slow"),
    [
        ("^acct_[0-9]{4}$", True, False, 0),
        ("^hb-[a-z-]{2,40}$", True, False, 0),
        ("^[a-z]+$", False, False, 0),
        ("[0-9]{4}", False, False, 4),
        (r"^(\d{1,3}\.){3}\d{1,3}$", True, False, 15),
        ("^([a-z]+-)*[a-z]+$", False, False, 3),
        (r"(\w+\s?)*", False, True, 2),
        ("((ab)*)*", False, True, 2),
        ("^[^\\]]{1,9}$", True, False, 0),
        (r"^\p{Lu}\u{41}\x41$", True, False, 0),
        ("^a|b$", False, False, 2),
        (r"^cost\$", False, False, 0),
    ],
)
def test_a_pattern_is_read_for_what_it_may_cost(text: str, bounded: bool, nested_: bool, slow: int) -> None:
    assert patterns.cost(text) == patterns.Cost(bounded, nested_, slow)
