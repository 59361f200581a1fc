"""docs/errors.md: every stable code that is refused with, from the calls that refuse; and the classes of failed calls."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from console.api.problems import REFUSED_BY_DRF
from scripts.reference import HEAD, cell
from tools.definitions import ErrorClass, RetryPolicy

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("tenants", "tools", "approvals", "runs", "console")
USUAL = 422
SAID = 2  # sentences that are told of one code
WHAT_THEN = {  # contract: what becomes of a call with this class
    "not_sent": "sent again, always",
    "policy": "not sent again; the event says which guard refused",
    "rate_limit": "sent again with the same key, after `Retry-After`",
    "authorization": "not sent again: give the credential anew, or rights",
    "validation": "not sent again; the model is told what was wrong",
    "conflict": "a read is sent again, a write was not applied and is not",
    "duplicate_request": "counts as applied; the model is told `already_applied`",
    "timeout": "a read, or a write with `idempotency: key`: sent again with the same key. Another write: `unknown`",
    "transient_upstream": "as `timeout`",
    "unknown": "never sent again by itself: `verify`, or a person with evidence, settles it",
    "invalid_output": "a write counts as applied; a read is sent once more",
}


@dataclass
class Told:
    statuses: set[int] = field(default_factory=set)
    sentences: list[str] = field(default_factory=list)


def written() -> str:
    rows = "\n".join(
        f"| `{code}` | {', '.join(map(str, sorted(told.statuses)))} | {' / '.join(cell(one) for one in told.sentences[:SAID])} |"
        for code, told in sorted(codes().items())
    )
    classes = "\n".join(f"| `{kind}` | {meaning} | {WHAT_THEN[kind]} |" for kind, meaning in meanings().items())
    usual = RetryPolicy()
    return f"""{HEAD}
# Errors

## Of the API

Every refusal is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, `code`, `request_id`, and members that depend
on the code. `code` is stable; `detail` is a sentence for people that names the cure, and may change. Give `request_id` to whoever reads
the logs. With 429 and 503 comes `Retry-After`. Pages and commands say the same sentences. `…` stands for what differs.

| code | status | says |
|---|---|---|
{rows}

## Of calls

A call of a tool that did not simply succeed has one of these classes, in its record (`error_class`), in its events (`error_type`) and in
what the model is told. The class comes from the phase in which it failed.

| class | meaning | then |
|---|---|---|
{classes}

A tool's `retry` may move some of them: `retry_on` is {listed(usual.retry_on)} unless given, `do_not_retry_on` is
{listed(usual.do_not_retry_on)}, and there are {usual.max_attempts} sends at most. How they are settled: [unknown
writes](how-to/unknown-writes.md).
"""


def listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def meanings() -> dict[str, str]:
    """Class -> the comment beside it. A class without words, or words without a class, is a failure."""
    lines = (ROOT / "tools" / "definitions.py").read_text().splitlines()
    found = {kind.value: next(line for line in lines if f'= "{kind.value}"' in line).partition("# ")[2] for kind in ErrorClass}
    if differ := set(found) ^ set(WHAT_THEN):
        raise SystemExit(f"scripts/reference/errors.py: WHAT_THEN and ErrorClass differ in {sorted(differ)}")
    return found


def codes() -> dict[str, Told]:
    found: dict[str, Told] = {}
    for code, status, sentence in (*of_the_framework(), *of_the_code()):
        told = found.setdefault(code, Told())
        told.statuses.add(status)
        if sentence and sentence not in told.sentences:
            told.sentences.append(sentence)
    return found


def of_the_framework() -> Iterator[tuple[str, int, str]]:
    for status, (code, sentence) in REFUSED_BY_DRF.items():
        yield code, status, sentence


def of_the_code() -> Iterator[tuple[str, int, str]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "migrations" not in path.parts:
                yield from refusals(ast.parse(path.read_text()))


def refusals(tree: ast.AST) -> Iterator[tuple[str, int, str]]:
    """From `Refused(code, message, status)`, what inherits from it, and the translations of the API."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        called = ast.unparse(node.func)
        of_class = called == "super().__init__" and isinstance(node.args[0], ast.Constant)
        if called in ("Refused", "errors.Refused", "_always") or (of_class and len(node.args) == 3):
            code, sentence = (said(one) for one in node.args[:2])
            if code.strip("…"):
                yield code, status_of(node), sentence


def status_of(call: ast.Call) -> int:
    given = [*call.args[2:3], *(word.value for word in call.keywords if word.arg == "status")]
    return given[0].value if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, int) else USUAL


def said(node: ast.expr) -> str:
    """A literal as it stands; in a text with places, … for each; else nothing."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return said(node.left) + said(node.right)
    return "…"
